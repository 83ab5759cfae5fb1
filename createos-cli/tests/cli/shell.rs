//! `createos sandbox shell` without SSH, at a real terminal on the real engine.

use rustix::process::Signal;

use crate::support::Answer;
use crate::support::home::{Home, Served};
use crate::support::plane::{Cli, ID, plane};
use crate::support::terminal::Terminal;

/// An engine that can be killed, with one sandbox.
fn home() -> (Home, Served) {
    let home = Home::new();
    let engine = home.serve();
    home.ok(&["sandbox", "create", "--shape", "s-1vcpu-256mb", "--name", "box"]);
    (home, engine)
}

/// A shell that is ready, and the terminal's settings before it.
fn open(home: &Home) -> (Terminal, String) {
    let mut terminal = Terminal::around(&home.command(&["sandbox", "shell", "box"]), 100);
    let before = terminal.settings();
    terminal.expect("connecting to box (sb-");
    // A prompt that cannot be taken for anything else.
    terminal.send("PS1='@ '; echo rea''dy\r");
    terminal.expect("ready\r\n");
    (terminal, before)
}

fn inside(home: &Home, script: &str) -> String {
    home.ok(&["sandbox", "exec", "box", "--", "sh", "-c", script])
}

#[test]
fn it_is_a_terminal_like_any_other() {
    let (home, _engine) = home();
    let (mut terminal, before) = open(&home);
    terminal.send("stty size; echo $TERM-$USER\r");
    terminal.expect("24 100\r\nxterm-256color-");
    terminal.resize(40, 120);
    terminal.send("sleep 0.3; stty size\r");
    terminal.expect("40 120\r\n");

    // Keys are the sandbox's: Ctrl+C, Ctrl+Z and Ctrl+D end nothing here.
    terminal.send("sleep 7001\r");
    crate::support::wait_until("it sleeps", || inside(&home, "pgrep -c -x sleep || :") == "1\n");
    terminal.send("\x1a");
    terminal.expect("Stopped");
    terminal.expect("@ ");
    terminal.send("fg\r");
    terminal.expect("sleep 7001\r\n");
    crate::support::wait_until("it goes on in front", || {
        let state = inside(&home, "ps -C sleep -o stat=");
        state.starts_with('S') && state.contains('+')
    });
    terminal.send("\x03");
    crate::support::wait_until("it ended", || inside(&home, "pgrep -c -x sleep || :") == "0\n");
    terminal.expect("^C");
    terminal.expect("@ ");
    terminal.send("echo code-$?\r");
    terminal.expect("code-130\r\n");
    terminal.send("cat >/root/typed\r");
    crate::support::wait_until("it reads", || inside(&home, "pgrep -c -x cat || :") == "1\n");
    terminal.send("~~ tilde\r");
    terminal.expect("~ tilde\r\n");
    terminal.send("\x04");
    terminal.send("echo do''ne\r");
    terminal.expect("done\r\n");
    assert_eq!(inside(&home, "cat /root/typed"), "~ tilde\n");

    terminal.send("vim -u NONE /root/letter\r");
    terminal.expect("\x1b[?1049h");
    terminal.send("iDear sandbox\x1b:wq\r");
    terminal.expect("\x1b[?1049l");
    assert_eq!(inside(&home, "cat /root/letter"), "Dear sandbox\n");
    terminal.send("seq 1000 | less\r");
    terminal.expect("\r\n3");
    terminal.send("G");
    terminal.expect("1000");
    terminal.send("q");
    terminal.send("htop\r");
    terminal.expect("F10");
    terminal.send("q");
    terminal.send("echo ba''ck\r");
    terminal.expect("back\r\n");

    terminal.send("exit 7\r");
    let (said, code) = terminal.restored(&before);
    assert_eq!(code, 0, "the shell's own code is not transmitted: {said}");
}

#[test]
fn much_output_and_much_input_arrive_whole() {
    let (home, _engine) = home();
    let (mut terminal, before) = open(&home);
    terminal.send("seq 20000 | tail -n 10000\r");
    terminal.expect("\r\n19999\r\n20000\r\n");
    terminal.send("stty -echo raw; head -c 200000 | tr -d '\\n' | wc -c >/root/count; stty sane\r");
    let line = "0123456789".repeat(2000);
    for _ in 0..10 {
        terminal.send(&line);
    }
    crate::support::wait_until("all of it is there", || {
        inside(&home, "cat /root/count 2>/dev/null || :") == "200000\n"
    });
    terminal.send("\rexit\r");
    assert_eq!(terminal.restored(&before).1, 0);
}

#[test]
fn there_is_a_way_out_of_a_shell_that_hangs() {
    let (home, _engine) = home();
    let (mut terminal, before) = open(&home);
    terminal.send("trap '' INT TERM HUP; sleep 7002\r");
    crate::support::wait_until("it sleeps", || inside(&home, "pgrep -c -x sleep || :") == "1\n");
    terminal.send("\r~.");
    let (said, code) = terminal.restored(&before);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("closed the shell in box"), "{said}");
}

#[test]
fn signals_to_us_put_the_terminal_back() {
    let (home, _engine) = home();
    for (signal, code) in [(Signal::TERM, 143), (Signal::HUP, 129), (Signal::INT, 130)] {
        let (mut terminal, before) = open(&home);
        terminal.send("vim -u NONE\r");
        terminal.expect("\x1b[?1049h");
        terminal.signal(signal);
        let (said, ended) = terminal.restored(&before);
        assert_eq!(ended, code, "{said}");
        assert!(said.contains("\x1b[?1049l"), "the first screen is back: {said:?}");
    }
    assert_eq!(inside(&home, "pgrep -c -x vim || :"), "0\n");
}

#[test]
fn a_connection_that_is_lost_puts_the_terminal_back_and_says_so() {
    let (home, mut engine) = home();
    let (mut terminal, before) = open(&home);
    terminal.send("vim -u NONE\r");
    terminal.expect("\x1b[?1049h");
    engine.0.kill().expect("kill -9");
    let (said, code) = terminal.restored(&before);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the connection was lost"), "{said}");
    assert!(said.contains("\x1b[?1049l"), "{said:?}");
}

#[test]
fn a_sandbox_that_is_gone_is_no_good_end() {
    let (home, _engine) = home();
    let (terminal, before) = open(&home);
    home.ok(&["sandbox", "rm", "box", "--force"]);
    let (said, code) = terminal.restored(&before);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("box (sb-") && said.contains("the shell"), "{said}");
}

#[tokio::test]
async fn without_a_terminal_there_is_no_shell() {
    let server = plane("running").await;
    let cli = Cli::new(&server.uri());
    for (line, part) in [
        (&["sandbox", "shell", "demo"][..], "createos sandbox exec demo -- <command>"),
        (&["sandbox", "sh", "demo", "--user", "web"], "--ssh"),
        (&["sandbox", "shell", "demo", "--ssh", "--user=-oProxyCommand=x"], "user name"),
        (&["sandbox", "shell", "demo", "--ssh", "--sandbox-gateway=-x"], "<host>:<port>"),
    ] {
        let answer = cli.run(line);
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(2), ""), "{line:?}: {answer:?}");
        assert!(answer.stderr.contains(part), "{line:?}: {answer:?}");
    }
    let answer = cli.run(&["-o", "json", "sandbox", "shell", "demo"]);
    assert_eq!(answer.error()["code"], "usage");
    assert!(server.received_requests().await.expect("recorded").is_empty());
}

#[test]
fn a_refused_shell_says_why() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let server = runtime.block_on(plane("paused"));
    let refuse =
        wiremock::Mock::given(wiremock::matchers::path(format!("/v1/sandboxes/{ID}/shell")));
    let refusal = crate::support::plane::fail(409, serde_json::json!("it is paused"));
    runtime.block_on(refuse.respond_with(refusal).mount(&server));
    let cli = Cli::new(&server.uri());
    let mut terminal = Terminal::around(&cli.command(&["sandbox", "shell", "demo"]), 100);
    let before = terminal.settings();
    terminal.expect("is paused; resume it now?");
    terminal.send("n\r");
    let (said, code) = terminal.restored(&before);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("createos sandbox resume demo"), "{said}");
    let missing =
        Answer::of(cli.command(&["sandbox", "shell", "--help"]).output().expect("it runs"));
    assert!(missing.stdout.contains("Enter ~ ."), "{missing:?}");
}
