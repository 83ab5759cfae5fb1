//! Destroy, resume, deaths, and what each state allows.

use std::time::Duration;

use serde_json::{Value, json};

use super::rig::{KEY, Rig, SHAPE};
use crate::core::State;

/// One row of api.md 7.3: the status of each operation in this state.
struct Row {
    state: &'static str,
    exec: u16,
    resume: u16,
    settings: u16,
    get: u16,
}

const ROWS: [Row; 9] = [
    Row { state: "creating", exec: 409, resume: 409, settings: 200, get: 200 },
    Row { state: "running", exec: 200, resume: 200, settings: 200, get: 200 },
    Row { state: "pausing", exec: 409, resume: 409, settings: 200, get: 200 },
    Row { state: "paused", exec: 409, resume: 409, settings: 200, get: 200 },
    Row { state: "resuming", exec: 409, resume: 202, settings: 200, get: 200 },
    Row { state: "forking", exec: 409, resume: 409, settings: 200, get: 200 },
    Row { state: "destroying", exec: 409, resume: 409, settings: 200, get: 200 },
    Row { state: "destroyed", exec: 409, resume: 409, settings: 404, get: 200 },
    Row { state: "failed", exec: 409, resume: 409, settings: 200, get: 200 },
];

#[tokio::test]
async fn operations_by_state() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}");
    for row in ROWS {
        rig.force(&id, row.state);
        let at = |rest: &str| format!("{path}{rest}");
        let check = |what: &str, got: u16, wanted: u16| {
            assert_eq!(got, wanted, "{what} while {}", row.state);
        };
        check("get", rig.get(&path).await.status, row.get);
        let exec = rig.exec(&id, json!({"cmd": "echo"})).await;
        check("exec", exec.status, row.exec);
        if row.exec == 409 {
            assert!(exec.message().starts_with("sandbox is not running"), "{}", exec.message());
            // The state is told before the body is looked at.
            check("bad exec", rig.exec(&id, json!({})).await.status, 409);
            check("bad path", rig.get(&at("/files?path=x")).await.status, 409);
        }
        let put = rig.send("PUT", &at("/files?path=/f"), &[("x-api-key", KEY)], "x").await;
        check("upload", put.status, row.exec);
        check("download", rig.get(&at("/files?path=/f")).await.status, row.exec);
        let resume = rig.call("POST", &at("/resume"), None).await;
        check("resume", resume.status, row.resume);
        if resume.status < 300 {
            assert_eq!(resume.data()["status"], row.state);
            assert_eq!(resume.headers["x-poll-after"], "1");
        }
        for setting in ["/egress", "/bandwidth", "/disks"] {
            check(setting, rig.get(&at(setting)).await.status, row.settings);
        }
        check("pause", rig.call("POST", &at("/pause"), None).await.status, 501);
    }
}

#[tokio::test]
async fn destroy_works_from_every_state_and_again() {
    let rig = Rig::new().await;
    for state in State::ALL {
        let id = rig.sandbox().await;
        rig.force(&id, state.as_str());
        for _ in 0..3 {
            let path = format!("/v1/sandboxes/{id}");
            let reply = rig.call("DELETE", &path, None).await;
            assert_eq!(reply.data(), json!({"id": id, "status": "destroyed"}), "{state}");
        }
        let view = rig.get(&format!("/v1/sandboxes/{id}")).await.data();
        assert_eq!(view["status"], "destroyed");
        if state != State::Destroyed {
            assert!(view["destroyed_at"].is_string(), "{view}");
            assert!(!rig.fake.disk.lock().unwrap().contains_key(&id), "{state}");
        }
    }
    assert_eq!(rig.call("DELETE", "/v1/sandboxes/sb-none", None).await.status, 404);
}

#[tokio::test]
async fn a_slow_destroy_goes_on_in_the_background() {
    let rig = Rig::tuned(|tuning| tuning.destroy_wait = Duration::from_millis(20)).await;
    let id = rig.sandbox_with(json!({"name": "demo"})).await;
    rig.fake.hold();
    let path = format!("/v1/sandboxes/{id}");
    for _ in 0..2 {
        let reply = rig.call("DELETE", &path, None).await;
        assert_eq!(reply.data()["status"], "destroying");
    }
    assert_eq!(rig.exec(&id, json!({"cmd": "echo"})).await.status, 409);
    let taken = rig.call("POST", "/v1/sandboxes", Some(json!({"shape": SHAPE, "name": "demo"})));
    assert_eq!(taken.await.status, 409, "the name is free only when it is gone");
    rig.fake.release();
    rig.until(&id, "destroyed").await;
}

#[tokio::test]
async fn a_removal_that_fails_is_tried_again() {
    let rig = Rig::tuned(|tuning| tuning.upkeep = Duration::from_millis(20)).await;
    let id = rig.sandbox().await;
    *rig.fake.remove_error.lock().unwrap() = true;
    let reply = rig.call("DELETE", &format!("/v1/sandboxes/{id}"), None).await;
    assert_eq!(reply.data()["status"], "destroying");
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(rig.status(&id).await, "destroying");
    *rig.fake.remove_error.lock().unwrap() = false;
    rig.until(&id, "destroyed").await;
    assert!(rig.fake.disk.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_sandbox_destroyed_while_it_is_created_is_gone() {
    let rig = Rig::tuned(|tuning| tuning.destroy_wait = Duration::from_millis(20)).await;
    rig.fake.hold();
    let create = rig.call("POST", "/v1/sandboxes", Some(json!({"shape": SHAPE})));
    let destroy = async {
        let mut rows = Value::Null;
        while rows[0]["status"] != "creating" {
            rows = rig.get("/v1/sandboxes").await.data()["data"].clone();
        }
        let id: createos_sdk::SandboxId = rows[0]["id"].as_str().unwrap().parse().unwrap();
        let reply = rig.call("DELETE", &format!("/v1/sandboxes/{id}"), None).await;
        assert_eq!(reply.data()["status"], "destroying");
        rig.fake.release();
        id
    };
    let (created, id) = tokio::join!(create, destroy);
    assert_eq!(created.status, 409, "{created:?}");
    assert!(created.message().contains("destroyed while"), "{}", created.message());
    rig.until(&id, "destroyed").await;
    assert!(rig.fake.alive.lock().unwrap().is_empty());
    assert!(rig.fake.disk.lock().unwrap().is_empty());
}

#[tokio::test]
async fn ended_sandboxes_are_forgotten_after_a_while() {
    let rig = Rig::tuned(|tuning| {
        tuning.keep_ended = Duration::from_millis(200);
        tuning.upkeep = Duration::from_millis(20);
    })
    .await;
    let living = rig.sandbox().await;
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}");
    rig.call("DELETE", &path, None).await;
    assert_eq!(rig.status(&id).await, "destroyed", "waiters must see it");
    rig.eventually(async || {
        let status = rig.get(&path).await.status;
        (status == 404).then_some(()).ok_or(status.to_string())
    })
    .await;
    assert_eq!(rig.call("DELETE", &path, None).await.status, 404);
    assert_eq!(rig.status(&living).await, "running");
}

#[tokio::test]
async fn a_sandbox_that_ends_by_itself_says_why_and_can_be_resumed() {
    let rig = Rig::new().await;
    let id = rig.sandbox_with(json!({"name": "demo", "envs": {"A": "1"}})).await;
    let path = format!("/v1/sandboxes/{id}");
    rig.send("PUT", &format!("{path}/files?path=/f"), &[("x-api-key", KEY)], "kept").await;
    let die = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        rig.fake.die(&id, "out of memory");
    };
    let (hanging, ()) = tokio::join!(rig.exec(&id, json!({"cmd": "hang"})), die);
    assert_eq!(hanging.status, 502);
    rig.until(&id, "error").await;
    let view = rig.get(&path).await.data();
    assert_eq!(view["status_reason"], "out of memory");
    let refused = rig.exec(&id, json!({"cmd": "echo"})).await;
    assert_eq!(refused.status, 409);
    assert!(refused.message().contains("out of memory"), "{}", refused.message());

    let resumed = rig.call("POST", &format!("{path}/resume"), Some(Value::Null)).await;
    assert_eq!(resumed.status, 202);
    assert_eq!(resumed.data()["status"], "resuming");
    assert_eq!(resumed.headers["x-poll-after"], "1");
    rig.until(&id, "running").await;
    let again = rig.get(&path).await.data();
    assert_eq!((&again["name"], &again["ip"]), (&view["name"], &view["ip"]));
    assert!(again["last_resumed_at"].is_string() && again.get("status_reason").is_none());
    assert_eq!(rig.get(&format!("{path}/files?path=/f")).await.body, "kept");
    let env = rig.exec(&id, json!({"cmd": "env"})).await.data();
    assert_eq!(env["result"]["stdout"], "A=1\n");
    assert_eq!(rig.call("POST", &format!("{path}/resume"), None).await.status, 200);
}

#[tokio::test]
async fn a_resume_that_fails_ends_in_error_and_may_be_repeated() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    rig.fake.die(&id, "gone");
    rig.until(&id, "error").await;
    *rig.fake.boot_error.lock().unwrap() = Some("no cgroup".to_owned());
    let path = format!("/v1/sandboxes/{id}/resume");
    assert_eq!(rig.call("POST", &path, None).await.status, 202);
    rig.until(&id, "error").await;
    let view = rig.get(&format!("/v1/sandboxes/{id}")).await.data();
    assert_eq!(view["status_reason"], "no cgroup");
    *rig.fake.boot_error.lock().unwrap() = None;
    assert_eq!(rig.call("POST", &path, None).await.status, 202);
    rig.until(&id, "running").await;
}

#[tokio::test]
async fn a_sandbox_destroyed_while_it_resumes_is_gone() {
    let rig = Rig::tuned(|tuning| tuning.destroy_wait = Duration::from_millis(20)).await;
    let id = rig.sandbox().await;
    rig.fake.die(&id, "gone");
    rig.until(&id, "error").await;
    rig.fake.hold();
    let path = format!("/v1/sandboxes/{id}");
    assert_eq!(rig.call("POST", &format!("{path}/resume"), None).await.status, 202);
    assert_eq!(rig.call("POST", &format!("{path}/resume"), None).await.status, 202);
    assert_eq!(rig.call("DELETE", &path, None).await.data()["status"], "destroying");
    rig.fake.release();
    rig.until(&id, "destroyed").await;
    assert!(rig.fake.alive.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_death_of_an_unknown_or_destroyed_sandbox_changes_nothing() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    rig.call("DELETE", &format!("/v1/sandboxes/{id}"), None).await;
    rig.fake.die(&id, "late");
    rig.fake.die(&"sb-unknown".parse().unwrap(), "who");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(rig.status(&id).await, "destroyed");
    assert_eq!(rig.get("/v1/sandboxes").await.data()["pagination"]["total"], 1);
}
