//! `createos sandbox self`: the command itself inside a real sandbox, and outside of any.

use std::process::Command;

use crate::support::home::Home;
use crate::support::terminal::Terminal;
use crate::support::{Answer, wait_until};

fn status(home: &Home) -> String {
    let answer = Answer::of(home.run(&["-o", "json", "sandbox", "get", "box"]));
    match answer.code {
        Some(0) => answer.json()["status"].as_str().expect("a state").to_owned(),
        _ => "gone".to_owned(),
    }
}

#[test]
fn a_sandbox_pauses_and_deletes_itself() {
    let home = Home::new();
    home.ok(&["local", "start"]);
    home.ok(&["sandbox", "create", "--shape", "s-1vcpu-1gb", "--name", "box"]);
    let program = home.dir.path().join("createos");
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&program).arg(env!("CARGO_BIN_EXE_createos"));
    assert!(strip.status().expect("strip").success());
    home.ok(&["sandbox", "push", "box", "createos", "/usr/local/bin/createos"]);
    home.ok(&["sandbox", "exec", "box", "--", "chmod", "+x", "/usr/local/bin/createos"]);
    let inside = |line: &str| {
        // The answer comes before the effect, which may come before the end of the command.
        let script = format!("({line} >/tmp/said 2>&1; sync) >/dev/null 2>&1 &");
        home.ok(&["sandbox", "exec", "box", "--", "sh", "-c", &script]);
    };

    let unsure =
        home.run(&["sandbox", "exec", "box", "--", "createos", "sandbox", "self", "delete"]);
    assert_eq!(unsure.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unsure.stderr).contains("self delete --force"));
    assert_eq!(status(&home), "running");

    inside("createos -o json sandbox self pause --reason 'work is done'");
    wait_until("it is paused", || status(&home) == "paused");
    home.ok(&["sandbox", "resume", "box"]);
    wait_until("it has said so", || {
        let said = home.ok(&["sandbox", "exec", "box", "--", "cat", "/tmp/said"]);
        said.contains("\"status\": \"accepted\"") && said.contains("\"reason\": \"work is done\"")
    });
    inside("createos sandbox self delete --force");
    wait_until("it is gone", || ["gone", "destroyed", "destroying"].contains(&&*status(&home)));
}

#[test]
fn outside_of_a_sandbox_it_says_what_to_do_instead() {
    let home = Home::new();
    for (line, instead) in [
        (&["pause", "--reason", "x"][..], "createos sandbox pause <sandbox>"),
        (&["delete", "--force"], "createos sandbox rm <sandbox>"),
    ] {
        let line = [&["-o", "table", "sandbox", "self"], line].concat();
        let answer = Answer::of(home.run(&line));
        assert_eq!((answer.code, &*answer.stdout), (Some(1), ""), "{answer:?}");
        assert!(answer.stderr.contains("only inside a sandbox"), "{answer:?}");
        assert!(answer.stderr.contains(instead), "{answer:?}");
    }
    let answer = Answer::of(home.run(&["-o", "json", "sandbox", "self", "pause"]));
    assert_eq!(answer.error()["code"], "error", "and nobody has to be signed in");

    let mut terminal = Terminal::start(&home.command(&["sandbox", "self", "delete"]), 100);
    terminal.expect("delete this sandbox");
    terminal.send("n\r");
    let (said, code) = terminal.end();
    assert!(said.contains("nothing was deleted") && code == Some(0), "{said}");
}
