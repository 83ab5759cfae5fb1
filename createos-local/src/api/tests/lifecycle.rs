//! Destroy, resume, deaths, and what each state allows.

use std::time::Duration;

use createos_sdk::SandboxId;
use serde_json::{Value, json};

use super::rig::{KEY, Rig, SHAPE, SSH_KEY};
use crate::core::State;

/// One row of api.md 7.3: the status of each operation in this state.
struct Row {
    state: &'static str,
    exec: u16,
    pause: u16,
    resume: u16,
    fork: u16,
    read: u16,
    patch: u16,
    resize: u16,
    keys: u16,
}

impl Row {
    /// The statuses, in the order of the fields.
    const fn of(state: &'static str, statuses: [u16; 8]) -> Self {
        let [exec, pause, resume, fork, read, patch, resize, keys] = statuses;
        Self { state, exec, pause, resume, fork, read, patch, resize, keys }
    }
}

const ROWS: [Row; 10] = [
    Row::of("creating", [409, 409, 409, 409, 200, 409, 409, 409]),
    Row::of("running", [200, 202, 200, 409, 200, 200, 200, 200]),
    Row::of("pausing", [409, 202, 409, 202, 200, 409, 409, 200]),
    Row::of("paused", [409, 200, 202, 202, 200, 200, 409, 200]),
    Row::of("resuming", [409, 409, 202, 409, 200, 409, 409, 200]),
    Row::of("forking", [409, 409, 409, 409, 200, 409, 409, 200]),
    Row::of("error", [409, 409, 202, 409, 200, 409, 409, 200]),
    Row::of("destroying", [409, 409, 409, 409, 200, 409, 409, 409]),
    Row::of("destroyed", [409, 409, 409, 409, 404, 404, 404, 404]),
    Row::of("failed", [409, 409, 409, 409, 200, 409, 409, 409]),
];

/// A sandbox in this state, on a machine on which nothing is held up.
async fn in_state(rig: &Rig, state: &str) -> SandboxId {
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}");
    match state {
        "running" => {}
        "paused" => {
            rig.call("POST", &format!("{path}/pause"), None).await;
            rig.until(&id, "paused").await;
        }
        "error" => {
            rig.fake.die(&id, "gone");
            rig.until(&id, "error").await;
        }
        other => rig.force(&id, other),
    }
    id
}

#[tokio::test]
async fn commands_files_and_settings_by_state() {
    let rig = Rig::new().await;
    for row in ROWS {
        let id = in_state(&rig, row.state).await;
        let path = format!("/v1/sandboxes/{id}");
        let at = |rest: &str| format!("{path}{rest}");
        let check = |what: &str, got: u16, wanted: u16| {
            assert_eq!(got, wanted, "{what} while {}", row.state);
        };
        let view = rig.get(&path).await;
        assert_eq!(view.data()["status"], row.state);
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
        check("processes", rig.get(&at("/processes")).await.status, row.exec);
        let upgrade = [("x-api-key", KEY), ("connection", "upgrade"), ("upgrade", "tcp-tunnel")];
        let shell = rig.open("POST", &at("/shell"), &upgrade, "").await.status();
        check("shell", shell.as_u16(), if row.exec == 200 { 101 } else { row.exec });
        check("download", rig.get(&at("/files?path=/f")).await.status, row.exec);
        // Nothing listens there, which only a running sandbox can tell.
        let tunnel = rig.open("POST", &at("/tunnel/80"), &upgrade, "").await.status();
        check("tunnel", tunnel.as_u16(), if row.exec == 200 { 502 } else { row.exec });
        for setting in ["/egress", "/bandwidth", "/disks"] {
            check(setting, rig.get(&at(setting)).await.status, row.read);
        }
        let patch = rig.call("PATCH", &path, Some(json!({"ingress_enabled": true}))).await;
        check("patch", patch.status, row.patch);
        let resize = json!({"disk_mib": 900_000});
        let resize = rig.call("POST", &at("/resize"), Some(resize)).await;
        check("resize", resize.status, row.resize);
        let keys = json!({"keys": [SSH_KEY]});
        let keys = rig.call("POST", &at("/ssh-pubkeys"), Some(keys)).await;
        check("keys", keys.status, row.keys);
    }
}

#[tokio::test]
async fn changes_of_state_by_state() {
    let rig = Rig::new().await;
    for row in ROWS {
        for (operation, wanted, answered) in [
            ("pause", row.pause, ["paused", "pausing"]),
            ("resume", row.resume, ["running", "resuming"]),
            ("fork", row.fork, ["", "forking"]),
        ] {
            // A pause is under way only while the machine is at it.
            let id = if row.state == "pausing" {
                let id = rig.sandbox().await;
                rig.fake.hold();
                rig.call("POST", &format!("/v1/sandboxes/{id}/pause"), None).await;
                id
            } else {
                in_state(&rig, row.state).await
            };
            let path = format!("/v1/sandboxes/{id}/{operation}");
            let call = rig.call("POST", &path, Some(json!({})));
            let release = async {
                // Long enough for the call to find the pause under way.
                tokio::time::sleep(Duration::from_millis(30)).await;
                if row.state == "pausing" {
                    rig.fake.release();
                }
            };
            let (reply, ()) = tokio::join!(call, release);
            assert_eq!(reply.status, wanted, "{operation} while {}: {reply:?}", row.state);
            match reply.status {
                202 => assert_eq!(reply.data()["status"], answered[1]),
                200 => assert_eq!(reply.data()["status"], answered[0]),
                _ => assert!(reply.message().contains(row.state), "{}", reply.message()),
            }
            if reply.status < 300 {
                assert_eq!(reply.headers["x-poll-after"], "0");
                assert!(reply.data()["mem_mib"].is_number(), "the view is whole");
            } else if row.state != "pausing" {
                assert_eq!(rig.status(&id).await, row.state, "a refusal changes nothing");
            }
        }
    }
    for operation in ["pause", "resume", "fork"] {
        let path = format!("/v1/sandboxes/sb-none/{operation}");
        assert_eq!(rig.call("POST", &path, None).await.status, 404);
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
    assert_eq!(resumed.headers["x-poll-after"], "0");
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
