//! Bytes on the connection: what clients send and what must not do harm.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rig::{KEY, Rig};

async fn connect(rig: &Rig) -> TcpStream {
    TcpStream::connect(rig.engine.local_addr()).await.unwrap()
}

/// Sends bytes, and reads until the server closes or has been silent for a moment.
async fn talk(rig: &Rig, bytes: &[u8]) -> String {
    let mut stream = connect(rig).await;
    stream.write_all(bytes).await.unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(Ok(read)) =
        tokio::time::timeout(Duration::from_millis(300), stream.read(&mut buffer)).await
    {
        if read == 0 {
            break;
        }
        text.extend_from_slice(&buffer[..read]);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[tokio::test]
async fn only_our_host_names_are_answered() {
    let rig = Rig::new().await;
    let port = rig.engine.local_addr().port();
    let get = async |target: &str, host: &str| {
        let request =
            format!("GET {target} HTTP/1.1\r\n{host}X-Api-Key: {KEY}\r\nConnection: close\r\n\r\n");
        let answer = talk(&rig, request.as_bytes()).await;
        assert!(answer.to_lowercase().contains("x-request-id"), "{answer}");
        answer[9..12].parse::<u16>().unwrap()
    };
    for good in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "a.localhost".to_owned()]
    {
        assert_eq!(get("/v1/whoami", &format!("Host: {good}\r\n")).await, 200, "{good}");
    }
    for bad in ["evil.example.org", "127.0.0.1.example.org", "10.0.0.1", ""] {
        for target in ["/v1/whoami", "/healthz", "/nope"] {
            assert_eq!(get(target, &format!("Host: {bad}\r\n")).await, 403, "{bad}");
        }
    }
    assert_eq!(get("/healthz", "").await, 400);
    assert_eq!(get("/healthz", "Host: localhost\r\nHost: evil.example.org\r\n").await, 400);
    assert_eq!(get("http://localhost/healthz", "Host: localhost\r\n").await, 200);
    assert_eq!(get("http://evil.example.org/healthz", "Host: localhost\r\n").await, 403);
}

#[tokio::test]
async fn one_connection_serves_many_requests_whatever_their_bodies() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let mut requests = String::new();
    let mut add = |line: &str, rest: &str| {
        requests
            .push_str(&format!("{line} HTTP/1.1\r\nHost: localhost\r\nX-Api-Key: {KEY}\r\n{rest}"));
    };
    let exec = json!({"cmd": "echo", "args": ["x"]}).to_string();
    // No length at all, zero, `{}`, `null` and garbage on a route that takes no body.
    add(&format!("POST /v1/sandboxes/{id}/resume"), "\r\n");
    add(&format!("POST /v1/sandboxes/{id}/resume"), "Content-Length: 0\r\n\r\n");
    add(&format!("POST /v1/sandboxes/{id}/resume"), "Content-Length: 2\r\n\r\n{}");
    add(&format!("POST /v1/sandboxes/{id}/resume"), "Content-Length: 4\r\n\r\nnull");
    add(&format!("POST /v1/sandboxes/{id}/pause"), "Content-Length: 7\r\n\r\ngarbage");
    let rest = format!("Content-Length: {}\r\n\r\n{exec}", exec.len());
    add(&format!("POST /v1/sandboxes/{id}/exec"), &rest);
    add("GET /v1/sandboxes", "Content-Type: application/json\r\n\r\n");
    add("GET /healthz", "Connection: close\r\n\r\n");
    let answer = talk(&rig, requests.as_bytes()).await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 6, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 202").count(), 1, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1 409").count(), 1, "{answer}");
}

#[tokio::test]
async fn garbage_closes_its_own_connection_only() {
    let rig = Rig::new().await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: localhost\r\n\r\n", "a".repeat(200_000));
    let fields = "X-A: b\r\n".repeat(200);
    let many = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n");
    for bytes in [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".as_slice(),
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /healthz\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost localhost\r\n\r\n",
        b"POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/sandboxes HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        long.as_bytes(),
        many.as_bytes(),
    ] {
        let answer = talk(&rig, bytes).await;
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }
    assert_eq!(rig.get("/healthz").await.status, 200);
}

#[tokio::test]
async fn half_a_request_holds_nothing_up() {
    let rig = Rig::new().await;
    let mut idle = Vec::new();
    for _ in 0..50 {
        let mut stream = connect(&rig).await;
        stream.write_all(b"POST /v1/sandboxes HTTP/1.1\r\nHost: loc").await.unwrap();
        idle.push(stream);
    }
    assert_eq!(rig.get("/v1/whoami").await.status, 200);
    let begun = std::time::Instant::now();
    rig.engine.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(9), "{:?}", begun.elapsed());
}
