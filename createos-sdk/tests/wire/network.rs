//! TLS and proxies.

use std::sync::Arc;

use createos_sdk::{Client, ErrorKind, RequestOptions, Result, RetryPolicy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::server::RawServer;

const HEALTHY: &str = r#"{"status":"success","data":{"up":true}}"#;

/// What speaks TLS as `localhost` with a certificate nobody knows, and that certificate.
pub(crate) fn tls(name: &str, protocols: &[&str]) -> (TlsAcceptor, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    // Trust is looked up by this name, so two authorities must not share one.
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let certificate = params.self_signed(&key).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let mut config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    (TlsAcceptor::from(Arc::new(config)), certificate.pem())
}

/// An https server, its address and its certificate.
async fn https(name: &str) -> (String, String) {
    let (acceptor, pem) = tls(name, &[]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await?;
                let length = HEALTHY.len();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                stream.write_all(format!("{head}{HEALTHY}").as_bytes()).await?;
                stream.shutdown().await
            });
        }
    });
    (url, pem)
}

/// HTTP/2 connections cannot become tunnels, so the server must not be offered it.
#[tokio::test]
async fn a_tunnel_goes_through_tls_with_the_certificate_of_the_builder() -> Result<()> {
    let (acceptor, pem) = tls("tunnel", &["h2", "http/1.1"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}", listener.local_addr().unwrap().port());
    let serving = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(stream).await.unwrap();
        // The TLS of the operating system may not name any protocol.
        assert_ne!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let answer = "HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: tcp-tunnel\r\n\r\nearly";
        stream.write_all(answer.as_bytes()).await.unwrap();
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard).await.unwrap();
        stream.write_all(&heard).await.unwrap();
        stream.shutdown().await.unwrap();
    });
    let client = super::builder(&url).ca_certificate_pem(pem).build()?;
    let id: createos_sdk::SandboxId = super::ID.parse()?;
    let mut stream = client.sandbox(id).tunnel(1).connect().await?;
    stream.write_all(b" and half-closed").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).await.unwrap();
    assert_eq!(heard, b"early and half-closed");
    serving.await.unwrap();
    Ok(())
}

#[tokio::test]
async fn a_certificate_given_to_the_builder_is_trusted_and_no_other() -> Result<()> {
    let (url, pem) = https("one").await;
    let (_, other) = https("other").await;
    let both = format!("{other}\n{pem}");
    let trusting = Client::builder().base_url(&url).ca_certificate_pem(both).build()?;
    assert!(trusting.health().await?.up);

    let strict = Client::builder().base_url(&url).build()?;
    let once = RequestOptions::new().retry(RetryPolicy::none());
    let error = strict.health().with(once).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    assert!(error.is_retryable() && !error.may_have_acted(), "nothing was sent");
    assert!(error.message().contains("certificate"), "{error}");
    Ok(())
}

#[tokio::test]
async fn a_proxy_given_to_the_builder_carries_everything() -> Result<()> {
    let proxy = RawServer::start(|_, mut connection| async move {
        let head = connection.read_head().await?;
        assert!(head.starts_with("get http://192.0.2.1/healthz http/1.1"), "{head}");
        connection.json(200, HEALTHY).await
    })
    .await;
    let client = Client::builder()
        .base_url("http://192.0.2.1")
        .allow_insecure_http(true)
        .proxy(proxy.url())
        .build()?;
    assert!(client.health().await?.up);
    assert_eq!(proxy.connections(), 1);
    Ok(())
}
