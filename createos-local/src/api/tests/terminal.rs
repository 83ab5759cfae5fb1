//! `POST /shell` and `GET /shell-ws`, byte for byte.

use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::BytesMut;
use createos_sdk::SandboxId;
use createos_sdk::wire::{PtySize, ShellFrame};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Message, protocol::Role};

use super::rig::{KEY, Rig};

impl Rig {
    /// Sends a request for an upgrade, with more on its heels, and reads the head of the answer.
    async fn upgrade(&self, head: &str, more: &[u8]) -> (String, TcpStream) {
        let addr = self.engine.local_addr();
        let mut stream = TcpStream::connect(addr).await.unwrap();
        let mut request =
            format!("{head}\r\nHost: {addr}\r\nX-Api-Key: {KEY}\r\n\r\n").into_bytes();
        request.extend_from_slice(more);
        stream.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        (String::from_utf8(answer).unwrap(), stream)
    }

    async fn shell(&self, id: &SandboxId, typed: &[u8]) -> TcpStream {
        let (answer, stream) = self.upgrade(&shell_head(id), typed).await;
        assert!(answer.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{answer}");
        stream
    }

    async fn terminals(&self, wanted: usize) {
        self.eventually(async || {
            let open = self.fake.terminals.load(Ordering::SeqCst);
            (open == wanted).then_some(()).ok_or(format!("{open} terminals"))
        })
        .await;
    }
}

fn shell_head(id: &SandboxId) -> String {
    format!(
        "POST /v1/sandboxes/{id}/shell HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: tcp-tunnel\r\n\
         Content-Length: 0"
    )
}

fn socket_head(id: &SandboxId, version: &str) -> String {
    format!(
        "GET /v1/sandboxes/{id}/shell-ws HTTP/1.1\r\nConnection: keep-alive, Upgrade\r\n\
         Upgrade: WebSocket\r\nSec-WebSocket-Version: {version}\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    )
}

fn data(bytes: &[u8]) -> BytesMut {
    let mut frame = BytesMut::new();
    ShellFrame::write_data(bytes, &mut frame);
    frame
}

fn size(rows: u16, cols: u16) -> BytesMut {
    let mut frame = BytesMut::new();
    ShellFrame::write_resize(PtySize::new(rows, cols), &mut frame);
    frame
}

async fn expect(stream: &mut TcpStream, wanted: &str) {
    let mut seen = vec![0; wanted.len()];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_exact(&mut seen)).await;
    read.expect("in time").unwrap();
    assert_eq!(String::from_utf8(seen).unwrap(), wanted);
}

#[tokio::test]
async fn the_answer_is_exactly_a_change_of_protocol() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let (answer, _stream) = rig.upgrade(&shell_head(&id), b"").await;
    let answer = answer.to_lowercase();
    for (name, count) in [
        ("\r\nconnection: upgrade\r\n", 1),
        ("\r\nupgrade: tcp-tunnel\r\n", 1),
        ("\r\nx-request-id: ", 1),
        ("content-length", 0),
        ("transfer-encoding", 0),
        ("content-type", 0),
    ] {
        assert_eq!(answer.matches(name).count(), count, "{name} in {answer}");
    }
}

#[tokio::test]
async fn what_is_sent_with_the_request_is_not_lost() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let mut early = size(40, 120);
    early.extend_from_slice(&data(b"ls\r"));
    // A frame that is cut in the middle goes on later.
    early.extend_from_slice(&data(b"whole")[..7]);
    let mut stream = rig.shell(&id, &early).await;
    expect(&mut stream, "40x120\nls\r").await;
    stream.write_all(&data(b"whole")[7..]).await.unwrap();
    expect(&mut stream, "whole").await;
    stream.write_all(&size(10, 0)).await.unwrap();
    expect(&mut stream, "10x80\n").await;
    stream.write_all(&data(b"exit")).await.unwrap();
    assert_eq!(stream.read(&mut [0; 9]).await.unwrap(), 0, "the server closes");
    rig.terminals(0).await;
}

#[tokio::test]
async fn without_a_size_there_is_a_usual_one() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let mut stream = rig.shell(&id, &data(b"ls")).await;
    expect(&mut stream, "24x80\nls").await;
    let mut silent = rig.shell(&id, b"").await;
    expect(&mut silent, "24x80\n").await;
}

#[tokio::test]
async fn a_session_ends_with_its_connection() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let mut gone = rig.shell(&id, &size(1, 2)).await;
    expect(&mut gone, "1x2\n").await;
    rig.terminals(1).await;
    drop(gone);
    rig.terminals(0).await;

    // Nonsense is no shell.
    let mut nonsense = rig.shell(&id, &[9; 9]).await;
    assert_eq!(nonsense.read(&mut [0; 9]).await.unwrap_or(0), 0);
    rig.terminals(0).await;

    // Who only closes the sending side still reads.
    let mut half = rig.shell(&id, &size(3, 4)).await;
    half.shutdown().await.unwrap();
    expect(&mut half, "3x4\nend\n").await;
    // A shell may miss it the first time.
    expect(&mut half, "end\nend\n").await;
    rig.terminals(1).await;
    drop(half);
    rig.terminals(0).await;

    let mut other = rig.shell(&id, &size(5, 6)).await;
    expect(&mut other, "5x6\n").await;
    rig.fake.die(&id, "out of memory");
    let mut last = String::new();
    other.read_to_string(&mut last).await.unwrap();
    assert!(last.contains("the sandbox ended"), "{last:?}");
    rig.terminals(0).await;
}

#[tokio::test]
async fn refusals_are_plain_answers_and_close() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let unknown = "sb-unknown".parse().unwrap();
    let plain = format!("POST /v1/sandboxes/{id}/shell HTTP/1.1\r\nContent-Length: 0");
    let other = plain.clone() + "\r\nConnection: Upgrade\r\nUpgrade: h2c";
    let old = socket_head(&id, "8");
    let no_key = socket_head(&id, "13").replace("Sec-WebSocket-Key", "X-Other");
    for (head, status) in [
        (shell_head(&unknown), 404),
        (socket_head(&unknown, "13"), 404),
        (plain, 426),
        (other, 426),
        (old, 426),
        (no_key, 426),
    ] {
        let (answer, mut stream) = rig.upgrade(&head, b"").await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}\n{answer}");
        assert!(answer.to_lowercase().contains("\r\nconnection: close\r\n"), "{answer}");
        let mut body = String::new();
        stream.read_to_string(&mut body).await.unwrap();
        assert!(body.contains(r#""status":"fail""#), "{body}");
    }
    rig.force(&id, "paused");
    for head in [shell_head(&id), socket_head(&id, "13")] {
        let (answer, _) = rig.upgrade(&head, b"").await;
        assert!(answer.starts_with("HTTP/1.1 409 "), "{answer}");
    }
    rig.terminals(0).await;
}

#[tokio::test]
async fn a_browser_gets_the_same_over_a_web_socket() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let (answer, stream) = rig.upgrade(&socket_head(&id, "13"), b"").await;
    assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
    // The example of RFC 6455.
    let accept = "\r\nsec-websocket-accept: s3pplmbitxaq9kygzzhzrbk+xoo=\r\n";
    assert!(answer.to_lowercase().contains(accept), "{answer}");
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    socket.send(Message::Binary(size(7, 8).freeze())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Binary("7x8\n".into()));
    socket.send(Message::Text("ls".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Binary("ls".into()));
    let text = r#"{"type":"resize","rows":9,"cols":10}"#;
    socket.send(Message::Text(text.into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Binary("9x10\n".into()));
    socket.send(Message::Ping("p".into())).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::Pong("p".into()));
    socket.send(Message::Binary(data(b"exit").freeze())).await.unwrap();
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
    rig.terminals(0).await;

    for ending in [Message::Close(None), Message::Binary("nonsense".into())] {
        let (_, stream) = rig.upgrade(&socket_head(&id, "13"), b"").await;
        let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
        socket.send(Message::Text("x".into())).await.unwrap();
        rig.terminals(1).await;
        socket.send(ending).await.unwrap();
        rig.terminals(0).await;
    }
    let (_, stream) = rig.upgrade(&socket_head(&id, "13"), b"").await;
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    let _ = socket.send(Message::Binary(vec![0; 3 << 20].into())).await;
    rig.terminals(0).await;
}
