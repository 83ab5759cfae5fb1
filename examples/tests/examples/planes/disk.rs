//! Disks on one bucket, which is a map of names; mounts take a moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{
    Answer, CREATED, Known, Outcome, Plane, Run, World, fail, page, success, success_with, wrote,
};

type Bucket = Arc<Mutex<BTreeMap<String, String>>>;

pub(crate) async fn start() -> Plane {
    let bucket = Bucket::default();
    let guest = move |known: &mut Known, run: &Run| {
        let mounted = known.here(run).request["disks"][0]["mount_status"] == "mounted";
        let found = mounted.then(|| command(&mut bucket.lock().unwrap(), run)).flatten();
        found.map_or(Outcome::Unknown, wrote)
    };
    let world = World::new(guest);
    let area = Router::new()
        .route("/v1/disks", post(create))
        .route("/v1/disks/{disk}", delete(remove))
        .route("/v1/sandboxes/{id}/disks", get(list).post(attach))
        .route("/v1/sandboxes/{id}/disks/{disk}", delete(detach))
        .with_state(world.clone());
    Plane::start(world, area).await
}

/// `echo '…' >/mnt/data/x`, `cat /mnt/data/x`, `rm /mnt/data/x`.
fn command(bucket: &mut BTreeMap<String, String>, run: &Run) -> Option<String> {
    let (before, file) = run.script().split_once("/mnt/data/")?;
    match (&*run.program, before) {
        ("sh", echo) => {
            let text = echo.strip_prefix("echo '")?.strip_suffix("' >")?;
            bucket.insert(file.to_owned(), format!("{text}\n"));
            Some(String::new())
        }
        ("cat", "") => bucket.get(file).cloned(),
        ("rm", "") => bucket.remove(file).map(|_| String::new()),
        _ => None,
    }
}

async fn create(State(world): State<World>, Json(request): Json<Value>) -> Answer {
    let keys = &request["credentials"];
    if keys["access_key"] != "minioadmin" || keys["secret_key"] != "minioadmin" {
        return fail(400, "the bucket cannot be reached with these keys");
    }
    let id = world.id("disk_");
    world.state().others.insert(id.clone());
    let disk = json!({"id": id, "name": request["name"], "kind": "s3",
                      "config": request["config"], "created_at": CREATED});
    success_with(201, disk)
}

async fn remove(State(world): State<World>, Path(disk): Path<String>) -> Answer {
    let mut state = world.state();
    if state.sandboxes.values().any(|one| one.request["disks"][0]["disk_id"] == *disk) {
        return fail(409, "the disk is attached");
    }
    match state.others.remove(&disk) {
        true => success(json!({"deleted": true})),
        false => fail(404, "disk not found"),
    }
}

async fn attach(
    State(world): State<World>,
    Path(id): Path<String>,
    Json(mount): Json<Value>,
) -> Answer {
    let disk = mount["disk_id"].as_str().unwrap_or_default();
    if !world.state().others.contains(disk) {
        return fail(404, "disk not found");
    }
    world.live(&id, |sandbox| sandbox.request["disks"] = json!([mount]))?;
    success(json!({"id": id, "ok": true}))
}

/// What a disk that was attached, or given at create, looks like.
fn row(mount: &Value) -> Value {
    let status = mount.get("mount_status").cloned().unwrap_or("pending".into());
    json!({
        "disk_id": mount["disk_id"], "name": "data", "kind": "s3",
        "mount_path": mount["mount_path"], "mount_status": status,
        "config": {"bucket": "createos", "endpoint": "http://127.0.0.1:9000"}})
}

/// What was pending at one look is mounted at the next.
async fn list(State(world): State<World>, Path(id): Path<String>) -> Answer {
    let rows = world.live(&id, |sandbox| {
        let disks = sandbox.request["disks"].as_array();
        let rows: Vec<Value> = disks.into_iter().flatten().map(row).collect();
        if let Some(row) = sandbox.request["disks"].get_mut(0) {
            row["mount_status"] = "mounted".into();
        }
        rows
    })?;
    page(&rows)
}

async fn detach(
    State(world): State<World>,
    Path((id, disk)): Path<(String, String)>,
    query: Query<BTreeMap<String, String>>,
) -> Answer {
    let detached = world.live(&id, |sandbox| {
        let row = sandbox.request["disks"][0].take();
        sandbox.request["disks"] = json!([]);
        row["disk_id"] == *disk && row["mount_path"] == *query["mount_path"]
    })?;
    match detached {
        true => success(json!({"detached": true})),
        false => fail(404, "not attached there"),
    }
}
