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

/// An https server for `localhost` with a certificate nobody knows; its address and that
/// certificate.
async fn https(name: &str) -> (String, String) {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    // Trust is looked up by this name, so two authorities must not share one.
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    let certificate = params.self_signed(&key).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
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
    (url, certificate.pem())
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
