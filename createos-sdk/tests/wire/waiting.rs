//! Waiting for states.

use std::time::{Duration, Instant};

use createos_sdk::wire::SandboxStatus;
use createos_sdk::{Condition, ErrorKind};
use serde_json::json;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::{answering, sandbox, success, view};

async fn becoming(first: ResponseTemplate, then: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    Mock::given(any()).respond_with(first).up_to_n_times(1).mount(&server).await;
    Mock::given(any()).respond_with(then).mount(&server).await;
    server
}

#[tokio::test]
async fn it_ends_when_the_state_is_there() {
    let server = becoming(success(view("resuming")), success(view("running"))).await;
    let sandbox = sandbox(&server.uri());
    let seen = sandbox.wait_until(SandboxStatus::Running).await.unwrap().unwrap();
    assert_eq!(seen.status, SandboxStatus::Running);
    assert_eq!(sandbox.view().unwrap().status, SandboxStatus::Running);
}

#[tokio::test]
async fn a_passing_failure_does_not_end_it() {
    let server = becoming(success(view("resuming")), success(view("running"))).await;
    Mock::given(any())
        .respond_with(ResponseTemplate::new(503))
        .up_to_n_times(3)
        .with_priority(1)
        .mount(&server)
        .await;
    let waited = sandbox(&server.uri()).wait_until(SandboxStatus::Running).await;
    assert_eq!(waited.unwrap().unwrap().status, SandboxStatus::Running);
}

#[tokio::test]
async fn the_budget_is_kept_and_the_last_state_told() {
    let server = answering(success(view("resuming"))).await;
    let started = Instant::now();
    let error = sandbox(&server.uri())
        .wait_until(SandboxStatus::Running)
        .budget(Duration::from_millis(600))
        .await
        .unwrap_err();
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(600) && waited < Duration::from_secs(5), "{waited:?}");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.last_status(), Some(&SandboxStatus::Resuming));
    assert!(error.attempts() >= 2 && error.message().contains("resuming"), "{error}");
}

#[tokio::test]
async fn states_that_lead_nowhere_end_it() {
    for state in ["error", "failed", "destroying", "destroyed"] {
        let server = answering(success(view(state))).await;
        let waited = sandbox(&server.uri()).wait_until(SandboxStatus::Running).await;
        let error = waited.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedState, "{state}");
        assert_eq!(error.last_status().unwrap().as_str(), state);
    }
}

#[tokio::test]
async fn destroyed_is_a_state_or_nobody_knowing_it() {
    let gone = ResponseTemplate::new(404)
        .set_body_json(json!({"status": "fail", "data": "sandbox not found"}));
    let server = becoming(success(view("destroying")), gone).await;
    let waited = sandbox(&server.uri()).wait_until(SandboxStatus::Destroyed).await;
    assert!(waited.unwrap().is_none());
    let waited = sandbox(&server.uri()).wait_until(SandboxStatus::Running).await;
    assert_eq!(waited.unwrap_err().kind(), ErrorKind::NotFound);
    let server = becoming(success(view("destroying")), success(view("destroyed"))).await;
    let waited = sandbox(&server.uri()).wait_until(SandboxStatus::Destroyed).await;
    assert_eq!(waited.unwrap().unwrap().status, SandboxStatus::Destroyed);
}

#[tokio::test]
async fn a_server_that_does_not_answer_costs_no_more_than_the_budget() {
    let silent = success(view("running")).set_delay(Duration::from_secs(60));
    let server = answering(silent).await;
    let started = Instant::now();
    let waiting = sandbox(&server.uri()).wait_until(SandboxStatus::Running);
    let error = waiting.budget(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.last_status(), None);
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_change_just_before_the_end_is_seen() {
    let started = Instant::now();
    let server = MockServer::start().await;
    let late = move |_: &wiremock::Request| {
        let done = started.elapsed() > Duration::from_millis(1100);
        success(view(if done { "running" } else { "resuming" }))
    };
    Mock::given(any()).respond_with(late).mount(&server).await;
    let waiting = sandbox(&server.uri()).wait_until(SandboxStatus::Running);
    let seen = waiting.budget(Duration::from_millis(1500)).await.unwrap().unwrap();
    assert_eq!(seen.status, SandboxStatus::Running);
}

#[tokio::test]
async fn any_condition_can_be_waited_for() {
    let mut open = view("running");
    open["ingress_url_template"] = json!("https://x-<port>.example.org");
    let server = becoming(success(view("running")), success(open)).await;
    let reachable = Condition::new("reachable", |view| {
        view.is_some_and(|view| view.ingress_url_template.is_some())
    });
    let both = Condition::from(SandboxStatus::Running).and(reachable.clone());
    let seen = sandbox(&server.uri()).wait_until(both).await.unwrap().unwrap();
    assert!(seen.ingress_url_template.is_some());

    // A final state ends every wait that it does not meet.
    let server = answering(success(view("destroyed"))).await;
    let error = sandbox(&server.uri()).wait_until(reachable).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedState);
    assert!(error.message().contains("reachable"), "{error}");

    let server = answering(ResponseTemplate::new(404)).await;
    let gone = Condition::from(SandboxStatus::Running).not();
    assert!(sandbox(&server.uri()).wait_until(gone).await.unwrap().is_none());
}
