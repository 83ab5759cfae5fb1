//! S3 disks and attachments over a scripted machine (api.md 4.17, 5.7).

use serde_json::{Value, json};

use super::rig::{KEY, Rig};

fn disk(name: &str) -> Value {
    json!({"name": name, "kind": "s3",
           "config": {"bucket": "acme", "endpoint": "http://127.0.0.1:9", "region": "auto",
                      "use_path_style": true},
           "credentials": {"access_key": "AKhunter2", "secret_key": "hunter2"}})
}

async fn create(rig: &Rig, name: &str) -> String {
    let created = rig.call("POST", "/v1/disks", Some(disk(name))).await;
    assert_eq!(created.status, 201, "{created:?}");
    created.data()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_disk_is_created_shown_changed_and_deleted_and_never_tells_its_keys() {
    let rig = Rig::new().await;
    let created = rig.call("POST", "/v1/disks", Some(disk("data"))).await;
    assert_eq!(created.status, 201);
    let view = created.data();
    let id = view["id"].as_str().unwrap();
    assert!(id.starts_with("disk_") && view["created_at"].is_string(), "{view}");
    assert_eq!((&view["name"], &view["kind"]), (&"data".into(), &"s3".into()));
    assert_eq!(view["config"], disk("data")["config"]);
    for key in [id, "data"] {
        assert_eq!(rig.get(&format!("/v1/disks/{key}")).await.data(), view);
    }
    let second = create(&rig, "other").await;
    let list = rig.get("/v1/disks?limit=1").await.data();
    assert_eq!((&list["pagination"]["total"], &list["data"][0]["id"]), (&2.into(), &second.into()));

    assert_eq!(rig.call("POST", "/v1/disks", Some(disk("data"))).await.status, 409);
    let keys = json!({"credentials": {"access_key": "AK2", "secret_key": "s2"}});
    let patched = rig.call("PATCH", "/v1/disks/data", Some(keys)).await;
    assert_eq!(patched.data(), view);
    let empty = json!({"credentials": {"access_key": "AK2", "secret_key": " "}});
    let refused = rig.call("PATCH", "/v1/disks/data", Some(empty)).await;
    assert!(refused.status == 400 && refused.message().contains("secret_key"), "{refused:?}");

    let database = std::fs::read(rig.dir.path().join("state.db-wal")).unwrap();
    assert!(!database.windows(7).any(|part| part == b"hunter2"), "keys are encrypted");
    for answer in [created, rig.get("/v1/disks").await, rig.get("/v1/disks/data").await] {
        assert!(!String::from_utf8_lossy(&answer.body).contains("hunter2"));
    }
    let deleted = rig.call("DELETE", "/v1/disks/data", None).await;
    assert_eq!(deleted.data(), json!({"deleted": true}));
    for method in ["GET", "DELETE"] {
        assert_eq!(rig.call(method, "/v1/disks/data", None).await.status, 404);
    }
}

#[tokio::test]
async fn bad_disks_are_refused_with_the_field_that_is_wrong() {
    let rig = Rig::new().await;
    let change = |pointer: &str, value: Value| {
        let mut request = disk("data");
        *request.pointer_mut(pointer).unwrap() = value;
        request
    };
    for (request, field) in [
        (change("/name", "Data".into()), "name"),
        (change("/name", "".into()), "name"),
        (change("/kind", "nfs".into()), "kind"),
        (change("/config/bucket", "a/b".into()), "config.bucket"),
        (change("/config/endpoint", "127.0.0.1:9".into()), "config.endpoint"),
        (change("/config/endpoint", "http://u:hunter2@x".into()), "config.endpoint"),
        (change("/config/region", "a b".into()), "config.region"),
        (change("/credentials/access_key", "".into()), "credentials.access_key"),
        (change("/credentials/secret_key", "a\nb".into()), "credentials.secret_key"),
        (json!({}), "body"),
        (json!([]), "body"),
    ] {
        let refused = rig.call("POST", "/v1/disks", Some(request.clone())).await;
        assert_eq!(refused.status, 400, "{request}: {refused:?}");
        assert!(refused.json()["data"][field].is_string(), "{field}: {refused:?}");
        assert!(!refused.message().contains("hunter2"), "{refused:?}");
    }
    *rig.fake.bucket_error.lock().unwrap() = Some("S3 said 403 Forbidden".to_owned());
    let refused = rig.call("POST", "/v1/disks", Some(disk("data"))).await;
    assert_eq!(refused.status, 400);
    assert!(refused.message().contains("S3 said 403 Forbidden"), "{refused:?}");
    assert_eq!(rig.get("/v1/disks").await.data()["pagination"]["total"], 0);
}

#[tokio::test]
async fn disks_are_attached_at_create_and_live_and_detached() {
    let rig = Rig::new().await;
    let disk = create(&rig, "data").await;
    let at = |path: &str| json!({"disk_id": disk, "mount_path": path, "sub_path": "a//b/"});
    let by_name = json!({"disk_id": "data", "mount_path": "/mnt/one/"});
    let id = rig.sandbox_with(json!({"disks": [by_name]})).await;
    let path = format!("/v1/sandboxes/{id}/disks");
    let row = &rig.get(&path).await.data()["data"][0];
    assert_eq!(
        (&row["disk_id"], &row["name"], &row["mount_path"], &row["mount_status"]),
        (&disk.as_str().into(), &"data".into(), &"/mnt/one".into(), &"mounted".into())
    );
    assert!(row.get("sub_path").is_none() && row.get("mount_error").is_none(), "{row}");

    let attached = rig.call("POST", &path, Some(at("/mnt/two"))).await;
    assert_eq!(attached.data(), json!({"id": id, "ok": true}));
    let rows = rig.get(&path).await.data();
    assert_eq!(
        (&rows["pagination"]["total"], &rows["data"][1]["sub_path"]),
        (&2.into(), &"a/b".into())
    );
    assert_eq!(rig.fake.mounts.lock().unwrap().len(), 2);
    for taken in ["/mnt/two", "/mnt/two/below", "/mnt", "//mnt/./two"] {
        let refused = rig.call("POST", &path, Some(at(taken))).await;
        assert_eq!(refused.status, 409, "{taken}: {refused:?}");
    }
    for bad in ["/", "/proc/x", "mnt", "/a/../b", "/usr"] {
        assert_eq!(rig.call("POST", &path, Some(at(bad))).await.status, 400, "{bad}");
    }
    let up = json!({"disk_id": disk, "mount_path": "/m", "sub_path": "../x"});
    assert_eq!(rig.call("POST", &path, Some(up)).await.status, 400);
    let unknown = json!({"disk_id": "disk_x", "mount_path": "/m"});
    assert_eq!(rig.call("POST", &path, Some(unknown)).await.status, 404);

    *rig.fake.mount_error.lock().unwrap() = Some("it does not answer".to_owned());
    let row = rig.get(&path).await.data()["data"][0].clone();
    assert_eq!(
        (&row["mount_status"], &row["mount_error"]),
        (&"error".into(), &"it does not answer".into())
    );

    assert_eq!(rig.call("DELETE", "/v1/disks/data", None).await.status, 409);
    let one = format!("{path}/{disk}?mount_path=%2Fmnt%2Fone");
    assert_eq!(rig.call("DELETE", &format!("{path}/{disk}"), None).await.status, 400);
    assert_eq!(rig.call("DELETE", &one, None).await.data(), json!({"detached": true}));
    assert_eq!(rig.call("DELETE", &one, None).await.status, 404);
    let two = format!("{path}/data?mount_path=/mnt/two");
    assert_eq!(rig.call("DELETE", &two, None).await.data(), json!({"detached": true}));
    assert!(rig.fake.mounts.lock().unwrap().is_empty());
    assert_eq!(rig.call("DELETE", "/v1/disks/data", None).await.data(), json!({"deleted": true}));
}

#[tokio::test]
async fn bad_attachments_at_create_leave_no_sandbox() {
    let rig = Rig::new().await;
    let disk = create(&rig, "data").await;
    let at = |path: &str| json!({"disk_id": disk, "mount_path": path});
    for (disks, status) in [
        (json!([at("/a"), at("/a/b")]), 409),
        (json!([at("relative")]), 400),
        (json!([at("/a"), {"disk_id": "nobody", "mount_path": "/b"}]), 404),
        (json!((0..17).map(|n| at(&format!("/m{n}"))).collect::<Vec<_>>()), 400),
    ] {
        let request = json!({"shape": super::rig::SHAPE, "disks": disks});
        let refused = rig.call("POST", "/v1/sandboxes", Some(request)).await;
        assert_eq!(refused.status, status, "{refused:?}");
    }
    assert_eq!(rig.get("/v1/sandboxes").await.data()["pagination"]["total"], 0);
}

#[tokio::test]
async fn attachments_survive_pauses_and_engines_with_the_newest_keys_and_end_with_the_sandbox() {
    let rig = Rig::new().await;
    create(&rig, "data").await;
    let at = json!({"disk_id": "data", "mount_path": "/mnt"});
    let id = rig.sandbox_with(json!({"disks": [at]})).await;
    let path = format!("/v1/sandboxes/{id}/disks");
    let keys = |rig: &Rig| {
        let mounts = rig.fake.mounts.lock().unwrap();
        let access = mounts.values().next().map(|mount| mount.access.clone().unwrap());
        access.map(|access| access.keys.access_key.expose().to_owned())
    };
    assert_eq!(keys(&rig).as_deref(), Some("AKhunter2"));
    rig.call("POST", &format!("/v1/sandboxes/{id}/pause"), None).await;
    rig.until(&id, "paused").await;
    assert_eq!(rig.get(&path).await.data()["data"][0]["mount_status"], "pending");
    let other = json!({"disk_id": "data", "mount_path": "/other"});
    assert_eq!(rig.call("POST", &path, Some(other)).await.status, 409, "it does not run");
    let fresh = json!({"credentials": {"access_key": "AK2", "secret_key": "s2"}});
    rig.call("PATCH", "/v1/disks/data", Some(fresh)).await.data();

    let rig = rig.restart(|_, _| {}).await;
    rig.call("POST", &format!("/v1/sandboxes/{id}/resume"), None).await;
    rig.until(&id, "running").await;
    assert_eq!(keys(&rig).as_deref(), Some("AK2"));

    rig.call("DELETE", &format!("/v1/sandboxes/{id}"), None).await.data();
    rig.until(&id, "destroyed").await;
    assert_eq!(rig.get(&path).await.status, 404);
    assert_eq!(rig.call("DELETE", "/v1/disks/data", None).await.data(), json!({"deleted": true}));
}

#[tokio::test]
async fn a_fork_has_no_disks_and_lost_keys_are_told() {
    let rig = Rig::new().await;
    create(&rig, "data").await;
    let at = json!({"disk_id": "data", "mount_path": "/mnt"});
    let id = rig.sandbox_with(json!({"disks": [at]})).await;
    rig.call("POST", &format!("/v1/sandboxes/{id}/pause"), None).await;
    rig.until(&id, "paused").await;
    let forked = rig.call("POST", &format!("/v1/sandboxes/{id}/fork"), None).await.data();
    let child = forked["id"].as_str().unwrap();
    let rows = rig.get(&format!("/v1/sandboxes/{child}/disks")).await.data();
    assert_eq!(rows["pagination"]["total"], 0);

    std::fs::write(rig.dir.path().join("secret.key"), [7; 32]).unwrap();
    rig.call("POST", &format!("/v1/sandboxes/{id}/resume"), None).await;
    rig.until(&id, "running").await;
    let row = rig.get(&format!("/v1/sandboxes/{id}/disks")).await.data()["data"][0].clone();
    let why = row["mount_error"].as_str().unwrap();
    assert!(row["mount_status"] == "error" && why.contains("secret.key"), "{row}");
}

#[tokio::test]
async fn a_delegated_key_reaches_no_disks_of_the_account() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let token = rig.call("POST", &format!("/v1/sandboxes/{id}/access-token"), None).await.data();
    let token = token["token"].as_str().unwrap();
    assert_ne!(token, KEY);
    for (method, path) in [("GET", "/v1/disks"), ("POST", "/v1/disks"), ("DELETE", "/v1/disks/d")] {
        let refused = rig.send(method, path, &[("x-api-key", token)], "").await;
        assert_eq!(refused.status, 403, "{method} {path}");
    }
}
