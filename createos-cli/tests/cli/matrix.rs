//! Many commands on clones of one prepared sandbox.

use std::fs;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer};

use crate::support::Answer;
use crate::support::home::Home;
use crate::support::plane::{Cli, ID, plane, rows, sandbox, success};
use crate::support::wait_until;

const SHAPE: [&str; 2] = ["--shape", "s-1vcpu-256mb"];

fn matrix(home: &Home, more: &[&str]) -> Answer {
    Answer::of(home.run(&[&["sandbox", "matrix"], more].concat()))
}

fn project(home: &Home) {
    let root = home.dir.path().join("project");
    fs::create_dir(&root).expect("a directory");
    fs::write(root.join("file"), "sent\n").expect("a file");
}

/// The sandboxes that are there, by their states.
fn there(home: &Home) -> Vec<(String, String)> {
    let list = home.json(&["sandbox", "list"]);
    let text = |row: &Value, key: &str| row[key].as_str().expect("text").to_owned();
    let list = list.as_array().expect("a list").iter();
    list.map(|row| (text(row, "name"), text(row, "status"))).collect()
}

#[test]
fn every_job_has_a_clone_of_what_was_prepared_and_nothing_stays() {
    let home = Home::new();
    let _engine = home.serve();
    project(&home);
    fs::write(
        home.dir.path().join("jobs"),
        "# a comment\n\ncat file prepared; echo two >&2; exit 3\n",
    )
    .expect("a file");
    let line = [
        "project",
        "--prepare",
        "echo preparing; echo prepared > prepared",
        "--job",
        "cat file prepared; echo mine > prepared; pwd",
        "--jobs-file",
        "jobs",
        "--logs",
        "logs",
        "--env",
        "A=b",
        "--job",
        "echo $A; sleep 600",
        "--timeout",
        "20s",
        "--concurrency",
        "2",
        "-o",
        "json",
    ];
    let ran = matrix(&home, &[&line, &SHAPE[..]].concat());
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let document = ran.json();
    assert!(document["golden"].as_str().is_some_and(|id| id.starts_with("sb-")), "{document}");
    assert_eq!((&document["failed"], &document["teardown_failures"]), (&json!(2), &json!([])));
    let jobs = document["jobs"].as_array().expect("jobs");
    let codes: Vec<&Value> = jobs.iter().map(|job| &job["exit_code"]).collect();
    assert_eq!(codes, [&json!(0), &json!(124), &json!(3)], "{document}");
    assert_eq!(
        (&jobs[0]["index"], &jobs[2]["cmd"]),
        (&json!(1), &json!("cat file prepared; echo two >&2; exit 3"))
    );
    assert!(jobs[1]["error"].as_str().expect("text").contains("not finished after 20s"));
    let log = |number: usize| {
        let path = jobs[number - 1]["log"].as_str().expect("a log");
        fs::read_to_string(home.dir.path().join(path)).expect("a file")
    };
    assert_eq!(log(1), "sent\nprepared\n/work\n");
    assert_eq!(log(2), "b\n");
    assert_eq!(log(3), "sent\nprepared\ntwo\n", "not what another job wrote");
    assert!(ran.stderr.contains("preparing\n"), "{ran:?}");
    assert_eq!(there(&home), []);

    let fails = ["project", "--prepare", "echo no; exit 5", "--job", "true", "-o", "json"];
    let failed = matrix(&home, &[&fails, &SHAPE[..]].concat());
    assert_eq!(failed.code, Some(1));
    assert!(failed.error()["message"].as_str().expect("text").contains("preparing failed with 5"));
    assert_eq!(there(&home), []);
    keep_and_clone_again(&home);
}

fn keep_and_clone_again(home: &Home) {
    let line = [
        "project",
        "--keep-golden",
        "--prepare",
        "echo g > golden",
        "--job",
        "cat golden",
        "-o",
        "table",
    ];
    let kept = matrix(home, &[&line, &SHAPE[..]].concat());
    assert_eq!(kept.code, Some(0), "{kept:?}");
    assert!(
        kept.stdout.starts_with("JOB  EXIT") && kept.stderr.contains("1 of 1 jobs"),
        "{kept:?}"
    );
    let golden = there(home);
    assert_eq!((golden.len(), golden[0].1.as_str()), (1, "paused"), "{golden:?}");
    let name = golden[0].0.as_str();
    assert!(kept.stderr.contains(&format!("--from {name}")), "{kept:?}");
    // It stays, whoever clones it; and one that runs is paused for it.
    home.ok(&["sandbox", "resume", name]);
    let line = ["--from", name, "--job", "cat golden", "--job", "cat golden; pwd", "-o", "json"];
    let again = matrix(home, &line);
    assert_eq!(again.code, Some(0), "{again:?}");
    assert!(again.stderr.is_empty() && again.json()["failed"] == 0, "{again:?}");
    let log = again.json()["jobs"][1]["log"].as_str().expect("a log").to_owned();
    assert_eq!(fs::read_to_string(log).expect("a file"), "g\n/work\n");
    assert_eq!(there(home), golden);
    home.ok(&["sandbox", "rm", name, "--force"]);
}

#[test]
fn a_signal_ends_the_clones_and_the_golden_one() {
    let home = Home::new();
    let _engine = home.serve();
    project(&home);
    let line = [
        "sandbox",
        "matrix",
        "project",
        "--logs",
        "logs",
        "--job",
        "echo a; sleep 600",
        "--job",
        "echo b; sleep 600",
    ];
    let mut command = home.command(&[&line, &SHAPE[..]].concat());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let begun = |number: usize| {
        let log = home.dir.path().join(format!("logs/job-{number}.log"));
        fs::metadata(log).is_ok()
    };
    wait_until("both run", || begun(1) && begun(2));
    assert_eq!(there(&home).len(), 3);
    kill_process(Pid::from_child(&child), Signal::TERM).expect("SIGTERM");
    let ended = Answer::of(child.wait_with_output().expect("an end"));
    assert_eq!(ended.code, Some(143), "{ended:?}");
    assert_eq!(there(&home), []);
}

#[tokio::test]
async fn a_source_with_disks_is_refused_and_not_paused() {
    let server = MockServer::start().await;
    let one = sandbox("demo", "running");
    Mock::given(path("/v1/sandboxes")).respond_with(rows(json!([one]))).mount(&server).await;
    let disk = json!({"disk_id": "disk_1", "name": "d", "kind": "s3", "mount_path": "/mnt",
                      "config": {"bucket": "b", "endpoint": "https://s3.example.org"},
                      "mount_status": "mounted"});
    let disks = Mock::given(path(format!("/v1/sandboxes/{ID}/disks")));
    disks.respond_with(rows(json!([disk]))).mount(&server).await;
    let cli = Cli::new(&server.uri());
    let refused = cli.run(&["sandbox", "matrix", "--from", "demo", "--job", "x", "-o", "json"]);
    assert_eq!((refused.code, &refused.error()["code"]), (Some(1), &json!("error")), "{refused:?}");
    assert!(refused.error()["hint"].as_str().expect("a hint").contains("disk detach demo d:/mnt"));
    let requests = server.received_requests().await.expect("recorded");
    assert!(requests.iter().all(|request| request.method.as_str() == "GET"), "nothing was changed");
}

/// The clone cannot be made, or cannot be destroyed: both are told for each job.
#[tokio::test]
async fn clones_that_fail_are_told_for_each_job() {
    let server = plane("paused").await;
    let root = format!("/v1/sandboxes/{ID}");
    let child = "sb-01k4m2c9zq8v7n5t3r1p0x6y2x";
    let fork = Mock::given(method("POST")).and(path(format!("{root}/fork")));
    let mut clone = sandbox("clone", "running");
    clone["id"] = json!(child);
    fork.respond_with(success(clone.clone())).up_to_n_times(1).mount(&server).await;
    let fork = Mock::given(method("POST")).and(path(format!("{root}/fork")));
    fork.respond_with(crate::support::plane::fail(403, json!("quota reached")))
        .mount(&server)
        .await;
    let get = Mock::given(path(format!("/v1/sandboxes/{child}"))).and(method("GET"));
    get.respond_with(success(clone.clone())).mount(&server).await;
    let patch = Mock::given(path(format!("/v1/sandboxes/{child}"))).and(method("PATCH"));
    patch.respond_with(success(clone)).expect(1).mount(&server).await;
    let spawn = Mock::given(method("POST")).and(path(format!("/v1/sandboxes/{child}/processes")));
    spawn.respond_with(crate::support::plane::fail(409, json!("not running"))).mount(&server).await;
    let delete = Mock::given(method("DELETE")).and(path(format!("/v1/sandboxes/{child}")));
    let refusal = crate::support::plane::fail(403, json!("not today"));
    delete.respond_with(refusal).expect(1).mount(&server).await;
    let cli = Cli::new(&server.uri());
    let line = [
        "sandbox",
        "matrix",
        "--from",
        "demo",
        "--job",
        "a",
        "--job",
        "b",
        "--concurrency",
        "1",
        "-o",
        "json",
    ];
    let ran = cli.run(&line);
    let document = ran.json();
    assert_eq!((ran.code, &document["failed"]), (Some(1), &json!(2)), "{ran:?}");
    let jobs = &document["jobs"];
    assert_eq!((&jobs[0]["sandbox"], &jobs[0]["exit_code"]), (&json!(child), &json!(-1)), "{jobs}");
    assert!(jobs[0]["error"].as_str().expect("text").contains("not running"), "{jobs}");
    assert_eq!((&jobs[1]["sandbox"], &jobs[1]["exit_code"]), (&Value::Null, &json!(-1)), "{jobs}");
    assert!(jobs[1]["error"].as_str().expect("text").contains("quota reached"), "{jobs}");
    let left = document["teardown_failures"][0].as_str().expect("text");
    assert!(left.contains(child) && left.contains("still costs money"), "{left}");
    assert!(ran.stderr.contains(&format!("createos sandbox rm {child} --force")), "{ran:?}");
}
