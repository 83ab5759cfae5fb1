//! Managed processes: requests, streams that break and go on, input, waiting.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use createos_sdk::wire::{OutputStream, ProcessState, Signal};
use createos_sdk::{
    ErrorKind, Process, ProcessEvent, ProcessExit, ProcessId, ProcessStream, RequestOptions,
    Result, RetryPolicy,
};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use wiremock::{MockServer, Request, ResponseTemplate};

use super::server::{Connection, RawServer, STREAM_HEAD};
use super::{ID, answering, builder, sandbox, success};

const SOON: Duration = Duration::from_secs(10);

fn process(url: &str) -> Process {
    sandbox(url).process("prc-1".parse::<ProcessId>().unwrap())
}

fn view(state: &str, more: Value) -> Value {
    let mut view = json!({"process_id": "prc-1", "kind": "process", "pid": 412, "state": state,
        "leader_exited": false, "tree_exited": false, "created_at": "2026-08-02T10:05:00Z",
        "output": {"oldest_seq": 0, "newest_seq": 0, "bytes": 0}});
    view.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    view
}

async fn last(server: &MockServer) -> Request {
    server.received_requests().await.unwrap().pop().unwrap()
}

#[track_caller]
fn check(request: &Request, method: &str, path: &str, query: &str, body: Option<Value>) {
    assert_eq!(request.method.as_str(), method);
    assert_eq!(request.url.path(), format!("/v1/sandboxes/{ID}/processes{path}"));
    assert_eq!(request.url.query().unwrap_or_default(), query);
    match body {
        Some(body) => {
            assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), body);
            assert_eq!(request.headers["content-type"], "application/json");
        }
        None => {
            assert!(request.body.is_empty());
            assert!(!request.headers.contains_key("content-type"));
        }
    }
}

#[tokio::test]
async fn starting_sends_only_what_was_set() -> Result<()> {
    let server = answering(success(view("running", json!({"cmd": "bash"})))).await;
    let sandbox = sandbox(&server.uri());
    let process = sandbox.spawn("true").await?;
    check(&last(&server).await, "POST", "", "", Some(json!({"cmd": "true"})));
    assert_eq!(process.id().as_str(), "prc-1");
    assert_eq!(process.view().unwrap().state, ProcessState::Running);

    sandbox
        .spawn("bash")
        .arg("-lc")
        .args(["sleep 30"])
        .cwd("/work")
        .env("A", "1")
        .pty(24, 80)
        .await?;
    let body = json!({"cmd": "bash", "args": ["-lc", "sleep 30"], "cwd": "/work",
                      "env": {"A": "1"}, "pty": {"rows": 24, "cols": 80}});
    check(&last(&server).await, "POST", "", "", Some(body));

    sandbox.spawn_shell(50, 120).await?;
    let body = json!({"pty": {"rows": 50, "cols": 120}});
    check(&last(&server).await, "POST", "", "", Some(body));
    Ok(())
}

#[tokio::test]
async fn starting_is_never_done_twice() {
    let failure = json!({"status": "error", "message": "full"});
    let server = answering(ResponseTemplate::new(503).set_body_json(failure)).await;
    let error = sandbox(&server.uri()).spawn("make").await.unwrap_err();
    assert_eq!((error.kind(), error.may_have_acted()), (ErrorKind::Unavailable, true));
    assert_eq!(error.operation(), Some("process.create"));
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn lists_and_lookups() -> Result<()> {
    let rows = [view("running", json!({})), view("exited", json!({"process_id": "prc-2"}))];
    let server = answering(success(json!({"processes": rows}))).await;
    let found = sandbox(&server.uri()).processes().await?;
    check(&last(&server).await, "GET", "", "", None);
    assert_eq!(found.len(), 2);
    assert_eq!(found[1].id().as_str(), "prc-2");
    assert_eq!(found[1].view().unwrap().state, ProcessState::Exited);

    let server = answering(success(json!({}))).await;
    let error = sandbox(&server.uri()).processes().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Protocol, "no list is not an empty list");

    let server = answering(success(view("exited", json!({"exit_code": 3})))).await;
    let process = process(&server.uri());
    assert!(process.view().is_none());
    assert_eq!(process.refresh().await?.exit_code, Some(3));
    check(&last(&server).await, "GET", "/prc-1", "", None);
    assert_eq!(process.clone().view().unwrap().exit_code, Some(3));
    Ok(())
}

#[tokio::test]
async fn control() -> Result<()> {
    let server = answering(success(json!({"ok": true, "input_seq": 3}))).await;
    let process = process(&server.uri());
    assert_eq!(process.input(b"ls\n").await?, 3);
    let body = json!({"data_base64": "bHMK"});
    check(&last(&server).await, "POST", "/prc-1/input", "", Some(body));
    process.close_stdin().await?;
    check(&last(&server).await, "POST", "/prc-1/stdin/close", "", None);
    process.resize(32, 100).await?;
    let body = json!({"rows": 32, "cols": 100});
    check(&last(&server).await, "POST", "/prc-1/resize", "", Some(body));
    process.signal(Signal::Interrupt).await?;
    let body = json!({"signal": "SIGINT"});
    check(&last(&server).await, "POST", "/prc-1/signal", "", Some(body));
    Ok(())
}

#[tokio::test]
async fn ending_asks_for_the_grace_in_milliseconds() -> Result<()> {
    let over = json!({"leader_exited": true, "tree_exited": true, "signal": "SIGKILL"});
    let server = answering(success(view("exited", over))).await;
    let process = process(&server.uri());
    let view = process.terminate().await?;
    check(&last(&server).await, "DELETE", "/prc-1", "grace_ms=1000", None);
    assert!(view.tree_exited);
    process.terminate().grace(Duration::ZERO).await?;
    check(&last(&server).await, "DELETE", "/prc-1", "grace_ms=0", None);
    Ok(())
}

#[tokio::test]
async fn bad_arguments_are_refused_before_any_traffic() {
    let sandbox = sandbox("http://127.0.0.1:1");
    let process = process("http://127.0.0.1:1");
    for (refused, field) in [
        (sandbox.spawn("").await.err(), "program"),
        (sandbox.spawn("a\0").await.err(), "program"),
        (sandbox.spawn("a").arg("\0").await.err(), "args"),
        (sandbox.spawn("a").cwd("work").await.err(), "cwd"),
        (sandbox.spawn("a").cwd("/a\0").await.err(), "cwd"),
        (sandbox.spawn("a").env("A=B", "1").await.err(), "env"),
        (sandbox.spawn("a").pty(0, 80).await.err(), "rows"),
        (sandbox.spawn_shell(24, 0).await.err(), "cols"),
        (process.resize(0, 1).await.err(), "rows"),
        (process.signal(Signal::from("SIGSEGV")).await.err(), "signal"),
    ] {
        let refused = refused.unwrap();
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{field}");
        assert!(refused.message().starts_with(field), "{refused}");
        assert!(refused.operation().unwrap().starts_with("process."), "{refused}");
    }
}

fn data(seq: u64, text: &str) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(text);
    format!(
        "{{\"type\":\"data\",\"seq\":{seq},\"stream\":\"stdout\",\"data_base64\":\"{text}\"}}\n"
    )
}

fn out(seq: u64, text: &'static str) -> ProcessEvent {
    ProcessEvent::Output { seq, stream: OutputStream::Stdout, bytes: text.into() }
}

const EXIT: &str = "{\"type\":\"exit\",\"seq\":9,\"exit_code\":0}\n";
const BEAT: &str = "{\"type\":\"heartbeat\"}\n";

fn exited() -> ProcessEvent {
    ProcessEvent::Exit(ProcessExit::Code(0))
}

async fn drain(mut stream: ProcessStream) -> (Vec<ProcessEvent>, Option<createos_sdk::Error>) {
    let mut events = Vec::new();
    let draining = async {
        while let Some(next) = stream.next().await {
            match next {
                Ok(event) => events.push(event),
                Err(error) => {
                    assert!(stream.next().await.is_none(), "nothing follows an error");
                    return Some(error);
                }
            }
        }
        None
    };
    let error = timeout(SOON, draining).await.unwrap();
    (events, error)
}

/// What a server does with one request for a stream.
#[derive(Clone)]
enum Turn {
    /// Sends this and ends properly.
    Whole(String),
    /// Sends this and cuts the connection.
    Cut(String),
    /// Sends this and falls silent.
    Silent(String),
    /// Refuses.
    Refuse(u16, &'static str),
    /// Answers with this data.
    Answer(Value),
}

/// A server that takes these turns, one per request, and notes the requests' targets.
async fn turns(turns: Vec<Turn>) -> (RawServer, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let noted = asked.clone();
    let script = Arc::new(Mutex::new(turns.into_iter()));
    let server = RawServer::start(move |_, mut connection| {
        let (noted, script) = (noted.clone(), script.clone());
        async move {
            loop {
                let head = connection.read_head().await?;
                let target = head.split(' ').nth(1).unwrap().rsplit('/').next().unwrap();
                noted.lock().unwrap().push(target.to_owned());
                let turn = script.lock().unwrap().next();
                take(&mut connection, turn.expect("more requests than expected")).await?;
            }
        }
    })
    .await;
    (server, asked)
}

async fn take(connection: &mut Connection, turn: Turn) -> io::Result<()> {
    match turn {
        Turn::Refuse(status, body) => return connection.json(status, body).await,
        Turn::Answer(data) => {
            let body = json!({"status": "success", "data": data}).to_string();
            return connection.json(200, &body).await;
        }
        _ => connection.write(STREAM_HEAD).await?,
    }
    let (Turn::Whole(body) | Turn::Cut(body) | Turn::Silent(body)) = &turn else { return Ok(()) };
    if !body.is_empty() {
        connection.chunk(body).await?;
    }
    match turn {
        Turn::Whole(_) => connection.chunk("").await,
        Turn::Silent(_) => connection.read_to_end().await.map(drop),
        _ => Err(io::ErrorKind::ConnectionAborted.into()),
    }
}

async fn follow(server: &RawServer) -> Result<ProcessStream> {
    process(&server.url()).attach().await
}

#[tokio::test]
async fn the_whole_output_and_then_the_exit() {
    let body = format!(
        "{BEAT}{}\n{{\"type\":\"resized\"}}\n{}data: {{\"type\":\"exit\",\"seq\":8,\"signal\":\"SIGTERM\"}}\n",
        data(1, "step 1\n"),
        data(4, "step 2\n"),
    );
    let (server, asked) = turns(vec![Turn::Whole(body)]).await;
    let (events, error) = drain(follow(&server).await.unwrap()).await;
    assert!(error.is_none());
    let killed = ProcessEvent::Exit(ProcessExit::Signal("SIGTERM".into()));
    assert_eq!(events, [out(1, "step 1\n"), out(4, "step 2\n"), killed]);
    assert_eq!(*asked.lock().unwrap(), ["connect?after=0"]);
}

#[tokio::test]
async fn a_broken_connection_goes_on_where_it_was() {
    let half = format!("{}{}", data(1, "a"), &data(2, "b")[..20]);
    let (server, asked) = turns(vec![
        Turn::Cut(half),
        Turn::Refuse(503, "{}"),
        // What was given out already is not given out again.
        Turn::Cut(format!("{}{}{BEAT}", data(1, "a"), data(2, "b"))),
        Turn::Whole(data(3, "c")),
        Turn::Whole(format!("{}{EXIT}", data(5, "d"))),
    ])
    .await;
    let (events, error) = drain(follow(&server).await.unwrap()).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(events, [out(1, "a"), out(2, "b"), out(3, "c"), out(5, "d"), exited()]);
    let expected = ["after=0", "after=1", "after=1", "after=2", "after=3"];
    assert_eq!(*asked.lock().unwrap(), expected.map(|after| format!("connect?{after}")));
}

#[tokio::test]
async fn a_stream_cut_at_every_byte_loses_and_repeats_nothing() {
    let body = format!("{}{BEAT}{}{EXIT}", data(1, "a"), data(2, "b"));
    let at = async |cut: usize| {
        let rest = match body[..cut].matches('\n').count() {
            0 => body.clone(),
            1 | 2 => body[data(1, "a").len()..].to_owned(),
            _ => EXIT.to_owned(),
        };
        let (server, _) = turns(vec![Turn::Cut(body[..cut].to_owned()), Turn::Whole(rest)]).await;
        let (events, error) = drain(follow(&server).await.unwrap()).await;
        assert!(error.is_none(), "{cut}: {error:?}");
        assert_eq!(events, [out(1, "a"), out(2, "b"), exited()], "{cut}");
    };
    futures::stream::iter(0..body.len()).for_each_concurrent(32, at).await;
}

#[tokio::test]
async fn dropped_output_is_a_gap_in_both_forms() {
    let expired =
        "{\"type\":\"error\",\"error\":\"output_offset_expired\",\"oldest_available_seq\":41}\n";
    let refused = r#"{"status":"fail","data":"output offset expired"}"#;
    for turn in [Turn::Whole(expired.to_owned()), Turn::Refuse(410, refused)] {
        // First at the beginning, then after a break.
        for broken in [false, true] {
            let rest = format!("{}{EXIT}", data(41, "x"));
            let mut script = vec![turn.clone(), Turn::Whole(rest)];
            if broken {
                script.insert(0, Turn::Cut(data(7, "a")));
            }
            let (server, asked) = turns(script).await;
            let from = if broken { 6 } else { 7 };
            let stream = process(&server.url()).attach().after(from).await.unwrap();
            let (events, error) = drain(stream).await;
            assert!(error.is_none(), "{error:?}");
            let events = if broken { &events[1..] } else { &events[..] };
            let gap = ProcessEvent::Gap { after: 7, next: 41 };
            assert_eq!(events[..2], [gap, out(41, "x")]);
            assert_eq!(asked.lock().unwrap().last().unwrap(), "connect?after=0");
        }
    }
}

#[tokio::test]
async fn silence_connects_again_and_heartbeats_are_not_silence() {
    let (server, asked) = turns(vec![
        Turn::Silent(data(1, "a")),
        Turn::Silent(BEAT.to_owned()),
        Turn::Whole(EXIT.to_owned()),
    ])
    .await;
    let quick = RequestOptions::new().stall_timeout(Duration::from_millis(100));
    let stream = process(&server.url()).attach().with(quick).await.unwrap();
    let (events, error) = drain(stream).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(events, [out(1, "a"), exited()]);
    assert_eq!(asked.lock().unwrap().len(), 3);

    let server = RawServer::start(|_, mut connection| async move {
        connection.read_head().await?;
        connection.write(STREAM_HEAD).await?;
        for _ in 0..8 {
            connection.chunk(BEAT).await?;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        connection.chunk(EXIT).await
    })
    .await;
    let quick = RequestOptions::new().stall_timeout(Duration::from_millis(300));
    let stream = process(&server.url()).attach().with(quick).await.unwrap();
    assert_eq!(drain(stream).await.0, [exited()]);
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_end_without_an_exit_is_asked_for() {
    let ended = json!({"leader_exited": true, "tree_exited": true, "exit_code": 7});
    let (server, asked) = turns(vec![
        Turn::Whole(data(1, "a")),
        Turn::Whole(String::new()),
        Turn::Whole(String::new()),
        Turn::Answer(view("running", json!({}))),
        Turn::Answer(view("exited", ended)),
        Turn::Whole(data(2, "b")),
    ])
    .await;
    let (events, error) = drain(follow(&server).await.unwrap()).await;
    assert!(error.is_none(), "{error:?}");
    let end = ProcessEvent::Exit(ProcessExit::Code(7));
    assert_eq!(events, [out(1, "a"), out(2, "b"), end]);
    let asked = asked.lock().unwrap();
    assert_eq!(asked[3], "wait?scope=tree&timeout_ms=45000");
    assert_eq!(asked[5], "connect?after=1");
}

#[tokio::test]
async fn reconnecting_has_an_end() {
    let cut = Turn::Cut(String::new());
    let (server, asked) = turns(vec![Turn::Cut(data(1, "a")), cut.clone(), cut]).await;
    let stream = process(&server.url()).attach().reconnects(2).await.unwrap();
    let (events, error) = drain(stream).await;
    assert_eq!(events, [out(1, "a")]);
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::StreamLost);
    assert!(error.is_retryable() && !error.may_have_acted());
    assert_eq!(asked.lock().unwrap().len(), 3);

    let (server, asked) = turns(vec![Turn::Cut(data(1, "a"))]).await;
    let stream = process(&server.url()).attach().reconnects(0).await.unwrap();
    assert_eq!(drain(stream).await.1.unwrap().kind(), ErrorKind::StreamLost);
    assert_eq!(asked.lock().unwrap().len(), 1);

    let (server, _) = turns(vec![Turn::Silent(data(1, "a"))]).await;
    let brief = RequestOptions::new().deadline(Duration::from_millis(200));
    let stream = process(&server.url()).attach().with(brief).await.unwrap();
    assert_eq!(drain(stream).await.1.unwrap().kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn refusals_and_garbage_end_the_stream() {
    let none = r#"{"status":"fail","data":"process not found"}"#;
    let (server, _) = turns(vec![Turn::Refuse(404, none)]).await;
    assert_eq!(follow(&server).await.unwrap_err().kind(), ErrorKind::NotFound);

    let (server, _) = turns(vec![Turn::Cut(data(1, "a")), Turn::Refuse(404, none)]).await;
    let (events, error) = drain(follow(&server).await.unwrap()).await;
    assert_eq!((events.len(), error.unwrap().kind()), (1, ErrorKind::NotFound));

    for (line, kind) in [
        ("not json\n", ErrorKind::Protocol),
        ("{\"seq\":1}\n", ErrorKind::Protocol),
        ("{\"type\":\"data\",\"seq\":1}\n", ErrorKind::Protocol),
        (
            "{\"type\":\"data\",\"seq\":-1,\"stream\":\"stdout\",\"data_base64\":\"\"}\n",
            ErrorKind::Protocol,
        ),
        (
            "{\"type\":\"data\",\"seq\":1,\"stream\":\"stdout\",\"data_base64\":\"%\"}\n",
            ErrorKind::Protocol,
        ),
        ("{\"type\":\"error\",\"error\":\"agent is gone\"}\n", ErrorKind::Server),
    ] {
        let (server, _) = turns(vec![Turn::Whole(line.to_owned())]).await;
        let (events, error) = drain(follow(&server).await.unwrap()).await;
        let error = error.unwrap();
        assert_eq!((events.len(), error.kind()), (0, kind), "{line}");
        assert_eq!(error.operation(), Some("process.attach"), "{line}");
    }
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection_and_ends_nothing() {
    let (closed, on_closed) = tokio::sync::oneshot::channel();
    let closed = Mutex::new(Some(closed));
    let server = RawServer::start(move |_, mut connection| {
        let closed = closed.lock().unwrap().take();
        async move {
            connection.read_head().await?;
            connection.write(STREAM_HEAD).await?;
            connection.chunk(data(1, "a")).await?;
            let rest = connection.read_to_end().await?;
            let _ = closed.unwrap().send(rest);
            Ok(())
        }
    })
    .await;
    let mut stream = follow(&server).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap(), out(1, "a"));
    assert_eq!(stream.last_seq(), 1);
    drop(stream);
    let rest = timeout(SOON, on_closed).await.unwrap().unwrap();
    assert!(rest.is_empty(), "nothing but the end of the connection");
    assert_eq!(server.connections(), 1);
}

fn bodies(requests: &[Request]) -> Vec<u8> {
    use base64::Engine as _;
    let engine = base64::engine::general_purpose::STANDARD;
    let inputs = requests.iter().filter(|request| request.url.path().ends_with("/input"));
    inputs
        .flat_map(|request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            engine.decode(body["data_base64"].as_str().unwrap()).unwrap()
        })
        .collect()
}

#[tokio::test]
async fn standard_input_arrives_whole_in_order_and_ends() {
    let server = answering(success(json!({"input_seq": 1}))).await;
    let mut stdin = process(&server.uri()).stdin();
    let mut sent = Vec::new();
    for number in 0..200_u32 {
        let piece = number.to_string().repeat(500).into_bytes();
        stdin.write_all(&piece).await.unwrap();
        sent.extend(piece);
    }
    stdin.flush().await.unwrap();
    let flushed = server.received_requests().await.unwrap();
    assert!(bodies(&flushed) == sent);
    assert!(flushed.len() < 200, "small writes share a request: {}", flushed.len());
    stdin.shutdown().await.unwrap();
    stdin.shutdown().await.unwrap();
    let closed = last(&server).await;
    assert!(closed.url.path().ends_with("/stdin/close"));
    assert_eq!(server.received_requests().await.unwrap().len(), flushed.len() + 1);
    let late = stdin.write_all(b"x").await.unwrap_err();
    assert_eq!(late.kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn input_that_may_have_arrived_is_not_sent_again() {
    let server = answering(ResponseTemplate::new(503)).await;
    let mut stdin = process(&server.uri()).stdin();
    stdin.write_all(b"rm -r x\n").await.unwrap();
    let error = stdin.flush().await.unwrap_err();
    let inner = error.get_ref().unwrap().downcast_ref::<createos_sdk::Error>().unwrap();
    assert_eq!((inner.kind(), inner.may_have_acted()), (ErrorKind::Unavailable, true));
    assert_eq!(stdin.write(b"y").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(server.received_requests().await.unwrap().len(), 1);

    let closed = json!({"status": "fail", "data": "stdin is closed"});
    let server = answering(ResponseTemplate::new(409).set_body_json(closed)).await;
    let mut stdin = process(&server.uri()).stdin();
    stdin.write_all(b"x").await.unwrap();
    assert_eq!(stdin.shutdown().await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn dropping_the_input_does_not_close_it() {
    let server = answering(success(json!({"input_seq": 1}))).await;
    let mut stdin = process(&server.uri()).stdin();
    stdin.write_all(b"x").await.unwrap();
    stdin.flush().await.unwrap();
    drop(stdin);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(server.received_requests().await.unwrap().len(), 1);
}

#[tokio::test]
async fn waiting_asks_until_it_is_over() {
    let leader = json!({"leader_exited": true, "exit_code": 3});
    let (server, asked) = turns(vec![
        Turn::Answer(view("running", json!({}))),
        Turn::Refuse(504, "{}"),
        Turn::Refuse(504, "{}"),
        Turn::Refuse(504, "{}"),
        Turn::Answer(view("running", leader)),
    ])
    .await;
    let exit = process(&server.url()).wait().await.unwrap();
    assert_eq!((exit.code(), exit.success()), (Some(3), false));
    assert!(asked.lock().unwrap().iter().all(|it| it == "wait?scope=leader&timeout_ms=45000"));

    let leader = json!({"leader_exited": true, "signal": "SIGKILL"});
    let tree = json!({"leader_exited": true, "tree_exited": true, "signal": "SIGKILL"});
    let (server, asked) =
        turns(vec![Turn::Answer(view("running", leader)), Turn::Answer(view("exited", tree))])
            .await;
    let exit = process(&server.url()).wait().tree().await.unwrap();
    assert_eq!(exit, ProcessExit::Signal("SIGKILL".into()));
    assert_eq!(asked.lock().unwrap()[0], "wait?scope=tree&timeout_ms=45000");

    let (server, _) = turns(vec![Turn::Answer(view("failed", json!({})))]).await;
    assert_eq!(process(&server.url()).wait().await.unwrap(), ProcessExit::Unknown);
}

#[tokio::test]
async fn a_limit_of_waiting_is_kept() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_head().await?;
        connection.read_to_end().await.map(drop)
    })
    .await;
    let started = Instant::now();
    let limit = Duration::from_millis(700);
    let error = process(&server.url()).wait().limit(limit).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Timeout, Some("process.wait")));
    assert!(error.message().contains("prc-1"), "{error}");
    let took = started.elapsed();
    assert!(took >= limit && took < limit + Duration::from_millis(300), "{took:?}");
}

#[tokio::test]
async fn waiting_stays_below_the_request_timeout_and_survives_passing_failures() {
    let once = RetryPolicy::none();
    let over = json!({"leader_exited": true, "exit_code": 0});
    let (server, asked) = turns(vec![
        Turn::Refuse(503, "{}"),
        Turn::Cut(String::new()),
        Turn::Answer(view("exited", over)),
    ])
    .await;
    let client = builder(&server.url()).timeout(Duration::from_secs(4)).retry(once);
    let id: createos_sdk::SandboxId = ID.parse().unwrap();
    let sandbox = client.build().unwrap().sandbox(id);
    let process = sandbox.process("prc-1".parse::<ProcessId>().unwrap());
    assert!(process.wait().await.unwrap().success());
    assert!(asked.lock().unwrap().iter().all(|it| it == "wait?scope=leader&timeout_ms=3000"));

    let none = r#"{"status":"fail","data":"process not found"}"#;
    let (server, _) = turns(vec![Turn::Refuse(404, none)]).await;
    let error = super::processes::process(&server.url()).wait().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
