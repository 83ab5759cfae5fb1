//! Interactive shells over raw sockets and over WebSockets.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use createos_sdk::{ErrorKind, Result, Terminal};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

use super::server::RawServer;
use super::{ID, KEY, sandbox};

const SOON: Duration = Duration::from_secs(5);
const TOKEN: &str = "tcp-tunnel";
const SIZE: [u8; 9] = [1, 0, 0, 0, 4, 0, 40, 0, 120];

async fn open(server: &RawServer) -> Terminal {
    sandbox(&server.url()).terminal().size(40, 120).open().await.unwrap()
}

async fn screen(reader: &mut (impl AsyncReadExt + Unpin)) -> Vec<u8> {
    let mut screen = Vec::new();
    timeout(SOON, reader.read_to_end(&mut screen)).await.unwrap().unwrap();
    screen
}

#[tokio::test]
async fn the_size_comes_first_and_then_what_is_typed() -> Result<()> {
    let head = Arc::new(Mutex::new(String::new()));
    let seen = head.clone();
    let server = RawServer::start(move |_, mut connection| {
        let seen = seen.clone();
        async move {
            *seen.lock().unwrap() = connection.read_head().await?;
            connection.switch(TOKEN, b"root@box:~# ").await?;
            assert_eq!(connection.read_exact(9).await?, SIZE);
            assert_eq!(connection.read_exact(8).await?, [0, 0, 0, 0, 3, b'l', b's', 0x0d]);
            assert_eq!(connection.read_exact(9).await?, [1, 0, 0, 0, 4, 0, 50, 0, 132]);
            connection.write(b"ls\r\nfile\xff\r\n").await
        }
    })
    .await;
    let mut shell = open(&server).await;
    shell.write_all(b"ls\r").await.unwrap();
    // The size may overtake what was typed, so it waits until that is on its way.
    tokio::time::sleep(Duration::from_millis(100)).await;
    shell.resize(50, 132)?;
    assert_eq!(screen(&mut shell).await, b"root@box:~# ls\r\nfile\xff\r\n");
    let head = head.lock().unwrap();
    assert!(head.starts_with(&format!("post /v1/sandboxes/{ID}/shell http/1.1\r\n")), "{head}");
    for line in ["upgrade: tcp-tunnel", "connection: upgrade", "content-length: 0"] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{head}");
    }
    assert!(head.contains(KEY));
    Ok(())
}

#[tokio::test]
async fn much_is_typed_in_order_and_whole() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_head().await?;
        connection.switch(TOKEN, b"").await?;
        assert_eq!(connection.read_exact(9).await?, SIZE);
        let mut typed = Vec::new();
        while typed.len() < 1_000_000 {
            let header = connection.read_exact(5).await?;
            assert_eq!(header[0], 0);
            let length = u32::from_be_bytes(header[1..].try_into().unwrap());
            typed.extend(connection.read_exact(length as usize).await?);
        }
        connection.write(typed).await
    })
    .await;
    let mut shell = open(&server).await;
    let typed: Vec<u8> = (0..1_000_000_u32).map(|number| (number * 7 / 3) as u8).collect();
    shell.write_all(&typed).await.unwrap();
    assert!(screen(&mut shell).await == typed);
}

#[tokio::test]
async fn the_resize_handle_may_be_dropped_and_the_writer_ends_the_input_alone() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_head().await?;
        connection.switch(TOKEN, b"").await?;
        assert_eq!(connection.read_exact(9).await?, SIZE);
        assert_eq!(connection.read_exact(6).await?, [0, 0, 0, 0, 1, b'a']);
        let rest = connection.read_to_end().await?;
        assert!(rest.is_empty());
        connection.write(b"still here").await
    })
    .await;
    let (mut reader, mut writer, resizer) = open(&server).await.into_parts();
    drop(resizer);
    tokio::time::sleep(Duration::from_millis(50)).await;
    writer.write_all(b"a").await.unwrap();
    drop(writer);
    assert_eq!(screen(&mut reader).await, b"still here");

    let server = RawServer::start(|_, mut connection| async move {
        connection.read_head().await?;
        connection.switch(TOKEN, b"").await?;
        connection.read_to_end().await?;
        connection.write(b"bye").await
    })
    .await;
    let mut shell = open(&server).await;
    shell.shutdown().await.unwrap();
    assert_eq!(screen(&mut shell).await, b"bye");
}

#[tokio::test]
async fn what_was_typed_last_arrives_although_everything_is_dropped() {
    let (heard, on_heard) = tokio::sync::oneshot::channel();
    let heard = Mutex::new(Some(heard));
    let server = RawServer::start(move |_, mut connection| {
        let heard = heard.lock().unwrap().take();
        async move {
            connection.read_head().await?;
            connection.switch(TOKEN, b"").await?;
            let all = connection.read_to_end().await?;
            heard.unwrap().send(all).map_err(|_| io::ErrorKind::Other.into())
        }
    })
    .await;
    let mut shell = open(&server).await;
    shell.write_all(b"exit\r").await.unwrap();
    let resizer = shell.resizer();
    drop(shell);
    let all = timeout(SOON, on_heard).await.unwrap().unwrap();
    assert_eq!(all, [&SIZE[..], &[0, 0, 0, 0, 5], b"exit\r"].concat());
    resizer.resize(1, 1).unwrap();
}

/// A server that reads nothing more must not keep a terminal alive that nobody holds.
#[tokio::test]
async fn a_stuck_connection_is_given_up() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_head().await?;
        connection.switch(TOKEN, b"").await?;
        tokio::time::sleep(4 * SOON).await;
        connection.read_to_end().await.map(drop)
    })
    .await;
    let mut shell = open(&server).await;
    let flood = timeout(Duration::from_secs(1), shell.write_all(&vec![b'x'; 64 << 20])).await;
    assert!(flood.is_err(), "nobody reads it");
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let before = tasks();
    drop(shell);
    timeout(4 * SOON, async {
        while tasks() >= before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn refusals_and_bad_sizes() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_head().await?;
        connection.json(409, r#"{"status":"fail","data":"sandbox is not running"}"#).await
    })
    .await;
    let sandbox = sandbox(&server.url());
    for (error, operation) in [
        (sandbox.terminal().open().await.unwrap_err(), "sandbox.shell"),
        (sandbox.terminal().open_web_socket().await.unwrap_err(), "sandbox.shell_ws"),
    ] {
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Conflict, Some(operation)));
        assert_eq!(error.message(), "sandbox is not running");
    }
    let asked = server.connections();
    for (rows, cols, field) in [(0, 80, "rows"), (24, 0, "cols")] {
        let error = sandbox.terminal().size(rows, cols).open().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().starts_with(field), "{error}");
    }
    assert_eq!(server.connections(), asked);
}

/// A WebSocket server that runs this for its connection; its address.
async fn socket<F>(script: impl FnOnce(WebSocketStream<TcpStream>) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        #[expect(clippy::result_large_err, reason = "given by the library")]
        let check = |request: &Request, response: Response| {
            assert_eq!(request.uri().path(), format!("/v1/sandboxes/{ID}/shell-ws"));
            assert_eq!(request.headers()["x-api-key"], KEY);
            Ok(response)
        };
        script(tokio_tungstenite::accept_hdr_async(stream, check).await.unwrap()).await;
    });
    url
}

async fn open_socket(url: &str) -> Terminal {
    sandbox(url).terminal().size(40, 120).open_web_socket().await.unwrap()
}

async fn next(socket: &mut WebSocketStream<TcpStream>) -> Vec<u8> {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Binary(bytes) => return bytes.to_vec(),
            Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_web_socket_carries_the_same_frames() {
    let url = socket(async |mut socket| {
        socket.send(Message::Binary("# ".into())).await.unwrap();
        assert_eq!(next(&mut socket).await, SIZE);
        assert_eq!(next(&mut socket).await, [0, 0, 0, 0, 2, b'i', b'd']);
        socket.send(Message::Ping("?".into())).await.unwrap();
        socket.send(Message::Binary("".into())).await.unwrap();
        socket.send(Message::Text("uid=0".into())).await.unwrap();
        assert_eq!(next(&mut socket).await, [1, 0, 0, 0, 4, 0, 1, 0, 2]);
        socket.send(Message::Binary(b"\xff".as_slice().into())).await.unwrap();
        socket.close(None).await.unwrap();
    })
    .await;
    let mut shell = open_socket(&url).await;
    shell.write_all(b"id").await.unwrap();
    let mut answer = [0; 7];
    shell.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"# uid=0");
    shell.resize(1, 2).unwrap();
    assert_eq!(screen(&mut shell).await, b"\xff");
}

#[tokio::test]
async fn a_web_socket_that_is_cut_is_an_error_and_dropping_it_closes_it() {
    let url = socket(async |mut socket| {
        socket.send(Message::Binary("partial".into())).await.unwrap();
    })
    .await;
    let mut shell = open_socket(&url).await;
    let mut screen = Vec::new();
    assert!(timeout(SOON, shell.read_to_end(&mut screen)).await.unwrap().is_err());
    assert_eq!(screen, b"partial");

    let (closed, on_closed) = tokio::sync::oneshot::channel();
    let url = socket(async |mut socket| {
        assert_eq!(next(&mut socket).await, SIZE);
        assert!(matches!(socket.next().await.unwrap().unwrap(), Message::Close(_)));
        closed.send(()).unwrap();
    })
    .await;
    drop(open_socket(&url).await);
    timeout(SOON, on_closed).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_web_socket_without_the_right_proof_is_refused() {
    let server = RawServer::start(|_, mut connection| async move {
        let head = connection.read_head().await?;
        assert!(head.contains("\r\nsec-websocket-version: 13\r\n"), "{head}");
        connection.switch("websocket", b"").await
    })
    .await;
    let error = sandbox(&server.url()).terminal().open_web_socket().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert_eq!(server.connections(), 1);
}
