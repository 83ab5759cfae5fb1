//! Pause and resume, by request and after idle time.

use std::time::Duration;

use createos_sdk::SandboxId;
use serde_json::{Value, json};

use super::rig::{KEY, Reply, Rig, SHAPE};
use crate::core::fake::Fake;
use crate::runtime::Saved;

impl Rig {
    pub(super) async fn post(&self, id: &SandboxId, operation: &str) -> Reply {
        self.call("POST", &format!("/v1/sandboxes/{id}/{operation}"), None).await
    }

    pub(super) async fn view(&self, id: &SandboxId) -> Value {
        self.get(&format!("/v1/sandboxes/{id}")).await.data()
    }

    /// Pauses a sandbox so that it is kept in this way.
    pub(super) async fn pause_as(&self, id: &SandboxId, saved: Saved) {
        *self.fake.saves_as.lock().unwrap() = saved;
        assert_eq!(self.post(id, "pause").await.status, 202);
        self.until(id, "paused").await;
    }
}

#[tokio::test]
async fn a_sandbox_is_the_same_after_a_pause() {
    let rig = Rig::new().await;
    for saved in [Saved::Files, Saved::Frozen, Saved::Memory] {
        let id = rig.sandbox_with(json!({"envs": {"A": "1"}})).await;
        let path = format!("/v1/sandboxes/{id}");
        rig.send("PUT", &format!("{path}/files?path=/f"), &[("x-api-key", KEY)], "kept").await;
        let before = rig.view(&id).await;
        assert!(before.get("paused_at").is_none() && before.get("last_resumed_at").is_none());
        rig.pause_as(&id, saved).await;
        let paused = rig.view(&id).await;
        assert!(paused["paused_at"].is_string(), "{paused}");
        let note = paused.get("status_reason").map(Value::to_string);
        assert_eq!(note.is_some(), saved == Saved::Frozen, "frozen does not pass for saved");
        let counts = rig.get("/v1/whoami").await.data()["stats"].clone();
        assert_eq!((&counts["paused"], &counts["running"]), (&json!(1), &json!(0)));
        assert_eq!(rig.get("/v1/sandboxes?status=paused").await.data()["pagination"]["total"], 1);

        assert_eq!(rig.post(&id, "resume").await.status, 202);
        rig.until(&id, "running").await;
        let after = rig.view(&id).await;
        for field in ["id", "name", "ip", "created_at", "running_at", "envs", "shape"] {
            assert_eq!(after[field], before[field], "{field}");
        }
        assert!(after["last_resumed_at"].is_string() && after["paused_at"].is_string());
        assert!(after.get("status_reason").is_none(), "{after}");
        assert_eq!(rig.get(&format!("{path}/files?path=/f")).await.body, "kept");
        let env = rig.exec(&id, json!({"cmd": "env"})).await.data();
        assert_eq!(env["result"]["stdout"], "A=1\n");
        rig.call("DELETE", &path, None).await;
    }
}

#[tokio::test]
async fn a_pause_interrupts_what_goes_on_and_says_so() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let stream = format!("/v1/sandboxes/{id}/exec?stream=true");
    let body = json!({"cmd": "hang"}).to_string();
    let stream = rig.send("POST", &stream, &[("x-api-key", KEY)], body);
    let pause = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        rig.post(&id, "pause").await
    };
    let hang = rig.exec(&id, json!({"cmd": "hang"}));
    let broken = async { tokio::time::timeout(Duration::from_secs(5), hang).await.unwrap() };
    let open = async {
        // The streamed answer breaks off, so there is no whole reply to wait for.
        tokio::time::timeout(
            Duration::from_secs(5),
            futures::FutureExt::catch_unwind(std::panic::AssertUnwindSafe(stream)),
        )
        .await
        .unwrap()
    };
    let (hanging, stream, paused) = tokio::join!(broken, open, pause);
    assert_eq!(paused.status, 202);
    assert_eq!(hanging.status, 502);
    assert!(hanging.message().contains("was paused in the middle"), "{}", hanging.message());
    assert!(stream.is_err(), "it breaks off");
    assert_eq!(Fake::count(&rig.fake.killed), 2);
    rig.until(&id, "paused").await;
}

#[tokio::test]
async fn a_pause_that_fails_leaves_it_running_and_says_why() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    *rig.fake.pause_error.lock().unwrap() = Some("a disk is stuck".to_owned());
    assert_eq!(rig.post(&id, "pause").await.status, 202);
    rig.until(&id, "running").await;
    let view = rig.view(&id).await;
    assert!(view["status_reason"].as_str().unwrap().contains("a disk is stuck"), "{view}");
    assert!(view.get("paused_at").is_none());
    assert_eq!(rig.exec(&id, json!({"cmd": "echo"})).await.status, 200);
    *rig.fake.pause_error.lock().unwrap() = None;
    rig.pause_as(&id, Saved::Files).await;
    assert!(rig.view(&id).await.get("status_reason").is_none());
}

#[tokio::test]
async fn a_resume_that_fails_can_be_tried_again() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    rig.pause_as(&id, Saved::Memory).await;
    *rig.fake.resume_error.lock().unwrap() = Some("no memory left".to_owned());
    rig.post(&id, "resume").await;
    rig.until(&id, "error").await;
    assert_eq!(rig.view(&id).await["status_reason"], "no memory left");
    let boots = rig.fake.boots.lock().unwrap().len();
    *rig.fake.resume_error.lock().unwrap() = None;
    // From its memory again, not from its files: that is what a failing boot would show.
    *rig.fake.boot_error.lock().unwrap() = Some("must not boot".to_owned());
    rig.post(&id, "resume").await;
    rig.until(&id, "running").await;
    assert_eq!(rig.fake.boots.lock().unwrap().len(), boots + 1);
}

#[tokio::test]
async fn a_frozen_sandbox_that_ends_is_in_error_and_boots_from_its_files() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    rig.pause_as(&id, Saved::Frozen).await;
    rig.fake.die(&id, "killed by the kernel");
    rig.until(&id, "error").await;
    assert_eq!(rig.view(&id).await["status_reason"], "killed by the kernel");
    assert_eq!(rig.post(&id, "resume").await.status, 202);
    rig.until(&id, "running").await;
    assert!(rig.fake.frozen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_death_in_the_middle_of_a_pause_is_an_error() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    rig.fake.hold();
    assert_eq!(rig.post(&id, "pause").await.status, 202);
    assert_eq!(rig.status(&id).await, "pausing");
    rig.fake.die(&id, "gone");
    rig.fake.release();
    rig.until(&id, "error").await;
    assert_eq!(rig.view(&id).await["status_reason"], "gone");
}

#[tokio::test]
async fn requests_at_the_same_time_take_their_turns() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    rig.fake.hold();
    assert_eq!(rig.post(&id, "pause").await.data()["status"], "pausing");
    assert_eq!(rig.post(&id, "pause").await.data()["status"], "pausing");
    assert_eq!(rig.post(&id, "resume").await.status, 409);
    rig.fake.release();
    rig.until(&id, "paused").await;
    rig.fake.hold();
    let many = (0..8).map(|_| rig.post(&id, "resume"));
    for reply in futures::future::join_all(many).await {
        assert_eq!((reply.status, reply.data()["status"].clone()), (202, json!("resuming")));
    }
    assert_eq!(rig.post(&id, "pause").await.status, 409);
    rig.fake.release();
    rig.until(&id, "running").await;
    assert_eq!(rig.fake.boots.lock().unwrap().len(), 2, "one create, one resume");
}

#[tokio::test]
async fn destroy_wins_over_a_pause_and_a_resume_under_way() {
    let rig = Rig::tuned(|tuning| tuning.destroy_wait = Duration::from_millis(20)).await;
    for operation in ["pause", "resume"] {
        for saved in [Saved::Files, Saved::Frozen] {
            let id = rig.sandbox().await;
            *rig.fake.saves_as.lock().unwrap() = saved;
            if operation == "resume" {
                rig.pause_as(&id, saved).await;
            }
            rig.fake.hold();
            assert_eq!(rig.post(&id, operation).await.status, 202);
            let path = format!("/v1/sandboxes/{id}");
            let destroy = rig.call("DELETE", &path, None).await;
            assert_eq!(destroy.data()["status"], "destroying", "{operation}");
            rig.fake.release();
            rig.until(&id, "destroyed").await;
            assert!(rig.fake.alive.lock().unwrap().is_empty());
            assert!(rig.fake.disk.lock().unwrap().is_empty());
        }
    }
}

#[tokio::test]
async fn a_client_that_goes_away_stops_nothing_half_way() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    rig.fake.hold();
    let path = format!("/v1/sandboxes/{id}/pause");
    let pause = rig.open("POST", &path, &[("x-api-key", KEY)], "");
    let _ = tokio::time::timeout(Duration::from_millis(15), pause).await;
    rig.fake.release();
    rig.until(&id, "paused").await;
}

#[tokio::test]
async fn a_state_that_could_not_be_written_is_given_up() {
    let rig = Rig::tuned(|tuning| tuning.upkeep = Duration::from_millis(20)).await;
    for (stuck, end) in [("pausing", "error"), ("forking", "error"), ("resuming", "running")] {
        let id = rig.sandbox().await;
        if stuck == "resuming" {
            rig.fake.end(&id);
        }
        rig.force(&id, stuck);
        rig.until(&id, end).await;
        assert_eq!(rig.fake.alive.lock().unwrap().contains(&id), end == "running", "{stuck}");
    }
}

fn quick(tuning: &mut crate::core::Tuning) {
    tuning.auto_pause_unit = Duration::from_millis(5);
    tuning.idle_check = Duration::from_millis(5);
}

/// The shortest auto-pause with [`quick`].
const IDLE: Duration = Duration::from_millis(300);

#[tokio::test]
async fn an_idle_sandbox_pauses_by_itself_and_no_other() {
    let rig = Rig::tuned(quick).await;
    let other = rig.sandbox().await;
    let request = json!({"shape": SHAPE, "auto_pause_after_seconds": 60});
    let created = rig.call("POST", "/v1/sandboxes", Some(request)).await.data();
    assert_eq!(created["auto_pause_after_seconds"], 60);
    let id: SandboxId = created["id"].as_str().unwrap().parse().unwrap();
    rig.until(&id, "paused").await;
    assert_eq!(rig.view(&id).await["auto_pause_after_seconds"], 60);
    rig.post(&id, "resume").await;
    rig.until(&id, "running").await;
    let begun = std::time::Instant::now();
    rig.until(&id, "paused").await;
    assert!(begun.elapsed() >= IDLE / 2, "the time begins anew at a resume");
    assert_eq!(rig.status(&other).await, "running");
}

#[tokio::test]
async fn a_command_a_stream_and_a_transfer_keep_it_awake() {
    let rig = Rig::tuned(quick).await;
    let id = rig.sandbox_with(json!({"auto_pause_after_seconds": 60})).await;
    let path = format!("/v1/sandboxes/{id}/exec?stream=true");
    let body = json!({"cmd": "hang"}).to_string();
    let stream = rig.open("POST", &path, &[("x-api-key", KEY)], body).await;
    tokio::time::sleep(IDLE * 2).await;
    assert_eq!(rig.status(&id).await, "running", "an open stream");
    drop(stream);
    for _ in 0..8 {
        tokio::time::sleep(IDLE / 4).await;
        assert_eq!(rig.exec(&id, json!({"cmd": "echo"})).await.status, 200, "each call counts");
    }
    // Looking at it is not activity.
    rig.until(&id, "paused").await;
}

#[tokio::test]
async fn auto_pause_is_set_and_cleared_by_patch() {
    let rig = Rig::tuned(quick).await;
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}");
    let patch = async |body: Value| rig.call("PATCH", &path, Some(body)).await;
    for (seconds, status) in [(59, 400), (86_401, 400), (0, 400), (86_400, 200), (60, 200)] {
        let reply = patch(json!({"auto_pause_after_seconds": seconds})).await;
        assert_eq!(reply.status, status, "{seconds}");
    }
    let all = json!({"auto_pause_after_seconds": 7, "disable_auto_pause": true});
    let cleared = patch(all).await.data();
    assert!(cleared.get("auto_pause_after_seconds").is_none(), "disabling wins: {cleared}");
    tokio::time::sleep(IDLE * 2).await;
    assert_eq!(rig.status(&id).await, "running");
    let set = json!({"auto_pause_after_seconds": 60, "disable_auto_pause": false});
    assert_eq!(patch(set).await.data()["auto_pause_after_seconds"], 60);
    rig.until(&id, "paused").await;
    assert_eq!(patch(json!({"disable_auto_pause": true})).await.status, 200, "paused as well");
    rig.post(&id, "resume").await;
    rig.until(&id, "running").await;
    tokio::time::sleep(IDLE * 2).await;
    assert_eq!(rig.status(&id).await, "running");
}

#[tokio::test]
async fn an_automatic_pause_that_fails_is_not_tried_at_once() {
    let rig = Rig::tuned(quick).await;
    *rig.fake.pause_error.lock().unwrap() = Some("not now".to_owned());
    let id = rig.sandbox_with(json!({"auto_pause_after_seconds": 60})).await;
    rig.eventually(async || {
        let view = rig.view(&id).await;
        view.get("status_reason").map(drop).ok_or(view.to_string())
    })
    .await;
    assert_eq!(rig.exec(&id, json!({"cmd": "echo"})).await.status, 200);
    *rig.fake.pause_error.lock().unwrap() = None;
    rig.until(&id, "paused").await;
}
