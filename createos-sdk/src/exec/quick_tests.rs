use futures::{StreamExt, stream};

use super::*;
use crate::error::ErrorKind;
use crate::exec::{ExecStream, ExitStatus};
use crate::transport::incoming;
use crate::wire::ExecFrame;

fn quick(line: &[u8]) -> Option<ExecEvent> {
    let chunk = Bytes::copy_from_slice(line);
    Reader::default().event(&chunk, &chunk)
}

fn slow(line: &[u8]) -> Option<ExecEvent> {
    let mut frame: ExecFrame = serde_json::from_slice(line).ok()?;
    let stdout = frame.take_stdout().unwrap().map(ExecEvent::Stdout);
    stdout.or_else(|| frame.take_stderr().unwrap().map(ExecEvent::Stderr))
}

#[test]
fn simple_frames_are_read() {
    let out = |text: &str| Some(ExecEvent::Stdout(text.to_owned().into()));
    assert_eq!(quick(br#"{"stdout":"abc"}"#), out("abc"));
    assert_eq!(quick(br#"{"stdout":"a\n\t\r\"\\\/b\b\f"}"#), out("a\n\t\r\"\\/b\u{8}\u{c}"));
    assert_eq!(quick(br#"{"stdout":"\u001b[1m\u000A\u007f\u0000"}"#), out("\u{1b}[1m\n\u{7f}\0"));
    assert_eq!(quick("{\"stdout\":\"ä→\\n\"}".as_bytes()), out("ä→\n"));
    let long = "x".repeat(SHARED);
    assert_eq!(quick(format!("{{\"stdout\":\"{long}\"}}").as_bytes()), out(&long));
    let error = Some(ExecEvent::Stderr("e".into()));
    assert_eq!(quick(br#"{"stderr":"e"}"#), error);
}

#[test]
fn anything_else_is_left_to_the_parser() {
    for line in [
        &br#"{"stdout":""}"#[..],
        br#"{"stdout":"a","stderr":"b"}"#,
        br#"{"stdout":"a","stdout_base64":"YQ=="}"#,
        br#"{"stdout":"\u00e4"}"#,
        br#"{"stdout":"\ud83d\ude00"}"#,
        br#"{"stdout":"\u+041"}"#,
        br#"{"stdout":"\u004"}"#,
        br#"{"stdout":"\x"}"#,
        br#"{"stdout":"a\"}"#,
        br#"{"stdout":"a\\\"}"#,
        br#"{"stdout":"a"b"}"#,
        b"{\"stdout\":\"a\x01\"}",
        b"{\"stdout\":\"a\xff\"}",
        b"{\"stdout\":\"\\n\xff\"}",
        b"{\"stdout\":\"\xc3\\n\xa4\"}",
        br#" {"stdout":"a"}"#,
        br#"{"error":"a"}"#,
        br#"{"stdout":"}"#,
        b"",
    ] {
        assert_eq!(quick(line), None, "{:?}", String::from_utf8_lossy(line));
    }
}

/// Random text over the bytes that matter: where both have an answer it is the same.
#[test]
fn it_never_disagrees_with_the_parser() {
    const BYTES: &[u8] = b"ab\"\\nrtu/0041{}: ,\x01\x7f\xc3\xa4\xff";
    let mut random = fastrand::Rng::with_seed(7);
    let mut read = 0;
    for _ in 0..200_000 {
        let length = random.usize(..40);
        let text: Vec<u8> = (0..length).map(|_| BYTES[random.usize(..BYTES.len())]).collect();
        let line = [b"{\"stdout\":\"", &text[..], b"\"}"].concat();
        if let Some(event) = quick(&line) {
            read += 1;
            assert_eq!(Some(event), slow(&line), "{:?}", String::from_utf8_lossy(&line));
        }
    }
    assert!(read > 5_000, "{read}");
}

/// Pieces of lines: simple ones, escapes of every kind, frames that are not simple, decoration,
/// and what is wrong.
const PIECES: &[&str] = &[
    r#"{"stdout":"plain"}"#,
    r#"{"stderr":"two\nlines\t\u001b[0m \u00e4 \ud83d\ude00 ä→"}"#,
    r#"{"stdout":"\"\\\/\b\f\r","stderr":"both","exit_code":null}"#,
    r#"{ "stdout" : "spaces" , "new" : {"a":[1,"\n"]} }"#,
    r#"{"stdout":"","stderr":""}"#,
    r#"{"stdout":"?","stdout_base64":"/wA="}"#,
    r#"{"hb":true}"#,
    r#"{"stderr":"x","error":"lost"}"#,
    r#"data: {"stdout":"decorated"}"#,
    "data:",
    ": comment",
    "id: 7",
    "   ",
    r#"  {"stdout":"indented"}  "#,
    r#"{"stdout":"a","stdout":"twice"}"#,
    r#"{"stdout":"\ud83d alone"}"#,
    r#"{"stdout":"cut"#,
    r#"{"stdout":7}"#,
    "[]",
];

/// What a stream gives: its events, and the kind of the error it ends with.
async fn events_of(chunks: Vec<Bytes>) -> (Vec<ExecEvent>, Option<ErrorKind>) {
    let mut events = Vec::new();
    let mut stream = ExecStream::new(incoming::tests::over(stream::iter(chunks)));
    while let Some(event) = stream.next().await {
        match event {
            Ok(event) => events.push(event),
            Err(error) => return (events, Some(error.kind())),
        }
    }
    (events, None)
}

/// The same by the parser alone, which sees each line by itself.
fn expected(lines: &[String]) -> (Vec<ExecEvent>, Option<ErrorKind>) {
    let mut events = Vec::new();
    for line in lines {
        let line = line.trim();
        let data = line.strip_prefix("data:").map_or(line, str::trim);
        if data.is_empty() || data.starts_with(':') || data.starts_with("id:") {
            continue;
        }
        let Ok(mut frame) = serde_json::from_str::<ExecFrame>(data) else {
            return (events, Some(ErrorKind::Protocol));
        };
        let filled = |bytes: &Bytes| !bytes.is_empty();
        events.extend(frame.take_stdout().unwrap().filter(filled).map(ExecEvent::Stdout));
        events.extend(frame.take_stderr().unwrap().filter(filled).map(ExecEvent::Stderr));
        events.extend(frame.error.map(ExecEvent::Error));
        if let Some(code) = frame.exit_code {
            events.push(ExecEvent::Exit(ExitStatus::new(code)));
            return (events, None);
        }
    }
    (events, Some(ErrorKind::StreamLost))
}

fn random_lines(random: &mut fastrand::Rng) -> Vec<String> {
    let mut lines: Vec<String> = (0..random.usize(1..8))
        .map(|_| {
            let kind = random.usize(..2 * PIECES.len());
            let mut long = || "long\\n".repeat(random.usize(..2_000));
            PIECES.get(kind).map_or_else(
                || format!("{{\"stdout\":\"{}\"}}", long()),
                |piece| (*piece).to_owned(),
            )
        })
        .collect();
    if random.bool() {
        lines.push(r#"{"stdout":"last","exit_code":3}"#.to_owned());
    }
    lines
}

#[tokio::test]
async fn streams_are_what_the_parser_makes_of_their_lines_wherever_they_are_cut() {
    let mut random = fastrand::Rng::with_seed(11);
    for _ in 0..300 {
        let lines = random_lines(&mut random);
        let body = Bytes::from(lines.join("\n") + "\n");
        let expected = expected(&lines);
        // Everywhere in short streams; in long ones a prime apart.
        let step = if body.len() < 600 { 1 } else { 997 };
        for cut in (0..=body.len()).step_by(step) {
            let mut rest = body.clone();
            let chunks = vec![rest.split_to(cut), rest];
            assert_eq!(events_of(chunks).await, expected, "{cut} of {lines:?}");
        }
        for size in [1, 7, 4096] {
            let chunks = body.chunks(size).map(Bytes::copy_from_slice).collect();
            assert_eq!(events_of(chunks).await, expected, "{size} of {lines:?}");
        }
    }
}

#[test]
fn only_large_outputs_share_the_memory_of_their_chunk() {
    for (len, shared) in [(SHARED - 1, false), (SHARED, true)] {
        let chunk = Bytes::from(format!("{{\"stdout\":\"{}\"}}", "x".repeat(len)));
        let Some(ExecEvent::Stdout(bytes)) = Reader::default().event(&chunk, &chunk) else {
            panic!("no event");
        };
        assert_eq!(chunk.as_ptr_range().contains(&bytes.as_ptr()), shared, "{len}");
    }
}
