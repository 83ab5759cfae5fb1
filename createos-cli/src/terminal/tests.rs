//! On a real pseudo-terminal: this test program runs itself there.

use std::io::Write;
use std::process::Command;

use rexpect::session::spawn_command;

use super::*;

/// Names what [`in_a_terminal`] is to do; nothing when the tests run as usual.
const PART: &str = "CREATEOS_TEST_TERMINAL";

/// What the tests below run on a terminal of its own.
#[test]
fn in_a_terminal() {
    let Ok(part) = std::env::var(PART) else { return };
    restore_on_panic();
    let outer = Hold::keep();
    let inner = Hold::raw().expect("a terminal");
    std::io::stdout().write_all(b"now raw\r\n").expect("written");
    match part.as_str() {
        "drop" => drop((inner, outer)),
        "panic" => panic!("on purpose"),
        "other thread" => {
            let thread = std::thread::spawn(|| panic!("on purpose"));
            assert!(thread.join().is_err());
            std::mem::forget((inner, outer));
        }
        "exit" => {
            restore();
            std::process::exit(0);
        }
        part => panic!("{part}"),
    }
}

/// Runs a part with `stty` before, after and beside it.
fn settings_around(part: &str) -> String {
    let program = std::env::current_exe().expect("this program");
    let script =
        r#"stty -g; "$0" terminal::tests::in_a_terminal --exact --nocapture; echo; stty -g"#;
    let mut shell = Command::new("sh");
    shell.args(["-c", script]).arg(program).env(PART, part).env("TERM", "xterm");
    let mut session = spawn_command(shell, Some(20_000)).expect("a terminal");
    let before = session.read_line().expect("settings");
    let said = session.exp_string("now raw").expect("raw mode");
    assert!(!said.contains("panicked"), "{said}");
    let rest = session.exp_eof().expect("an end");
    let after = rest.lines().last().unwrap_or_default().trim().to_owned();
    assert_eq!(before.trim(), after, "{part}: {rest}");
    rest
}

#[test]
fn the_terminal_is_as_it_was_whatever_happens() {
    settings_around("drop");
    settings_around("exit");
    for part in ["panic", "other thread"] {
        let said = settings_around(part);
        assert!(said.contains("on purpose"), "{said}");
        // A message printed in raw mode would step down without going back.
        assert!(said.contains("on purpose\r\n"), "restored before the message: {said:?}");
    }
}

#[test]
fn raw_mode_needs_a_terminal() {
    let program = std::env::current_exe().expect("this program");
    let output = Command::new(program)
        .args(["terminal::tests::in_a_terminal", "--exact", "--nocapture"])
        .env(PART, "drop")
        .stdin(std::process::Stdio::null())
        .output()
        .expect("it runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("a terminal"), "{said}");
}
