//! Connections that become something else, through proxies.

use createos_sdk::{ErrorKind, RequestOptions, RetryPolicy, Sandbox, SandboxId};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use super::network::tls;
use super::server::{Connection, RawServer};
use super::{ID, builder};

/// A guest that answers with what it hears.
async fn echo(mut connection: Connection) -> std::io::Result<()> {
    connection.read_head().await?;
    connection.switch("tcp-tunnel", b"early ").await?;
    let heard = connection.read_to_end().await?;
    connection.write(heard).await?;
    connection.end_writing().await
}

async fn talk(sandbox: &Sandbox) -> String {
    let mut stream = sandbox.tunnel(1).connect().await.unwrap();
    stream.write_all(b"and late").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.unwrap();
    heard
}

fn id() -> SandboxId {
    ID.parse().unwrap()
}

#[tokio::test]
async fn a_plain_tunnel_goes_through_a_proxy() {
    let proxy = RawServer::start(|_, mut connection| async move {
        let head = connection.read_head().await?;
        let target = format!("post http://192.0.2.1/v1/sandboxes/{ID}/tunnel/1 http/1.1\r\n");
        assert!(head.starts_with(&target), "{head}");
        assert!(head.contains("upgrade: tcp-tunnel\r\n"), "{head}");
        connection.put_back(&head);
        echo(connection).await
    })
    .await;
    let client = builder("http://192.0.2.1").allow_insecure_http(true).proxy(proxy.url());
    let sandbox = client.build().unwrap().sandbox(id());
    assert_eq!(talk(&sandbox).await, "early and late");
}

#[tokio::test]
async fn a_tunnel_in_tls_goes_through_a_proxy_that_sees_nothing_of_it() {
    let (acceptor, pem) = tls("proxied", &["http/1.1"]);
    let server = RawServer::start(move |_, connection| {
        let acceptor = acceptor.clone();
        async move {
            let mut stream = acceptor.accept(connection.into_stream()).await?;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await?);
            }
            let answer = "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: tcp-tunnel\r\n\r\n";
            stream.write_all(answer.as_bytes()).await?;
            stream.write_all(b"early ").await?;
            let mut heard = Vec::new();
            stream.read_to_end(&mut heard).await?;
            stream.write_all(&heard).await?;
            stream.shutdown().await
        }
    })
    .await;
    let target = server.url().trim_start_matches("http://127.0.0.1").to_owned();
    let address = server.url().trim_start_matches("http://").to_owned();
    let proxy = RawServer::start(move |_, mut connection| {
        let (target, address) = (target.clone(), address.clone());
        async move {
            let head = connection.read_head().await?;
            assert!(head.starts_with(&format!("connect localhost{target} http/1.1\r\n")), "{head}");
            assert!(head.contains("proxy-authorization: basic "), "{head}");
            assert!(!head.contains("x-api-key"), "the key is not for the proxy");
            connection.write("HTTP/1.1 200 Connected\r\n\r\n").await?;
            let mut onward = TcpStream::connect(address).await?;
            copy_bidirectional(&mut connection.into_stream(), &mut onward).await?;
            Ok(())
        }
    })
    .await;
    let through = proxy.url().replace("http://", "http://me:secret@");
    let url = server.url().replace("http://127.0.0.1", "https://localhost");
    let client = builder(&url).ca_certificate_pem(pem).proxy(through).build().unwrap();
    assert_eq!(talk(&client.sandbox(id())).await, "early and late");
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_and_nothing_was_done() {
    let proxy = RawServer::start(|_, mut connection| async move {
        connection.read_head().await?;
        connection.json(407, "{}").await
    })
    .await;
    let client = builder("https://example.org").proxy(proxy.url()).build().unwrap();
    let once = RequestOptions::new().retry(RetryPolicy::none());
    let tunnel = client.sandbox(id()).tunnel(1).with(once);
    let error = tunnel.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(!error.may_have_acted(), "{error}");
    assert!(error.message().contains("prox"), "{error}");
}
