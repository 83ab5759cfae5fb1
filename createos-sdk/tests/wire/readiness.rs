//! Waiting until something can be used: ports, addresses on networks, mounts.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use createos_sdk::wire::{MountStatus, SandboxStatus};
use createos_sdk::{Error, ErrorKind, RequestOptions, Result};
use serde_json::{Value, json};
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::server::{Connection, RawServer};
use super::{ID, answering, fail, sandbox, success};

const SHORT: Duration = Duration::from_millis(400);

/// What a question about a port comes to.
#[derive(Debug, Clone, Copy)]
enum Port {
    /// Refused with this status.
    Refused(u16),
    /// The connection is opened and closed at once.
    Closes,
    /// The connection is opened, says this, and is closed.
    Says(&'static str),
    /// The connection stays.
    Stays,
}

async fn port(mut connection: Connection, port: Port) -> std::io::Result<()> {
    connection.read_head().await?;
    match port {
        Port::Refused(status) => {
            connection.json(status, r#"{"status":"fail","data":"nothing listens"}"#).await
        }
        Port::Closes => connection.switch("tcp-tunnel", b"").await,
        Port::Says(words) => connection.switch("tcp-tunnel", words.as_bytes()).await,
        Port::Stays => {
            connection.switch("tcp-tunnel", b"").await?;
            connection.read_to_end().await.map(drop)
        }
    }
}

/// Answers one question after the other; the last answer stays.
async fn ports(answers: &'static [Port]) -> RawServer {
    RawServer::start(move |number, connection| {
        port(connection, answers[number.min(answers.len() - 1)])
    })
    .await
}

async fn open(server: &RawServer, budget: Duration) -> Result<()> {
    sandbox(&server.url()).tunnel(8000).wait_until_open().budget(budget).await
}

#[tokio::test]
async fn a_port_is_open_when_a_connection_stays_or_speaks() {
    use Port::{Closes, Refused, Says, Stays};
    for answers in [
        &[Stays][..],
        &[Refused(502), Refused(502), Stays],
        &[Closes, Closes, Stays],
        &[Refused(503), Closes, Says("220 ready\r\n")],
        &[Refused(504), Refused(429), Refused(500), Stays],
    ] {
        let server = ports(answers).await;
        open(&server, Duration::from_secs(30)).await.unwrap();
        assert_eq!(server.connections(), answers.len(), "{answers:?}");
    }
}

#[tokio::test]
async fn a_port_that_stays_closed_is_told_with_what_was_seen() {
    for (answer, seen) in [
        (&[Port::Refused(502)][..], "nothing listens"),
        (&[Port::Closes], "closed at once"),
        (&[Port::Closes, Port::Refused(502)], "closed at once, then nothing listens"),
    ] {
        let server = ports(answer).await;
        let started = Instant::now();
        let error = open(&server, SHORT).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.message().starts_with("not open after 400ms"), "{error}");
        assert!(error.message().ends_with(seen), "{error}");
        assert_eq!(error.operation(), Some("sandbox.tunnel.wait"));
        assert_eq!(error.resource(), Some(ID));
        assert!(error.is_retryable() && !error.may_have_acted());
        assert!(error.attempts() >= 2 && server.connections() >= 2, "{error}");
        assert!(started.elapsed() >= SHORT && started.elapsed() < Duration::from_secs(5));
    }
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_no_more_than_the_budget() {
    let server =
        RawServer::start(
            |_, mut connection| async move { connection.read_to_end().await.map(drop) },
        )
        .await;
    let started = Instant::now();
    assert_eq!(open(&server, SHORT).await.unwrap_err().kind(), ErrorKind::Timeout);
    // A deadline shortens the budget.
    let limited = RequestOptions::new().deadline(Duration::from_millis(100));
    let waiting = sandbox(&server.url()).tunnel(8000).wait_until_open().with(limited);
    assert_eq!(waiting.await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}

#[tokio::test]
async fn a_port_that_cannot_open_is_not_waited_for() {
    for (answer, kind) in [
        (&[Port::Refused(409)][..], ErrorKind::Conflict),
        (&[Port::Refused(404)], ErrorKind::NotFound),
        (&[Port::Refused(501)], ErrorKind::Unsupported),
        (&[Port::Refused(401)], ErrorKind::NotAuthenticated),
    ] {
        let server = ports(answer).await;
        let error = open(&server, Duration::from_secs(30)).await.unwrap_err();
        assert_eq!((error.kind(), server.connections()), (kind, 1));
    }
    let zero = sandbox("http://127.0.0.1:1").tunnel(0).wait_until_open().await.unwrap_err();
    assert_eq!(zero.kind(), ErrorKind::InvalidArgument);
}

#[tokio::test]
async fn giving_the_wait_up_closes_its_connection() {
    let (closed, on_closed) = tokio::sync::mpsc::unbounded_channel();
    let mut on_closed = on_closed;
    let server = RawServer::start(move |_, mut connection| {
        let closed = closed.clone();
        async move {
            connection.read_head().await?;
            closed.send(()).unwrap();
            connection.read_to_end().await?;
            closed.send(()).unwrap();
            Ok(())
        }
    })
    .await;
    let sandbox = sandbox(&server.url());
    let waiting = tokio::spawn(sandbox.tunnel(1).wait_until_open().into_future());
    on_closed.recv().await.unwrap();
    waiting.abort();
    tokio::time::timeout(Duration::from_secs(5), on_closed.recv()).await.unwrap().unwrap();
}

async fn becoming(answers: Vec<ResponseTemplate>) -> MockServer {
    let server = MockServer::start().await;
    let last = answers.len() - 1;
    for (number, answer) in answers.into_iter().enumerate() {
        let mock = Mock::given(any()).respond_with(answer);
        let mock = if number < last { mock.up_to_n_times(1) } else { mock };
        mock.mount(&server).await;
    }
    server
}

fn network(members: Value) -> ResponseTemplate {
    success(json!({"id": "net-1", "name": "mesh", "created_at": "2026-08-02T10:00:00Z",
                   "members": members}))
}

fn member(status: &str, ip: Option<&str>) -> Value {
    json!([{"sandbox_id": "sb-other", "status": "running", "ip": "10.64.0.9"},
           {"sandbox_id": ID, "status": status, "ip": ip}])
}

async fn joined(server: &MockServer) -> Result<IpAddr, Error> {
    sandbox(&server.uri()).wait_until_joined("mesh").budget(SHORT).await
}

#[tokio::test]
async fn an_address_is_waited_for() {
    let server = becoming(vec![
        network(json!([])),
        network(member("running", None)),
        fail(503, "busy"),
        network(member("running", Some(""))),
        network(member("running", Some("10.64.0.2"))),
    ])
    .await;
    let waiting = sandbox(&server.uri()).wait_until_joined("mesh").budget(Duration::from_secs(30));
    assert_eq!(waiting.await.unwrap(), IpAddr::from([10, 64, 0, 2]));
    let requests = server.received_requests().await.unwrap();
    assert_eq!(requests.len(), 5);
    assert!(requests.iter().all(|request| request.url.path() == "/v1/networks/mesh"));

    let server = answering(network(member("paused", Some("fd00::2")))).await;
    assert_eq!(joined(&server).await.unwrap().to_string(), "fd00::2");
}

#[tokio::test]
async fn an_address_that_does_not_come_is_told_with_what_was_seen() {
    for (members, seen) in [
        (json!([]), "it is no member"),
        (member("running", None), "it is running, without an address"),
        (member("resuming", None), "it is resuming, without an address"),
    ] {
        let error = joined(&answering(network(members)).await).await.unwrap_err();
        assert_eq!((error.kind(), error.resource()), (ErrorKind::Timeout, Some(ID)));
        assert!(error.message().ends_with(seen), "{error}");
        assert!(error.is_retryable() && !error.may_have_acted());
    }
    for status in ["pausing", "paused", "error", "failed", "destroying", "destroyed"] {
        let server = answering(network(member(status, None))).await;
        let error = joined(&server).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedState, "{status}");
        assert_eq!(error.last_status().map(SandboxStatus::as_str), Some(status));
        assert_eq!(server.received_requests().await.unwrap().len(), 1);
    }
    for nonsense in ["10.64.0.300", "10.64.0.2/24", "\u{1b}[31m"] {
        let server = answering(network(member("running", Some(nonsense)))).await;
        let error = joined(&server).await.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Protocol, Some("network.wait")));
    }
    let error = joined(&answering(fail(404, "no such network")).await).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let refused = sandbox("http://127.0.0.1:1").wait_until_joined("a/b").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}

fn disks(status: &str) -> ResponseTemplate {
    let row = |at: &str, status: &str| {
        json!({"disk_id": "disk_1", "name": "data", "kind": "s3", "mount_path": at,
               "config": {"bucket": "b", "endpoint": "e"}, "mount_status": status,
               "mount_error": "access denied"})
    };
    let rows = match status {
        "" => json!([row("/other", "mounted")]),
        status => json!([row("/other", "mounted"), row("/mnt/data", status)]),
    };
    let total = rows.as_array().unwrap().len();
    success(json!({"data": rows, "pagination": {"total": total}}))
}

#[tokio::test]
async fn a_disk_given_at_create_is_waited_for() {
    let server = becoming(vec![disks(""), disks("pending"), fail(503, "busy"), disks("mounted")]);
    let server = server.await;
    let row = sandbox(&server.uri()).wait_until_mounted("/mnt/data").await.unwrap();
    assert_eq!((&*row.mount_path, &row.mount_status), ("/mnt/data", &MountStatus::Mounted));
    assert_eq!(server.received_requests().await.unwrap().len(), 4);
}

#[tokio::test]
async fn a_disk_that_is_not_mounted_says_why() {
    let mounted = async |answer| {
        let server = answering(answer).await;
        let waiting = sandbox(&server.uri()).wait_until_mounted("/mnt/data").budget(SHORT);
        waiting.await.unwrap_err()
    };
    for (status, seen) in [("pending", "pending"), ("", "not listed"), ("unmounting", "unmounting")]
    {
        let error = mounted(disks(status)).await;
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Timeout, Some("disk.wait")));
        assert!(error.message().ends_with(seen), "{error}");
        assert!(error.is_retryable() && !error.may_have_acted());
    }
    for status in ["error", "failed"] {
        let error = mounted(disks(status)).await;
        assert_eq!(error.kind(), ErrorKind::UnexpectedState, "{status}");
        assert!(error.message().contains("access denied") && !error.may_have_acted(), "{error}");
    }
    assert_eq!(mounted(fail(404, "sandbox not found")).await.kind(), ErrorKind::NotFound);
    let refused = sandbox("http://127.0.0.1:1").wait_until_mounted("mnt").await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument);
}
