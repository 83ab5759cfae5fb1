//! Pickers and questions on a real pseudo-terminal: each key, and what it leads to.

use std::process::Command;

use serde_json::{Value, json};
use wiremock::matchers::{method, path, query_param};
use wiremock::{Mock, MockServer};

use crate::support::plane::{Cli, rows, success};
use crate::support::terminal::Terminal;

const UP: &str = "\x1b[A";
const DOWN: &str = "\x1b[B";
const ESC: &str = "\x1b";
const CTRL_C: &str = "\x03";

fn id(number: u32) -> String {
    format!("sb-01k4m2c9zq8v7n5t3r1p0x6y{number:02}")
}

fn row(number: u32, name: &str, status: &str) -> Value {
    json!({"id": id(number), "name": name, "status": status, "vcpu": 1, "mem_mib": 256,
           "disk_mib": 10240, "created_at": "2026-08-02T10:00:00Z", "ingress_enabled": false,
           "region": "us"})
}

/// Three running sandboxes, none paused; each can be read and destroyed.
async fn three() -> MockServer {
    let server = MockServer::start().await;
    let three = [row(1, "one", "running"), row(2, "two", "running"), row(3, "three", "running")];
    let lists = [("running", json!(three)), ("paused", json!([]))];
    for (status, page) in lists {
        let list = Mock::given(method("GET")).and(path("/v1/sandboxes"));
        let list = list.and(query_param("status", status));
        list.respond_with(rows(page)).mount(&server).await;
    }
    let all = Mock::given(method("GET")).and(path("/v1/sandboxes"));
    all.respond_with(rows(json!(three))).mount(&server).await;
    for sandbox in three {
        let at = || path(format!("/v1/sandboxes/{}", sandbox["id"].as_str().expect("an id")));
        let gone = success(json!({"id": sandbox["id"], "status": "destroyed"}));
        Mock::given(method("DELETE")).and(at()).respond_with(gone).mount(&server).await;
        let get = Mock::given(method("GET")).and(at());
        get.respond_with(success(sandbox.clone())).mount(&server).await;
    }
    server
}

/// Types keys once `seen` is there; what was said from then on, and the exit code.
async fn typing(
    server: &MockServer,
    line: &'static [&'static str],
    script: &[(&'static str, String)],
) -> (String, Option<i32>) {
    let (url, script) = (server.uri(), script.to_vec());
    let typed = tokio::task::spawn_blocking(move || {
        let cli = Cli::new(&url);
        let mut terminal = Terminal::start(&cli.command(line), 80);
        for (seen, keys) in script {
            terminal.expect(seen);
            terminal.send(&keys);
        }
        terminal.end()
    });
    typed.await.expect("no panic")
}

async fn destroyed(server: &MockServer) -> Vec<String> {
    let requests = server.received_requests().await.expect("recorded");
    let deleted = requests.iter().filter(|request| request.method.as_str() == "DELETE");
    deleted.filter_map(|request| request.url.path().rsplit('/').next().map(str::to_owned)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_key_of_a_picker_does_what_the_contract_says() {
    let server = three().await;
    let cases = [
        ("\r".to_owned(), 1),
        (" ".to_owned(), 1),
        (format!("{DOWN}\r"), 2),
        ("j ".to_owned(), 2),
        ("jjk\r".to_owned(), 2),
        (format!("{DOWN}{DOWN}{UP}\r"), 2),
        // Both ends lead to each other.
        ("k\r".to_owned(), 3),
        ("jjj\r".to_owned(), 1),
    ];
    for (keys, number) in cases {
        let script = [("q leaves", keys.clone())];
        let (said, code) = typing(&server, &["sandbox", "get"], &script).await;
        assert_eq!(code, Some(0), "{keys:?}: {said}");
        assert!(said.contains(&format!("{})\r\n  status", id(number))), "{keys:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picker_is_left_with_one_line_and_interrupted_with_130() {
    let server = three().await;
    for keys in ["q", ESC] {
        let (said, code) = typing(&server, &["sandbox", "get"], &[("q leaves", keys.into())]).await;
        assert_eq!(code, Some(0), "{keys:?}: {said}");
        assert_eq!(said.matches("nothing was changed").count(), 1, "{keys:?}: {said}");
    }
    let (said, code) = typing(&server, &["sandbox", "get"], &[("q leaves", CTRL_C.into())]).await;
    assert_eq!(code, Some(130), "{said}");
    assert!(said.contains("interrupted"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picker_without_candidates_says_which_state_it_looked_for() {
    let server = three().await;
    let (said, code) = typing(&server, &["sandbox", "resume"], &[]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("there are no paused sandboxes"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn several_are_marked_with_space_and_taken_with_enter() {
    let server = three().await;
    let rm = &["sandbox", "rm"];
    let script = [("q leaves", " jj \r".to_owned()), ("2 sandboxes for good?", "y\r".to_owned())];
    let (said, code) = typing(&server, rm, &script).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(destroyed(&server).await, [id(1), id(3)]);

    // A mark can be taken back; without any, or left, nothing happens.
    for keys in ["  \r", "\r", " q", " \x1b"] {
        let (said, code) = typing(&server, rm, &[("q leaves", keys.to_owned())]).await;
        assert_eq!(code, Some(0), "{keys:?}: {said}");
        assert!(said.contains("nothing was"), "{keys:?}: {said}");
    }
    let (said, code) = typing(&server, rm, &[("q leaves", format!(" {CTRL_C}"))]).await;
    assert_eq!(code, Some(130), "{said}");
    assert_eq!(destroyed(&server).await.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_yes_is_a_yes() {
    let server = three().await;
    let rm = &["sandbox", "rm", "two"];
    let ask = |keys: &str| [("for good? [y/N]", keys.to_owned())];
    for keys in ["\r", "n\r", "no\r", "q\r", ESC, "y\x1b", "what?\rn\r"] {
        let (said, code) = typing(&server, rm, &ask(keys)).await;
        assert_eq!(code, Some(0), "{keys:?}: {said}");
        assert!(said.contains("nothing was deleted"), "{keys:?}: {said}");
    }
    let (said, code) = typing(&server, rm, &ask("y\x03")).await;
    assert_eq!(code, Some(130), "{said}");
    assert!(destroyed(&server).await.is_empty());
    let (said, code) = typing(&server, rm, &ask("x\x7f YES \r")).await;
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(destroyed(&server).await, [id(2)]);
}

/// A shell script that runs the command as `$0`, with its environment.
fn script(cli: &Cli, script: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", script, env!("CARGO_BIN_EXE_createos")]).current_dir(cli.home.path());
    for (name, value) in cli.command(&[]).get_envs() {
        if let Some(value) = value {
            shell.env(name, value);
        }
    }
    shell
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_goes_elsewhere_leaves_nobody_to_ask() {
    let server = three().await;
    let cli = Cli::new(&server.uri());
    let shell = script(&cli, r#""$0" sandbox get > file; echo "code $?"; cat file"#);
    let said = tokio::task::spawn_blocking(move || Terminal::start(&shell, 80).end().0);
    let said = said.await.expect("no panic");
    assert!(said.contains("code 2") && said.contains("\"usage\""), "{said}");
    assert!(!said.contains("q leaves"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_puts_the_terminal_back() {
    let server = three().await;
    for (name, code) in [("TERM", 143), ("INT", 130), ("HUP", 129)] {
        let cli = Cli::new(&server.uri());
        let shell = script(
            &cli,
            r#"before=$(stty -g); trap : INT HUP
            sh -c 'echo $$ > pid; exec "$0" sandbox get' "$0"; echo "code $?"
            [ "$before" = "$(stty -g)" ] && echo restored"#,
        );
        let pid = cli.home.path().join("pid");
        let said = tokio::task::spawn_blocking(move || {
            let mut terminal = Terminal::start(&shell, 80);
            terminal.expect("q leaves");
            let pid = std::fs::read_to_string(pid).expect("a number");
            let mut kill = Command::new("sh");
            kill.args(["-c", &format!("kill -{name} {}", pid.trim())]);
            assert!(kill.status().expect("kill runs").success());
            terminal.end().0
        });
        let said = said.await.expect("no panic");
        assert!(said.contains(&format!("code {code}")) && said.contains("restored"), "{said}");
    }
}
