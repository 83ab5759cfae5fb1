//! What the control plane refuses, and what becomes of a command when it goes away.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};
use wiremock::matchers::{body_partial_json, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::first_keys;
use crate::support::Answer;
use crate::support::plane::{Cli, ID, fail, plane, rows, sandbox, success};

const CLONE: &str = "sb-01k4m2c9zq8v7n5t3r1p0x6y99";

fn at(end: &str) -> String {
    format!("/v1/sandboxes/{ID}{end}")
}

async fn on(server: &MockServer, verb: &str, end: &str, answer: ResponseTemplate) {
    Mock::given(method(verb)).and(path(at(end))).respond_with(answer).mount(server).await;
}

fn row(id: &str, name: &str, status: &str) -> Value {
    let mut row = sandbox(name, status);
    row["id"] = json!(id);
    row
}

/// Text and JSON of a line that fails: exit code 1, nothing where it does not belong.
fn both(cli: &Cli, line: &[&str]) -> (Answer, Value) {
    let text = cli.run(&[line, &["-o", "table"]].concat());
    assert_eq!((text.code, text.stdout.as_str()), (Some(1), ""), "{line:?}: {text:?}");
    let document = cli.run(&[line, &["-o", "json"]].concat());
    assert_eq!((document.code, document.stderr.as_str()), (Some(1), ""), "{line:?}: {document:?}");
    // Automatic JSON tells both.
    let automatic = cli.run(line);
    assert_eq!(automatic.stdout, document.stdout, "{line:?}");
    assert_eq!(automatic.stderr, text.stderr, "{line:?}");
    (text, document.error())
}

#[tokio::test]
async fn unknown_and_ambiguous_names_act_on_nothing() {
    let server = MockServer::start().await;
    let id = |number: usize| format!("sb-01k4m2c9zq8v7n5t3r1p0x6y{number:02}");
    let mut many: Vec<Value> = (10..22).map(|number| row(&id(number), "twin", "running")).collect();
    many.push(row(&id(30), "web-1", "paused"));
    many.push(row(&id(31), "old", "destroyed"));
    let list = Mock::given(method("GET")).and(path("/v1/sandboxes"));
    list.respond_with(rows(json!(many))).mount(&server).await;
    let cli = Cli::new(&server.uri());
    let lines: &[&[&str]] = &[
        &["get"],
        &["edit", "--ingress", "on"],
        &["pause"],
        &["resume"],
        &["fork"],
        &["rm", "--force"],
    ];
    for line in lines {
        let line = |name| [&["sandbox", line[0], name], &line[1..]].concat();
        if line("x")[1] != "rm" {
            let (text, error) = both(&cli, &line("nobody"));
            assert!(text.stderr.contains("no sandbox called \"nobody\""), "{text:?}");
            assert!(text.stderr.contains("createos sandbox list"), "{text:?}");
            assert_eq!(error["code"], "not_found");
            let (text, error) = both(&cli, &line("twin"));
            assert!(text.stderr.contains("12 sandboxes"), "{text:?}");
            assert!(
                text.stderr.contains(&id(10)) && text.stderr.contains("and 2 more"),
                "{text:?}"
            );
            assert_eq!(error["code"], "error");
            // An id that several begin with.
            let (text, _) = both(&cli, &line("sb-01k4m2c9zq8v7n5t3r1p0x6y1"));
            assert!(text.stderr.contains("fits 10 sandboxes"), "{text:?}");
        }
    }
    for command in ["edit", "pause", "resume", "fork"] {
        let more: &[&str] = if command == "edit" { &["--ingress", "on"] } else { &[] };
        let (text, _) = both(&cli, &[&["sandbox", command, "old"], more].concat());
        assert!(text.stderr.contains("no sandbox called \"old\""), "{command}: {text:?}");
    }
    for (command, more) in [("edit", &["--ingress", "on"][..]), ("pause", &[]), ("rm", &["-y"])] {
        let answer = cli.run(&[&["sandbox", command, "web", "-o", "table"], more].concat());
        assert_eq!(answer.code, Some(1), "the beginning of a name is not enough: {answer:?}");
    }
    let changes = server.received_requests().await.expect("recorded");
    assert!(changes.iter().all(|request| request.method.as_str() == "GET"), "{changes:?}");
}

#[tokio::test]
async fn the_servers_words_and_states_reach_the_user() {
    let server = plane("running").await;
    on(&server, "PATCH", "", fail(400, json!({"auto_pause_after_seconds": "too small"}))).await;
    on(&server, "POST", "/ssh-pubkeys", fail(403, json!("not yours"))).await;
    on(&server, "POST", "/bandwidth/recharge", fail(402, json!("out of credit"))).await;
    on(&server, "PUT", "/egress", fail(409, json!("sandbox is not running"))).await;
    on(&server, "POST", "/pause", fail(429, json!("slow down"))).await;
    let create = Mock::given(method("POST")).and(path("/v1/sandboxes"));
    create.respond_with(fail(404, json!("network not found: gone"))).mount(&server).await;
    let cli = Cli::new(&server.uri());
    std::fs::write(cli.home.path().join("key.pub"), "ssh-ed25519 AAAA me\n").expect("a file");
    let edit = ["sandbox", "edit", "demo"];
    let cases: &[(&[&str], &str, &str)] = &[
        (&["--auto-pause", "1h"], "too small", "bad_request"),
        (&["--add-ssh-key", "key.pub"], "not yours", "forbidden"),
        (&["--add-bandwidth", "1GB"], "out of credit", "api_error"),
        (&["--egress", "example.org"], "sandbox is not running", "conflict"),
    ];
    for (more, part, code) in cases {
        let (text, error) = both(&cli, &[&edit[..], more].concat());
        assert!(text.stderr.contains(part) && text.stderr.contains("demo"), "{text:?}");
        assert_eq!(error["code"], *code);
    }
    let (_, error) = both(&cli, &["sandbox", "create", "--shape", "s", "--network", "gone"]);
    assert_eq!(error["code"], "not_found");
    assert!(error["message"].as_str().expect("text").contains("network not found: gone"));
}

#[tokio::test]
async fn a_state_that_leads_nowhere_ends_the_wait() {
    let server = MockServer::start().await;
    let failed = json!({"id": ID, "name": "demo", "status": "creating"});
    let create = Mock::given(method("POST")).and(path("/v1/sandboxes"));
    create.respond_with(success(failed)).mount(&server).await;
    let mut view = sandbox("demo", "failed");
    view["status_reason"] = json!("no host has room");
    on(&server, "GET", "", success(view)).await;
    let cli = Cli::new(&server.uri());
    let (text, error) = both(&cli, &["sandbox", "create", "--shape", "s"]);
    assert!(text.stderr.contains(&format!("demo ({ID}) is failed: no host has room")), "{text:?}");
    assert!(text.stderr.contains(&format!("createos sandbox get {ID}")), "{text:?}");
    assert_eq!(error["code"], "error");
    // Without a wait it is the server's answer.
    let at_once = cli.run(&["sandbox", "create", "--shape", "s", "--no-wait", "-o", "json"]);
    assert_eq!((at_once.code, &at_once.json()["status"]), (Some(0), &json!("creating")));

    for (state, command) in [("failed", "pause"), ("error", "resume")] {
        let server = MockServer::start().await;
        on(&server, "POST", &format!("/{command}"), success(sandbox("demo", "pausing"))).await;
        on(&server, "GET", "", success(sandbox("demo", state))).await;
        let (text, _) = both(&Cli::new(&server.uri()), &["sandbox", command, ID]);
        assert!(text.stderr.contains(&format!("is {state}")), "{text:?}");
    }
}

#[tokio::test]
async fn a_fork_that_breaks_off_names_the_clones_that_exist() {
    let server = plane("paused").await;
    let disks = json!([{"disk_id": "disk_1", "name": "data", "kind": "s3", "mount_path": "/mnt/d",
        "config": {"bucket": "b", "endpoint": "https://e"}, "mount_status": "mounted"}]);
    server.reset().await;
    on(&server, "GET", "", success(sandbox("demo", "paused"))).await;
    on(&server, "GET", "/disks", rows(disks)).await;
    let list = Mock::given(method("GET")).and(path("/v1/sandboxes"));
    list.respond_with(rows(json!([sandbox("demo", "paused")]))).mount(&server).await;
    let fork = || Mock::given(method("POST")).and(path(at("/fork")));
    let clone = row(CLONE, "demo-fork", "paused");
    fork()
        .and(body_partial_json(json!({"start_paused": true})))
        .respond_with(success(clone.clone()))
        .up_to_n_times(1)
        .mount(&server)
        .await;
    fork().respond_with(fail(402, json!("out of credit"))).mount(&server).await;
    let seen = Mock::given(method("GET")).and(path(format!("/v1/sandboxes/{CLONE}")));
    seen.respond_with(success(clone)).mount(&server).await;
    let cli = Cli::new(&server.uri());
    let line = ["sandbox", "fork", "demo", "--paused", "--count", "3", "-o", "table"];
    let answer = cli.run(&line);
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""), "{answer:?}");
    for part in [
        "out of credit; 1 of the clones exist",
        &format!("exists: demo-fork ({CLONE})"),
        &format!("createos sandbox rm {CLONE} --force"),
        "warning: a clone starts without the disks: data at /mnt/d",
    ] {
        assert!(answer.stderr.contains(part), "{part} in {answer:?}");
    }
    let document = cli.run(&["sandbox", "fork", "demo", "-o", "json"]);
    assert_eq!((document.code, &document.error()["code"]), (Some(1), &json!("api_error")));
    for state in ["creating", "failed", "error", "destroyed"] {
        let server = plane(state).await;
        let (text, _) = both(&Cli::new(&server.uri()), &["sandbox", "fork", ID]);
        assert!(text.stderr.contains(&format!("is {state}")), "{text:?}");
    }
}

#[tokio::test]
async fn a_server_that_dies_in_the_middle_is_no_success() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    // Takes the request, answers half of a head, and is gone.
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let _ = stream.set_read_timeout(Some(Duration::from_millis(300)));
            let mut request = [0; 65536];
            let _ = stream.read(&mut request);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Le");
        }
    });
    let cli = Cli::new(&url);
    let create = cli.run(&["sandbox", "create", "--shape", "s", "-o", "table"]);
    assert_eq!((create.code, create.stdout.as_str()), (Some(1), ""), "{create:?}");
    assert!(create.stderr.contains("it may have been created all the same"), "{create:?}");
    let fork = cli.run(&["sandbox", "rm", ID, "--force", "-o", "json"]);
    assert_eq!((fork.code, &fork.json()["failed"]), (Some(1), &json!(1)), "{fork:?}");
    for line in [&["get", ID][..], &["pause", ID], &["edit", ID, "--ingress", "on"], &["list"]] {
        let answer = cli.run(&[&["sandbox"], line, &["-o", "json"]].concat());
        assert_eq!(
            (answer.code, &answer.error()["code"]),
            (Some(1), &json!("network")),
            "{line:?}"
        );
    }
}

#[tokio::test]
async fn no_server_a_wrong_key_and_no_key_say_what_to_do() {
    let lines: &[&[&str]] = &[
        &["list"],
        &["get", "demo"],
        &["create", "--shape", "s"],
        &["edit", "demo", "--ingress", "on"],
        &["pause", "demo"],
        &["resume", "demo"],
        &["fork", "demo"],
        &["shapes"],
    ];
    let gone = Cli::new("http://127.0.0.1:1");
    let server = MockServer::start().await;
    Mock::given(wiremock::matchers::any())
        .respond_with(fail(401, json!("invalid api key")))
        .mount(&server)
        .await;
    let wrong = Cli::new(&server.uri());
    for line in lines {
        let line = [&["sandbox"], *line].concat();
        let (text, error) = both(&gone, &line);
        assert_eq!(error["code"], "network", "{line:?}");
        assert!(text.stderr.contains("127.0.0.1:1"), "{text:?}");
        let (text, error) = both(&wrong, &line);
        assert_eq!(error["code"], "unauthorized", "{line:?}");
        assert!(text.stderr.contains("the key from CREATEOS_API_KEY was refused"), "{text:?}");
        assert!(!text.stderr.contains("skp_test"), "{text:?}");
        let nobody = Answer::of(
            wrong
                .command(&line)
                .env_remove("CREATEOS_API_KEY")
                .args(["-o", "json"])
                .output()
                .expect("runs"),
        );
        assert_eq!((nobody.code, &nobody.error()["code"]), (Some(1), &json!("unauthorized")));
        assert_eq!(nobody.error()["message"], "not signed in");
    }
}

#[tokio::test]
async fn ctrl_c_while_waiting_leaves_the_sandbox_and_names_it() {
    let server = plane("creating").await;
    let create = Mock::given(method("POST")).and(path("/v1/sandboxes"));
    create
        .respond_with(success(json!({"id": ID, "name": "demo", "status": "creating"})))
        .mount(&server)
        .await;
    let cli = Cli::new(&server.uri());
    let mut command = cli.command(&["sandbox", "create", "--shape", "s", "-o", "table"]);
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let child = child.spawn().expect("the program runs");
    let asked = || async {
        let requests = server.received_requests().await.expect("recorded");
        requests.iter().any(|request| request.url.path() == at(""))
    };
    while !asked().await {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("SIGINT");
    let answer = Answer::of(child.wait_with_output().expect("an end"));
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(130), ""), "{answer:?}");
    assert!(answer.stderr.contains(&format!("createos sandbox rm {ID} --force")), "{answer:?}");
}

#[tokio::test]
async fn the_documents_have_their_keys_in_order() {
    let server = plane("running").await;
    on(&server, "PATCH", "", success(sandbox("demo", "running"))).await;
    let edit = Cli::new(&server.uri()).run(&["sandbox", "edit", "demo", "--ingress", "off"]);
    assert_eq!(first_keys(&edit.stdout, 4), ["action", "id", "ingress", "ingress_url"], "{edit:?}");
}

/// The rest of the top-up is on the engine, which meters nothing.
#[tokio::test(flavor = "multi_thread")]
async fn bandwidth_is_topped_up_with_a_slider() {
    use crate::support::terminal::Terminal;
    let server = plane("running").await;
    let balance = |quota: i64, used: i64| {
        success(json!({"id": ID, "quota_bytes": quota, "used_bytes": used, "ingress_bytes": 0,
                       "remaining_bytes": quota - used, "capped": used >= quota}))
    };
    on(&server, "GET", "/bandwidth", balance(10 << 30, 10 << 30)).await;
    let recharge = Mock::given(method("POST")).and(path(at("/bandwidth/recharge")));
    let recharge = recharge.and(body_partial_json(json!({"add_bytes": 17_u64 << 30})));
    recharge.respond_with(balance(27 << 30, 10 << 30)).expect(1).mount(&server).await;
    let url = server.uri();
    let typed = tokio::task::spawn_blocking(move || {
        let cli = Cli::new(&url);
        let mut menu = Terminal::start(&cli.command(&["sandbox", "edit", "demo"]), 120);
        menu.expect("10.0 GB used of 10.0 GB   (capped");
        menu.expect("  done");
        // Left without a top-up, with each key that leaves.
        for keys in ["\x1b", "q", "\x03"] {
            menu.send(if keys == "\x1b" { "jj\r" } else { "\r" });
            menu.expect("] 5 GB");
            menu.send(keys);
            menu.expect("  done");
        }
        menu.send("\r");
        menu.expect("] 5 GB");
        menu.send("\x1b[C+");
        menu.expect("] 7 GB");
        menu.send("\x1b[A\x1b[A\x1b[B-\x1b[D");
        menu.expect("] 15 GB");
        menu.send("++\r");
        menu.expect("added 17.0 GB: 10.0 GB used of 27.0 GB");
        menu.expect("  done");
        menu.send("q");
        menu.end()
    });
    let (said, code) = typed.await.expect("no panic");
    assert_eq!(code, Some(0), "{said}");
}
