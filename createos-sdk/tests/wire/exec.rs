//! Streams of commands over raw sockets: cut, silent, decorated, hostile.

use std::time::Duration;

use bytes::Bytes;
use createos_sdk::{ErrorKind, ExecEvent, ExecStream, RequestOptions, Result};
use futures::StreamExt;
use serde_json::json;

use super::server::{RawServer, STREAM_HEAD};
use super::{answering, sandbox, success};

/// Events, with neighbouring pieces of the same kind joined, and the error if there was one.
async fn drain(mut stream: ExecStream) -> (Vec<ExecEvent>, Option<createos_sdk::Error>) {
    let mut events: Vec<ExecEvent> = Vec::new();
    while let Some(next) = stream.next().await {
        match (next, events.last_mut()) {
            (Err(error), _) => {
                assert!(stream.next().await.is_none(), "nothing follows an error");
                return (events, Some(error));
            }
            (Ok(ExecEvent::Stdout(more)), Some(ExecEvent::Stdout(have))) => {
                *have = [&have[..], &more[..]].concat().into();
            }
            (Ok(event), _) => events.push(event),
        }
    }
    (events, None)
}

fn out(text: &'static str) -> ExecEvent {
    ExecEvent::Stdout(Bytes::from_static(text.as_bytes()))
}

fn err(text: &'static str) -> ExecEvent {
    ExecEvent::Stderr(Bytes::from_static(text.as_bytes()))
}

/// Serves these bytes as the chunked body of a stream, then ends it properly.
async fn serving(body: &'static [u8]) -> RawServer {
    RawServer::start(move |_, mut connection| async move {
        connection.read_request().await?;
        connection.write(STREAM_HEAD).await?;
        connection.chunk(body).await?;
        connection.chunk("").await
    })
    .await
}

async fn stream_of(server: &RawServer) -> ExecStream {
    sandbox(&server.url()).command("x").stream().await.unwrap()
}

fn code(event: &ExecEvent) -> Option<i32> {
    match event {
        ExecEvent::Exit(status) => Some(status.code()),
        _ => None,
    }
}

#[tokio::test]
async fn frames_become_events_in_order() {
    let server = serving(
        b"{\"hb\":true}\n{\"stdout\":\"step 1\\n\"}\n\n{\"stderr\":\"warning: x\\n\"}\r\n\
          : comment\nevent: message\ndata: {\"stdout\":\"a\",\"stderr\":\"b\"}\n\
          {\"stdout\":\"\"}\n{\"unknown\":[1]}\n{\"exit_code\":3}\n{\"stdout\":\"late\"}\n",
    )
    .await;
    let (events, error) = drain(stream_of(&server).await).await;
    assert!(error.is_none());
    let expected = [out("step 1\n"), err("warning: x\n"), out("a"), err("b")];
    assert_eq!(events[..4], expected);
    assert_eq!(events.len(), 5);
    assert_eq!(code(&events[4]), Some(3));
}

#[tokio::test]
async fn exact_bytes_are_preferred_to_repaired_text() {
    let server =
        serving(b"{\"stdout\":\"\xef\xbf\xbd\",\"stdout_base64\":\"/w==\"}\n{\"exit_code\":0}\n")
            .await;
    let (events, _) = drain(stream_of(&server).await).await;
    assert_eq!(events[0], ExecEvent::Stdout(Bytes::from_static(b"\xff")));

    let result =
        json!({"stdout": "\u{fffd}", "stdout_base64": "/w==", "stderr": "", "exit_code": 0});
    let server = answering(success(json!({"result": result, "exec_ms": 2.5}))).await;
    let output = sandbox(&server.uri()).command("x").await.unwrap();
    assert_eq!(output.stdout, &b"\xff"[..]);
    assert_eq!(output.exec_time, Duration::from_micros(2500));
}

#[tokio::test]
async fn a_command_that_cannot_start_is_told_apart_from_one_that_fails() -> Result<()> {
    let server = serving(b"{\"error\":\"no such file\"}\n{\"exit_code\":127}\n").await;
    let (events, error) = drain(stream_of(&server).await).await;
    assert!(error.is_none());
    assert_eq!(events[0], ExecEvent::Error("no such file".into()));
    assert_eq!(code(&events[1]), Some(127));
    let error = sandbox(&server.url()).command("x").status().await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::CommandFailed, "no such file"));

    let server = serving(b"{\"exit_code\":127}\n").await;
    assert_eq!(sandbox(&server.url()).command("x").status().await?.code(), 127);

    let result = json!({"stdout": "", "stderr": "", "exit_code": 127, "error": "no such file"});
    let server = answering(success(json!({"result": result, "exec_ms": 0.1}))).await;
    let output = sandbox(&server.uri()).command("x").await?;
    assert_eq!(output.error.as_deref(), Some("no such file"));
    assert_eq!(output.ensure_success().unwrap_err().kind(), ErrorKind::CommandFailed);
    Ok(())
}

const SMALL: &[u8] =
    b"{\"stdout\":\"a\\u00e4\xc3\xa4\"}\n{\"hb\":true}\n{\"stderr\":\"b\"}\n{\"exit_code\":7}";

/// However the connection is cut, nothing that arrived whole is missing, nothing is invented,
/// and only a stream that reached its exit frame ends without an error.
#[tokio::test]
async fn a_stream_cut_at_every_byte_is_lost_and_never_a_success() {
    for proper_end in [true, false] {
        let server = RawServer::start(move |cut, mut connection| async move {
            connection.read_request().await?;
            connection.write(STREAM_HEAD).await?;
            if cut > 0 {
                connection.chunk(&SMALL[..cut]).await?;
            }
            if proper_end { connection.chunk("").await } else { Ok(()) }
        })
        .await;
        for cut in 0..=SMALL.len() {
            // The server cuts by connection, so each command needs its own.
            let (events, error) = drain(stream_of(&server).await).await;
            let texts: Vec<_> = events.iter().filter(|event| code(event).is_none()).collect();
            let whole = SMALL[..cut].split(|byte| *byte == b'\n').count() - 1;
            let ends_here = cut + 1 == SMALL.len() - "{\"exit_code\":7}".len();
            let expected = [out("aää"), err("b")];
            let count = if whole >= 3 || (ends_here && proper_end) { 2 } else { whole.min(1) };
            if cut == SMALL.len() && proper_end {
                assert!(error.is_none());
                assert_eq!(code(events.last().unwrap()), Some(7));
                continue;
            }
            let error = error.unwrap_or_else(|| panic!("cut at {cut} looked like an end"));
            assert_eq!(error.kind(), ErrorKind::StreamLost, "{cut}");
            assert!(error.may_have_acted() && !error.is_retryable(), "{cut}");
            assert_eq!(error.request_id(), Some("req-7"), "{cut}");
            // A last line without its break counts only when the stream ended properly.
            let lenient = texts.len() == count || (proper_end && texts.len() == count + 1);
            assert!(lenient, "{cut}: {texts:?}");
            assert!(texts.iter().zip(&expected).all(|(got, want)| *got == want), "{cut}");
        }
    }
}

#[tokio::test]
async fn chunks_of_one_byte_change_nothing() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_request().await?;
        connection.write(STREAM_HEAD).await?;
        for byte in SMALL.chunks(1) {
            connection.chunk(byte).await?;
            tokio::task::yield_now().await;
        }
        connection.chunk("").await
    })
    .await;
    let (events, error) = drain(stream_of(&server).await).await;
    assert!(error.is_none());
    assert_eq!(events[..2], [out("aää"), err("b")]);
    assert_eq!(code(&events[2]), Some(7));
}

#[tokio::test]
async fn silence_is_a_timeout_and_heartbeats_are_not_silence() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_request().await?;
        connection.write(STREAM_HEAD).await?;
        for _ in 0..6 {
            connection.chunk("{\"hb\":true}\n").await?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        connection.chunk("{\"stdout\":\"alive\"}\n").await?;
        connection.read_to_end().await.map(drop)
    })
    .await;
    let options = RequestOptions::new()
        .stall_timeout(Duration::from_millis(400))
        .timeout(Duration::from_millis(400));
    let stream = sandbox(&server.url()).command("x").with(options).stream().await.unwrap();
    let (events, error) = drain(stream).await;
    assert_eq!(events, [out("alive")]);
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.may_have_acted() && !error.is_retryable());
}

#[tokio::test]
async fn dropping_the_stream_closes_the_connection() {
    let (closed, on_closed) = tokio::sync::oneshot::channel();
    let closed = std::sync::Mutex::new(Some(closed));
    let server = RawServer::start(move |_, mut connection| {
        let closed = closed.lock().unwrap().take();
        async move {
            connection.read_request().await?;
            connection.write(STREAM_HEAD).await?;
            connection.chunk("{\"stdout\":\"a\"}\n").await?;
            let _ = connection.read_to_end().await;
            if let Some(closed) = closed {
                let _ = closed.send(());
            }
            Ok(())
        }
    })
    .await;
    let mut stream = stream_of(&server).await;
    assert_eq!(stream.next().await.unwrap().unwrap(), out("a"));
    drop(stream);
    tokio::time::timeout(Duration::from_secs(5), on_closed).await.unwrap().unwrap();
}

#[tokio::test]
async fn garbage_is_an_error_and_not_skipped() {
    for body in [
        &b"not json\n"[..],
        b"{\"stdout\":1}\n",
        b"{\"stdout\":\"\xff\"}\n",
        b"{\"stdout\":\"a\",\"stdout\":\"b\"}\n",
        b"{\"stdout_base64\":\"%\"}\n",
        b"[[[[\n",
    ] {
        let server = serving(body).await;
        let (events, error) = drain(stream_of(&server).await).await;
        assert!(events.is_empty());
        assert_eq!(error.unwrap().kind(), ErrorKind::Protocol);
    }
}

#[tokio::test]
async fn a_line_without_end_is_an_error_within_bounds() {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_request().await?;
        connection.write(STREAM_HEAD).await?;
        connection.chunk("{\"stdout\":\"").await?;
        loop {
            connection.chunk([b'x'; 65_536]).await?;
        }
    })
    .await;
    let (_, error) = drain(stream_of(&server).await).await;
    let error = error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Protocol);
    assert!(error.message().contains("16 MiB"), "{error}");
}

#[tokio::test]
async fn an_exit_is_the_end_even_when_the_connection_stays_open() -> Result<()> {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_request().await?;
        connection.write(STREAM_HEAD).await?;
        connection.chunk("{\"exit_code\":0}\n").await?;
        connection.read_to_end().await.map(drop)
    })
    .await;
    let status = sandbox(&server.url()).command("x").status();
    let status = tokio::time::timeout(Duration::from_secs(5), status.into_future()).await;
    assert!(status.unwrap()?.success());
    Ok(())
}

#[tokio::test]
async fn the_connection_is_used_again_after_a_stream() -> Result<()> {
    let server = RawServer::start(|_, mut connection| async move {
        loop {
            connection.read_request().await?;
            connection.write(STREAM_HEAD).await?;
            connection.chunk("{\"exit_code\":0}\n").await?;
            tokio::time::sleep(Duration::from_millis(5)).await;
            connection.chunk("").await?;
        }
    })
    .await;
    let sandbox = sandbox(&server.url());
    for _ in 0..5 {
        let mut stream = sandbox.command("x").stream().await?;
        while let Some(event) = stream.next().await {
            event?;
        }
        drop(stream);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.connections(), 1);
    Ok(())
}

#[tokio::test]
async fn limited_output_keeps_both_ends_and_says_what_is_missing() -> Result<()> {
    let server = RawServer::start(|_, mut connection| async move {
        connection.read_request().await?;
        connection.write(STREAM_HEAD).await?;
        connection.chunk("{\"stdout\":\"begin \"}\n{\"stderr\":\"warn\"}\n").await?;
        let frame = format!("{{\"stdout\":\"{}\"}}\n", "x".repeat(50_000));
        for _ in 0..100 {
            connection.chunk(&frame).await?;
        }
        connection.chunk("{\"stdout\":\" end\"}\n{\"exit_code\":3}\n").await?;
        connection.chunk("").await
    })
    .await;
    let out = sandbox(&server.url()).command("x").limit_output(6, 4).await?;
    assert_eq!(out.stdout, "begin  end");
    let gap = out.stdout_gap.unwrap();
    assert_eq!((gap.at, gap.bytes), (6, 5_000_000));
    assert_eq!((&out.stderr[..], out.stderr_gap), (&b"warn"[..], None));
    assert_eq!(out.status.code(), 3);
    assert!(out.exec_time > Duration::ZERO);

    let cut = serving(b"{\"stdout\":\"a\"}\n").await;
    let error = sandbox(&cut.url()).command("x").limit_output(6, 4).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::StreamLost);
    let missing = serving(b"{\"error\":\"no such file\"}\n{\"exit_code\":127}\n").await;
    let out = sandbox(&missing.url()).command("x").limit_output(6, 4).await?;
    assert_eq!(out.error.as_deref(), Some("no such file"));
    Ok(())
}

#[tokio::test]
async fn a_server_without_streams_is_asked_the_other_way_but_only_then() -> Result<()> {
    use wiremock::matchers::{method, query_param};
    use wiremock::{Mock, MockServer, ResponseTemplate};

    let server = MockServer::start().await;
    let unknown = ResponseTemplate::new(404).set_body_string("404 page not found");
    let result = json!({"stdout": "out", "stderr": "err", "exit_code": 5});
    let streamed = Mock::given(query_param("stream", "true")).respond_with(unknown.clone());
    streamed.with_priority(1).mount(&server).await;
    let run = success(json!({"result": result, "exec_ms": 1.0}));
    Mock::given(method("POST")).respond_with(run).expect(3).mount(&server).await;
    let get = Mock::given(method("GET")).respond_with(success(super::view("running")));
    get.up_to_n_times(3).mount(&server).await;
    let sandbox = sandbox(&server.uri());
    let (events, error) = drain(sandbox.command("x").stream().await?).await;
    assert!(error.is_none());
    assert_eq!(events[..2], [out("out"), err("err")]);
    assert_eq!(code(&events[2]), Some(5));
    assert_eq!(sandbox.command("x").status().await?.code(), 5);
    let limited = sandbox.command("x").limit_output(1, 1).await?;
    assert_eq!((&limited.stdout[..], limited.stdout_gap.unwrap().bytes), (&b"ot"[..], 1));

    // From here on the sandbox is unknown, too.
    Mock::given(method("GET")).respond_with(unknown).mount(&server).await;
    let error = sandbox.command("x").stream().await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::NotFound, Some("sandbox.exec")));
    assert!(!error.may_have_acted());
    Ok(())
}
