//! `createos sandbox exec`, `push` and `pull` on the real engine and on a scripted plane.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::home::Home;
use crate::support::plane::{Cli, ID, fail, plane, rows, sandbox, success};
use crate::support::terminal::Terminal;
use crate::support::{Answer, wait_until};

/// Runs a command with this on its standard input, which then ends.
fn fed(mut command: Command, input: &[u8]) -> Answer {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    // A command that refuses its input may be gone already.
    let _ = child.stdin.take().expect("a pipe").write_all(input);
    Answer::of(child.wait_with_output().expect("an end"))
}

#[test]
fn commands_and_files_of_a_real_sandbox() {
    let home = Home::new();
    let _engine = home.serve();
    home.ok(&[
        "sandbox",
        "create",
        "--shape",
        "s-1vcpu-256mb",
        "--name",
        "box",
        "--env",
        "STAGE=ci",
    ]);
    standard_input(&home);
    variables_and_exit_codes(&home);
    documents(&home);
    on_a_terminal(&home);
    ctrl_c_ends_a_stream(&home);
    files_in(&home);
    files_out(&home);
    a_paused_sandbox(&home);
}

fn exec(home: &Home, arguments: &[&str]) -> Answer {
    Answer::of(home.run(&[&["sandbox", "exec", "box"], arguments].concat()))
}

fn standard_input(home: &Home) {
    let command = |arguments: &[&str]| home.command(&[&["sandbox", "exec"], arguments].concat());
    let piped = fed(command(&["box", "--", "wc", "-c"]), b"five!");
    assert_eq!((piped.code, piped.stdout.trim()), (Some(0), "5"));
    let unread = fed(command(&["box", "-n", "--", "wc", "-c"]), b"five!");
    assert_eq!(unread.stdout.trim(), "0");
    std::fs::write(home.dir.path().join("input"), "from a file").expect("a file");
    let file = exec(home, &["--stdin", "input", "--", "cat"]);
    assert_eq!(file.stdout, "from a file");
    let own = fed(command(&["box", "--stdin", "-", "--stream", "--", "cat"]), b"streamed");
    assert_eq!(own.stdout, "streamed");

    let missing = exec(home, &["--stdin", "nowhere", "--", "cat"]);
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("nowhere"), "{missing:?}");
    let binary = fed(command(&["box", "--", "cat"]), b"\xff\xfe");
    assert_eq!(binary.code, Some(1));
    assert!(binary.stderr.contains("createos sandbox push"), "{binary:?}");
    let large = fed(command(&["box", "--", "cat"]), &vec![b'x'; (10 << 20) + 1]);
    assert_eq!(large.code, Some(1));
    assert!(large.stderr.contains("10 MiB"), "{large:?}");
}

fn variables_and_exit_codes(home: &Home) {
    assert_eq!(exec(home, &["--", "printenv", "STAGE"]).stdout, "ci\n");
    assert_eq!(exec(home, &["--env", "STAGE=a=b", "--", "printenv", "STAGE"]).stdout, "a=b\n");
    for stream in [&[][..], &["--stream"]] {
        let ended = |script: &str| exec(home, &[stream, &["--", "sh", "-c", script]].concat());
        assert_eq!(ended("exit 42").code, Some(42), "{stream:?}");
        assert_eq!(ended("kill -9 $$").code, Some(137), "{stream:?}");
        let both = ended("echo out; echo err >&2");
        assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"));
    }
    // Nothing is added to what the program writes, and nothing is lost of it.
    assert_eq!(exec(home, &["--", "printf", "no newline"]).stdout, "no newline");
    let bytes = home.run(&["sandbox", "exec", "box", "--", "printf", r"\377\000\376"]);
    assert_eq!(bytes.stdout, b"\xff\x00\xfe");
}

fn documents(home: &Home) {
    let document = exec(home, &["-o", "json", "--", "sh", "-c", "echo x; exit 3"]);
    assert_eq!((document.code, document.stderr.as_str()), (Some(3), ""));
    let document = document.json();
    assert_eq!((&document["exit_code"], &document["stdout"]), (&json!(3), &json!("x\n")));
    assert!(document["exec_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{document}");
    let ignored = exec(home, &["-o", "json", "--stream", "--", "echo", "text"]);
    assert_eq!(ignored.stdout, "text\n");
}

fn on_a_terminal(home: &Home) {
    let mut terminal = Terminal::start(&home.command(&["sandbox", "exec", "box"]), 80);
    terminal.expect("command");
    terminal.send("sh -c 'echo one two'\r");
    let (said, code) = terminal.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("one two"), "{said}");

    // No sandbox named: it is picked.
    let mut terminal = Terminal::start(&home.command(&["sandbox", "exec", "--", "hostname"]), 80);
    terminal.expect("(id: ");
    terminal.send("\r");
    let (said, code) = terminal.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("box\r\n"), "{said}");
}

fn ctrl_c_ends_a_stream(home: &Home) {
    let line = ["sandbox", "exec", "box", "--stream", "--", "sh", "-c", "echo on; exec sleep 61"];
    let mut terminal = Terminal::start(&home.command(&line), 80);
    terminal.expect("on");
    terminal.send("\x03");
    let (said, code) = terminal.end();
    assert_eq!(code, Some(130), "{said}");
    wait_until("the command has ended with its connection", || {
        exec(home, &["--", "pgrep", "-f", "^sleep 61"]).code == Some(1)
    });
}

fn files_in(home: &Home) {
    let here = |name: &str| home.dir.path().join(name);
    std::fs::write(here("own name.txt"), "kept").expect("a file");
    let sent = home.json(&["sandbox", "push", "box", "own name.txt", "/tmp/new/dir/"]);
    assert_eq!(sent["path"], "/tmp/new/dir/own name.txt");
    assert_eq!((&sent["action"], &sent["bytes"]), (&json!("pushed"), &json!(4)));
    assert_eq!(exec(home, &["--", "cat", "/tmp/new/dir/own name.txt"]).stdout, "kept");
    std::fs::write(here("empty"), "").expect("a file");
    let text = home.ok(&["-o", "table", "sandbox", "push", "box", "empty", "/tmp/e", "--stats"]);
    assert!(text.contains("sent empty to box:/tmp/e (0 B"), "{text}");

    // Larger than may be kept in memory; a pipe does not say how long it is.
    let content: Vec<u8> = (0..9 << 20).map(|n: u32| n.to_le_bytes()[0]).collect();
    let piped = fed(home.command(&["sandbox", "push", "box", "-", "/tmp/piped"]), &content);
    assert_eq!(piped.code, Some(0), "{piped:?}");
    assert_eq!(home.run(&["sandbox", "pull", "box", "/tmp/piped", "-"]).stdout, content);

    // A hole, so that nothing has to be written; refused before a byte of it is read.
    let large = std::fs::File::create(here("large")).expect("a file");
    large.set_len((500 << 20) + 1).expect("a length");
    let large = Answer::of(home.run(&["sandbox", "push", "box", "large", "/tmp/large"]));
    assert_eq!(large.code, Some(1));
    assert!(large.stderr.contains("500 MiB"), "{large:?}");
    let nameless = fed(home.command(&["sandbox", "push", "box", "-", "/tmp/"]), b"x");
    assert_eq!(nameless.code, Some(2), "{nameless:?}");
}

fn files_out(home: &Home) {
    std::fs::create_dir(home.dir.path().join("down")).expect("a directory");
    let fetched = home.json(&["sandbox", "pull", "box", "/tmp/new/dir/own name.txt", "down"]);
    assert_eq!(fetched["local"], "down/own name.txt");
    let file = home.dir.path().join("down/own name.txt");
    assert_eq!(std::fs::read_to_string(&file).expect("a file"), "kept");
    let mode = std::fs::metadata(&file).expect("metadata").permissions().mode();
    assert_eq!(mode & 0o111, 0, "no file comes executable: {mode:o}");
    let directory =
        Answer::of(home.run(&["sandbox", "pull", "box", "/tmp/new", "x", "-o", "table"]));
    assert_eq!(directory.code, Some(1));
    assert!(directory.stderr.contains("tar -cf"), "{directory:?}");
    let parts: Vec<_> =
        std::fs::read_dir(home.dir.path()).expect("a directory").flatten().collect();
    assert!(parts.iter().all(|entry| !entry.file_name().to_string_lossy().contains(".part")));
}

fn a_paused_sandbox(home: &Home) {
    home.ok(&["sandbox", "pause", "box"]);
    let paused = exec(home, &["--", "true"]);
    assert_eq!((paused.code, paused.stdout.as_str()), (Some(1), ""));
    assert!(paused.stderr.contains("createos sandbox resume box"), "{paused:?}");
    let mut terminal =
        Terminal::start(&home.command(&["sandbox", "exec", "box", "--", "echo", "up"]), 80);
    terminal.expect("resume it now?");
    terminal.send("y\r");
    let (said, code) = terminal.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("up\r\n"), "{said}");
}

/// A plane whose sandbox has this answer to what disks it has.
async fn plane_with_disks(disks: ResponseTemplate) -> MockServer {
    let server = MockServer::start().await;
    let list = Mock::given(method("GET")).and(path("/v1/sandboxes"));
    list.respond_with(rows(json!([sandbox("demo", "running")]))).mount(&server).await;
    let get = Mock::given(method("GET")).and(path(format!("/v1/sandboxes/{ID}/disks")));
    get.respond_with(disks).mount(&server).await;
    server
}

fn attached(mount_path: &str) -> Value {
    json!({"disk_id": "disk_1", "name": "data", "kind": "s3", "mount_path": mount_path,
           "mount_status": "mounted",
           "config": {"bucket": "b", "endpoint": "https://s3.example.com"}})
}

#[tokio::test]
async fn nothing_is_moved_where_a_disk_is_or_may_be() {
    let server = plane_with_disks(rows(json!([attached("/mnt/data")]))).await;
    let put = Mock::given(method("PUT")).and(path(format!("/v1/sandboxes/{ID}/files")));
    put.respond_with(success(json!({}))).expect(1).mount(&server).await;
    let cli = Cli::new(&server.uri());
    std::fs::write(cli.home.path().join("f"), "x").expect("a file");
    for remote in ["/mnt/data/f", "/mnt/data", "/mnt/./x/../data/f"] {
        let push = cli.run(&["sandbox", "push", "demo", "f", remote, "-o", "json"]);
        assert_eq!((push.code, &push.error()["code"]), (Some(1), &json!("error")), "{remote}");
        let pull = cli.run(&["sandbox", "pull", "demo", remote, "-"]);
        assert_eq!((pull.code, pull.stdout.as_str()), (Some(1), ""), "{remote}");
        assert!(pull.stderr.contains("disk data"), "{pull:?}");
    }
    let on_purpose = ["sandbox", "push", "demo", "f", "/mnt/data/f", "--no-disk-check"];
    assert_eq!(cli.run(&on_purpose).code, Some(0));

    let unknown = plane_with_disks(fail(500, json!("database is gone"))).await;
    let cli = Cli::new(&unknown.uri());
    let refused = cli.run(&["sandbox", "pull", "demo", "/tmp/f", "-"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("--no-disk-check"), "{refused:?}");

    let none = plane_with_disks(fail(404, json!("no such route"))).await;
    let get = Mock::given(method("GET")).and(path(format!("/v1/sandboxes/{ID}/files")));
    let file = ResponseTemplate::new(200).set_body_raw("here", "application/octet-stream");
    get.respond_with(file).mount(&none).await;
    let fetched = Cli::new(&none.uri()).run(&["sandbox", "pull", "demo", "/tmp/f", "-"]);
    assert_eq!((fetched.code, fetched.stdout.as_str()), (Some(0), "here"));
}

#[tokio::test]
async fn a_server_with_a_lower_limit_says_so() {
    let server = plane("running").await;
    let put = Mock::given(method("PUT")).and(path(format!("/v1/sandboxes/{ID}/files")));
    put.respond_with(fail(413, json!("too large"))).mount(&server).await;
    let cli = Cli::new(&server.uri());
    std::fs::write(cli.home.path().join("f"), "x").expect("a file");
    let refused = cli.run(&["sandbox", "push", "demo", "f", "/tmp/f", "-o", "table"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("500 MiB"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_and_sigterm_end_a_request_that_hangs() {
    let server = plane("running").await;
    let exec = Mock::given(method("POST")).and(path(format!("/v1/sandboxes/{ID}/exec")));
    let slow = success(json!({})).set_delay(Duration::from_secs(60));
    exec.respond_with(slow).mount(&server).await;
    let cli = Cli::new(&server.uri());
    use rustix::process::{Pid, Signal, kill_process};
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let mut command = cli.command(&["sandbox", "exec", "demo", "--", "sleep", "60"]);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
        std::thread::sleep(Duration::from_millis(500));
        let began = Instant::now();
        kill_process(Pid::from_child(&child), signal).expect("a signal");
        let answer = tokio::task::spawn_blocking(move || child.wait_with_output());
        let answer = Answer::of(answer.await.expect("no panic").expect("an end"));
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(code), ""), "{answer:?}");
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}
