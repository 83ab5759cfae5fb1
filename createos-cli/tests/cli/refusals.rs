//! What the command says when it cannot do what was asked: exit codes, streams, envelopes.

use std::io::Write;
use std::process::Stdio;

use serde_json::{Value, json};
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::Answer;
use crate::support::plane::{Cli, ID, fail, plane, rows, success};
use crate::support::terminal::Terminal;

#[tokio::test]
async fn mistakes_on_the_line_are_found_before_any_request() {
    let server = MockServer::start().await;
    let cli = Cli::new(&server.uri());
    std::fs::write(cli.home.path().join("file"), "x").expect("a file");
    std::fs::create_dir(cli.home.path().join("dir")).expect("a directory");
    let lines: &[(&[&str], i32, &str)] = &[
        (&["sandbox", "create"], 2, "sandbox shapes"),
        (&["sandbox", "create", "--shape", "s", "--env", "NOVALUE"], 2, "KEY=VALUE"),
        (&["sandbox", "create", "--shape", "s", "--env", "=x"], 2, "KEY"),
        (&["sandbox", "create", "--shape", "s", "--disk", "data"], 2, "/mount/path"),
        (&["sandbox", "create", "--shape", "s", "--disk-mib", "0"], 2, "disk-mib"),
        (&["sandbox", "create", "--shape", "s", "--auto-pause", "10"], 2, "10m"),
        (&["sandbox", "create", "--shape", "s", "--auto-pause", "30s"], 2, "24h"),
        (&["sandbox", "create", "--shape", "s", "--ssh-key", "nowhere"], 1, "nowhere"),
        (&["sandbox", "create", "demo"], 2, "demo"),
        (&["sandbox", "list", "--status", "sleeping"], 2, "running"),
        (&["sandbox", "list", "--limit", "0"], 2, "limit"),
        (&["sandbox", "rm", "demo"], 2, "rm demo --force"),
        (&["sandbox", "rm"], 2, "sandbox"),
        (&["sandbox", "exec", "demo"], 2, "exec"),
        (&["sandbox", "exec", "a", "b", "--", "ls"], 2, "b"),
        (&["sandbox", "push", "demo", "file", "relative"], 2, "/"),
        (&["sandbox", "push", "demo", "dir", "/tmp/x"], 1, "tar -c"),
        (&["sandbox", "push", "demo", "nowhere", "/tmp/x"], 1, "nowhere"),
        (&["sandbox", "pull", "demo", "relative", "-"], 2, "/"),
        (&["sandbox", "lst"], 2, "list"),
        (&["--output", "yaml", "whoami"], 2, "yaml"),
        (&["--sandbox-api-url", "http://example.org", "whoami"], 2, "http"),
    ];
    for (line, code, part) in lines {
        let answer = cli.run(&[&["--output", "table"], *line].concat());
        let answer = if line[0] == "--output" { cli.run(line) } else { answer };
        assert_eq!(answer.code, Some(*code), "{line:?}: {answer:?}");
        assert!(answer.stderr.contains(part), "{part} for {line:?}: {answer:?}");
        // Without a valid --output the form is automatic, and a pipe gets the envelope.
        assert!(answer.stdout.is_empty() || line[0] == "--output", "{line:?}");
    }
    assert!(server.received_requests().await.expect("recorded").is_empty());
}

#[tokio::test]
async fn a_refused_key_names_where_it_came_from() {
    let server = MockServer::start().await;
    let whoami = Mock::given(method("GET")).and(path("/v1/whoami"));
    whoami.respond_with(fail(401, json!("invalid api key"))).mount(&server).await;
    let cli = Cli::new(&server.uri());
    let answer = cli.run(&["whoami", "--output", "table"]);
    assert_eq!(answer.code, Some(1));
    assert!(answer.stderr.contains("CREATEOS_API_KEY"), "{answer:?}");
    assert!(!answer.stderr.contains("skp_test"), "the key itself never shows: {answer:?}");
    let error = cli.run(&["whoami", "--output", "json"]).error();
    assert_eq!(error["code"], "unauthorized");
    let login = cli.run(&["login", "--token", "skp_wrong", "--output", "table"]);
    assert_eq!(login.code, Some(1));
    assert!(!cli.home.path().join(".createos/.token").exists(), "nothing was stored");
}

#[tokio::test]
async fn a_key_is_kept_private_and_forgotten_again() {
    use std::os::unix::fs::PermissionsExt;
    let server = MockServer::start().await;
    let stats = json!({"running": 0, "paused": 0, "other": 0, "total": 0});
    Mock::given(method("GET"))
        .and(path("/v1/whoami"))
        .and(header("x-api-key", "skp_good"))
        .respond_with(success(json!({"user_id": "usr_1", "stats": stats})))
        .mount(&server)
        .await;
    let cli = Cli::new(&server.uri());
    let mut login = cli.command(&["login", "--token", "-"]);
    let mut login = login
        .env_remove("CREATEOS_API_KEY")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("the program runs");
    login.stdin.take().expect("a pipe").write_all(b" skp_good\n").expect("write");
    assert!(login.wait().expect("an end").success());
    let file = cli.home.path().join(".createos/.token");
    assert_eq!(std::fs::read_to_string(&file).expect("stored"), "skp_good");
    let mode = |path: &std::path::Path| {
        std::fs::metadata(path).expect("metadata").permissions().mode() & 0o777
    };
    assert_eq!((mode(&file), mode(file.parent().expect("a parent"))), (0o600, 0o700));
    let who = cli.command(&["whoami"]).env_remove("CREATEOS_API_KEY").output().expect("runs");
    assert!(Answer::of(who).stdout.contains("usr_1"));
    assert_eq!(cli.run(&["logout"]).code, Some(0));
    assert!(!file.exists());
    assert_eq!(cli.run(&["logout"]).code, Some(1));
}

#[tokio::test]
async fn unknown_names_and_errors_of_the_api_come_with_their_code() {
    let server = plane("running").await;
    let exec = Mock::given(method("POST")).and(path(format!("/v1/sandboxes/{ID}/exec")));
    exec.respond_with(fail(409, json!("sandbox is not running"))).mount(&server).await;
    let create = Mock::given(method("POST")).and(path("/v1/sandboxes"));
    let refusal = json!({"shape": "not allowed [s-1vcpu-256mb]"});
    create.respond_with(fail(403, refusal)).expect(1).mount(&server).await;
    let cli = Cli::new(&server.uri());

    let answer = cli.run(&["sandbox", "get", "nobody", "--output", "json"]);
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(1), ""));
    assert_eq!(answer.error()["code"], "not_found");
    assert!(answer.error()["message"].as_str().expect("text").contains("nobody"));
    let text = cli.run(&["sandbox", "get", "nobody", "--output", "table"]);
    assert_eq!(text.stdout, "");
    assert!(text.stderr.contains("createos sandbox list"), "{text:?}");

    let conflict = cli.run(&["sandbox", "exec", "demo", "--output", "json", "--", "ls"]);
    assert_eq!((conflict.code, &conflict.error()["code"]), (Some(1), &json!("conflict")));
    let forbidden = cli.run(&["sandbox", "create", "--shape", "s-9", "--output", "json"]);
    assert_eq!((forbidden.code, &forbidden.error()["code"]), (Some(1), &json!("forbidden")));
    let message = forbidden.error()["message"].as_str().expect("text").to_owned();
    assert!(message.contains("[s-1vcpu-256mb]"), "the server's words pass through: {message}");
}

#[tokio::test]
async fn a_payload_stays_clean_when_the_call_fails() {
    let server = plane("running").await;
    let exec = Mock::given(method("POST")).and(path(format!("/v1/sandboxes/{ID}/exec")));
    exec.respond_with(fail(409, json!("sandbox is not running"))).mount(&server).await;
    let file = Mock::given(method("GET")).and(path(format!("/v1/sandboxes/{ID}/files")));
    file.respond_with(fail(404, json!("no such file"))).mount(&server).await;
    let cli = Cli::new(&server.uri());
    for line in [
        &["sandbox", "exec", "demo", "--", "cat", "f"][..],
        &["sandbox", "pull", "demo", "/f", "-"],
    ] {
        let answer = cli.run(line);
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""), "{line:?}");
        assert!(answer.stderr.starts_with("error: "), "{answer:?}");
    }
    std::fs::write(cli.home.path().join("old"), "kept").expect("a file");
    assert_eq!(cli.run(&["sandbox", "pull", "demo", "/f", "old"]).code, Some(1));
    assert_eq!(std::fs::read_to_string(cli.home.path().join("old")).expect("file"), "kept");
}

#[tokio::test]
async fn a_stream_without_an_end_is_a_failure() {
    let server = plane("running").await;
    let lost = ResponseTemplate::new(200)
        .set_body_raw("{\"stdout\":\"half\\n\"}\n", "application/x-ndjson");
    let exec = Mock::given(method("POST")).and(path(format!("/v1/sandboxes/{ID}/exec")));
    exec.respond_with(lost).expect(1).mount(&server).await;
    let answer = Cli::new(&server.uri()).run(&["sandbox", "exec", "demo", "--stream", "--", "x"]);
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), "half\n"));
    assert!(answer.stderr.contains("may still"), "{answer:?}");
}

#[tokio::test]
async fn a_partial_removal_is_one_document_and_a_failure() {
    let server = plane("running").await;
    let delete = Mock::given(method("DELETE")).and(path(format!("/v1/sandboxes/{ID}")));
    let gone = success(json!({"id": ID, "status": "destroyed"}));
    delete.respond_with(gone).expect(1).mount(&server).await;
    let cli = Cli::new(&server.uri());
    let answer = cli.run(&["sandbox", "rm", "demo", "nobody", "demo", "--force", "-o", "json"]);
    assert_eq!(answer.code, Some(1));
    let document: Value = serde_json::from_str(&answer.stdout).expect("one document");
    assert_eq!((&document["deleted"], &document["failed"]), (&json!(1), &json!(1)));
}

#[tokio::test]
async fn empty_lists_are_lists_and_quiet_is_silent() {
    let server = MockServer::start().await;
    let list = Mock::given(method("GET")).and(path("/v1/sandboxes"));
    list.respond_with(rows(json!([]))).mount(&server).await;
    let cli = Cli::new(&server.uri());
    assert_eq!(cli.run(&["sandbox", "list", "-o", "json"]).stdout, "[]\n");
    let quiet = cli.run(&["sandbox", "ls", "--quiet", "--output", "json"]);
    assert_eq!((quiet.code, quiet.stdout.as_str()), (Some(0), ""));
    let text = cli.run(&["sb", "ls", "--output", "table"]);
    assert_eq!(text.code, Some(0));
    assert!(text.stderr.contains("createos sandbox create"), "{text:?}");
}

#[tokio::test]
async fn no_server_and_a_reader_that_leaves() {
    let cli = Cli::new("http://127.0.0.1:1");
    let answer = cli.run(&["sandbox", "shapes", "--output", "json"]);
    assert_eq!((answer.code, &answer.error()["code"]), (Some(1), &json!("network")));

    let server = plane("running").await;
    let file = Mock::given(method("GET")).and(path(format!("/v1/sandboxes/{ID}/files")));
    let big =
        ResponseTemplate::new(200).set_body_raw(vec![b'x'; 8 << 20], "application/octet-stream");
    file.respond_with(big).mount(&server).await;
    let cli = Cli::new(&server.uri());
    let mut pull = cli.command(&["sandbox", "pull", "demo", "/big", "-"]);
    let mut pull =
        pull.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program runs");
    drop(pull.stdout.take());
    let answer = Answer::of(pull.wait_with_output().expect("an end"));
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""));
}

#[tokio::test]
async fn debug_shows_requests_and_no_secret() {
    let server = plane("running").await;
    let answer = Cli::new(&server.uri()).run(&["--debug", "sandbox", "get", "demo", "-o", "json"]);
    assert_eq!(answer.code, Some(0));
    assert!(answer.stderr.contains("GET /v1/sandboxes"), "{answer:?}");
    assert!(!answer.stderr.contains("skp_test_0123456789"), "{answer:?}");
}

/// Runs `rm demo` on a terminal and answers its question.
fn rm_on_a_terminal(url: &str, answer: &str) -> (String, Option<i32>) {
    let cli = Cli::new(url);
    let mut terminal = Terminal::start(&cli.command(&["sandbox", "rm", "demo"]), 80);
    terminal.expect("for good?");
    terminal.send(answer);
    terminal.end()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_is_asked_before_anything_is_deleted() {
    let server = plane("running").await;
    let delete = Mock::given(method("DELETE")).and(path(format!("/v1/sandboxes/{ID}")));
    let gone = success(json!({"id": ID, "status": "destroyed"}));
    delete.respond_with(gone).expect(1).mount(&server).await;
    let ask = |answer: &'static str| {
        let url = server.uri();
        tokio::task::spawn_blocking(move || rm_on_a_terminal(&url, answer))
    };
    let (said, code) = ask("n\r").await.expect("no panic");
    assert_eq!(code, Some(0), "{said}");
    assert!(!said.contains("removed"), "{said}");
    let (said, code) = ask("y\r").await.expect("no panic");
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("removed demo"), "{said}");
}
