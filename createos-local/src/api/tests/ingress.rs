//! Ports of sandboxes as web addresses.

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::rig::{KEY, Rig};
use super::tunnel::head;

/// A sandbox whose ports are published, with a listener of the test behind port 8000.
struct Site {
    rig: Rig,
    id: createos_sdk::SandboxId,
    service: TcpListener,
}

impl Site {
    async fn new() -> Self {
        let rig = Rig::new().await;
        let id = rig.sandbox_with(json!({"ingress_enabled": true})).await;
        let view = rig.get(&format!("/v1/sandboxes/{id}")).await.data();
        let service = rig.open_port(&format!("{}:8000", view["ip"].as_str().unwrap())).await;
        Self { rig, id, service }
    }

    fn host(&self, port: u16) -> String {
        format!("{}-{port}.localhost", self.id)
    }

    /// Sends a request as it is, but for `HOST`.
    async fn send(&self, request: &str) -> TcpStream {
        let mut stream = self.rig.connect().await;
        let request = request.replace("HOST", &self.host(8000)).replace('\n', "\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    /// The next visit: its head, and the connection.
    async fn visit(&self) -> (String, TcpStream) {
        let (mut stream, _) = self.service.accept().await.unwrap();
        (head(&mut stream).await, stream)
    }

    /// The status and text that a visitor of this host gets from the engine itself.
    async fn page(&self, host: &str) -> (u16, String) {
        let mut stream = self.rig.connect().await;
        let request = format!("GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, text) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\nContent-Type: text/plain; charset=utf-8"), "{head}");
        (head.split(' ').nth(1).unwrap().parse().unwrap(), text.to_owned())
    }

    async fn patch(&self, enabled: bool) -> serde_json::Value {
        let path = format!("/v1/sandboxes/{}", self.id);
        self.rig.call("PATCH", &path, Some(json!({"ingress_enabled": enabled}))).await.data()
    }
}

async fn rest(mut stream: TcpStream) -> String {
    let mut rest = String::new();
    stream.read_to_string(&mut rest).await.unwrap();
    rest
}

#[tokio::test]
async fn the_template_is_shown_while_ingress_is_on() {
    let site = Site::new().await;
    let path = format!("/v1/sandboxes/{}", site.id);
    let port = site.rig.engine.local_addr().port();
    let template = format!("http://{}-<port>.localhost:{port}", site.id);
    let view = site.rig.get(&path).await.data();
    assert_eq!(view["ingress_url_template"], template);
    let list = site.rig.get("/v1/sandboxes").await.data();
    assert_eq!(list["data"][0]["ingress_url_template"], template);
    let off = site.patch(false).await;
    assert_eq!(
        (&off["ingress_enabled"], &off["ingress_url_template"]),
        (&json!(false), &json!(null))
    );
    assert_eq!(site.patch(true).await["ingress_url_template"], template);
    site.rig.call("DELETE", &path, None).await;
    assert!(site.rig.get(&path).await.data().get("ingress_url_template").is_none());
}

#[tokio::test]
async fn a_request_and_its_answer_go_through_whole() {
    let site = Site::new().await;
    let client = site
        .send(
            "POST /a%20b?c=d HTTP/1.1\nHost: HOST:1\nAuthorization: Basic eDp5\nX-Api-Key: skp_1\n\
             Cookie: a=b\nContent-Length: 5\nConnection: close\n\nhello",
        )
        .await;
    let (head, mut service) = site.visit().await;
    let head = head.to_ascii_lowercase();
    assert!(head.starts_with("post /a%20b?c=d http/1.1\r\n"), "{head}");
    for line in
        ["host: localhost:8000", "cookie: a=b", "content-length: 5", "x-forwarded-proto: http"]
    {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line} in {head}");
    }
    assert!(!head.contains("authorization") && !head.contains("skp_1"), "{head}");
    let mut body = [0; 5];
    service.read_exact(&mut body).await.unwrap();
    assert_eq!(&body, b"hello");
    let answer = "HTTP/1.1 201 Made\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Hop: 1\r\n\
                  Connection: X-Hop\r\nContent-Length: 3\r\n\r\nyes";
    service.write_all(answer.as_bytes()).await.unwrap();
    drop(service);
    let answer = rest(client).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    assert!(answer.contains("\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"), "{answer}");
    assert!(!answer.contains("X-Hop"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nyes"), "{answer}");
}

#[tokio::test]
async fn bodies_stream_both_ways_and_events_come_as_they_happen() {
    let site = Site::new().await;
    let mut client =
        site.send("PUT / HTTP/1.1\nHost: HOST\nTransfer-Encoding: chunked\n\n3\none\n").await;
    let (_, mut service) = site.visit().await;
    let mut part = [0; 8];
    service.read_exact(&mut part).await.unwrap();
    assert_eq!(&part, b"3\r\none\r\n");
    // The answer begins before the request has ended.
    let begin = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    service.write_all(begin.as_bytes()).await.unwrap();
    let head = head(&mut client).await;
    assert!(head.contains("\r\nContent-Type: text/event-stream\r\n"), "{head}");
    let mut event = [0; 14];
    client.read_exact(&mut event).await.unwrap();
    assert_eq!(&event, b"9\r\ndata: 1\n\n\r\n");
    client.write_all(b"3\r\ntwo\r\n").await.unwrap();
    service.read_exact(&mut part).await.unwrap();
    assert_eq!(&part, b"3\r\ntwo\r\n");

    // A visitor who leaves is noticed while nothing is said.
    drop(client);
    let _ = service.read_to_end(&mut Vec::new()).await;
}

#[tokio::test]
async fn a_web_socket_is_carried_as_it_is() {
    let site = Site::new().await;
    let mut client = site
        .send(
            "GET /ws HTTP/1.1\nHost: HOST\nOrigin: http://HOST\nConnection: keep-alive, Upgrade\n\
             Upgrade: WebSocket\nSec-WebSocket-Version: 13\nSec-WebSocket-Key: a2V5\n\nearly",
        )
        .await;
    let (asked, mut service) = site.visit().await;
    let asked = asked.to_ascii_lowercase();
    for line in ["connection: upgrade", "upgrade: websocket", "sec-websocket-key: a2v5"] {
        assert!(asked.contains(&format!("\r\n{line}\r\n")), "{line} in {asked}");
    }
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: YWNj\r\n\r\nprompt";
    service.write_all(answer.as_bytes()).await.unwrap();
    let answer = head(&mut client).await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    for name in ["Connection: Upgrade", "Upgrade: websocket", "Sec-Websocket-Accept: YWNj"] {
        assert_eq!(answer.matches(&format!("\r\n{name}\r\n")).count(), 1, "{name} in {answer}");
    }
    let (mut heard, mut said) = ([0; 6], [0; 5]);
    client.read_exact(&mut heard).await.unwrap();
    service.read_exact(&mut said).await.unwrap();
    assert_eq!((&heard, &said), (b"prompt", b"early"));
    client.shutdown().await.unwrap();
    service.read_to_end(&mut Vec::new()).await.unwrap();
    service.write_all(b"bye").await.unwrap();
    drop(service);
    assert_eq!(rest(client).await, "bye");
}

#[tokio::test]
async fn a_service_that_refuses_or_breaks_the_upgrade_is_an_answer() {
    let site = Site::new().await;
    let upgrade = "GET / HTTP/1.1\nHost: HOST\nConnection: Upgrade, close\nUpgrade: websocket\n\n";
    let client = site.send(upgrade).await;
    let (_, mut service) = site.visit().await;
    service.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
    drop(service);
    assert!(rest(client).await.ends_with("\r\n\r\nno"));

    // Nothing else is switched to.
    let client = site.send(&upgrade.replace("websocket", "h2c")).await;
    let (asked, mut service) = site.visit().await;
    assert!(!asked.to_ascii_lowercase().contains("upgrade"), "{asked}");
    let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n";
    service.write_all(answer).await.unwrap();
    assert!(rest(client).await.starts_with("HTTP/1.1 502 "));
}

#[tokio::test]
async fn garbage_from_a_service_is_a_bad_gateway() {
    let site = Site::new().await;
    let huge = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(1 << 20));
    for garbage in ["", "garbage\r\n\r\n", "HTTP/1.1 999999 X\r\n\r\n", huge.as_str()] {
        let client = site.send("GET / HTTP/1.1\nHost: HOST\nConnection: close\n\n").await;
        let (_, mut service) = site.visit().await;
        let _ = service.write_all(garbage.as_bytes()).await;
        drop(service);
        let answer = rest(client).await;
        assert!(answer.starts_with("HTTP/1.1 502 "), "{answer}");
    }
}

#[tokio::test]
async fn who_may_not_be_visited_cannot_be_told_from_who_is_not_there() {
    let site = Site::new().await;
    let (status, nothing) = site.page("sb-01k4m2c9zq8v7n5t3r1p0x6y2w-8000.localhost").await;
    assert_eq!(status, 404);
    site.patch(false).await;
    assert_eq!(site.page(&site.host(8000)).await, (404, nothing.clone()));
    site.patch(true).await;
    let (status, text) = site.page(&site.host(8001)).await;
    assert_eq!(status, 502);
    assert!(
        text.contains("nothing listens on port 8001") && text.contains("0.0.0.0:8001"),
        "{text}"
    );
    for state in ["paused", "pausing", "error", "destroyed"] {
        site.rig.force(&site.id, state);
        assert_eq!(site.page(&site.host(8000)).await, (404, nothing.clone()), "{state}");
    }
}

#[tokio::test]
async fn a_visit_is_cut_when_ingress_is_turned_off_and_not_as_if_all_had_been_said() {
    let site = Site::new().await;
    for (answer, body) in
        [("Content-Type: text/plain", "4\r\npart\r\n"), ("Content-Length: 100", "part")]
    {
        let mut client = site.send("GET / HTTP/1.1\nHost: HOST\n\n").await;
        let (_, mut service) = site.visit().await;
        let answer = format!("HTTP/1.1 200 OK\r\n{answer}\r\n\r\npart");
        service.write_all(answer.as_bytes()).await.unwrap();
        head(&mut client).await;
        let mut heard = vec![0; body.len()];
        client.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, body.as_bytes());
        site.patch(false).await;
        let mut heard = Vec::new();
        // Neither the last chunk nor the rest of the length.
        let _ = client.read_to_end(&mut heard).await;
        assert!(heard.is_empty(), "{heard:?}");
        site.patch(true).await;
    }
}

#[tokio::test]
async fn the_api_does_not_answer_to_names_of_ports_nor_ports_to_names_of_the_api() {
    let site = Site::new().await;
    let client = site
        .send(&format!(
            "GET /v1/sandboxes HTTP/1.1\nHost: HOST\nX-Api-Key: {KEY}\nConnection: close\n\n"
        ))
        .await;
    let (head, mut service) = site.visit().await;
    assert!(head.starts_with("GET /v1/sandboxes HTTP/1.1\r\n") && !head.contains(KEY), "{head}");
    service.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await.unwrap();
    drop(service);
    assert!(rest(client).await.ends_with("ok"));

    // The URI and the Host disagree: neither is believed.
    let client = site
        .send(&format!(
            "GET http://localhost/v1/sandboxes HTTP/1.1\nHost: HOST\nX-Api-Key: {KEY}\n\
             Connection: close\n\n"
        ))
        .await;
    assert!(rest(client).await.starts_with("HTTP/1.1 403 "));
    let client = site
        .send(&format!(
            "GET / HTTP/1.1\nHost: HOST.example.org\nX-Api-Key: {KEY}\nConnection: close\n\n"
        ))
        .await;
    assert!(rest(client).await.starts_with("HTTP/1.1 403 "));
}

#[tokio::test]
async fn visitors_of_one_sandbox_are_bounded() {
    let site = Site::new().await;
    let mut visitors = Vec::new();
    for _ in 0..1000 {
        visitors.push(site.send("GET / HTTP/1.1\nHost: HOST\n\n").await);
        visitors.push(site.visit().await.1);
    }
    let (status, text) = site.page(&site.host(8000)).await;
    assert_eq!(status, 503, "{text}");
    drop(visitors);
    site.rig
        .eventually(async || match site.page(&site.host(8001)).await {
            (502, _) => Ok(()),
            (status, text) => Err(format!("{status} {text}")),
        })
        .await;
}
