//! Answers that are errors, and what a program learns from them.

use createos_sdk::{Client, ErrorKind, SandboxId};
use serde_json::json;
use wiremock::ResponseTemplate;

use super::server::RawServer;
use super::{ID, answering, client, sandbox, success};

#[tokio::test]
async fn an_error_tells_everything_that_is_known() {
    let body = json!({"status": "fail", "data": {"code": "WRONG_STATE", "message": "not running"}});
    let answer =
        ResponseTemplate::new(409).insert_header("x-request-id", "req-1").set_body_json(body);
    let server = answering(answer).await;
    let error = sandbox(&server.uri()).command("true").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(error.operation(), Some("sandbox.exec"));
    assert_eq!(error.method(), Some("POST"));
    assert_eq!(error.path(), Some(&*format!("/v1/sandboxes/{ID}/exec")));
    assert_eq!(error.resource(), Some(ID));
    assert_eq!(error.status(), Some(409));
    assert_eq!(error.request_id(), Some("req-1"));
    assert_eq!(error.message(), "not running");
    assert_eq!(error.code(), Some("WRONG_STATE"));
    assert_eq!(error.attempts(), 1);
    assert!(!error.is_retryable() && !error.may_have_acted());
    let line = format!("sandbox.exec: conflict: not running ({ID}, HTTP 409, request id req-1)");
    assert_eq!(error.to_string(), line);
}

#[tokio::test]
async fn the_older_name_of_the_request_id_counts_too() {
    let answer = ResponseTemplate::new(404).insert_header("x-fc-request-id", "old-1");
    let error = sandbox(&answering(answer).await.uri()).refresh().await.unwrap_err();
    assert_eq!(error.request_id(), Some("old-1"));
}

#[tokio::test]
async fn the_query_is_in_no_error() {
    let error = sandbox(&answering(ResponseTemplate::new(404)).await.uri())
        .files()
        .read("/secret-path")
        .await
        .unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret-path"));
}

#[tokio::test]
async fn without_a_credential_nothing_is_sent() {
    let server = answering(success(json!({"up": true}))).await;
    // A builder without a key reads the environment, which tests do not touch: a variable of
    // the machine must not decide this test.
    if std::env::var_os("CREATEOS_API_KEY").is_some()
        || std::env::var_os("CREATEOS_SANDBOX_API_KEY").is_some()
    {
        panic!("unset CREATEOS_API_KEY and CREATEOS_SANDBOX_API_KEY to run the tests");
    }
    let anonymous = Client::builder().base_url(server.uri()).build().unwrap();
    let error = anonymous.whoami().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotAuthenticated);
    assert!(error.message().contains("CREATEOS_API_KEY"), "{error}");
    assert_eq!(error.attempts(), 0);
    assert!(anonymous.health().await.unwrap().up);
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn bad_arguments_are_refused_before_any_traffic() {
    let server = answering(ResponseTemplate::new(500)).await;
    let client = client(&server.uri());
    let sandbox = client.sandbox(ID.parse::<SandboxId>().unwrap());
    let files = sandbox.files();
    let create = || client.create_sandbox("s");
    let disk = || "disk_1".parse::<createos_sdk::DiskId>().unwrap();
    let seconds = std::time::Duration::from_secs;
    let errors = [
        ("shape", client.create_sandbox(" ").await.unwrap_err()),
        ("name", create().name("bad name").await.unwrap_err()),
        ("env", create().env("1A", "x").await.unwrap_err()),
        ("env", create().env("A", "x".repeat(4097)).await.unwrap_err()),
        ("auto_pause_after", create().auto_pause_after(seconds(59)).await.unwrap_err()),
        ("mount_path", create().disk(disk(), "mnt").await.unwrap_err()),
        ("sub_path", create().disk_part(disk(), "/mnt", "../x").await.unwrap_err()),
        ("disk", create().disk_named("", "/mnt").await.unwrap_err()),
        ("network", create().network_named(" ").await.unwrap_err()),
        ("rootfs", create().rootfs("").await.unwrap_err()),
        ("region", create().region("a\nb").await.unwrap_err()),
        ("egress", create().egress(["a b"]).await.unwrap_err()),
        ("egress", create().egress(["*", "a"]).await.unwrap_err()),
        ("ssh_pubkeys", create().ssh_pubkey("a\nb").await.unwrap_err()),
        ("program", sandbox.command("").await.unwrap_err()),
        ("args", sandbox.command("a").arg("b\0").await.unwrap_err()),
        ("env", sandbox.command("a").env("A=B", "x").stream().await.unwrap_err()),
        ("stdin", sandbox.command("a").stdin(b"\xff").await.unwrap_err()),
        ("path", files.read("relative").await.unwrap_err()),
        ("path", files.read_string("/a/../b").await.unwrap_err()),
        ("path", files.write("/a\0", "x").await.unwrap_err()),
        ("path", files.download("").await.unwrap_err()),
        ("path", files.download_to("a", "/nonexistent/x").await.unwrap_err()),
        ("page size", client.sandboxes().page_size(0).await.unwrap_err()),
        ("page size", client.sandboxes().page(501, 0).await.unwrap_err()),
        ("header", {
            let bad = createos_sdk::RequestOptions::new().header("a b", "c");
            client.whoami().with(bad).await.unwrap_err()
        }),
    ];
    for (field, error) in errors {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.message().starts_with(field), "{field}: {error}");
        assert!(error.operation().is_some(), "{error}");
        assert!(!error.may_have_acted() && !error.is_retryable());
    }
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = answering(success(json!({"up": true}))).await;
    let answer = ResponseTemplate::new(307).insert_header("location", &*elsewhere.uri());
    let error = sandbox(&answering(answer).await.uri()).refresh().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert_eq!(error.status(), Some(307));
    assert!(elsewhere.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn readiness_is_an_answer_with_503() {
    let body = json!({"status": "fail", "data": {"ready": false, "reason": "scheduler stalled",
                                                 "scheduler_last_ok_ms_ago": 45210}});
    let server = answering(ResponseTemplate::new(503).set_body_json(body)).await;
    let readiness = client(&server.uri()).readiness().await.unwrap();
    assert!(!readiness.ready);
    assert_eq!(readiness.reason.as_deref(), Some("scheduler stalled"));
    assert_eq!(server.received_requests().await.unwrap().len(), 1, "never retried");

    for (status, ready) in [(200, true), (503, false)] {
        let server = answering(ResponseTemplate::new(status).set_body_string("<html>")).await;
        assert_eq!(client(&server.uri()).readiness().await.unwrap().ready, ready);
    }
    let server = answering(ResponseTemplate::new(500)).await;
    assert_eq!(client(&server.uri()).readiness().await.unwrap_err().kind(), ErrorKind::Server);
}

#[tokio::test]
async fn destroying_what_is_gone_works() {
    let body = json!({"status": "fail", "data": "sandbox not found"});
    let server = answering(ResponseTemplate::new(404).set_body_json(body)).await;
    let status = sandbox(&server.uri()).destroy().await.unwrap();
    assert_eq!(status, createos_sdk::wire::SandboxStatus::Destroyed);
}

#[tokio::test]
async fn a_success_that_cannot_be_read_may_have_acted() {
    let server = answering(ResponseTemplate::new(200).set_body_string("<html>")).await;
    let error = client(&server.uri()).create_sandbox("s").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.may_have_acted() && !error.is_retryable());
    let error = sandbox(&server.uri()).refresh().await.unwrap_err();
    assert!(!error.may_have_acted());
}

#[tokio::test]
async fn an_endless_error_body_is_cut_and_keeps_its_status() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_request().await?;
        let head = "HTTP/1.1 400 Bad\r\nContent-Type: text/plain\r\n\r\nno such thing ";
        connection.write(head).await?;
        loop {
            connection.write([b'x'; 65_536]).await?;
        }
    })
    .await;
    let error = sandbox(&server.url()).refresh().await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::InvalidArgument, Some(400)));
    assert!(error.message().starts_with("no such thing xxx") && error.message().len() <= 200);
}
