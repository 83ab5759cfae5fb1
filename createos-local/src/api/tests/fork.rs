//! Fork: what a child has of its source, and what it does not.

use std::time::Duration;

use createos_sdk::SandboxId;
use serde_json::{Value, json};

use super::rig::{KEY, Reply, Rig, SSH_KEY};
use crate::runtime::Saved;

impl Rig {
    async fn fork(&self, source: &SandboxId, request: Value) -> Reply {
        self.call("POST", &format!("/v1/sandboxes/{source}/fork"), Some(request)).await
    }

    async fn write(&self, id: &SandboxId, path: &str, content: &'static str) -> u16 {
        let path = format!("/v1/sandboxes/{id}/files?path={path}");
        self.send("PUT", &path, &[("x-api-key", KEY)], content).await.status
    }

    /// A paused sandbox with a file.
    async fn source(&self, saved: Saved) -> SandboxId {
        let request = json!({"envs": {"A": "1"}, "ssh_pubkeys": [SSH_KEY],
                             "auto_pause_after_seconds": 600});
        let id = self.sandbox_with(request).await;
        assert_eq!(self.write(&id, "/f", "shared").await, 200);
        self.pause_as(&id, saved).await;
        id
    }
}

fn id_of(reply: &Reply) -> SandboxId {
    assert_eq!(reply.status, 202, "{reply:?}");
    reply.data()["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_child_has_the_files_and_settings_and_its_own_identity() {
    let rig = Rig::new().await;
    for saved in [Saved::Files, Saved::Memory, Saved::Frozen] {
        let source = rig.source(saved).await;
        let before = rig.view(&source).await;
        let reply = rig.fork(&source, json!({})).await;
        let child = id_of(&reply);
        let answer = reply.data();
        assert_eq!(
            (&answer["status"], &answer["forked_from"]),
            (&json!("forking"), &json!(source))
        );
        assert_eq!(reply.headers["x-poll-after"], "0");
        rig.until(&child, "running").await;
        let view = rig.view(&child).await;
        for field in ["id", "name", "ip", "created_at"] {
            assert_ne!(view[field], before[field], "{field}");
            assert_eq!(view[field], answer[field], "{field} is known at once");
        }
        for field in ["shape", "rootfs", "vcpu", "mem_mib", "disk_mib", "envs", "ssh_pubkeys"] {
            assert_eq!(view[field], before[field], "{field}");
        }
        assert!(view.get("auto_pause_after_seconds").is_none(), "{view}");
        assert!(view["running_at"].is_string() && view["forked_from"] == json!(source));
        // Memory is never said to be copied when it is not.
        assert_eq!(view.get("status_reason").is_some(), saved == Saved::Frozen, "{view}");
        assert_eq!(rig.view(&source).await, before, "the source is as it was");
        let env = rig.exec(&child, json!({"cmd": "env"})).await.data();
        assert_eq!(env["result"]["stdout"], "A=1\n");

        assert_eq!(rig.write(&child, "/f", "child").await, 200);
        assert_eq!(rig.fake.file(&source, "/f").unwrap(), "shared");
        rig.post(&source, "resume").await;
        rig.until(&source, "running").await;
        assert_eq!(rig.write(&source, "/f", "source").await, 200);
        assert_eq!(rig.fake.file(&child, "/f").unwrap(), "child");
    }
}

#[tokio::test]
async fn a_child_takes_overrides_and_empty_ones_inherit() {
    let rig = Rig::new().await;
    let source = rig.source(Saved::Files).await;
    let fork = async |request: Value| {
        let child = id_of(&rig.fork(&source, request).await);
        rig.until(&child, "running").await;
        (rig.view(&child).await, child)
    };
    let other = format!("{SSH_KEY} other");
    let (view, child) = fork(json!({"envs": {"B": "2"}, "ssh_pubkeys": [other], "egress": ["*"],
                                    "ingress_enabled": false, "start_paused": false}))
    .await;
    assert_eq!((&view["envs"], &view["ssh_pubkeys"]), (&json!(["B"]), &json!([other])));
    assert!(view.get("egress").is_none() && view["ingress_enabled"] == false, "{view}");
    let env = rig.exec(&child, json!({"cmd": "env"})).await.data();
    assert_eq!(env["result"]["stdout"], "B=2\n");

    for nothing in [json!({"envs": {}, "egress": []}), json!({"envs": null, "egress": null})] {
        let (view, _) = fork(nothing).await;
        assert_eq!((&view["envs"], &view["ssh_pubkeys"]), (&json!(["A"]), &json!([SSH_KEY])));
    }
    let (view, _) = fork(json!({"ssh_pubkeys": []})).await;
    assert!(view.get("ssh_pubkeys").is_none(), "an empty list of keys replaces them: {view}");
}

#[tokio::test]
async fn no_body_null_and_an_object_are_all_a_fork() {
    let rig = Rig::new().await;
    let source = rig.source(Saved::Files).await;
    let path = format!("/v1/sandboxes/{source}/fork");
    for body in [None, Some(Value::Null), Some(json!({}))] {
        assert_eq!(rig.call("POST", &path, body).await.status, 202);
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_fork_is_told_by_field_and_leaves_nothing() {
    let rig = Rig::new().await;
    let source = rig.source(Saved::Files).await;
    for (request, status, field) in [
        (json!({"envs": {"1": "x"}}), 400, "envs"),
        (json!({"envs": []}), 400, "envs"),
        (json!({"ssh_pubkeys": ["nonsense"]}), 400, "ssh_pubkeys"),
        (json!({"start_paused": "yes"}), 400, "start_paused"),
        (json!({"egress": ["https://api.example.org"]}), 400, "egress"),
        (json!({"ingress_enabled": 1}), 400, "ingress_enabled"),
        (json!({"bandwidth_quota_bytes": -2}), 400, "bandwidth_quota_bytes"),
    ] {
        let reply = rig.fork(&source, request).await;
        assert_eq!(reply.status, status, "{reply:?}");
        assert!(reply.json()["data"][field].is_string(), "{field}: {reply:?}");
    }
    let running = rig.sandbox().await;
    // The state is told before the body is looked at.
    assert_eq!(rig.fork(&running, json!({"envs": []})).await.status, 409);
    assert_eq!(rig.get("/v1/sandboxes").await.data()["pagination"]["total"], 2);
}

#[tokio::test]
async fn a_child_can_stay_paused() {
    let rig = Rig::new().await;
    for saved in [Saved::Files, Saved::Frozen] {
        let source = rig.source(saved).await;
        let boots = rig.fake.boots.lock().unwrap().len();
        let child = id_of(&rig.fork(&source, json!({"start_paused": true})).await);
        rig.until(&child, "paused").await;
        assert!(rig.view(&child).await["paused_at"].is_string());
        assert_eq!(rig.fake.boots.lock().unwrap().len(), boots, "it has not run");
        let grandchild = id_of(&rig.fork(&child, json!({})).await);
        rig.until(&grandchild, "running").await;
        assert_eq!(rig.fake.file(&grandchild, "/f").unwrap(), "shared");
        assert_eq!(rig.post(&child, "resume").await.status, 202);
        rig.until(&child, "running").await;
        assert_eq!(rig.fake.file(&child, "/f").unwrap(), "shared");
    }
}

#[tokio::test]
async fn a_fork_waits_for_the_pause_under_way() {
    let rig = Rig::new().await;
    let source = rig.sandbox().await;
    rig.write(&source, "/f", "shared").await;
    rig.fake.hold();
    assert_eq!(rig.post(&source, "pause").await.data()["status"], "pausing");
    let release = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        rig.fake.release();
    };
    let (reply, ()) = tokio::join!(rig.fork(&source, json!({})), release);
    let child = id_of(&reply);
    rig.until(&child, "running").await;
    assert_eq!(rig.fake.file(&child, "/f").unwrap(), "shared");

    *rig.fake.pause_error.lock().unwrap() = Some("stuck".to_owned());
    let source = rig.sandbox().await;
    rig.fake.hold();
    rig.post(&source, "pause").await;
    let release = async {
        tokio::time::sleep(Duration::from_millis(30)).await;
        rig.fake.release();
    };
    let (reply, ()) = tokio::join!(rig.fork(&source, json!({})), release);
    assert_eq!(reply.status, 409, "the pause failed: {reply:?}");
}

#[tokio::test]
async fn resume_and_destroy_of_the_source_wait_for_the_copy() {
    let rig = Rig::tuned(|tuning| tuning.destroy_wait = Duration::from_millis(20)).await;
    for saved in [Saved::Files, Saved::Frozen] {
        for end in ["running", "destroyed"] {
            let source = rig.source(saved).await;
            rig.fake.hold();
            let child = id_of(&rig.fork(&source, json!({})).await);
            assert_eq!(rig.status(&child).await, "forking");
            if end == "running" {
                assert_eq!(rig.post(&source, "resume").await.data()["status"], "resuming");
            } else {
                let gone = rig.call("DELETE", &format!("/v1/sandboxes/{source}"), None).await;
                assert_eq!(gone.data()["status"], "destroying");
            }
            assert_eq!(rig.fake.file(&source, "/f").unwrap(), "shared", "still there");
            rig.fake.release();
            rig.until(&child, "running").await;
            rig.until(&source, end).await;
            assert_eq!(rig.fake.file(&child, "/f").unwrap(), "shared");
        }
    }
}

#[tokio::test]
async fn a_child_destroyed_while_it_is_made_is_gone() {
    let rig = Rig::tuned(|tuning| tuning.destroy_wait = Duration::from_millis(20)).await;
    let source = rig.source(Saved::Files).await;
    rig.fake.hold();
    let child = id_of(&rig.fork(&source, json!({})).await);
    let gone = rig.call("DELETE", &format!("/v1/sandboxes/{child}"), None).await;
    assert_eq!(gone.data()["status"], "destroying");
    assert_eq!(rig.exec(&child, json!({"cmd": "echo"})).await.status, 409);
    rig.fake.release();
    rig.until(&child, "destroyed").await;
    assert_eq!(rig.fake.disk.lock().unwrap().len(), 1, "the source's");
    assert!(rig.fake.alive.lock().unwrap().is_empty());
    assert_eq!(rig.status(&source).await, "paused");
}

#[tokio::test]
async fn a_copy_that_fails_is_tried_again_by_resume() {
    let rig = Rig::new().await;
    let source = rig.source(Saved::Files).await;
    *rig.fake.fork_error.lock().unwrap() = Some("the disk is full".to_owned());
    let child = id_of(&rig.fork(&source, json!({})).await);
    rig.until(&child, "error").await;
    assert_eq!(rig.view(&child).await["status_reason"], "the disk is full");
    rig.post(&child, "resume").await;
    rig.until(&child, "error").await;
    *rig.fake.fork_error.lock().unwrap() = None;

    // It does not begin without its files.
    rig.post(&source, "resume").await;
    rig.until(&source, "running").await;
    rig.post(&child, "resume").await;
    rig.until(&child, "error").await;
    let reason = rig.view(&child).await["status_reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("is not paused any more") && reason.contains(source.as_str()));
    rig.pause_as(&source, Saved::Files).await;
    assert_eq!(rig.post(&child, "resume").await.status, 202);
    rig.until(&child, "running").await;
    assert_eq!(rig.fake.file(&child, "/f").unwrap(), "shared");
    assert!(rig.fake.file(&child, "/half").is_none());
    rig.pause_as(&child, Saved::Files).await;
    rig.post(&child, "resume").await;
    rig.until(&child, "running").await;
}

#[tokio::test]
async fn a_child_whose_source_is_gone_says_so() {
    let rig = Rig::tuned(|tuning| {
        tuning.keep_ended = Duration::ZERO;
        tuning.upkeep = Duration::from_millis(20);
    })
    .await;
    let source = rig.source(Saved::Files).await;
    *rig.fake.fork_error.lock().unwrap() = Some("the disk is full".to_owned());
    let child = id_of(&rig.fork(&source, json!({})).await);
    rig.until(&child, "error").await;
    let path = format!("/v1/sandboxes/{source}");
    rig.call("DELETE", &path, None).await;
    rig.eventually(async || {
        let status = rig.get(&path).await.status;
        (status == 404).then_some(()).ok_or(status.to_string())
    })
    .await;
    rig.post(&child, "resume").await;
    rig.until(&child, "error").await;
    let reason = rig.view(&child).await["status_reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("is gone"), "{reason}");
    let gone = rig.call("DELETE", &format!("/v1/sandboxes/{child}"), None).await;
    assert_eq!(gone.data()["status"], "destroyed");
}

#[tokio::test]
async fn many_forks_of_one_source_at_once() {
    let rig = Rig::new().await;
    let source = rig.source(Saved::Files).await;
    let forks = (0..10).map(|_| rig.fork(&source, json!({})));
    let children: Vec<_> = futures::future::join_all(forks).await.iter().map(id_of).collect();
    for child in &children {
        rig.until(child, "running").await;
    }
    let names = children.iter().map(|id| async { rig.view(id).await["name"].to_string() });
    let names = futures::future::join_all(names).await;
    assert_eq!(names.iter().collect::<std::collections::HashSet<_>>().len(), 10);
    assert_eq!(rig.status(&source).await, "paused");
}
