//! Tunnels over raw sockets: what comes with the 101, half-close, refusals, listeners, HTTP.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use createos_sdk::{
    ErrorKind, RequestOptions, Result, RetryPolicy, TunnelEvent, TunnelListener, TunnelStream,
};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::server::{Connection, RawServer};
use super::{ID, KEY, client, sandbox};

const SOON: Duration = Duration::from_secs(5);
const TOKEN: &str = "tcp-tunnel";

async fn connect(server: &RawServer) -> Result<TunnelStream> {
    let options = RequestOptions::new().timeout(SOON);
    sandbox(&server.url()).tunnel(5432).with(options).connect().await
}

/// A guest that sends everything back, and ends when the other side has ended.
async fn echo(mut connection: Connection) -> std::io::Result<()> {
    connection.read_head().await?;
    connection.switch(TOKEN, b"").await?;
    let heard = connection.read_to_end().await?;
    connection.write(heard).await?;
    connection.end_writing().await
}

#[tokio::test]
async fn the_request_is_the_one_of_the_contract() -> Result<()> {
    let head = Arc::new(Mutex::new(String::new()));
    let seen = head.clone();
    let server = RawServer::start(move |_, mut connection| {
        let seen = seen.clone();
        async move {
            *seen.lock().unwrap() = connection.read_head().await?;
            connection.switch(TOKEN, b"").await
        }
    })
    .await;
    connect(&server).await?;
    let head = head.lock().unwrap().clone();
    let mut lines = head.trim_end().lines();
    let path = format!("post /v1/sandboxes/{ID}/tunnel/5432 http/1.1");
    assert_eq!(lines.next(), Some(&*path));
    let mut headers: Vec<_> = lines.collect();
    headers.retain(|line| !line.starts_with("user-agent: ") && !line.starts_with("accept: "));
    headers.sort_unstable();
    let host = format!("host: {}", server.url().trim_start_matches("http://"));
    let key = format!("x-api-key: {KEY}");
    let upgrade = "upgrade: tcp-tunnel";
    assert_eq!(headers, ["connection: upgrade", "content-length: 0", &host, upgrade, &key]);
    Ok(())
}

#[tokio::test]
async fn bytes_that_come_with_the_101_are_not_lost() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_head().await?;
        connection.switch(TOKEN, b"SSH-2.0-early\r\n").await?;
        assert_eq!(connection.read_exact(4).await?, b"ping");
        connection.write("and late").await
    })
    .await;
    let mut stream = connect(&server).await.unwrap();
    stream.write_all(b"ping").await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"SSH-2.0-early\r\nand late");
}

#[tokio::test]
async fn a_101_cut_into_single_bytes_is_still_one() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_head().await?;
        let answer = "HTTP/1.1 101 X\r\nconnection: upgrade\r\nupgrade: TCP-Tunnel\r\n\r\nx";
        for byte in answer.as_bytes().chunks(1) {
            connection.write(byte).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    })
    .await;
    let mut stream = connect(&server).await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'x');
}

#[tokio::test]
async fn each_side_ends_on_its_own() {
    let server = RawServer::start(|_, connection| echo(connection)).await;
    let mut stream = connect(&server).await.unwrap();
    stream.write_all(b"all of it").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    timeout(SOON, stream.read_to_end(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, b"all of it");

    let server = RawServer::start(|_, mut connection| async move {
        connection.read_head().await?;
        connection.switch(TOKEN, b"greeting").await?;
        connection.end_writing().await?;
        assert_eq!(connection.read_to_end().await?, b"after the end");
        Ok(())
    })
    .await;
    let mut stream = connect(&server).await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"greeting");
    stream.write_all(b"after the end").await.unwrap();
    stream.shutdown().await.unwrap();
}

#[tokio::test]
async fn refusals_are_ordinary_errors() {
    for (status, kind) in [
        (400, ErrorKind::InvalidArgument),
        (401, ErrorKind::NotAuthenticated),
        (404, ErrorKind::NotFound),
        (409, ErrorKind::Conflict),
        (502, ErrorKind::Server),
    ] {
        let server = RawServer::start(move |_, mut connection| async move {
            connection.read_head().await?;
            connection.json(status, r#"{"status":"fail","data":"no such luck"}"#).await?;
            // It should close the connection, but not every server does.
            connection.read_to_end().await.map(drop)
        })
        .await;
        let error = timeout(SOON, connect(&server)).await.unwrap().unwrap_err();
        assert_eq!((error.kind(), error.status()), (kind, Some(status)));
        assert_eq!(error.message(), "no such luck");
        assert_eq!(error.operation(), Some("sandbox.tunnel"));
        assert!(!error.may_have_acted(), "{error}");
        assert_eq!(server.connections(), 1, "{status} is not asked for again");
    }
}

#[tokio::test]
async fn a_refusal_without_a_length_and_without_an_end_still_tells_why() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_head().await?;
        let body = r#"{"status":"fail","data":"sandbox is not running"}"#;
        connection.write(format!("HTTP/1.1 409 Conflict\r\n\r\n{body}")).await?;
        connection.read_to_end().await.map(drop)
    })
    .await;
    let patient = RequestOptions::new().timeout(4 * SOON);
    let connecting = sandbox(&server.url()).tunnel(1).with(patient).connect();
    let error = timeout(3 * SOON, connecting).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Conflict, "sandbox is not running"));
}

#[tokio::test]
async fn an_answer_that_does_not_change_protocols_is_not_a_tunnel() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 X\r\nUpgrade: tcp-tunnel\r\n\r\n",
        "HTTP/1.1 101 X\r\nConnection: Upgrade\r\n\r\n",
    ] {
        let server = RawServer::start(move |_, mut connection| async move {
            connection.read_head().await?;
            connection.write(answer).await?;
            connection.read_to_end().await.map(drop)
        })
        .await;
        let error = timeout(SOON, connect(&server)).await.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Protocol, "{answer}");
        assert_eq!(server.connections(), 1);
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_a_timeout_and_no_answer_is_asked_again() {
    let server = RawServer::start(|number, mut connection| async move {
        connection.read_head().await?;
        match number {
            0 => Ok(()),
            1 => connection.json(503, "{}").await,
            2 => connection.switch(TOKEN, b"x").await,
            _ => connection.read_to_end().await.map(drop),
        }
    })
    .await;
    assert!(connect(&server).await.is_ok(), "opening is harmless to repeat");
    assert_eq!(server.connections(), 3);
    let quick = RequestOptions::new().timeout(Duration::from_millis(100));
    let quick = quick.retry(RetryPolicy::none());
    let error = sandbox(&server.url()).tunnel(1).with(quick).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.is_retryable());
}

#[tokio::test]
async fn bad_arguments_are_refused_before_any_traffic() {
    let sandbox = sandbox("http://127.0.0.1:1");
    let refused = sandbox.tunnel(0).connect().await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.message().starts_with("port"), "{refused}");
    let refused = sandbox.tunnel(0).listen("127.0.0.1:0").await.unwrap_err();
    assert!(refused.message().starts_with("port"), "{refused}");
    let refused = sandbox.tunnel(1).listen("nonsense").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
    assert!(refused.message().starts_with("address") || refused.message().contains("nonsense"));
    let taken = sandbox.tunnel(1).listen("127.0.0.1:0").await.unwrap();
    let refused = sandbox.tunnel(1).listen(taken.local_addr()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Io);
    for (method, path, header, field) in [
        ("G T", "/", "x-a", "method"),
        ("CONNECT", "/", "x-a", "method"),
        ("GET", "relative", "x-a", "path"),
        ("GET", "/a b", "x-a", "path"),
        ("GET", "http://elsewhere/", "x-a", "path"),
        ("GET", "/", "x a", "header"),
        ("GET", "/", "Content-Length", "header"),
        ("GET", "/", "Upgrade", "header"),
    ] {
        let request = sandbox.http(80).request(method, path).header(header, "1");
        let refused = request.await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{method} {path} {header}");
        assert!(refused.message().starts_with(field), "{refused}");
    }
    let injected = sandbox.http(80).get("/").header("x-a", "1\r\nx-b: 2").await.unwrap_err();
    assert_eq!(injected.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn dropping_a_tunnel_closes_its_connection() {
    let (closed, on_closed) = tokio::sync::oneshot::channel();
    let closed = Mutex::new(Some(closed));
    let server = RawServer::start(move |_, mut connection| {
        let closed = closed.lock().unwrap().take();
        async move {
            connection.read_head().await?;
            connection.switch(TOKEN, b"").await?;
            connection.read_to_end().await?;
            closed.unwrap().send(()).map_err(|()| std::io::ErrorKind::Other.into())
        }
    })
    .await;
    drop(connect(&server).await.unwrap());
    timeout(SOON, on_closed).await.unwrap().unwrap();
}

type Events = Arc<Mutex<Vec<String>>>;

async fn listening(server: &RawServer) -> (TunnelListener, Events) {
    let events = Events::default();
    let seen = events.clone();
    let note = move |event| {
        seen.lock().unwrap().push(match event {
            TunnelEvent::Opened { .. } => "opened".to_owned(),
            TunnelEvent::Closed { sent, received, .. } => format!("closed {sent} {received}"),
            TunnelEvent::Failed { error, .. } => format!("failed {:?}", error.kind()),
            other => format!("{other:?}"),
        });
    };
    let tunnel = sandbox(&server.url()).tunnel(8000).on_event(note);
    (tunnel.listen("127.0.0.1:0").await.unwrap(), events)
}

async fn ask(listener: &TunnelListener, question: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(listener.local_addr()).await.unwrap();
    stream.write_all(question).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    timeout(SOON, stream.read_to_end(&mut heard)).await.unwrap().unwrap();
    heard
}

async fn until(what: impl Fn() -> bool) {
    let waiting = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, waiting).await.unwrap();
}

#[tokio::test]
async fn a_listener_carries_many_connections_and_outlives_their_failures() {
    let server = RawServer::start(|number, mut connection| async move {
        if number == 1 {
            connection.read_head().await?;
            return connection.json(502, r#"{"status":"fail","data":"nobody"}"#).await;
        }
        echo(connection).await
    })
    .await;
    let (listener, events) = listening(&server).await;
    assert!(listener.local_addr().port() != 0);
    let large = vec![b'x'; 1 << 20];
    assert_eq!(ask(&listener, &large).await, large);
    let mut refused = TcpStream::connect(listener.local_addr()).await.unwrap();
    assert_eq!(timeout(SOON, refused.read(&mut [0])).await.unwrap().unwrap(), 0);
    assert_eq!(ask(&listener, b"again").await, b"again");
    until(|| events.lock().unwrap().len() == 5).await;
    let size = 1 << 20;
    let closed = format!("closed {size} {size}");
    let expected = ["opened", &closed, "failed Server", "opened", "closed 5 5"];
    assert_eq!(*events.lock().unwrap(), expected);
    assert_eq!(listener.connections(), 0);
}

#[tokio::test]
async fn shutting_down_lets_connections_finish_and_cuts_what_stays() {
    let server = RawServer::start(|_, connection| echo(connection)).await;
    let (listener, _) = listening(&server).await;
    let address = listener.local_addr();
    let mut finishing = TcpStream::connect(address).await.unwrap();
    finishing.write_all(b"last words").await.unwrap();
    until(|| listener.connections() == 1 && server.connections() == 1).await;
    let finish = async {
        until(|| std::net::TcpStream::connect(address).is_err()).await;
        finishing.shutdown().await.unwrap();
        let mut heard = Vec::new();
        finishing.read_to_end(&mut heard).await.unwrap();
        heard
    };
    let (cut, heard) = tokio::join!(listener.shutdown(SOON), finish);
    assert_eq!((cut, heard), (0, b"last words".to_vec()));

    let (listener, _) = listening(&server).await;
    let mut staying = TcpStream::connect(listener.local_addr()).await.unwrap();
    until(|| listener.connections() == 1).await;
    assert_eq!(listener.shutdown(Duration::from_millis(50)).await, 1);
    assert!(matches!(timeout(SOON, staying.read(&mut [0])).await.unwrap(), Ok(0) | Err(_)));
}

#[tokio::test]
async fn dropping_a_listener_frees_everything() {
    let server = RawServer::start(|_, connection| echo(connection)).await;
    let (listener, _) = listening(&server).await;
    let address = listener.local_addr();
    let mut open = TcpStream::connect(address).await.unwrap();
    until(|| server.connections() == 1).await;
    drop(listener);
    assert!(matches!(timeout(SOON, open.read(&mut [0])).await.unwrap(), Ok(0) | Err(_)));
    until(|| std::net::TcpStream::connect(address).is_err()).await;
}

async fn web(answer: &'static [u8]) -> RawServer {
    RawServer::start(move |_, mut connection| async move {
        connection.read_head().await?;
        connection.switch(TOKEN, b"").await?;
        let body = connection.read_request().await?;
        if answer.is_empty() {
            return connection.read_to_end().await.map(drop);
        }
        connection.write(answer).await?;
        connection.write(body).await
    })
    .await
}

#[tokio::test]
async fn http_goes_through_a_tunnel() -> Result<()> {
    let server = web(b"HTTP/1.0 418 X\r\nX-Tea: Pot\r\nx-tea: two\r\n\r\nbody: ").await;
    let answer = sandbox(&server.url()).http(8000).post("/tea?x=1", "milk").await?;
    assert_eq!((answer.status(), answer.header("x-Tea")), (418, Some("Pot")));
    assert_eq!(answer.headers().filter(|header| header.0 == "x-tea").count(), 2);
    assert_eq!(answer.text().await?, "body: milk");

    let head = Arc::new(Mutex::new(String::new()));
    let seen = head.clone();
    let server = RawServer::start(move |_, mut connection| {
        let seen = seen.clone();
        async move {
            connection.read_head().await?;
            connection.switch(TOKEN, b"").await?;
            *seen.lock().unwrap() = connection.read_head().await?;
            connection.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await?;
            for _ in 0..3 {
                connection.chunk("abc").await?;
            }
            connection.chunk("").await
        }
    })
    .await;
    let answer = sandbox(&server.url()).http(8000).get("/a?b=c").header("x-user", "u").await?;
    let pieces: Vec<_> = answer.map(|piece| piece.unwrap()).collect().await;
    assert_eq!(pieces.concat(), b"abcabcabc");
    let head = head.lock().unwrap();
    assert!(head.starts_with("get /a?b=c http/1.1\r\n"), "{head}");
    assert!(head.contains("host: localhost:8000\r\n") && head.contains("x-user: u\r\n"), "{head}");
    assert!(!head.contains(KEY), "the key is not for the guest");
    Ok(())
}

#[tokio::test]
async fn http_that_breaks_off_is_an_error() {
    let server = web(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort").await;
    let answer = sandbox(&server.url()).http(1).get("/").await.unwrap();
    let error = answer.bytes().await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_acted()), (ErrorKind::StreamLost, false));
    assert_eq!(error.operation(), Some("sandbox.http"));

    let server = web(b"garbage\r\n\r\n").await;
    let error = sandbox(&server.url()).http(1).post("/x?token=1", "").await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_acted()), (ErrorKind::Connection, true));
    assert_eq!((error.method(), error.path()), (Some("POST"), Some("/x")));

    let server = web(b"").await;
    let quick = RequestOptions::new().timeout(Duration::from_millis(200));
    let error = sandbox(&server.url()).http(1).get("/").with(quick).await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_acted()), (ErrorKind::Timeout, false));
}

#[tokio::test]
async fn the_path_of_the_base_url_is_kept() -> Result<()> {
    let server = RawServer::start(|_, mut connection| async move {
        let head = connection.read_head().await?;
        assert!(head.starts_with("post /pre/fix/v1/sandboxes/"), "{head}");
        connection.switch(TOKEN, b"").await
    })
    .await;
    let id: createos_sdk::SandboxId = ID.parse()?;
    client(&format!("{}/pre/fix/", server.url())).sandbox(id).tunnel(1).connect().await?;
    Ok(())
}
