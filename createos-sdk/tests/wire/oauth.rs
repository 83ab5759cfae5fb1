//! Identity servers that do what they should not. A real one is in the tests of the command.

use std::time::{Duration, Instant, SystemTime};

use createos_sdk::Secret;
use createos_sdk::oauth::{CALLBACK_PORT, Error, ErrorKind, Provider, Result, Tokens};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use wiremock::matchers::{body_string_contains, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

/// The browser comes back to one port of this machine.
static PORT: Mutex<()> = Mutex::const_new(());

fn ok(body: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(body)
}

fn refusal(error: &str) -> ResponseTemplate {
    ResponseTemplate::new(400)
        .set_body_json(json!({"error": error, "error_description": "in other words"}))
}

fn token(expires_in: Value) -> Value {
    json!({"access_token": "hunter2", "refresh_token": "hunter3", "token_type": "Bearer",
           "expires_in": expires_in})
}

fn device() -> Value {
    json!({"device_code": "hunter1", "user_code": "AB-CD", "expires_in": 600, "interval": 1,
           "verification_uri": "https://id.example.org/device"})
}

/// A provider whose device address answers this.
async fn server(device: Value) -> MockServer {
    let server = MockServer::start().await;
    let issuer = server.uri();
    let document = json!({"issuer": issuer, "token_endpoint": format!("{issuer}/token"),
                          "authorization_endpoint": format!("{issuer}/auth?tenant=1"),
                          "device_authorization_endpoint": format!("{issuer}/device")});
    mount(&server, "GET", "/.well-known/openid-configuration", ok(document)).await;
    mount(&server, "POST", "/device", ok(device)).await;
    server
}

async fn mount(server: &MockServer, verb: &str, at: &str, answer: ResponseTemplate) {
    Mock::given(method(verb)).and(path(at)).respond_with(answer).mount(server).await;
}

async fn discover(server: &MockServer) -> Result<Provider> {
    Provider::discover(&server.uri(), "client").await
}

/// Signs in with a code; the token address answers this.
async fn with_code(device: Value, answer: ResponseTemplate) -> Result<Tokens> {
    let server = server(device).await;
    mount(&server, "POST", "/token", answer).await;
    discover(&server).await?.device().await?.wait().await
}

/// The kind, after looking that nothing secret shows.
fn kind(error: &Error) -> ErrorKind {
    assert!(!format!("{error} {error:?}").contains("hunter"), "{error:?}");
    error.kind()
}

#[tokio::test]
async fn discovery_believes_only_what_belongs_to_the_issuer() {
    for (body, part) in [
        (json!({"issuer": "https://other.example.org", "token_endpoint": "x"}), "another issuer"),
        (json!({"token_endpoint": "https://id.example.org"}), "understood"),
        (json!([]), "understood"),
    ] {
        let server = MockServer::start().await;
        mount(&server, "GET", "/.well-known/openid-configuration", ok(body)).await;
        let error = discover(&server).await.unwrap_err();
        assert_eq!(kind(&error), ErrorKind::Protocol, "{part}");
        assert!(error.to_string().contains(part), "{error}");
    }
    let elsewhere = server(device()).await;
    for (answer, part) in [
        (
            ResponseTemplate::new(302).insert_header("location", elsewhere.uri().as_str()),
            "redirects",
        ),
        (ResponseTemplate::new(200).set_body_bytes(vec![b' '; (1 << 20) + 1]), "1 MiB"),
        (ResponseTemplate::new(404), "404"),
        (ResponseTemplate::new(503).set_body_json(json!({"error": "x"})), "503"),
    ] {
        let server = MockServer::start().await;
        mount(&server, "GET", "/.well-known/openid-configuration", answer).await;
        let error = discover(&server).await.unwrap_err();
        assert_eq!(kind(&error), ErrorKind::Protocol, "{part}");
        assert!(error.to_string().contains(part), "{error}");
    }
    assert!(elsewhere.received_requests().await.unwrap().is_empty(), "no redirect is followed");
    for issuer in ["http://id.example.org", "ftp://127.0.0.1", "nonsense", "https://a:b@c.example"]
    {
        let error = Provider::discover(issuer, "client").await.unwrap_err();
        assert_eq!(kind(&error), ErrorKind::Config, "{issuer}");
    }
    assert_eq!(
        Provider::discover("https://x.example", " ").await.unwrap_err().kind(),
        ErrorKind::Config
    );
    let nobody = Provider::discover("http://127.0.0.1:1", "client").await.unwrap_err();
    assert_eq!(kind(&nobody), ErrorKind::Connection);
}

#[tokio::test]
async fn what_a_provider_does_not_offer_is_said() {
    let server = MockServer::start().await;
    let document = json!({"issuer": server.uri(), "token_endpoint": "http://id.example.org/token"});
    mount(&server, "GET", "/.well-known/openid-configuration", ok(document)).await;
    let provider = discover(&server).await.unwrap();
    assert_eq!(provider.device().await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(provider.browser().await.unwrap_err().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn addresses_that_a_provider_gives_are_checked_too() {
    for (key, value) in [
        ("verification_uri", json!("http://id.example.org/device")),
        ("verification_uri_complete", json!("javascript:alert(1)")),
        ("user_code", json!(" ")),
        ("device_code", json!("")),
        ("expires_in", json!(0)),
        ("expires_in", json!(-5)),
    ] {
        let mut answer = device();
        answer[key] = value;
        let server = server(answer).await;
        let error = discover(&server).await.unwrap().device().await.unwrap_err();
        assert_eq!(kind(&error), ErrorKind::Protocol, "{key}");
    }
}

#[tokio::test]
async fn a_code_is_what_the_person_needs_and_no_more() {
    let mut answer = device();
    answer["expires_in"] = json!("600");
    answer["verification_uri_complete"] = json!("https://id.example.org/device?code=AB-CD");
    let server = server(answer).await;
    let sign_in = discover(&server).await.unwrap().device().await.unwrap();
    assert_eq!(sign_in.user_code(), "AB-CD");
    assert_eq!(sign_in.verification_uri(), "https://id.example.org/device");
    assert!(sign_in.verification_uri_complete().unwrap().ends_with("code=AB-CD"));
    assert_eq!(sign_in.lifetime(), Duration::from_secs(600));
    assert!(!format!("{sign_in:?}").contains("hunter"));
    let asked = &server.received_requests().await.unwrap()[1];
    let asked = String::from_utf8(asked.body.clone()).unwrap();
    assert!(asked.contains("client_id=client") && asked.contains("offline_access"), "{asked}");
}

#[tokio::test]
async fn each_refusal_has_a_kind_of_its_own() {
    for (error, expected) in [
        ("access_denied", ErrorKind::Denied),
        ("expired_token", ErrorKind::Expired),
        ("invalid_grant", ErrorKind::InvalidGrant),
        ("invalid_client", ErrorKind::ClientRefused),
        ("unauthorized_client", ErrorKind::ClientRefused),
        ("something_else", ErrorKind::Refused),
    ] {
        let failed = with_code(device(), refusal(error)).await.unwrap_err();
        assert_eq!(kind(&failed), expected, "{error}");
        let text = failed.to_string();
        assert!(text.contains(error) && text.contains("in other words"), "{text}");
    }
}

#[tokio::test]
async fn tokens_have_to_be_what_they_should() {
    let without = |key: &str| {
        let mut body = token(json!(60));
        body.as_object_mut().unwrap().remove(key);
        body
    };
    let with = |key: &str, value: Value| {
        let mut body = token(json!(60));
        body[key] = value;
        body
    };
    for body in [
        with("token_type", json!("mac")),
        without("token_type"),
        with("access_token", json!("")),
        with("access_token", json!(["hunter2"])),
        with("expires_in", json!(0)),
        with("expires_in", json!(-1)),
        json!("hunter2"),
    ] {
        let error = with_code(device(), ok(body.clone())).await.unwrap_err();
        assert_eq!(kind(&error), ErrorKind::Protocol, "{body}");
    }
    let big = ResponseTemplate::new(200).set_body_bytes(vec![b' '; 2 << 20]);
    assert_eq!(kind(&with_code(device(), big).await.unwrap_err()), ErrorKind::Protocol);
    let failing = ResponseTemplate::new(500);
    assert_eq!(kind(&with_code(device(), failing).await.unwrap_err()), ErrorKind::Protocol);
    let now = SystemTime::now();
    for (body, seconds) in [(without("expires_in"), 3600), (token(json!("90")), 90)] {
        let tokens = with_code(device(), ok(body)).await.unwrap();
        let life = tokens.expires_at.duration_since(now).unwrap();
        assert!(life <= Duration::from_secs(seconds + 5), "{life:?}");
        assert!(life >= Duration::from_secs(seconds), "{life:?}");
        assert_eq!(tokens.refresh_token.clone().unwrap().expose(), "hunter3");
        assert!(!format!("{tokens:?}").contains("hunter"));
    }
}

#[tokio::test]
async fn polling_waits_slows_down_and_ends_with_the_code() {
    let server = server(device()).await;
    for (answer, times) in [("authorization_pending", 2), ("slow_down", 1)] {
        let mock = Mock::given(path("/token")).respond_with(refusal(answer));
        mock.up_to_n_times(times).mount(&server).await;
    }
    mount(&server, "POST", "/token", ok(token(json!(60)))).await;
    let begun = Instant::now();
    discover(&server).await.unwrap().device().await.unwrap().wait().await.unwrap();
    // Three at one second each, and one after six.
    assert!((8_900..14_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());

    let mut short = device();
    short["expires_in"] = json!(2);
    let begun = Instant::now();
    let error = with_code(short, refusal("authorization_pending")).await.unwrap_err();
    assert_eq!(kind(&error), ErrorKind::Expired);
    assert!((1_900..6_000).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_connection_that_breaks_while_polling_ends_the_sign_in() {
    let server = MockServer::start().await;
    let document = json!({"issuer": server.uri(), "token_endpoint": "http://127.0.0.1:1/token",
                          "device_authorization_endpoint": format!("{}/device", server.uri())});
    mount(&server, "GET", "/.well-known/openid-configuration", ok(document)).await;
    mount(&server, "POST", "/device", ok(device())).await;
    let sign_in = discover(&server).await.unwrap().device().await.unwrap();
    assert_eq!(kind(&sign_in.wait().await.unwrap_err()), ErrorKind::Connection);
}

/// Visits the callback address like a browser would, over either family.
async fn visit(host: &str, query: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect((host, CALLBACK_PORT)).await?;
    let request = format!("GET /callback?{query} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    Ok(page)
}

fn parameter(url: &str, name: &str) -> String {
    let url = url::Url::parse(url).unwrap();
    url.query_pairs().find(|(key, _)| key == name).unwrap().1.into_owned()
}

#[tokio::test]
async fn a_browser_brings_the_code_and_only_we_can_redeem_it() {
    let _port = PORT.lock().await;
    let server = server(device()).await;
    let exchange = Mock::given(path("/token"))
        .and(body_string_contains("grant_type=authorization_code"))
        .and(body_string_contains("code=hunter4"))
        .and(body_string_contains("code_verifier="));
    exchange.respond_with(ok(token(json!(60)))).mount(&server).await;
    let sign_in = discover(&server).await.unwrap().browser().await.unwrap();
    let url = sign_in.url().to_owned();
    for (name, value) in [
        ("tenant", "1"),
        ("response_type", "code"),
        ("client_id", "client"),
        ("redirect_uri", "http://localhost:65341/callback"),
        ("scope", "openid offline_access"),
        ("code_challenge_method", "S256"),
    ] {
        assert_eq!(parameter(&url, name), value, "{url}");
    }
    assert_eq!(parameter(&url, "code_challenge").len(), 43);
    let state = parameter(&url, "state");
    assert!(!format!("{sign_in:?}").contains(&state));
    let query = format!("code=hunter4&state={state}&iss={}", server.uri());
    let browser = tokio::spawn(async move {
        // One that connects and never asks is no obstacle.
        let _idle = TcpStream::connect(("127.0.0.1", CALLBACK_PORT)).await?;
        visit("127.0.0.1", &query).await
    });
    let tokens = sign_in.wait(Duration::from_secs(20)).await.unwrap();
    assert_eq!(tokens.access_token.expose(), "hunter2");
    let page = browser.await.unwrap().unwrap();
    assert!(page.starts_with("HTTP/1.1 200") && page.contains("no-store"), "{page}");
    assert!(!page.contains("hunter"), "the page repeats nothing: {page}");
    let sent = server.received_requests().await.unwrap();
    let sent = String::from_utf8(sent[1].body.clone()).unwrap();
    let form: Vec<_> = url::form_urlencoded::parse(sent.as_bytes()).collect();
    let verifier = &form.iter().find(|(name, _)| name == "code_verifier").unwrap().1;
    assert_eq!(verifier.len(), 43);
    // The port is free again.
    let _free = discover(&server).await.unwrap().browser().await.unwrap();
}

#[tokio::test]
async fn what_the_browser_brings_has_to_belong_to_this_sign_in() {
    let _port = PORT.lock().await;
    let server = server(device()).await;
    let provider = discover(&server).await.unwrap();
    let own = server.uri();
    for (query, expected) in [
        ("code=hunter4&state=guess".to_owned(), ErrorKind::ForeignAnswer),
        ("code=hunter4".to_owned(), ErrorKind::ForeignAnswer),
        ("code=hunter4&iss=https://other.example&state=STATE".to_owned(), ErrorKind::ForeignAnswer),
        ("error=access_denied&state=guess".to_owned(), ErrorKind::ForeignAnswer),
        ("error=access_denied&state=STATE".to_owned(), ErrorKind::Denied),
        (format!("iss={own}&state=STATE"), ErrorKind::Protocol),
    ] {
        let sign_in = provider.browser().await.unwrap();
        let query = query.replace("STATE", &parameter(sign_in.url(), "state"));
        let browser = tokio::spawn(async move { visit("127.0.0.1", &query).await });
        let error = sign_in.wait(Duration::from_secs(20)).await.unwrap_err();
        assert_eq!(kind(&error), expected, "{error}");
        assert!(browser.await.unwrap().unwrap().starts_with("HTTP/1.1 200"));
    }
    let sign_in = provider.browser().await.unwrap();
    assert_eq!(provider.browser().await.unwrap_err().kind(), ErrorKind::PortTaken);
    let late = sign_in.wait(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(late.kind(), ErrorKind::Expired);
    assert_eq!(server.received_requests().await.unwrap().len(), 1, "nothing was redeemed");
}

#[tokio::test]
async fn a_renewal_keeps_what_the_provider_leaves_out() {
    let server = MockServer::start().await;
    let answer = json!({"access_token": "hunter5", "token_type": "bearer"});
    Mock::given(body_string_contains("refresh_token=hunter3"))
        .respond_with(ok(answer))
        .mount(&server)
        .await;
    let stored = |refresh: Option<&str>, endpoint: String| {
        Tokens::new("hunter2", refresh.map(Secret::from), SystemTime::now(), endpoint)
    };
    let endpoint = format!("{}/token", server.uri());
    let old = stored(Some("hunter3"), endpoint.clone());
    assert!(old.expires_within(Duration::ZERO));
    let new = old.refresh("client").await.unwrap();
    assert_eq!(new.access_token.expose(), "hunter5");
    assert_eq!(new.refresh_token.clone().unwrap().expose(), "hunter3");
    assert!(new.expires_within(Duration::from_secs(3700)));
    assert!(!new.expires_within(Duration::from_secs(3500)));
    let error = stored(None, endpoint).refresh("client").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidGrant);
    let error = stored(Some("hunter3"), "http://example.org".to_owned()).refresh("client").await;
    assert_eq!(kind(&error.unwrap_err()), ErrorKind::Config);
}
