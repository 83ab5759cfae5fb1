//! `PUT` and `GET /v1/sandboxes/:id/files`.

use std::time::Duration;

use createos_sdk::SandboxId;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rig::{KEY, Reply, Rig};
use crate::core::fake::Fake;

impl Rig {
    async fn put(&self, id: &SandboxId, query: &str, body: impl Into<bytes::Bytes>) -> Reply {
        let headers = [("x-api-key", KEY), ("content-type", "application/octet-stream")];
        self.send("PUT", &format!("/v1/sandboxes/{id}/files{query}"), &headers, body).await
    }

    async fn fetch(&self, id: &SandboxId, query: &str) -> Reply {
        let headers = [("x-api-key", KEY), ("accept", "application/json")];
        self.send("GET", &format!("/v1/sandboxes/{id}/files{query}"), &headers, "").await
    }

    /// A raw connection with an upload's head sent, and whatever else.
    async fn raw_put(&self, id: &SandboxId, path: &str, rest: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.engine.local_addr()).await.unwrap();
        let head = format!(
            "PUT /v1/sandboxes/{id}/files?path={path} HTTP/1.1\r\nHost: localhost\r\n\
             X-Api-Key: {KEY}\r\n{rest}"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream
    }
}

async fn read_all(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    stream.read_to_end(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn bytes_go_in_and_come_out_unchanged() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let all: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    for (query, path) in [
        ("?path=/work/a.bin", "/work/a.bin"),
        ("?path=%2Fa+b", "/a b"),
        ("?path=/a%20b", "/a b"),
        ("?path=/a%2Bb", "/a+b"),
        ("?path=%2F%C3%A4", "/ä"),
        ("?x=1&path=/..hidden", "/..hidden"),
        ("?path=/%FF", "/\u{fffd}"),
    ] {
        let reply = rig.put(&id, query, all.clone()).await;
        assert_eq!(reply.data(), json!({"bytes": all.len(), "path": path}));
        let reply = rig.fetch(&id, query).await;
        assert_eq!(reply.headers["content-type"], "application/octet-stream");
        assert_eq!(reply.headers["content-length"], all.len().to_string());
        assert!(reply.body == all);
    }
    assert_eq!(rig.put(&id, "?path=/empty", "").await.data()["bytes"], 0);
    assert_eq!(rig.fetch(&id, "?path=/empty").await.headers["content-length"], "0");
}

#[tokio::test]
async fn paths_that_cannot_be_right() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let long = format!("?path=/{}", "a".repeat(5000));
    for query in [
        "",
        "?path=",
        "?path",
        "?path=relative",
        "?path=./x",
        "?path=../etc/passwd",
        "?path=/a/../b",
        "?path=/..",
        "?path=%2F%2E%2E%2Fetc",
        "?path=/a%00b",
        "?path=/dir",
        "?path=/",
        &long,
    ] {
        for reply in [rig.put(&id, query, "x").await, rig.fetch(&id, query).await] {
            assert_eq!(reply.status, 400, "{query:.40}");
            assert!(reply.json()["data"]["path"].is_string(), "{query:.40} {reply:?}");
        }
    }
    let missing = rig.fetch(&id, "?path=/none").await;
    assert_eq!(missing.status, 404);
    assert_eq!(missing.json()["data"], json!({"path": "no such file: /none"}));
    let full = rig.put(&id, "?path=/full", "x").await;
    assert_eq!((full.status, full.message()), (422, "no space left on device".to_owned()));
}

#[tokio::test]
async fn chunked_uploads_and_those_that_wait_for_100() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let rest = "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n\
                4\r\nWiki\r\n5;ext=1\r\npedia\r\n0\r\nTrailer: x\r\n\r\n";
    let mut stream = rig.raw_put(&id, "/chunked", rest).await;
    let answer = read_all(&mut stream).await;
    assert!(answer.contains("200 OK") && answer.contains("\"bytes\":9"), "{answer}");
    assert_eq!(rig.fake.file(&id, "/chunked").unwrap(), "Wikipedia");

    let rest = "Content-Length: 4\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    let mut stream = rig.raw_put(&id, "/expected", rest).await;
    let mut go = [0; 25];
    stream.read_exact(&mut go).await.unwrap();
    assert_eq!(&go, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"body").await.unwrap();
    assert!(read_all(&mut stream).await.contains("200 OK"));
    assert_eq!(rig.fake.file(&id, "/expected").unwrap(), "body");
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_the_old_file() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    rig.put(&id, "?path=/f", "old").await;
    for (done, rest) in [
        "Content-Length: 10\r\n\r\nhalf",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ]
    .iter()
    .enumerate()
    {
        let stream = rig.raw_put(&id, "/f", rest).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        drop(stream);
        rig.eventually(async || {
            let abandoned = Fake::count(&rig.fake.abandoned);
            (abandoned == done + 1).then_some(()).ok_or(abandoned.to_string())
        })
        .await;
        assert_eq!(rig.fake.file(&id, "/f").unwrap(), "old", "{rest}");
    }
}

#[tokio::test]
async fn an_upload_that_stalls_is_given_up() {
    let rig = Rig::tuned(|tuning| tuning.upload_stall = Duration::from_millis(50)).await;
    let id = rig.sandbox().await;
    let mut stream = rig.raw_put(&id, "/f", "Content-Length: 10\r\n\r\nhalf").await;
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(Fake::count(&rig.fake.abandoned), 1);
    assert_eq!(rig.fake.file(&id, "/f"), None);
}

#[tokio::test]
async fn a_file_that_is_too_large_is_refused_and_the_refusal_arrives() {
    let rig = Rig::tuned(|tuning| tuning.max_upload = 1 << 20).await;
    let id = rig.sandbox().await;
    rig.put(&id, "?path=/f", "old").await;
    let most = vec![7; 1 << 20];
    assert_eq!(rig.put(&id, "?path=/most", most).await.status, 200);

    // Told by the announced size alone, before a byte is asked for.
    let rest = "Content-Length: 1048577\r\nExpect: 100-continue\r\n\r\n";
    let answer = read_all(&mut rig.raw_put(&id, "/f", rest).await).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("\"fail\""), "{answer}");

    // A client that sends everything before it reads still gets the answer, not a reset.
    let mut stream = rig.raw_put(&id, "/f", "Content-Length: 30000000\r\n\r\n").await;
    let _ = stream.write_all(&vec![7; 30_000_000]).await;
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");

    // Chunked, so that the size is known only when it has come.
    let mut stream = rig.raw_put(&id, "/f", "Transfer-Encoding: chunked\r\n\r\n").await;
    let chunk = [b"10000\r\n".to_vec(), vec![7; 1 << 16], b"\r\n".to_vec()].concat();
    for _ in 0..100 {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let _ = stream.write_all(b"0\r\n\r\n").await;
    let answer = read_all(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(rig.fake.file(&id, "/f").unwrap(), "old");
}

#[tokio::test]
async fn a_download_that_breaks_off_is_not_a_short_file() {
    use http_body_util::BodyExt as _;
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}/files?path=/torn");
    let answer = rig.open("GET", &path, &[("x-api-key", KEY)], "").await;
    assert_eq!(answer.headers()["content-length"], "8");
    assert!(answer.into_body().collect().await.is_err());
}

#[tokio::test]
async fn a_destroy_interrupts_transfers() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let mut upload = rig.raw_put(&id, "/f", "Content-Length: 10\r\n\r\nhalf").await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    rig.call("DELETE", &format!("/v1/sandboxes/{id}"), None).await;
    let answer = read_all(&mut upload).await;
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert_eq!(Fake::count(&rig.fake.abandoned), 1);
}
