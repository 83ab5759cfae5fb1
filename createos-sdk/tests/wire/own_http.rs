//! An HTTP client that the caller made.

use createos_sdk::{Client, ErrorKind, HttpClient, Result, SandboxId};
use reqwest::redirect::Policy;
use tokio::io::AsyncReadExt;

use super::server::RawServer;
use super::{ID, KEY, answering, success, view};

fn own() -> reqwest::ClientBuilder {
    reqwest::Client::builder().no_proxy().redirect(Policy::none())
}

fn through(http: reqwest::Client, url: &str) -> Client {
    Client::builder().base_url(url).api_key(KEY).http_client(http).build().unwrap()
}

#[tokio::test]
async fn calls_go_through_it() -> Result<()> {
    let server = answering(success(view("running"))).await;
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("x-team", "blue".parse().unwrap());
    let client = through(own().default_headers(headers).build().unwrap(), &server.uri());
    client.get_sandbox(ID.parse::<SandboxId>()?).await?;
    let request = &server.received_requests().await.unwrap()[0];
    assert_eq!(request.headers["x-team"], "blue");
    assert_eq!(request.headers["x-api-key"], KEY);
    assert!(request.headers["user-agent"].to_str().unwrap().starts_with("createos-sdk/"));
    Ok(())
}

#[tokio::test]
async fn tunnels_go_through_it_or_through_the_one_for_upgrades() {
    let server = RawServer::start(|_, mut connection| async move {
        let head = connection.read_head().await?;
        let team = head.lines().find_map(|line| line.strip_prefix("x-team: ")).unwrap_or("none");
        connection.switch("tcp-tunnel", team.as_bytes()).await
    })
    .await;
    let team = |name: &'static str| {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("x-team", name.parse().unwrap());
        own().default_headers(headers)
    };
    let one = || HttpClient::from(team("red").build().unwrap());
    for (http, expected) in
        [(one(), "red"), (one().upgrades(team("blue").http1_only().build().unwrap()), "blue")]
    {
        let client = Client::builder().base_url(server.url()).api_key(KEY).http_client(http);
        let sandbox = client.build().unwrap().sandbox(ID.parse::<SandboxId>().unwrap());
        let mut heard = String::new();
        let mut tunnel = sandbox.tunnel(80).connect().await.unwrap();
        tunnel.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, expected);
    }
}

#[tokio::test]
async fn one_that_follows_redirects_is_found_out() {
    let elsewhere = answering(success(view("running"))).await;
    let target = format!("{}/v1/sandboxes/{ID}", elsewhere.uri());
    let redirect = wiremock::ResponseTemplate::new(307).insert_header("location", &*target);
    let server = answering(redirect).await;
    let follows = reqwest::Client::builder().no_proxy().build().unwrap();
    let client = through(follows, &server.uri());
    let error = client.get_sandbox(ID.parse::<SandboxId>().unwrap()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.message().contains("redirect::Policy::none()"), "{error}");
}

#[test]
fn what_it_brings_along_cannot_be_set_beside_it() {
    let http = || own().build().unwrap();
    for (builder, name) in [
        (Client::builder().proxy("http://127.0.0.1:1"), "proxy"),
        (Client::builder().ca_certificate_pem("x"), "ca_certificate_pem"),
        (Client::builder().connect_timeout(std::time::Duration::from_secs(1)), "connect_timeout"),
    ] {
        let error = builder.api_key(KEY).http_client(http()).build().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.message().contains(name), "{error}");
    }
    let mut headers = reqwest::header::HeaderMap::new();
    headers.insert("authorization", "planted".parse().unwrap());
    let http = HttpClient::from(own().default_headers(headers).build().unwrap());
    let builder = Client::builder().api_key(KEY).http_client(http.clone());
    assert!(!format!("{http:?} {builder:?}").contains("planted"));
}
