//! What observers are told, and what not.

use std::sync::{Arc, Mutex};

use createos_sdk::{ErrorKind, EventKind};
use futures::StreamExt;
use wiremock::matchers::any;
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::server::{RawServer, STREAM_HEAD};
use super::{ID, builder, success, view};

type Told = Arc<Mutex<Vec<String>>>;

fn observed(url: &str) -> (createos_sdk::Sandbox, Told) {
    let told = Told::default();
    let sink = told.clone();
    let builder = builder(url).observe(move |event| {
        let what = match &event.kind {
            EventKind::Request => "request".to_owned(),
            EventKind::Response { status, request_id, .. } => format!("{status} {request_id:?}"),
            EventKind::Failure { error, .. } => format!("failure {error:?}"),
            EventKind::Retry { error, .. } => format!("retry {error:?}"),
            EventKind::StreamEnd { bytes, error } => format!("end {bytes} {error:?}"),
            other => format!("{other:?}"),
        };
        let mut told = sink.lock().unwrap();
        told.push(format!("{} {} {what}", event.operation, event.attempt));
        assert_eq!(event.resource, Some(ID));
        let all = format!("{event:?}");
        for secret in ["hunter2", super::KEY, "path="] {
            assert!(!all.contains(secret), "{all}");
        }
    });
    let id: createos_sdk::SandboxId = ID.parse().unwrap();
    (builder.build().unwrap().sandbox(id), told)
}

fn lines(told: &Told) -> Vec<String> {
    std::mem::take(&mut *told.lock().unwrap())
}

#[tokio::test]
async fn attempts_answers_and_repeats_are_told_in_order() {
    let server = MockServer::start().await;
    let once = ResponseTemplate::new(503).insert_header("x-request-id", "r-1");
    Mock::given(any()).respond_with(once).up_to_n_times(1).mount(&server).await;
    let answer = success(view("running")).insert_header("x-request-id", "r-2");
    Mock::given(any()).respond_with(answer).mount(&server).await;
    let (sandbox, told) = observed(&server.uri());
    sandbox.refresh().await.unwrap();
    assert_eq!(
        lines(&told),
        [
            "sandbox.get 1 request",
            "sandbox.get 1 503 Some(\"r-1\")",
            "sandbox.get 1 retry Unavailable",
            "sandbox.get 2 request",
            "sandbox.get 2 200 Some(\"r-2\")",
        ]
    );
}

#[tokio::test]
async fn failures_without_an_answer_are_told_and_calls_that_send_nothing_are_not() {
    let (sandbox, told) = observed("http://127.0.0.1:1");
    assert!(sandbox.command("x").env("T", "hunter2").await.is_err());
    let told_lines = lines(&told);
    assert_eq!(told_lines[..2], ["sandbox.exec 1 request", "sandbox.exec 1 failure Connection"]);
    assert!(sandbox.files().read("relative").await.is_err());
    assert!(lines(&told).is_empty());
}

#[tokio::test]
async fn the_end_of_a_stream_is_told_with_its_size_and_reason() {
    for (body, error, count) in [
        (&b"{\"exit_code\":0}\n"[..], None, 16),
        (&b"{\"stdout\":\"hunter2\"}\n"[..], Some(ErrorKind::StreamLost), 21),
    ] {
        let server = RawServer::start(move |_, mut connection| async move {
            connection.read_request().await?;
            connection.write(STREAM_HEAD).await?;
            connection.chunk(body).await?;
            if error.is_none() { connection.chunk("").await } else { Ok(()) }
        })
        .await;
        let (sandbox, told) = observed(&server.url());
        let mut stream = sandbox.command("x").stdin("hunter2").stream().await.unwrap();
        while stream.next().await.is_some() {}
        drop(stream);
        let told = lines(&told);
        assert_eq!(told.last().unwrap(), &format!("sandbox.exec 1 end {count} {error:?}"));
    }
}
