//! Templates that are really built.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use super::{SHAPE, answer, text};
use crate::support::Answer;
use crate::support::home::Home;
use crate::support::wait_until;

const GOOD: &str = "FROM nodeops/sandbox:debian\nRUN echo step one && echo made > /root/made\n";

#[test]
fn a_dockerfile_becomes_an_image_that_sandboxes_start_from() {
    let home = Home::new();
    let _engine = home.serve();
    fs::write(home.dir.path().join("Dockerfile"), GOOD).expect("a file");
    let built = answer(&home, &["sandbox", "template", "submit", "tools", "-o", "table"]);
    assert_eq!(built.code, Some(0), "{built:?}");
    assert!(built.stdout.starts_with("tools (tpl"), "{built:?}");
    assert!(built.stdout.contains("\nstep one\n"), "the log: {built:?}");
    assert!(built.stdout.trim_end().ends_with("is ready"), "{built:?}");
    assert!(built.stderr.contains("--rootfs tools"), "{built:?}");

    home.ok(&["sandbox", "create", "--shape", SHAPE, "--name", "user", "--rootfs", "tools"]);
    assert_eq!(super::sh(&home, "user", "cat /root/made"), "made\n");
    look(&home);
    fail(&home);
    pipe(&home);
    interrupt(&home);
    remove(&home);
}

fn look(home: &Home) {
    let rows = home.json(&["sandbox", "template", "ls"]);
    assert_eq!((&rows[0]["name"], &rows[0]["status"]), (&json!("tools"), &json!("ready")));
    let table = text(home, &["sandbox", "tpl", "list"]);
    assert!(
        table.lines().any(|line| line.starts_with("tools") && line.contains("ready")),
        "{table}"
    );
    let id = rows[0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(home.ok(&["sandbox", "template", "ls", "-q"]), format!("{id}\n"));
    let shown = answer(home, &["sandbox", "templates", "get", &id, "--dockerfile", "-o", "table"]);
    for part in [&format!("tools ({id})"), "nodeops/sandbox:debian", "built", GOOD.trim_end()] {
        assert!(shown.stdout.contains(part), "{part} in {shown:?}");
    }
    assert!(shown.stderr.contains("--rootfs tools"), "{shown:?}");
    let plain = home.json(&["sandbox", "template", "show", "tools"]);
    assert_eq!(plain["dockerfile"], json!(null));
    let whole = home.json(&["sandbox", "template", "show", "tools", "--dockerfile"]);
    assert_eq!(whole["dockerfile"], json!(GOOD));
    // The log is payload: no document, whatever standard output is.
    let log = home.ok(&["sandbox", "template", "logs", "tools"]);
    assert!(log.contains("step one\n"), "{log}");
    let followed = home.ok(&["sandbox", "template", "logs", "tools", "-f"]);
    assert!(followed.contains("step one\n"), "{followed}");
}

/// A failed build: the log and one document, exit code 1.
fn fail(home: &Home) {
    fs::write(home.dir.path().join("Bad"), "FROM nodeops/sandbox:debian\nRUN echo dying; exit 3\n")
        .expect("a file");
    let failed = answer(home, &["sandbox", "template", "build", "-f", "Bad", "bad", "-o", "json"]);
    assert_eq!(failed.code, Some(1));
    let document = failed.json();
    assert_eq!(
        (&document["action"], &document["name"], &document["status"]),
        (&json!("template_submitted"), &json!("bad"), &json!("failed"))
    );
    assert!(failed.stderr.contains("dying\n"), "the log goes beside the document: {failed:?}");
    let shown = answer(home, &["sandbox", "template", "show", "bad", "-o", "table"]);
    assert!(shown.stderr.contains("template logs bad"), "{shown:?}");
    let log = answer(home, &["sandbox", "template", "logs", "bad"]);
    assert_eq!(log.code, Some(0), "reading it is no failure: {log:?}");
    let followed = answer(home, &["sandbox", "template", "logs", "bad", "--follow"]);
    assert_eq!(followed.code, Some(1));
    assert!(followed.stdout.contains("dying\n"), "{followed:?}");
    assert!(followed.stderr.contains("failed"), "{followed:?}");

    fs::write(home.dir.path().join("Copy"), "FROM nodeops/sandbox:debian\nCOPY . /app\n")
        .expect("a file");
    let copy =
        answer(home, &["sandbox", "template", "submit", "copy", "-f", "Copy", "-o", "table"]);
    assert_eq!(copy.code, Some(1));
    assert!(copy.stderr.contains("warning: Copy: line 2: COPY"), "{copy:?}");
    assert!(copy.stderr.contains("error: "), "the server refuses it: {copy:?}");
}

fn pipe(home: &Home) {
    let line = ["sandbox", "template", "create", "piped", "-f", "-", "--no-follow", "-o", "json"];
    let mut command = home.command(&line);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program runs");
    child.stdin.take().expect("a pipe").write_all(GOOD.as_bytes()).expect("write");
    let piped = Answer::of(child.wait_with_output().expect("an end"));
    assert_eq!(piped.code, Some(0), "{piped:?}");
    assert_eq!(piped.json()["action"], "template_submitted");
    let followed = home.ok(&["sandbox", "template", "logs", "piped", "--follow"]);
    assert!(followed.contains("step one"), "followed to its end: {followed}");
    assert_eq!(home.json(&["sandbox", "template", "show", "piped"])["status"], "ready");
}

/// Ctrl+C stops the following, not the build.
fn interrupt(home: &Home) {
    let slow = "FROM nodeops/sandbox:debian\nRUN echo begun; sleep 3; echo over\n";
    fs::write(home.dir.path().join("Slow"), slow).expect("a file");
    let mut command = home.command(&["sandbox", "template", "submit", "slow", "-f", "Slow"]);
    let log = home.dir.path().join("slow.log");
    command.stdout(Stdio::null()).stderr(fs::File::create(&log).expect("a file"));
    let mut child = command.spawn().expect("the program runs");
    wait_until("the build has begun", || {
        fs::read_to_string(&log).is_ok_and(|log| log.contains("begun\n"))
    });
    kill_process(Pid::from_child(&child), Signal::INT).expect("SIGINT");
    assert_eq!(child.wait().expect("an end").code(), Some(130));
    let said = fs::read_to_string(&log).expect("text");
    assert!(said.contains("the build of slow") && said.contains("goes on"), "{said}");
    assert!(said.contains("template logs slow --follow"), "{said}");
    let rest = home.ok(&["sandbox", "template", "logs", "slow", "--follow"]);
    assert!(rest.contains("begun\n") && rest.contains("over\n"), "{rest}");
}

fn remove(home: &Home) {
    let line =
        ["sandbox", "template", "rm", "tools", "bad", "slow", "none", "--force", "-o", "table"];
    let removed = answer(home, &line);
    assert_eq!(removed.code, Some(1));
    assert!(removed.stdout.contains("removed tools (tpl"), "{removed:?}");
    assert!(removed.stderr.contains("no template called \"none\""), "{removed:?}");
    assert!(removed.stderr.contains("paused ones can still be resumed"), "{removed:?}");
    assert_eq!(super::sh(home, "user", "cat /root/made"), "made\n");
    let document = home.json(&["sandbox", "template", "delete", "piped", "-y"]);
    assert_eq!(
        (&document["action"], &document["deleted"]),
        (&json!("template_deleted"), &json!(1))
    );
    assert_eq!(home.json(&["sandbox", "template", "ls"]), json!([]));
}
