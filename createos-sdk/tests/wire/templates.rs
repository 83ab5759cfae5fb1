//! Templates and their logs.

use std::time::Duration;

use createos_sdk::template::{BuildEvent, LogStream};
use createos_sdk::wire::TemplateStatus;
use createos_sdk::{ErrorKind, Result, TemplateId};
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use wiremock::matchers::{any, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::golden::{check, header, only};
use super::server::{RawServer, STREAM_HEAD};
use super::{answering, client, fail, success};

fn template(status: &str) -> Value {
    json!({"id": "tpl_1", "name": "tools", "base": "", "status": status, "ext4_size_bytes": 0,
           "created_at": "2026-08-02T10:00:00Z"})
}

fn id() -> TemplateId {
    "tpl_1".parse().unwrap()
}

const DOCKERFILE: &str = "FROM nodeops/sandbox:debian\nRUN true\n";

#[tokio::test]
async fn create_list_get_delete() -> Result<()> {
    let server = answering(success(template("pending"))).await;
    let made = client(&server.uri()).create_template("tools", DOCKERFILE).await?;
    assert_eq!(made.view().unwrap().status, TemplateStatus::Pending);
    let body = json!({"name": "tools", "dockerfile": DOCKERFILE});
    check(&only(&server).await, "POST", "/v1/templates", "", Some(body));
    let server = answering(success(template("pending"))).await;
    client(&server.uri()).create_template("tools", DOCKERFILE).base("devbox:1").await?;
    let body = json!({"name": "tools", "dockerfile": DOCKERFILE, "base": "devbox:1"});
    check(&only(&server).await, "POST", "/v1/templates", "", Some(body));

    let rows = json!([template("ready")]);
    for data in [json!({"templates": rows}), json!({"data": rows, "pagination": {"total": 1}})] {
        let server = answering(success(data)).await;
        assert_eq!(client(&server.uri()).templates().await?[0].id(), &id());
        check(&only(&server).await, "GET", "/v1/templates", "limit=500&offset=0", None);
    }

    let server = answering(success(template("ready"))).await;
    let found = client(&server.uri()).get_template("tools").await?;
    check(&only(&server).await, "GET", "/v1/templates/tools", "", None);
    assert_eq!(found.dockerfile().await.unwrap_err().kind(), ErrorKind::Unsupported);

    let mut whole = template("ready");
    whole["dockerfile"] = DOCKERFILE.into();
    let server = answering(success(whole)).await;
    assert_eq!(client(&server.uri()).template(id()).dockerfile().await?, DOCKERFILE);
    check(&only(&server).await, "GET", "/v1/templates/tpl_1", "include=dockerfile", None);

    let server = answering(success(json!({"ok": true}))).await;
    client(&server.uri()).template(id()).delete().await?;
    check(&only(&server).await, "DELETE", "/v1/templates/tpl_1", "", None);
    let server = answering(fail(409, "name is taken")).await;
    let creating = client(&server.uri()).create_template("tools", DOCKERFILE);
    assert_eq!(creating.await.map(drop).unwrap_err().kind(), ErrorKind::Conflict);
    Ok(())
}

#[tokio::test]
async fn bad_templates_are_refused_before_any_traffic() {
    let server = answering(ResponseTemplate::new(500)).await;
    let client = client(&server.uri());
    let long = "#".repeat((64 << 10) + 1);
    for (field, name, dockerfile) in
        [("name", "", DOCKERFILE), ("dockerfile", "a", " \n"), ("dockerfile", "a", &long)]
    {
        let error = client.create_template(name, dockerfile).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidArgument);
        assert!(error.message().starts_with(field), "{error}");
    }
    let error = client.get_template("a/b").await.map(drop).unwrap_err();
    assert!(error.message().starts_with("template id"), "{error}");
    assert!(server.received_requests().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_build_is_waited_for() {
    let server = MockServer::start().await;
    let building = Mock::given(any()).respond_with(success(template("building")));
    building.up_to_n_times(1).mount(&server).await;
    Mock::given(any()).respond_with(success(template("ready"))).mount(&server).await;
    let waiting = client(&server.uri()).template(id());
    assert_eq!(waiting.wait_until_ready().await.unwrap().status, TemplateStatus::Ready);
    assert_eq!(waiting.view().unwrap().status, TemplateStatus::Ready);

    let server = answering(success(template("failed"))).await;
    let error = client(&server.uri()).template(id()).wait_until_ready().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedState);
    assert_eq!(error.resource(), Some("tpl_1"));

    let server = answering(success(template("building"))).await;
    let waiting = client(&server.uri()).template(id()).wait_until_ready();
    let error = waiting.budget(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.message().contains("building"), "{error}");
}

#[tokio::test]
async fn logs_are_text() -> Result<()> {
    let log = || ResponseTemplate::new(200).set_body_raw(*b"Step 1\n\xff\n", "text/plain");
    let server = answering(log()).await;
    let text = client(&server.uri()).template(id()).logs().attempt(2).await?;
    assert_eq!(text, "Step 1\n\u{fffd}\n");
    check(&only(&server).await, "GET", "/v1/templates/tpl_1/logs", "attempt=2", None);
    let server = answering(ResponseTemplate::new(200)).await;
    assert_eq!(client(&server.uri()).template(id()).logs().await?, "");
    let server = answering(fail(404, "template not found")).await;
    let error = client(&server.uri()).template(id()).logs().await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::NotFound, "template not found"));
    Ok(())
}

const LOG: &str = concat!(
    "{\"ts\":\"2026-08-02T10:00:00Z\",\"level\":\"info\",\"line\":\"Step 1\\n\",\"attempt\":1}\n",
    "\n: comment\n{\"note\":\"new\"}\n",
    "data: {\"line\":\"Step 2\",\"extra\":[1]}\n",
    "{\"final\":true,\"status\":\"ready\"}"
);

fn texts(events: &[BuildEvent]) -> Vec<String> {
    let text = |event: &BuildEvent| match event {
        BuildEvent::Line(line) => line.text.clone(),
        BuildEvent::End(status) => format!("= {status}"),
        other => format!("{other:?}"),
    };
    events.iter().map(text).collect()
}

async fn following(server: &MockServer) -> LogStream {
    client(&server.uri()).template(id()).logs().follow().await.unwrap()
}

#[tokio::test]
async fn a_followed_log_ends_with_the_build() -> Result<()> {
    let server = answering(ResponseTemplate::new(200).set_body_string(LOG)).await;
    let stream = client(&server.uri()).template(id()).logs().attempt(1).follow().await?;
    let events: Vec<BuildEvent> = stream.try_collect().await?;
    assert_eq!(texts(&events), ["Step 1", "Step 2", "= ready"]);
    let BuildEvent::Line(first) = &events[0] else { panic!("{events:?}") };
    assert_eq!((first.level.as_deref(), first.attempt), (Some("info"), Some(1)));
    assert_eq!(first.at.unwrap().to_string(), "2026-08-02T10:00:00Z");
    let request = only(&server).await;
    check(&request, "GET", "/v1/templates/tpl_1/logs", "follow=true&attempt=1", None);
    assert_eq!(header(&request, "accept"), Some("application/x-ndjson"));
    Ok(())
}

#[tokio::test]
async fn a_log_cut_at_any_byte_is_lost_and_never_ends_well() {
    for cut in 0..LOG.len() {
        let server = answering(ResponseTemplate::new(200).set_body_string(&LOG[..cut])).await;
        let events: Vec<_> = following(&server).await.collect().await;
        let (last, before) = events.split_last().unwrap();
        assert!(before.iter().all(Result::is_ok), "{cut}");
        assert_eq!(last.as_ref().unwrap_err().kind(), ErrorKind::StreamLost, "{cut}");
    }
}

#[tokio::test]
async fn garbage_in_a_log_is_an_error_that_ends_it() {
    for garbage in ["{\"line\":7}\n", "{\"final\":true}\n", "[1]\n"] {
        let body = format!("{garbage}{LOG}");
        let server = answering(ResponseTemplate::new(200).set_body_string(body)).await;
        let events: Vec<_> = following(&server).await.collect().await;
        assert_eq!(events.len(), 1, "{garbage}");
        assert_eq!(events[0].as_ref().unwrap_err().kind(), ErrorKind::Protocol, "{garbage}");
    }
}

#[tokio::test]
async fn a_line_that_is_no_json_is_a_line_of_the_log() -> Result<()> {
    let body = format!("<html>\r\nstep {{\n{LOG}");
    let server = answering(ResponseTemplate::new(200).set_body_string(body)).await;
    let events: Vec<BuildEvent> = following(&server).await.try_collect().await?;
    assert_eq!(texts(&events), ["<html>", "step {", "Step 1", "Step 2", "= ready"]);
    Ok(())
}

/// A server whose connections say these, one after another, and a template in these states.
async fn breaking(bodies: &[&str], states: &[&str]) -> MockServer {
    let server = MockServer::start().await;
    for body in bodies {
        let answer = ResponseTemplate::new(200).set_body_string(*body);
        let logs = Mock::given(path("/v1/templates/tpl_1/logs")).respond_with(answer);
        logs.up_to_n_times(1).mount(&server).await;
    }
    for state in states {
        let view = json!({"id": "tpl_1", "name": "py", "status": state});
        let answer =
            ResponseTemplate::new(200).set_body_json(json!({"status": "success", "data": view}));
        let get = Mock::given(path("/v1/templates/tpl_1")).respond_with(answer);
        get.up_to_n_times(1).mount(&server).await;
    }
    server
}

const STEPS: [&str; 2] = ["{\"line\":\"1\"}\n", "{\"line\":\"2\"}\n"];

#[tokio::test]
async fn a_watched_build_goes_on_behind_a_broken_connection() -> Result<()> {
    let (one, two) = (STEPS[0].to_owned(), STEPS.concat());
    let whole = format!("{two}{{\"final\":true,\"status\":\"failed\"}}\n");
    let server = breaking(&[&one, "", &two, &whole], &["pending", "building", "building"]).await;
    let watch = client(&server.uri()).template(id()).logs().watch();
    let events: Vec<BuildEvent> = watch.try_collect().await?;
    assert_eq!(texts(&events), ["1", "2", "= failed"]);
    Ok(())
}

#[tokio::test]
async fn a_watched_build_that_ended_unseen_still_gives_its_last_lines() -> Result<()> {
    let server = breaking(&[STEPS[0], &STEPS.concat()], &["ready"]).await;
    let watch = client(&server.uri()).template(id()).logs().watch();
    let events: Vec<BuildEvent> = watch.try_collect().await?;
    assert_eq!(texts(&events), ["1", "2", "= ready"]);
    Ok(())
}

#[tokio::test]
async fn a_watched_template_that_is_removed_is_an_error() {
    let server = breaking(&[STEPS[0]], &[]).await;
    let watch = client(&server.uri()).template(id()).logs().watch();
    let events: Vec<_> = watch.collect().await;
    assert_eq!(events.len(), 2, "{events:?}");
    assert_eq!(events[1].as_ref().unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn a_silent_log_stalls_only_when_asked_to() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_request().await?;
        connection.write(STREAM_HEAD).await?;
        connection.chunk("{\"line\":\"a\"}\n").await?;
        connection.read_to_end().await?;
        Ok(())
    })
    .await;
    let quick = createos_sdk::RequestOptions::new().stall_timeout(Duration::from_millis(100));
    let logs = client(&server.url()).template(id()).logs();
    let mut stream = logs.with(quick).follow().await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    assert_eq!(stream.next().await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    assert!(stream.next().await.is_none());
}
