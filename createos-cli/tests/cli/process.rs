//! `createos sandbox process` on the real engine.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::home::{Home, Served};
use crate::support::terminal::Terminal;
use crate::support::{Answer, signal, wait_until};

fn home() -> (Home, Served) {
    let home = Home::new();
    let engine = home.serve();
    home.ok(&["sandbox", "create", "--shape", "s-1vcpu-256mb", "--name", "box"]);
    (home, engine)
}

fn process(home: &Home, arguments: &[&str]) -> Answer {
    Answer::of(home.run(&[&["sandbox", "process"], arguments].concat()))
}

fn document(home: &Home, arguments: &[&str]) -> Value {
    home.json(&[&["sandbox", "process"], arguments].concat())
}

/// Starts a script; its id.
fn start(home: &Home, script: &str) -> String {
    let view = document(home, &["start", "box", "--", "sh", "-c", script]);
    view["process_id"].as_str().expect("an id").to_owned()
}

#[test]
fn run_is_the_command_as_if_it_ran_here() {
    let (home, _engine) = home();
    let answer =
        process(&home, &["run", "box", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((answer.code, &*answer.stdout, &*answer.stderr), (Some(7), "out\n", "err\n"));
    let answer = process(&home, &["run", "box", "--", "sh", "-c", "kill -TERM $$"]);
    assert_eq!((answer.code, &*answer.stdout), (Some(143), ""));
    let answer = process(
        &home,
        &["run", "box", "--cwd", "/tmp", "--env", "A=b=c", "--", "sh", "-c", "echo $PWD $A -o"],
    );
    assert_eq!((answer.code, &*answer.stdout), (Some(0), "/tmp b=c -o\n"), "{answer:?}");
    let answer = process(
        &home,
        &["run", "box", "--pty", "--rows", "7", "--cols", "33", "--", "stty", "size"],
    );
    assert_eq!((answer.code, &*answer.stdout), (Some(0), "7 33\r\n"), "{answer:?}");

    // JSON that was asked for is the process, and nothing else.
    let answer =
        process(&home, &["run", "box", "-o", "json", "--", "sh", "-c", "echo out; exit 7"]);
    assert_eq!((answer.code, &*answer.stderr), (Some(7), ""));
    assert_eq!(answer.json()["exit_code"], 7);
    assert_eq!(answer.json()["state"], "exited");

    let begun = std::time::Instant::now();
    let script = "(sleep 2; echo late > /tmp/late) >/dev/null 2>&1 & echo early";
    let answer = process(&home, &["run", "box", "--all", "--", "sh", "-c", script]);
    assert_eq!((answer.code, &*answer.stdout), (Some(0), "early\n"));
    assert!(begun.elapsed().as_secs() >= 2, "all of it is waited for");

    let answer = process(&home, &["run", "box", "--timeout", "500ms", "--", "sleep", "7003"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("createos sandbox process attach box"), "{answer:?}");
    let answer = process(&home, &["run", "box", "--", "no-such-program"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("no-such-program"), "{answer:?}");
    let running = home.ok(&["sandbox", "exec", "box", "--", "pgrep", "-c", "-x", "sleep"]);
    assert_eq!(running, "1\n", "it goes on");
}

#[test]
fn what_was_started_is_listed_fed_signalled_waited_for_and_stopped() {
    let (home, _engine) = home();
    assert_eq!(document(&home, &["list", "box"]), json!([]));
    let id = start(&home, "while read line; do echo got $line; done; exit 5");
    let listed = document(&home, &["ls", "box"]);
    assert_eq!((&listed[0]["process_id"], &listed[0]["state"]), (&json!(id), &json!("running")));
    let table = home.ok(&["-o", "table", "sandbox", "process", "list", "box"]);
    assert!(table.contains("COMMAND") && table.contains("while read line"), "{table}");
    let shown = home.ok(&["-o", "table", "sandbox", "process", "get", "box", &id]);
    assert!(shown.contains("running") && shown.contains("places"), "{shown}");

    let first = document(&home, &["input", "box", &id, "--text", "one\n"]);
    assert!(first["input_seq"].as_u64().is_some_and(|seq| seq > 0), "{first}");
    std::fs::write(home.dir.path().join("more"), "two\n").expect("a file");
    document(&home, &["input", "box", &id, "--file", "more"]);
    document(&home, &["input", "box", &id, "--base64", "dGhyZWUK"]);
    let mut piped = home.command(&["sandbox", "process", "input", "box", &id, "--file", "-"]);
    let mut piped = piped.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("it runs");
    piped.stdin.take().expect("a pipe").write_all(b"four\n").expect("sent");
    assert!(piped.wait().expect("an end").success());
    let closed = document(&home, &["close-stdin", "box", &id]);
    assert_eq!((&closed["action"], &closed["process_id"]), (&json!("stdin_closed"), &json!(id)));
    let waited = document(&home, &["wait", "box", &id]);
    assert_eq!(waited["exit_code"], 5);
    let all = "got one\ngot two\ngot three\ngot four\n";
    let answer = process(&home, &["attach", "box", &id]);
    assert_eq!((answer.code, &*answer.stdout), (Some(5), all));
    let kept = process(&home, &["attach", "box", &id, "--no-follow"]);
    assert_eq!((kept.code, &*kept.stdout), (Some(5), all));
    let newest = document(&home, &["get", "box", &id])["output"]["newest_seq"].to_string();
    assert_eq!(process(&home, &["connect", "box", &id, "--after", &newest]).stdout, "");
    let refused = process(&home, &["input", "box", &id, "--text", "x", "-o", "json"]);
    assert_eq!((refused.code, &refused.error()["code"]), (Some(1), &json!("conflict")));

    let id =
        start(&home, "trap 'echo hup' HUP; trap '' TERM; echo ready; while :; do sleep 0.1; done");
    wait_until("it is ready", || {
        process(&home, &["attach", "box", &id, "--no-follow"]).stdout == "ready\n"
    });
    let signalled = document(&home, &["signal", "box", &id, "hup"]);
    assert_eq!(
        (&signalled["action"], &signalled["signal"]),
        (&json!("process_signalled"), &json!("SIGHUP"))
    );
    wait_until("it has heard it", || {
        process(&home, &["attach", "box", &id, "--no-follow"]).stdout == "ready\nhup\n"
    });
    let slow = process(&home, &["wait", "box", &id, "--timeout", "300ms"]);
    assert_eq!(slow.code, Some(1), "{slow:?}");
    assert!(slow.stderr.contains("still running"), "{slow:?}");
    let stopped = document(&home, &["stop", "box", &id, "--grace", "200ms"]);
    assert_eq!(stopped["signal"], "SIGKILL");
    assert_eq!(process(&home, &["attach", "box", &id]).code, Some(137));

    let pty = document(&home, &["shell", "box", "--no-attach"]);
    let pty = pty["process_id"].as_str().expect("an id");
    let resized = document(&home, &["resize", "box", pty, "--rows", "9", "--cols", "44"]);
    assert_eq!((&resized["action"], &resized["rows"]), (&json!("resized"), &json!(9)));
    document(&home, &["input", "box", pty, "--text", "stty size; exit 3\n"]);
    let answer = process(&home, &["attach", "box", pty]);
    assert_eq!(answer.code, Some(3), "{answer:?}");
    assert!(answer.stdout.contains("9 44\r\n"), "{answer:?}");
}

#[test]
fn mistakes_are_named() {
    let (home, _engine) = home();
    for (line, code, part) in [
        (&["run", "box"][..], 2, "--"),
        (&["attach", "box"], 2, "process"),
        (&["input", "box", "p"], 2, "--text"),
        (&["input", "box", "p", "--text", "a", "--base64", "YQ=="], 2, "--base64"),
        (&["input", "box", "p", "--base64", "%"], 2, "base64"),
        (&["signal", "box", "p", "SIGSTOP"], 2, "SIGKILL"),
        (&["resize", "box", "p"], 2, "--rows 40 --cols 120"),
        (&["resize", "box", "p", "--rows", "0", "--cols", "1"], 2, "0"),
        (&["wait", "box", "p", "--timeout", "5"], 2, "5s"),
        (&["run", "box", "--env", "X", "--", "true"], 2, "KEY=VALUE"),
        (&["run", "box", "--rows", "5", "--", "true"], 2, "--pty"),
        (&["shell", "box"], 2, "--no-attach"),
        (&["get", "box", "proc_nothing"], 1, "createos sandbox process list box"),
        (&["run", "nowhere", "--", "true"], 1, "nowhere"),
        (&["run", "box", "--cwd", "tmp", "--", "true"], 1, "absolute"),
    ] {
        let line = [&["-o", "table"], &["sandbox", "process"][..], line].concat();
        let answer = Answer::of(home.run(&line));
        assert_eq!((answer.code, &*answer.stdout), (Some(code), ""), "{line:?}: {answer:?}");
        assert!(answer.stderr.contains(part), "{line:?}: {answer:?}");
    }
}

/// Leads to the engine, and cuts every connection that has brought so many bytes, `cuts` times.
fn cutting_proxy(target: String, limit: usize, cuts: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let cuts = Arc::new(AtomicUsize::new(cuts));
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let server = TcpStream::connect(&target).expect("the engine");
            let (mut from, mut to) =
                (client.try_clone().expect("a copy"), server.try_clone().expect("a copy"));
            std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            let cuts = cuts.clone();
            std::thread::spawn(move || back(server, client, limit, &cuts));
        }
    });
    format!("http://{address}")
}

fn back(mut server: TcpStream, mut client: TcpStream, limit: usize, cuts: &AtomicUsize) {
    let (mut piece, mut moved) = ([0; 512], 0);
    while let Ok(count @ 1..) = server.read(&mut piece) {
        moved += count;
        let mine = |left: usize| left.checked_sub(1);
        if moved > limit && cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, mine).is_ok() {
            break;
        }
        if client.write_all(&piece[..count]).is_err() {
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}

#[test]
fn connections_that_break_lose_and_repeat_nothing() {
    let (home, _engine) = home();
    let id = start(&home, "for i in $(seq 1 200); do echo line $i; sleep 0.01; done; exit 6");
    let mut command = home.command(&["sandbox", "process", "attach", "box", &id]);
    let url = command.get_envs().find(|(name, _)| *name == "CREATEOS_SANDBOX_URL");
    let url = url.and_then(|(_, value)| value).expect("an address").to_str().expect("text");
    let target = url.strip_prefix("http://").expect("http").trim_end_matches('/').to_owned();
    command.env("CREATEOS_SANDBOX_URL", cutting_proxy(target, 4000, 3));
    let answer = Answer::of(command.output().expect("it runs"));
    let whole: String = (1..=200).map(|number| format!("line {number}\n")).collect();
    assert_eq!(answer.stdout, whole, "{}", answer.stderr);
    assert_eq!((answer.code, &*answer.stderr), (Some(6), ""));
}

#[test]
fn output_that_is_gone_is_said_to_be() {
    let (home, _engine) = home();
    let id = start(&home, "seq 1000000; echo the end");
    document(&home, &["wait", "box", &id]);
    let answer = process(&home, &["attach", "box", &id, "--after", "1"]);
    assert_eq!(answer.code, Some(0), "{}", answer.stderr);
    assert!(answer.stderr.contains("older output is gone"), "{}", answer.stderr);
    assert!(answer.stdout.ends_with("999999\n1000000\nthe end\n"));
}

#[test]
fn ctrl_c_leaves_it_running_and_says_how_to_come_back() {
    let (home, _engine) = home();
    let mut command = home.command(&[
        "sandbox",
        "process",
        "run",
        "box",
        "--",
        "sh",
        "-c",
        "echo up; exec sleep 7004",
    ]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut begun = [0; 3];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut begun).expect("its output");
    signal(&child, rustix::process::Signal::INT);
    let answer = Answer::of(child.wait_with_output().expect("an end"));
    assert_eq!(answer.code, Some(130));
    assert!(
        answer.stderr.contains("it goes on: createos sandbox process attach box "),
        "{answer:?}"
    );
    assert_eq!(home.ok(&["sandbox", "exec", "box", "--", "pgrep", "-c", "-x", "sleep"]), "1\n");

    // What is sent to it goes on being sent, up to its end.
    let id = start(&home, "wc -c");
    let mut command = home.command(&["sandbox", "process", "attach", "box", &id, "--stdin"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    child.stdin.take().expect("a pipe").write_all(&[b'x'; 300_000]).expect("sent");
    let output = child.wait_with_output().expect("an end");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"300000\n"[..]));
}

#[test]
fn a_terminal_is_left_changed_and_come_back_to() {
    let (home, _engine) = home();
    let attach = home.command(&["sandbox", "process", "attach", "box"]);
    let mut terminal = Terminal::around(&attach, 150);
    let before = terminal.settings();
    terminal.expect("open a shell?");
    terminal.send("\r");
    terminal.expect("Ctrl-] leaves");
    terminal.send("PS1='@ '; echo fi''rst\r");
    terminal.expect("first\r\n");
    terminal.send("stty size\r");
    terminal.expect("24 150\r\n");
    terminal.resize(30, 90);
    terminal.send("sleep 0.5; stty size\r");
    terminal.expect("30 90\r\n");
    terminal.send("sleep 7005\r");
    wait_until("it sleeps", || {
        home.ok(&["sandbox", "exec", "box", "--", "sh", "-c", "pgrep -c -x sleep || :"]) == "1\n"
    });
    terminal.send("\x03");
    terminal.expect("^C");
    terminal.expect("@ ");
    terminal.send("echo code-$?\r");
    terminal.expect("code-130\r\n");

    terminal.send("\x0e");
    terminal.expect("Ctrl-] leaves");
    terminal.send("echo sec''ond; X=kept\r");
    terminal.expect("second\r\n");
    terminal.send("\x10");
    terminal.expect("which process?");
    // The newest is first, so this is the other one.
    terminal.send("\x1b[B\r");
    terminal.expect("first");
    terminal.send("\x1d");
    let (said, code) = terminal.restored(&before);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("goes on: createos sandbox process attach box "), "{said}");

    let running = document(&home, &["list", "box"]);
    assert_eq!(running.as_array().map(Vec::len), Some(2), "{running}");
    let second =
        running.as_array().expect("a list").iter().max_by_key(|p| p["created_at"].to_string());
    let second = second.expect("one")["process_id"].as_str().expect("an id");
    let attach = home.command(&["sandbox", "process", "attach", "box", second]);
    let mut terminal = Terminal::around(&attach, 150);
    let before = terminal.settings();
    terminal.expect("second");
    terminal.send("echo $X-again; exit 9\r");
    terminal.expect("kept-again\r\n");
    assert_eq!(terminal.restored(&before).1, 9);
}

#[test]
fn raw_passes_on_every_key() {
    let (home, _engine) = home();
    let line = ["sandbox", "process", "shell", "box", "--cmd", "cat", "--no-attach"];
    let id = home.json(&line)["process_id"].as_str().expect("an id").to_owned();
    let attach = home.command(&["sandbox", "process", "attach", "box", &id, "--raw"]);
    let mut terminal = Terminal::around(&attach, 100);
    let before = terminal.settings();
    terminal.expect("at ");
    terminal.send("a\x1db\r");
    terminal.expect("a^]b\r\n");
    terminal.send("\x04");
    assert_eq!(terminal.restored(&before).1, 0, "the end of cat is the end");
}
