//! What is sent again, and what never is.

use std::time::{Duration, Instant};

use createos_sdk::{ErrorKind, RequestOptions, Result, RetryPolicy, Upload};
use serde_json::json;
use tokio::net::TcpListener;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::server::RawServer;
use super::{ID, answering, builder, client, sandbox, success, view};

/// Answers `first` so many times, then `then`.
async fn first_then(first: ResponseTemplate, times: u64, then: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(first).up_to_n_times(times).mount(&server).await;
    Mock::given(any()).respond_with(then).mount(&server).await;
    server
}

async fn count(server: &MockServer) -> usize {
    server.received_requests().await.unwrap().len()
}

#[tokio::test]
async fn reads_are_repeated_until_they_work() -> Result<()> {
    for status in [408, 429, 500, 502, 503, 504] {
        let failing = ResponseTemplate::new(status);
        let server = first_then(failing, 2, success(view("running"))).await;
        sandbox(&server.uri()).refresh().await?;
        assert_eq!(count(&server).await, 3, "{status}");
    }
    Ok(())
}

#[tokio::test]
async fn repeats_end_and_are_counted() {
    let server = answering(ResponseTemplate::new(503)).await;
    let error = sandbox(&server.uri()).refresh().await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Unavailable, 3));
    assert!(error.is_retryable());
    assert_eq!(count(&server).await, 3);
    let once = RequestOptions::new().retry(RetryPolicy::none());
    let error = sandbox(&server.uri()).refresh().with(once).await.unwrap_err();
    assert_eq!(error.attempts(), 1);
}

#[tokio::test]
async fn refusals_are_not_repeated() {
    for status in [400, 401, 402, 403, 404, 405, 409, 413, 422, 501] {
        let server = answering(ResponseTemplate::new(status)).await;
        let error = sandbox(&server.uri()).refresh().await.unwrap_err();
        assert_eq!(error.attempts(), 1, "{status}");
        assert!(!error.is_retryable(), "{status}");
    }
}

#[tokio::test]
async fn what_acts_is_not_repeated_on_a_server_error() {
    for status in [408, 500, 502, 503, 504] {
        let server = answering(ResponseTemplate::new(status)).await;
        let error = sandbox(&server.uri()).command("true").await.unwrap_err();
        assert!(error.may_have_acted() && !error.is_retryable(), "{status}");
        let error = client(&server.uri()).create_sandbox("s").await.unwrap_err();
        assert!(error.may_have_acted(), "{status}");
        let error = sandbox(&server.uri()).command("true").stream().await.unwrap_err();
        assert!(error.may_have_acted(), "{status}");
        assert_eq!(count(&server).await, 3, "{status}");
    }
}

#[tokio::test]
async fn what_acts_is_repeated_when_the_server_says_it_did_nothing() -> Result<()> {
    let answer = json!({"result": {"stdout": "", "stderr": "", "exit_code": 0}, "exec_ms": 1.0});
    let server = first_then(ResponseTemplate::new(429), 2, success(answer)).await;
    sandbox(&server.uri()).command("true").await?;
    assert_eq!(count(&server).await, 3);
    Ok(())
}

/// Takes requests and hangs up without an answer.
async fn hanging_up() -> RawServer {
    RawServer::start(|_, mut connection| async move { connection.read_request().await.map(drop) })
        .await
}

#[tokio::test]
async fn a_broken_connection_repeats_reads_only() {
    let server = hanging_up().await;
    let error = sandbox(&server.url()).refresh().await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Connection, 3));
    assert!(error.is_retryable() && !error.may_have_acted());
    assert_eq!(server.connections(), 3);

    let server = hanging_up().await;
    let error = sandbox(&server.url()).command("true").await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Connection, 1));
    assert!(error.may_have_acted() && !error.is_retryable());
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_answer_that_breaks_off_repeats_reads() -> Result<()> {
    let server = RawServer::start(|number, mut connection| async move {
        connection.read_request().await?;
        let body = format!(r#"{{"status":"success","data":{}}}"#, view("running"));
        if number == 0 {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            return connection.write(head + &body[..20]).await;
        }
        connection.json(200, &body).await
    })
    .await;
    sandbox(&server.url()).refresh().await?;
    assert_eq!(server.connections(), 2);
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_not_there_was_not_reached() {
    // Bound and closed again, so that nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let sandbox = sandbox(&format!("http://{address}"));
    let error = sandbox.command("true").await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Connection, 3));
    assert!(error.is_retryable() && !error.may_have_acted());
    assert!(error.message().contains("cannot connect"), "{error}");
}

#[tokio::test]
async fn uploads_of_bytes_and_files_are_repeated_and_streams_are_not() -> Result<()> {
    let ok = || success(json!({}));
    let server = first_then(ResponseTemplate::new(503), 1, ok()).await;
    sandbox(&server.uri()).files().write("/a", "again").await?;
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests.iter().map(|request| &*request.body).collect::<Vec<_>>(), [b"again"; 2]);

    let local = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(local.path(), "from a file").unwrap();
    let server = first_then(ResponseTemplate::new(503), 1, ok()).await;
    sandbox(&server.uri()).files().write("/a", local.path()).await?;
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests.len(), 2);
    assert_eq!(requests[1].body, b"from a file");

    let server = first_then(ResponseTemplate::new(503), 1, ok()).await;
    let once = Upload::reader(&b"gone"[..]);
    let error = sandbox(&server.uri()).files().write("/a", once).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Unavailable, 1));
    Ok(())
}

#[tokio::test]
async fn retry_after_is_honoured_up_to_the_cap() -> Result<()> {
    let patient = ResponseTemplate::new(429).insert_header("retry-after", "3600");
    let server = first_then(patient, 1, success(view("running"))).await;
    let policy = RetryPolicy::default().max_delay(Duration::from_millis(300));
    let client = builder(&server.uri()).retry(policy).build()?;
    let started = Instant::now();
    client.get_sandbox(ID.parse::<createos_sdk::SandboxId>()?).await?;
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(300) && waited < Duration::from_secs(20));

    let server = answering(ResponseTemplate::new(429).insert_header("retry-after", "3600")).await;
    let once = RequestOptions::new().retry(RetryPolicy::none());
    let error = sandbox(&server.uri()).refresh().with(once).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3600)));
    Ok(())
}

#[tokio::test]
async fn limits_of_an_attempt_and_of_the_call() {
    let slow = || ResponseTemplate::new(200).set_delay(Duration::from_secs(30));
    let server = answering(slow()).await;
    let short = RequestOptions::new().timeout(Duration::from_millis(50));
    let error = sandbox(&server.uri()).refresh().with(short.clone()).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Timeout, 3));
    let error = sandbox(&server.uri()).command("true").with(short).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Timeout, 1));
    assert!(error.may_have_acted() && !error.is_retryable());

    let deadline = RequestOptions::new().deadline(Duration::from_millis(100));
    let started = Instant::now();
    let error = sandbox(&server.uri()).refresh().with(deadline).await.unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Timeout, 1));
    assert!(error.message().contains("deadline"), "{error}");
    assert!(error.elapsed() >= Duration::from_millis(100));
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_buffered_command_outlives_the_timeout_of_the_client() -> Result<()> {
    let answer = json!({"result": {"stdout": "", "stderr": "", "exit_code": 0}, "exec_ms": 1.0});
    let slow = success(answer).set_delay(Duration::from_millis(400));
    let server = answering(slow).await;
    let short = Duration::from_millis(50);
    let client = builder(&server.uri()).timeout(short).stall_timeout(short).build()?;
    let sandbox = client.sandbox(ID.parse::<createos_sdk::SandboxId>()?);
    assert!(sandbox.command("sleep").await?.status.success());
    Ok(())
}
