//! One command on a sandbox that goes in every outcome.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::Answer;
use crate::support::home::Home;
use crate::support::plane::{Cli, ID, fail, sandbox, success};
use crate::support::wait_until;

const SHAPE: [&str; 2] = ["--shape", "s-1vcpu-256mb"];

fn offload(home: &Home, more: &[&str], command: &[&str]) -> Answer {
    let line = [&["sandbox", "offload", "project"], &SHAPE[..], more, &["--"], command].concat();
    Answer::of(home.run(&line))
}

/// The sandboxes that are there.
fn there(home: &Home) -> Vec<String> {
    let rows = home.json(&["sandbox", "list"]);
    let rows = rows.as_array().expect("a list").iter();
    rows.map(|row| row["name"].as_str().expect("a name").to_owned()).collect()
}

fn project(home: &Home) {
    let root = home.dir.path().join("project");
    for (name, text) in [
        ("run.sh", "echo out; echo err >&2; exit ${1:-0}"),
        ("src/a b.txt", "hello"),
        ("node_modules/big", "no"),
        ("secret.env", "no"),
    ] {
        let file = root.join(name);
        fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
        fs::write(file, text).expect("a file");
    }
    symlink("src/a b.txt", root.join("link")).expect("a link");
}

#[test]
fn a_command_runs_where_the_files_are_and_nothing_stays() {
    let home = Home::new();
    let _engine = home.serve();
    project(&home);
    // Payload in a pipe is the program's output, and nothing else.
    let ran = offload(&home, &[], &["sh", "run.sh"]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "out\n"), "{ran:?}");
    assert!(ran.stderr.contains("may reach everything outside"), "{ran:?}");
    assert!(ran.stderr.ends_with("err\n"), "{ran:?}");
    // Its words are one line of bash, from a login shell, without input.
    let line =
        ["pwd;", "find . | sort;", "cat link; echo $STAGE; cat; ls /tmp/.createos* 2>&1 | wc -l"];
    let more = ["--exclude", "*.env", "--env", "STAGE=ci", "--egress", "a.example"];
    let ran = offload(&home, &more, &line);
    let files = ".\n./link\n./run.sh\n./src\n./src/a b.txt\n";
    assert_eq!(ran.stdout, format!("/work\n{files}helloci\n1\n"), "{ran:?}");
    assert!(!ran.stderr.contains("may reach everything"), "{ran:?}");
    assert_eq!(there(&home), [""; 0]);

    let failed = offload(&home, &[], &["sh", "run.sh", "7"]);
    assert_eq!((failed.code, failed.stdout.as_str()), (Some(7), "out\n"), "{failed:?}");
    // As much as is kept of what nobody hears, many times over.
    let long = offload(&home, &[], &["for i in 1 2 3 4 5 6; do seq 100000; sleep 0.3; done"]);
    assert!(
        long.stdout.starts_with("1\n2\n") && !long.stderr.contains("missing"),
        "{}",
        long.stderr
    );
    assert_eq!(long.stdout.lines().count(), 600_000);
    let killed = offload(&home, &[], &["kill -9 $$"]);
    assert_eq!(killed.code, Some(137), "{killed:?}");
    assert_eq!(there(&home), [""; 0]);
    documents(&home);
    fetch(&home);
    time_out_and_keep(&home);
}

fn documents(home: &Home) {
    let json = offload(home, &["-o", "json"], &["sh", "run.sh", "3"]);
    assert_eq!(json.code, Some(3));
    let document = json.json();
    assert!(document["sandbox"].as_str().is_some_and(|id| id.starts_with("sb-")), "{document}");
    assert_eq!(
        (&document["command"], &document["exit_code"], &document["teardown_failure"]),
        (&json!("sh run.sh 3"), &json!(3), &Value::Null)
    );
    assert!(document["duration_ms"].is_u64(), "{document}");
    assert!(json.stderr.contains("out\n") && json.stderr.contains("err\n"), "{json:?}");
}

fn fetch(home: &Home) {
    let root = home.dir.path().join("project");
    let make = "mkdir -p out/deep && echo r > out/deep/report && chmod 4777 out/deep/report && \
                ln -s /etc/passwd out/passwd && echo x > other";
    let more = ["--fetch", "out", "--fetch", "./other"];
    let fetched = offload(home, &more, &[make]);
    assert_eq!(fetched.code, Some(0), "{fetched:?}");
    assert!(fetched.stderr.contains("fetched 2 files"), "{fetched:?}");
    assert!(fetched.stderr.contains("1 that are no plain files"), "{fetched:?}");
    let report = root.join("out/deep/report");
    assert_eq!(fs::read_to_string(&report).expect("fetched"), "r\n");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&report).expect("m").permissions());
    assert_eq!(mode & 0o7777, 0o755);
    assert!(root.join("out/passwd").symlink_metadata().is_err());

    let lost = offload(home, &["--fetch", "nowhere", "--fetch", "other"], &["echo new > other"]);
    assert_eq!(lost.code, Some(1));
    assert!(lost.stderr.contains("error: not there to be fetched: nowhere"), "{lost:?}");
    assert_eq!(fs::read_to_string(root.join("other")).expect("fetched"), "new\n", "the rest came");
    // A command that failed keeps its code, and what there is still comes.
    let both =
        offload(home, &["--fetch", "nowhere", "--fetch", "other"], &["echo two > other; exit 9"]);
    assert_eq!(both.code, Some(9), "{both:?}");
    assert_eq!(fs::read_to_string(root.join("other")).expect("fetched"), "two\n");
    assert!(both.stderr.contains("warning: not there to be fetched: nowhere"), "{both:?}");
    assert_eq!(there(home), [""; 0]);
}

fn time_out_and_keep(home: &Home) {
    let late = offload(home, &["--timeout", "2s", "-o", "json"], &["echo begun; sleep 60"]);
    assert_eq!((late.code, &late.error()["code"]), (Some(1), &json!("timeout")), "{late:?}");
    assert!(late.stderr.contains("begun"), "{late:?}");
    assert_eq!(there(home), [""; 0]);

    let kept = offload(home, &["--keep-on-fail", "--auto-pause", "0"], &["echo x > f; exit 4"]);
    assert_eq!(kept.code, Some(4));
    let names = there(home);
    assert_eq!(names.len(), 1, "{names:?}");
    for part in ["shell", "rm"] {
        assert!(kept.stderr.contains(&format!("createos sandbox {part} {}", names[0])), "{kept:?}");
    }
    assert_eq!(home.ok(&["sandbox", "exec", &names[0], "-n", "--", "cat", "/work/f"]), "x\n");
    home.ok(&["sandbox", "rm", &names[0], "--force"]);
    let fine = offload(home, &["--keep-on-fail"], &["true"]);
    assert_eq!(fine.code, Some(0));
    assert_eq!(there(home), [""; 0], "a success is not kept");
}

#[test]
fn a_signal_ends_the_sandbox_as_well() {
    let home = Home::new();
    let _engine = home.serve();
    project(&home);
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let log = home.dir.path().join("log");
        let line =
            [&["sandbox", "offload", "project"], &SHAPE[..], &["--", "echo begun; sleep 600"]];
        let mut command = home.command(&line.concat());
        command.stdout(fs::File::create(&log).expect("a file")).stderr(Stdio::piped());
        let child = command.spawn().expect("the program runs");
        wait_until("it has begun", || fs::read_to_string(&log).is_ok_and(|log| log == "begun\n"));
        assert_eq!(there(&home).len(), 1);
        kill_process(Pid::from_child(&child), signal).expect("a signal");
        let ended = Answer::of(child.wait_with_output().expect("an end"));
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert_eq!(there(&home), [""; 0], "{ended:?}");
    }
}

#[test]
fn git_says_what_is_sent() {
    let home = Home::new();
    let _engine = home.serve();
    project(&home);
    let root = home.dir.path().join("project");
    fs::write(root.join(".gitignore"), "*.env\n").expect("a file");
    let init = Command::new("git").arg("-C").arg(&root).args(["init", "-q"]).status();
    assert!(init.expect("git").success());
    let ran = offload(&home, &[], &["find . -type f | sort"]);
    // Nothing but git knows that these are not to be sent.
    let files = "./.gitignore\n./node_modules/big\n./run.sh\n./src/a b.txt\n";
    assert_eq!(ran.stdout, files, "{ran:?}");
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_before_anything_is_made() {
    let server = MockServer::start().await;
    let cli = Cli::new(&server.uri());
    let at = |name: &str| cli.home.path().join(name);
    for dir in ["empty", "huge", "full"] {
        fs::create_dir(at(dir)).expect("a directory");
    }
    fs::write(at("full/f"), "x").expect("a file");
    let huge = fs::File::create(at("huge/file")).expect("a file");
    huge.set_len(600 << 20).expect("a hole");
    let lines: &[(&[&str], i32, &str)] = &[
        (&["offload"], 2, "DIR"),
        (&["offload", "full"], 2, "COMMAND"),
        (&["offload", "full", "--", " "], 2, "which command?"),
        (&["offload", "full", "--fetch", "/etc", "--", "x"], 2, "relative"),
        (&["offload", "full", "--fetch", "a/../..", "--", "x"], 2, "relative"),
        (&["offload", "full", "--timeout", "10", "--", "x"], 2, "unit"),
        (&["offload", "full", "--timeout", "0s", "--", "x"], 2, "longer"),
        (&["offload", "full", "--auto-pause", "5s", "--", "x"], 2, "1m"),
        (&["offload", "full", "--env", "A", "--", "x"], 2, "KEY=VALUE"),
        (&["offload", "nowhere", "--", "x"], 1, "cannot open nowhere: no such file"),
        (&["offload", "full/f", "--", "x"], 1, "not a directory"),
        (&["offload", "empty", "--", "x"], 1, "nothing in empty is left"),
        (&["offload", "full", "--exclude", "f", "--", "x"], 1, "nothing in full is left"),
        (&["offload", "huge", "--", "x"], 1, "500 MB"),
        (&["matrix"], 2, "DIR"),
        (&["matrix", "full"], 2, "--job"),
        (&["matrix", "full", "--job", " "], 2, "--job"),
        (&["matrix", "full", "--from", "demo", "--job", "x"], 2, "--from"),
        (&["matrix", "--from", "demo", "--prepare", "p", "--job", "x"], 2, "--prepare"),
        (&["matrix", "--from", "demo", "--shape", "s", "--job", "x"], 2, "--shape"),
        (&["matrix", "full", "--job", "x", "--concurrency", "0"], 2, "concurrency"),
        (&["matrix", "full", "--jobs-file", "nowhere"], 1, "cannot read nowhere"),
        (&["matrix", "empty", "--job", "x"], 1, "nothing in empty is left"),
    ];
    for (line, code, part) in lines {
        let text = cli.run(&[&["sandbox", "-o", "table"], *line].concat());
        assert_eq!((text.code, text.stdout.as_str()), (Some(*code), ""), "{line:?}: {text:?}");
        assert!(text.stderr.contains(part), "{part} for {line:?}: {text:?}");
        let json = cli.run(&[&["sandbox", "-o", "json"], *line].concat());
        let class = if *code == 2 { "usage" } else { "error" };
        let json_code = json.error()["code"].as_str().expect("text").to_owned();
        assert!(json_code == class || json_code == "bad_request", "{json:?}");
        assert_eq!(json.code, Some(*code), "{json:?}");
    }
    assert!(server.received_requests().await.expect("recorded").is_empty());
}

/// A plane on which a job runs to its end, and cannot be destroyed then.
async fn sticky(delay: Duration) -> MockServer {
    let server = MockServer::start().await;
    let one = success(sandbox("offload-x", "running")).set_delay(delay);
    Mock::given(method("POST")).and(path("/v1/sandboxes")).respond_with(one).mount(&server).await;
    let root = format!("/v1/sandboxes/{ID}");
    let get = Mock::given(method("GET")).and(path(&*root));
    get.respond_with(success(sandbox("offload-x", "running"))).mount(&server).await;
    let file = Mock::given(method("PUT")).and(path(format!("{root}/files")));
    file.respond_with(success(json!({"path": "/tmp/x", "bytes": 1}))).mount(&server).await;
    let exec = Mock::given(method("POST")).and(path(format!("{root}/exec")));
    let done = json!({"result": {"stdout": "", "stderr": "", "exit_code": 0}, "exec_ms": 1.0});
    exec.respond_with(success(done)).mount(&server).await;
    let process = json!({"process_id": "proc_1", "kind": "pipe", "pid": 7, "state": "running",
                         "created_at": "2026-08-02T10:00:00Z",
                         "output": {"oldest_seq": 0, "newest_seq": 0, "bytes": 0}});
    let spawn = Mock::given(method("POST")).and(path(format!("{root}/processes")));
    spawn.respond_with(success(process)).mount(&server).await;
    let input = Mock::given(method("POST")).and(path(format!("{root}/processes/proc_1/input")));
    input.respond_with(success(json!({"input_seq": 1}))).mount(&server).await;
    let output = base64::engine::general_purpose::STANDARD.encode("done\n");
    let frames = format!(
        "{{\"type\":\"data\",\"seq\":1,\"stream\":\"stdout\",\"data_base64\":\"{output}\"}}\n\
         {{\"type\":\"exit\",\"seq\":2,\"exit_code\":0}}\n"
    );
    let connect = Mock::given(method("GET")).and(path(format!("{root}/processes/proc_1/connect")));
    connect.respond_with(ResponseTemplate::new(200).set_body_string(frames)).mount(&server).await;
    server
}

fn project_of(root: &Path) {
    fs::create_dir(root.join("project")).expect("a directory");
    fs::write(root.join("project/f"), "x").expect("a file");
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_destroyed_is_a_failure_with_its_id() {
    let server = sticky(Duration::ZERO).await;
    let delete = Mock::given(method("DELETE")).and(path(format!("/v1/sandboxes/{ID}")));
    delete.respond_with(fail(403, json!("not today"))).mount(&server).await;
    let cli = Cli::new(&server.uri());
    project_of(cli.home.path());
    let text = cli.run(&["sandbox", "offload", "project", "--", "make"]);
    assert_eq!((text.code, text.stdout.as_str()), (Some(1), "done\n"), "{text:?}");
    for part in ["still costs money", "not today", &format!("createos sandbox rm {ID} --force")] {
        assert!(text.stderr.contains(part), "{part} in {text:?}");
    }
    let json = cli.run(&["sandbox", "offload", "project", "-o", "json", "--", "make"]);
    let document = json.json();
    assert_eq!((json.code, &document["exit_code"]), (Some(1), &json!(0)), "{json:?}");
    let why = document["teardown_failure"].as_str().expect("text");
    assert!(why.contains(ID) && why.contains("still costs money"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_while_it_is_being_made_ends_it_all_the_same() {
    let server = sticky(Duration::from_secs(2)).await;
    let delete = Mock::given(method("DELETE")).and(path(format!("/v1/sandboxes/{ID}")));
    let gone = success(json!({"id": ID, "status": "destroyed"}));
    delete.respond_with(gone).expect(1).mount(&server).await;
    let cli = Cli::new(&server.uri());
    project_of(cli.home.path());
    let mut command = cli.command(&["sandbox", "offload", "project", "--", "make"]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let asked = async || {
        let requests = server.received_requests().await.expect("recorded");
        requests.iter().any(|request| request.method.as_str() == "POST")
    };
    while !asked().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    kill_process(Pid::from_child(&child), Signal::TERM).expect("SIGTERM");
    let ended = tokio::task::spawn_blocking(move || child.wait_with_output());
    let ended = Answer::of(ended.await.expect("no panic").expect("an end"));
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(143), ""), "{ended:?}");
}
