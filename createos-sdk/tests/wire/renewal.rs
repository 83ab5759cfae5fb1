//! Access tokens that are renewed while a client lives.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use createos_sdk::{
    Client, ClientBuilder, ErrorKind, EventKind, RequestOptions, Result, RetryPolicy, Secret,
    Upload,
};
use wiremock::matchers::{any, header};
use wiremock::{Mock, MockServer};

use super::server::RawServer;
use super::{ID, KEY, answering, fail, success, view};

/// Gives `token-1`, and the next number when one is refused.
#[derive(Clone, Default)]
struct Tokens {
    refusals: Arc<AtomicU32>,
    asked: Arc<AtomicU32>,
}

impl Tokens {
    fn builder(&self, url: &str) -> ClientBuilder {
        let tokens = self.clone();
        let quick = RetryPolicy::default().base_delay(Duration::from_millis(1));
        Client::builder().base_url(url).retry(quick).access_tokens(move |refused| {
            let tokens = tokens.clone();
            async move {
                tokens.asked.fetch_add(1, Ordering::SeqCst);
                let refusals = match refused {
                    Some(_) => tokens.refusals.fetch_add(1, Ordering::SeqCst) + 1,
                    None => tokens.refusals.load(Ordering::SeqCst),
                };
                Ok::<_, std::io::Error>(Secret::from(format!("token-{}", refusals + 1)))
            }
        })
    }

    fn client(&self, url: &str) -> Client {
        self.builder(url).build().unwrap()
    }
}

/// Accepts one token and refuses all others.
async fn accepting(token: &'static str) -> MockServer {
    let server = MockServer::start().await;
    let good = Mock::given(header("x-access-token", token));
    good.respond_with(success(view("running"))).mount(&server).await;
    Mock::given(any()).respond_with(fail(401, "token expired")).mount(&server).await;
    server
}

#[tokio::test]
async fn a_refused_token_is_replaced_and_the_call_repeated_once() -> Result<()> {
    let server = accepting("token-2").await;
    let (tokens, repeats) = (Tokens::default(), Arc::new(AtomicU32::new(0)));
    let told = repeats.clone();
    let observed = tokens.builder(&server.uri()).observe(move |event| {
        if matches!(event.kind, EventKind::Retry { error: ErrorKind::NotAuthenticated, .. }) {
            told.fetch_add(1, Ordering::SeqCst);
        }
    });
    let client = observed.build()?;
    // A create acts, and is repeated all the same: a refused call has done nothing.
    client.create_sandbox("s-1vcpu-1gb").await?;
    assert_eq!(server.received_requests().await.unwrap().len(), 2);
    assert_eq!((tokens.asked.load(Ordering::SeqCst), repeats.load(Ordering::SeqCst)), (2, 1));
    // The next call begins with the new one.
    client.get_sandbox(ID.parse::<createos_sdk::SandboxId>()?).await?;
    assert_eq!(server.received_requests().await.unwrap().len(), 3);
    for request in server.received_requests().await.unwrap() {
        assert!(!request.headers.contains_key("x-api-key"));
    }
    Ok(())
}

#[tokio::test]
async fn a_second_refusal_is_the_answer() {
    let server = accepting("never").await;
    let tokens = Tokens::default();
    let error = tokens.client(&server.uri()).whoami().await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::NotAuthenticated, 2));
    assert_eq!(error.message(), "token expired");
    assert!(!error.may_have_acted());
    // The same token again would be refused again.
    let same = Client::builder()
        .base_url(server.uri())
        .access_tokens(|_| async { Ok::<_, std::io::Error>(Secret::from("always")) });
    let error = same.build().unwrap().whoami().await.unwrap_err();
    assert_eq!((error.status(), error.attempts()), (Some(401), 1));
}

#[tokio::test]
async fn attempts_before_and_after_are_counted_together() {
    let server = MockServer::start().await;
    let statuses = [503, 401, 503, 200];
    for (at, status) in statuses.into_iter().enumerate() {
        let answer = if status == 200 { success(view("running")) } else { fail(status, "no") };
        let mock = Mock::given(any()).respond_with(answer).up_to_n_times(1);
        mock.with_priority(at as u8 + 1).mount(&server).await;
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = seen.clone();
    let observed = Tokens::default().builder(&server.uri()).observe(move |event| {
        if event.kind == EventKind::Request {
            told.lock().unwrap().push(event.attempt);
        }
    });
    let id = ID.parse::<createos_sdk::SandboxId>().unwrap();
    observed.build().unwrap().get_sandbox(id).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [1, 2, 3, 4]);
}

#[tokio::test]
async fn a_source_that_fails_fails_the_call_before_any_traffic() {
    let server = answering(success(view("running"))).await;
    let builder = || Client::builder().base_url(server.uri());
    let own = builder().access_tokens(|_| async { Err(std::io::Error::other("session over")) });
    let error = own.build().unwrap().whoami().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAuthenticated);
    assert_eq!((error.message(), error.attempts()), ("session over", 0));
    let source = std::error::Error::source(&error).unwrap();
    assert!(source.downcast_ref::<std::io::Error>().is_some());

    let ours = builder().access_tokens(|_| async {
        Client::builder().base_url("http://example.org").build()?;
        Ok::<_, createos_sdk::Error>(Secret::from("x"))
    });
    let error = ours.build().unwrap().whoami().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "an error of this crate stays what it is");

    let unusable = builder()
        .access_tokens(|_| async { Ok::<_, std::io::Error>(Secret::from("hunter2\r\nx: y")) });
    let error = unusable.build().unwrap().whoami().await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    assert!(server.received_requests().await.unwrap().is_empty());
    // What needs no credential does not ask for one.
    own_catalog(&server).await;
}

async fn own_catalog(server: &MockServer) {
    let never = Client::builder()
        .base_url(server.uri())
        .access_tokens(|_| async { Err::<Secret, _>(std::io::Error::other("asked")) });
    never.build().unwrap().readiness().await.unwrap();
}

#[tokio::test]
async fn a_slow_source_is_part_of_the_deadline() {
    let server = answering(success(view("running"))).await;
    let slow = Client::builder().base_url(server.uri()).access_tokens(|_| async {
        tokio::time::sleep(Duration::from_secs(60)).await;
        Ok::<_, std::io::Error>(Secret::from("late"))
    });
    let soon = RequestOptions::new().deadline(Duration::from_millis(50));
    let error = slow.build().unwrap().whoami().with(soon).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Timeout, 0));
}

#[tokio::test]
async fn uploads_are_repeated_where_their_source_can_be_read_again() {
    let server = accepting("token-2").await;
    let sandbox = |tokens: &Tokens| {
        tokens.client(&server.uri()).sandbox(ID.parse::<createos_sdk::SandboxId>().unwrap())
    };
    sandbox(&Tokens::default()).files().write("/work/x", "bytes").await.unwrap();
    let once = Upload::reader(&b"bytes"[..]);
    let error = sandbox(&Tokens::default()).files().write("/work/x", once).await.unwrap_err();
    assert_eq!((error.status(), error.attempts()), (Some(401), 1));
}

#[tokio::test]
async fn raw_connections_are_signed_and_renewed_the_same_way() {
    let server = RawServer::start(|number, mut connection| async move {
        let head = connection.read_head().await?;
        let token = if number == 0 { "x-access-token: token-1" } else { "x-access-token: token-2" };
        assert!(head.contains(token), "{number}: {head}");
        match number {
            0 => connection.write("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await,
            _ => connection.switch("tcp-tunnel", b"hello").await,
        }
    })
    .await;
    let client = Tokens::default().client(&server.url());
    let sandbox = client.sandbox(ID.parse::<createos_sdk::SandboxId>().unwrap());
    let mut tunnel = sandbox.tunnel(80).connect().await.unwrap();
    let mut heard = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut tunnel, &mut heard).await.unwrap();
    assert_eq!((heard.as_str(), server.connections()), ("hello", 2));
}

#[tokio::test]
async fn one_credential_and_no_token_in_sight() {
    let tokens = Tokens::default();
    let two = tokens.builder("http://127.0.0.1:1").api_key(KEY).build().unwrap_err();
    assert_eq!(two.kind(), ErrorKind::Config);
    let client = tokens.client("http://127.0.0.1:1");
    assert!(client.has_credential());
    assert!(!format!("{client:?}").contains("token-"));
    let server = answering(success(view("running"))).await;
    let delegated = tokens.client(&server.uri()).with_api_key("skp_other").unwrap();
    delegated.get_sandbox(ID.parse::<createos_sdk::SandboxId>().unwrap()).await.unwrap();
    let request = &server.received_requests().await.unwrap()[0];
    assert_eq!(request.headers["x-api-key"], "skp_other");
    assert!(!request.headers.contains_key("x-access-token"));
}
