//! What a sandbox asks of the engine for itself.

use createos_sdk::SandboxId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::rig::Rig;
use crate::runtime::Saved;

impl Rig {
    async fn inside(&self, id: &SandboxId) -> TcpStream {
        let address = self.fake.listening.lock().unwrap()[&(id.clone(), 1029)];
        TcpStream::connect(address).await.unwrap()
    }

    /// Sends a request from inside and returns the whole answer.
    async fn signal(&self, id: &SandboxId, request: &str) -> String {
        let mut stream = self.inside(id).await;
        let request = format!("{request} HTTP/1.1\r\nHost: 127.0.0.1:1029\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

#[tokio::test]
async fn a_sandbox_can_destroy_itself_and_nobody_else() {
    let rig = Rig::new().await;
    let (id, other) = (rig.sandbox().await, rig.sandbox().await);
    let answer = rig.signal(&id, "POST /self/delete?reason=all+done%20here").await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    assert!(answer.ends_with(r#"{"status":"success","data":{"ok":true}}"#), "{answer}");
    rig.until(&id, "destroyed").await;
    assert_eq!(rig.status(&other).await, "running");
}

#[tokio::test]
async fn a_sandbox_can_pause_itself_and_is_heard_again_afterwards() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    for saved in [Saved::Files, Saved::Frozen, Saved::Memory] {
        *rig.fake.saves_as.lock().unwrap() = saved;
        let answer = rig.signal(&id, "POST /self/pause?reason=night+run").await;
        assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
        rig.until(&id, "paused").await;
        rig.post(&id, "resume").await;
        rig.until(&id, "running").await;
    }
    *rig.fake.pause_error.lock().unwrap() = Some("not now".to_owned());
    rig.signal(&id, "POST /self/pause").await;
    rig.eventually(async || {
        let view = rig.view(&id).await;
        view.get("status_reason").map(drop).ok_or(view.to_string())
    })
    .await;
    let answer = rig.signal(&id, "POST /self/delete").await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "a pause that failed leaves it heard: {answer}");
    rig.until(&id, "destroyed").await;
}

#[tokio::test]
async fn other_requests_are_refused_and_change_nothing() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    for (request, status) in [
        ("GET /self/pause", 405),
        ("HEAD /self/pause", 405),
        ("GET /self/delete?reason=x", 405),
        ("DELETE /self/delete", 405),
        ("POST /self", 404),
        ("POST /", 404),
        ("POST /v1/sandboxes", 404),
    ] {
        let answer = rig.signal(&id, request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{request}: {answer}");
    }
    let page = "POST /self/delete HTTP/1.1\r\nOrigin: http://example.org\r\nX:";
    let answer = rig.signal(&id, page).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert_eq!(rig.status(&id).await, "running");
}

#[tokio::test]
async fn garbage_and_silence_keep_nobody_from_asking() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    // More than are served at once; they are given up after some seconds.
    let mut silent = Vec::new();
    for _ in 0..12 {
        silent.push(rig.inside(&id).await);
    }
    for garbage in [&b"\0\xff\xfe"[..], b"GET", &[b'x'; 100_000]] {
        let mut stream = rig.inside(&id).await;
        let _ = stream.write_all(garbage).await;
    }
    let answer = rig.signal(&id, "POST /self/delete").await;
    assert!(answer.starts_with("HTTP/1.1 202 "), "{answer}");
    rig.until(&id, "destroyed").await;
}

#[tokio::test]
async fn a_sandbox_is_heard_again_in_its_next_life() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let first = rig.fake.listening.lock().unwrap()[&(id.clone(), 1029)];
    rig.fake.die(&id, "test");
    rig.until(&id, "error").await;
    rig.eventually(async || match TcpStream::connect(first).await {
        Err(_) => Ok(()),
        Ok(_) => Err("the old listener is still there".to_owned()),
    })
    .await;
    assert_eq!(rig.call("POST", &format!("/v1/sandboxes/{id}/resume"), None).await.status, 202);
    rig.until(&id, "running").await;
    assert!(rig.signal(&id, "GET /self/pause").await.starts_with("HTTP/1.1 405 "));
}
