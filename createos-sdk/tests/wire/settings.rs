//! Settings of a sandbox, and pausing, resuming and forking it.

use std::time::{Duration, Instant};

use createos_sdk::wire::SandboxStatus;
use createos_sdk::{ErrorKind, RequestOptions, Result};
use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::golden::{check, only};
use super::{ID, answering, fail, sandbox, success, view};

fn route(rest: &str) -> String {
    format!("/v1/sandboxes/{ID}{rest}")
}

/// Answers an action with `action` and questions with `then`.
async fn acting(rest: &str, action: ResponseTemplate, then: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    let post = Mock::given(method("POST")).and(path(route(rest)));
    post.respond_with(action).mount(&server).await;
    Mock::given(method("GET")).respond_with(then).mount(&server).await;
    server
}

fn accepted(view: Value) -> ResponseTemplate {
    ResponseTemplate::new(202).set_body_json(json!({"status": "success", "data": view}))
}

#[tokio::test]
async fn patches_send_only_what_changes() -> Result<()> {
    let seconds = Duration::from_secs;
    for (body, which) in [
        (json!({"ingress_enabled": true}), 0),
        (json!({"ingress_enabled": false}), 1),
        (json!({"auto_pause_after_seconds": 600}), 2),
        (json!({"disable_auto_pause": true}), 3),
    ] {
        let server = answering(success(view("running"))).await;
        let sandbox = sandbox(&server.uri());
        let seen = match which {
            0 => sandbox.set_ingress(true).await?,
            1 => sandbox.set_ingress(false).await?,
            2 => sandbox.set_auto_pause(Some(seconds(600))).await?,
            _ => sandbox.set_auto_pause(None).await?,
        };
        assert_eq!(seen.status, SandboxStatus::Running);
        assert_eq!(sandbox.view(), Some(seen));
        check(&only(&server).await, "PATCH", &route(""), "", Some(body));
    }
    Ok(())
}

#[tokio::test]
async fn small_settings() -> Result<()> {
    let server = answering(success(json!({"id": ID, "disk_mib": 20480}))).await;
    assert_eq!(sandbox(&server.uri()).resize(20_480).await?.disk_mib, 20_480);
    let request = only(&server).await;
    check(&request, "POST", &route("/resize"), "", Some(json!({"disk_mib": 20480})));

    let server = answering(success(json!({"count": 2}))).await;
    assert_eq!(sandbox(&server.uri()).add_ssh_pubkeys(["ssh-ed25519 AAAA me"]).await?, 2);
    let body = json!({"keys": ["ssh-ed25519 AAAA me"]});
    check(&only(&server).await, "POST", &route("/ssh-pubkeys"), "", Some(body));

    let rules = json!({"id": ID, "egress": ["a.example.org:443"]});
    let server = answering(success(rules.clone())).await;
    assert_eq!(sandbox(&server.uri()).egress().await?, ["a.example.org:443"]);
    check(&only(&server).await, "GET", &route("/egress"), "", None);
    let server = answering(success(rules)).await;
    sandbox(&server.uri()).set_egress(["a.example.org:443"]).await?;
    let body = json!({"egress": ["a.example.org:443"]});
    check(&only(&server).await, "PUT", &route("/egress"), "", Some(body));
    let server = answering(success(json!({"id": ID, "egress": null}))).await;
    assert!(sandbox(&server.uri()).set_egress([""; 0]).await?.is_empty());
    check(&only(&server).await, "PUT", &route("/egress"), "", Some(json!({"egress": []})));

    let quota = json!({"id": ID, "quota_bytes": 10, "used_bytes": 4, "ingress_bytes": 1,
                       "remaining_bytes": 6, "capped": false});
    let server = answering(success(quota)).await;
    let after = sandbox(&server.uri()).recharge_bandwidth(1 << 30).await?;
    assert_eq!(after.quota_bytes, 10);
    let body = json!({"add_bytes": 1_073_741_824});
    check(&only(&server).await, "POST", &route("/bandwidth/recharge"), "", Some(body));

    let server = answering(success(json!({"cpu_pct": 3, "new": {"a": 1}}))).await;
    let metrics = sandbox(&server.uri()).metrics().await?;
    assert_eq!(metrics.cpu_pct(), Some(3.0));
    assert!(metrics.to_json().contains("\"new\""));
    check(&only(&server).await, "GET", &route("/metrics"), "", None);
    Ok(())
}

#[tokio::test]
async fn what_may_have_acted_is_not_done_twice() {
    let server = answering(ResponseTemplate::new(503)).await;
    let sandbox = sandbox(&server.uri());
    for error in [
        sandbox.recharge_bandwidth(1).await.unwrap_err(),
        sandbox.resize(1).await.unwrap_err(),
        sandbox.fork().await.map(drop).unwrap_err(),
        sandbox.pause().await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.attempts()), (ErrorKind::Unavailable, 1), "{error}");
        assert!(error.may_have_acted() && !error.is_retryable(), "{error}");
    }
    assert_eq!(server.received_requests().await.unwrap().len(), 4);
}

#[tokio::test]
async fn pause_waits_until_it_is_paused() -> Result<()> {
    let server = MockServer::start().await;
    Mock::given(method("POST"))
        .and(path(route("/pause")))
        .respond_with(accepted(view("pausing")))
        .mount(&server)
        .await;
    let get = || Mock::given(method("GET")).and(path(route("")));
    get().respond_with(success(view("pausing"))).up_to_n_times(1).mount(&server).await;
    get().respond_with(success(view("paused"))).mount(&server).await;
    let sandbox = sandbox(&server.uri());
    assert_eq!(sandbox.pause().await?.status, SandboxStatus::Paused);
    let requests = server.received_requests().await.unwrap();
    check(&requests[0], "POST", &route("/pause"), "", None);
    assert_eq!(requests.len(), 3);
    assert_eq!(sandbox.view().unwrap().status, SandboxStatus::Paused);
    Ok(())
}

#[tokio::test]
async fn no_wait_returns_at_once_and_so_does_what_is_there_already() -> Result<()> {
    let server = answering(accepted(view("resuming"))).await;
    let seen = sandbox(&server.uri()).resume().no_wait().await?;
    assert_eq!(seen.status, SandboxStatus::Resuming);
    check(&only(&server).await, "POST", &route("/resume"), "", None);

    let server = answering(success(view("running"))).await;
    assert_eq!(sandbox(&server.uri()).resume().await?.status, SandboxStatus::Running);
    only(&server).await;
    Ok(())
}

#[tokio::test]
async fn the_first_question_comes_when_the_server_says() -> Result<()> {
    let later = accepted(view("pausing")).insert_header("x-poll-after", "0.5");
    let server = acting("/pause", later, success(view("paused"))).await;
    let started = Instant::now();
    sandbox(&server.uri()).pause().await?;
    assert!(started.elapsed() >= Duration::from_millis(500), "{:?}", started.elapsed());

    for nonsense in ["-1", "soon", "inf", "1e99"] {
        let answer = accepted(view("pausing")).insert_header("x-poll-after", nonsense);
        let server = acting("/pause", answer, success(view("paused"))).await;
        let started = Instant::now();
        sandbox(&server.uri()).pause().await?;
        assert!(started.elapsed() < Duration::from_secs(5), "{nonsense}");
    }
    let never = accepted(view("pausing")).insert_header("x-poll-after", "86400");
    let server = acting("/pause", never, success(view("paused"))).await;
    let quick = Duration::from_millis(600);
    assert_eq!(sandbox(&server.uri()).pause().budget(quick).await?.status, SandboxStatus::Paused);
    Ok(())
}

#[tokio::test]
async fn a_refusal_of_what_is_on_its_way_is_none() -> Result<()> {
    let refused = || fail(409, "sandbox is not running");
    let server = acting("/pause", refused(), success(view("paused"))).await;
    assert_eq!(sandbox(&server.uri()).pause().await?.status, SandboxStatus::Paused);

    let server = acting("/resume", refused(), success(view("resuming"))).await;
    let seen = sandbox(&server.uri()).resume().no_wait().await?;
    assert_eq!(seen.status, SandboxStatus::Resuming);

    let server = acting("/pause", refused(), success(view("resuming"))).await;
    let error = sandbox(&server.uri()).pause().await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Conflict, "sandbox is not running"));
    assert_eq!(error.operation(), Some("sandbox.pause"));
    assert!(!error.may_have_acted());
    Ok(())
}

#[tokio::test]
async fn a_pause_that_does_not_arrive_keeps_its_budget() {
    let server = acting("/pause", accepted(view("pausing")), success(view("pausing"))).await;
    let started = Instant::now();
    let sandbox = sandbox(&server.uri());
    let error = sandbox.pause().budget(Duration::from_millis(400)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.last_status(), Some(&SandboxStatus::Pausing));
    assert!(error.may_have_acted() && error.is_retryable());
    let limited = RequestOptions::new().deadline(Duration::from_millis(400));
    let error = sandbox.pause().with(limited).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(started.elapsed() < Duration::from_secs(5));

    let server = acting("/resume", accepted(view("resuming")), success(view("error"))).await;
    let error = super::sandbox(&server.uri()).resume().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedState);
    assert_eq!(error.last_status(), Some(&SandboxStatus::Error));
}

#[tokio::test]
async fn a_pause_whose_snapshot_fails_is_not_waited_for() {
    let server = acting("/pause", accepted(view("pausing")), success(view("running"))).await;
    let started = Instant::now();
    let error = sandbox(&server.uri()).pause().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedState);
    assert_eq!(error.last_status(), Some(&SandboxStatus::Running));
    assert!(started.elapsed() < Duration::from_secs(5));

    // An answer that does not say `pausing` says nothing about a snapshot.
    let server = MockServer::start().await;
    let bare = accepted(view("running"));
    Mock::given(method("POST")).respond_with(bare).mount(&server).await;
    let get = || Mock::given(method("GET"));
    get().respond_with(success(view("running"))).up_to_n_times(1).mount(&server).await;
    get().respond_with(success(view("paused"))).mount(&server).await;
    assert_eq!(sandbox(&server.uri()).pause().await.unwrap().status, SandboxStatus::Paused);
}

const CHILD: &str = "sb-01k4child";

fn child(status: &str) -> Value {
    let mut child = view(status);
    child["id"] = CHILD.into();
    child["forked_from"] = ID.into();
    child
}

#[tokio::test]
async fn fork_gives_the_child_when_it_runs() -> Result<()> {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(accepted(child("forking"))).mount(&server).await;
    let get = || Mock::given(method("GET")).and(path(format!("/v1/sandboxes/{CHILD}")));
    get().respond_with(success(child("resuming"))).up_to_n_times(1).mount(&server).await;
    get().respond_with(success(child("running"))).mount(&server).await;
    let made = sandbox(&server.uri()).fork().await?;
    assert_eq!(made.id().as_str(), CHILD);
    let seen = made.view().unwrap();
    assert_eq!(seen.status, SandboxStatus::Running);
    assert_eq!(seen.forked_from.as_ref().unwrap().as_str(), ID);
    let requests = server.received_requests().await.unwrap();
    check(&requests[0], "POST", &route("/fork"), "", Some(json!({})));
    Ok(())
}

#[tokio::test]
async fn fork_sends_what_is_overridden() -> Result<()> {
    let server = answering(accepted(child("paused"))).await;
    sandbox(&server.uri())
        .fork()
        .start_paused()
        .env("SEED", "2")
        .envs([("A", "b")])
        .egress([""; 0])
        .ssh_pubkey("ssh-ed25519 AAAA me")
        .ingress(false)
        .await?;
    let body = json!({"start_paused": true, "envs": {"SEED": "2", "A": "b"}, "egress": ["*"],
                      "ssh_pubkeys": ["ssh-ed25519 AAAA me"], "ingress_enabled": false});
    check(&only(&server).await, "POST", &route("/fork"), "", Some(body));

    let server = answering(accepted(child("forking"))).await;
    let made = sandbox(&server.uri()).fork().no_wait().await?;
    assert_eq!(made.view().unwrap().status, SandboxStatus::Forking);
    only(&server).await;
    Ok(())
}

#[tokio::test]
async fn a_child_that_does_not_arrive_is_named_and_not_made_again() {
    let server = acting("/fork", accepted(child("forking")), success(child("error"))).await;
    let error = sandbox(&server.uri()).fork().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedState);
    assert_eq!(error.resource(), Some(CHILD));
    assert!(error.may_have_acted());

    let server = acting("/fork", accepted(child("forking")), success(child("forking"))).await;
    let waiting = sandbox(&server.uri()).fork().budget(Duration::from_millis(300));
    let error = waiting.await.unwrap_err();
    assert_eq!((error.kind(), error.resource()), (ErrorKind::Timeout, Some(CHILD)));
    assert!(error.may_have_acted() && !error.is_retryable());

    let server = answering(fail(409, "sandbox is not paused")).await;
    let error = sandbox(&server.uri()).fork().await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Conflict, Some("sandbox.fork")));
    assert!(!error.may_have_acted());
}

#[tokio::test]
async fn a_guarded_fork_destroys_the_child() {
    let server = MockServer::start().await;
    Mock::given(method("POST")).respond_with(accepted(child("running"))).mount(&server).await;
    Mock::given(method("DELETE"))
        .and(path(format!("/v1/sandboxes/{CHILD}")))
        .respond_with(success(json!({"id": CHILD, "status": "destroyed"})))
        .expect(1)
        .mount(&server)
        .await;
    let guard = sandbox(&server.uri()).fork().guarded().await.unwrap();
    assert_eq!(guard.id().as_str(), CHILD);
    guard.close().await.unwrap();
}

#[tokio::test]
async fn bad_settings_are_refused_before_any_traffic() {
    let server = answering(ResponseTemplate::new(500)).await;
    let sandbox = sandbox(&server.uri());
    let seconds = Duration::from_secs;
    let errors = [
        ("auto_pause_after", sandbox.set_auto_pause(Some(seconds(59))).await.unwrap_err()),
        ("auto_pause_after", sandbox.set_auto_pause(Some(seconds(86_401))).await.unwrap_err()),
        ("disk_mib", sandbox.resize(0).await.unwrap_err()),
        ("ssh_pubkeys", sandbox.add_ssh_pubkeys([""; 0]).await.unwrap_err()),
        ("ssh_pubkeys", sandbox.add_ssh_pubkeys(["a\nb"]).await.unwrap_err()),
        ("egress", sandbox.set_egress(["a b"]).await.unwrap_err()),
        ("bytes", sandbox.recharge_bandwidth(0).await.unwrap_err()),
        ("bytes", sandbox.recharge_bandwidth(u64::MAX).await.unwrap_err()),
        ("env", sandbox.fork().env("1A", "x").await.unwrap_err()),
        ("egress", sandbox.fork().egress(["*", "a"]).await.unwrap_err()),
        ("ssh_pubkeys", sandbox.fork().ssh_pubkey(" ").await.unwrap_err()),
    ];
    for (field, error) in errors {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.message().starts_with(field), "{field}: {error}");
        assert!(error.operation().is_some() && !error.may_have_acted());
    }
    assert!(server.received_requests().await.unwrap().is_empty());
}
