//! PATCH and SSH keys.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::rig::{Rig, SSH_KEY};

const FILE: &str = "/root/.ssh/authorized_keys";

#[tokio::test]
async fn keys_are_counted_once_and_put_where_sshd_looks() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}/ssh-pubkeys");
    let add = async |keys: Value| rig.call("POST", &path, Some(json!({"keys": keys}))).await;
    let padded = format!("  {}  me ", SSH_KEY.replace(' ', "\t"));
    assert_eq!(add(json!([SSH_KEY, SSH_KEY, padded])).await.data(), json!({"count": 2}));
    assert_eq!(add(json!([SSH_KEY])).await.data(), json!({"count": 2}));
    assert_eq!(add(json!([])).await.data(), json!({"count": 2}));
    let expected = format!("{SSH_KEY}\n{SSH_KEY} me\n");
    assert_eq!(rig.fake.file(&id, FILE).unwrap(), expected);
    let view = rig.get(&format!("/v1/sandboxes/{id}")).await.data();
    assert_eq!(view["ssh_pubkeys"], json!([SSH_KEY, format!("{SSH_KEY} me")]));

    for bad in ["", "ssh-ed25519 AAAA", "-----BEGIN OPENSSH PRIVATE SSH_KEY-----"] {
        let reply = add(json!([SSH_KEY, bad])).await;
        assert_eq!(reply.status, StatusCode::BAD_REQUEST, "{bad}");
        assert!(reply.json()["data"]["keys"].is_string());
    }
    assert_eq!(rig.call("POST", &path, Some(json!({"keys": [7]}))).await.status, 400);
}

#[tokio::test]
async fn keys_given_at_create_are_there_and_those_of_a_paused_one_wait() {
    let rig = Rig::new().await;
    let id = rig.sandbox_with(json!({"ssh_pubkeys": [SSH_KEY]})).await;
    assert_eq!(rig.fake.file(&id, FILE).unwrap(), format!("{SSH_KEY}\n"));
    rig.force(&id, "error");
    let path = format!("/v1/sandboxes/{id}/ssh-pubkeys");
    let more = format!("{SSH_KEY} two");
    let added = rig.call("POST", &path, Some(json!({"keys": [more]}))).await;
    assert_eq!(added.data(), json!({"count": 2}));
    assert_eq!(rig.fake.file(&id, FILE).unwrap(), format!("{SSH_KEY}\n"));
    rig.call("POST", &format!("/v1/sandboxes/{id}/resume"), None).await;
    rig.until(&id, "running").await;
    let expected = format!("{SSH_KEY}\n{more}\n");
    rig.eventually(async || {
        let file = rig.fake.file(&id, FILE).unwrap();
        (file == expected).then_some(()).ok_or(format!("{file:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_patch_changes_what_it_names() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}");
    let patch = async |body: Value| rig.call("PATCH", &path, Some(body)).await;
    assert_eq!(patch(json!({})).await.data(), rig.get(&path).await.data());
    assert_eq!(patch(json!({"ingress_enabled": "yes"})).await.status, 400);
    assert_eq!(patch(json!({"ingress_enabled": false})).await.data()["ingress_enabled"], false);
    assert_eq!(rig.call("PATCH", "/v1/sandboxes/sb-none", Some(json!(7))).await.status, 404);
    rig.force(&id, "destroyed");
    assert_eq!(patch(json!({})).await.status, 404);
}

#[tokio::test]
async fn metrics_are_measured_over_a_moment() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}/metrics");
    let metrics = rig.get(&path).await.data();
    assert_eq!(metrics["id"], id.as_str());
    assert_eq!(metrics["mem_used_bytes"], 7 << 20);
    assert_eq!(metrics["mem_total_bytes"], 256 << 20);
    assert_eq!(
        (&metrics["net_sent_bytes"], &metrics["net_received_bytes"]),
        (&json!(0), &json!(0))
    );
    let cpu = metrics["cpu_pct"].as_f64().unwrap();
    assert!(cpu > 1.0 && cpu <= 100.0, "{cpu}");
    assert!(metrics["ts"].as_str().unwrap().ends_with('Z'));
    rig.force(&id, "paused");
    assert_eq!(rig.get(&path).await.status, 409);
}

#[tokio::test]
async fn a_disk_grows_and_never_shrinks() {
    let rig = Rig::new().await;
    let id = rig.sandbox_with(json!({"disk_mib": 512})).await;
    let path = format!("/v1/sandboxes/{id}/resize");
    let resize = async |mib: Value| rig.call("POST", &path, Some(json!({"disk_mib": mib}))).await;
    assert_eq!(resize(json!(1024)).await.data(), json!({"id": id, "disk_mib": 1024}));
    assert_eq!(*rig.fake.resized.lock().unwrap(), [1024]);
    for (mib, status) in [
        (json!(1024), 400),
        (json!(512), 400),
        (json!(0), 400),
        (json!(-1), 400),
        (json!("2048"), 400),
        (json!(2_000_000), 403),
    ] {
        assert_eq!(resize(mib.clone()).await.status, status, "{mib}");
    }
    let view = rig.get(&format!("/v1/sandboxes/{id}")).await.data();
    assert_eq!(view["disk_mib"], 1024);
    rig.force(&id, "paused");
    assert_eq!(resize(json!(4096)).await.status, 409);

    *rig.fake.disks_limited.lock().unwrap() = false;
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}/resize");
    let refused = rig.call("POST", &path, Some(json!({"disk_mib": 20480}))).await;
    assert_eq!(refused.status, 501);
    assert!(refused.message().contains("get some"), "{}", refused.message());
    let create = json!({"shape": super::rig::SHAPE, "disk_mib": 512});
    assert_eq!(rig.call("POST", "/v1/sandboxes", Some(create)).await.status, 501);
}
