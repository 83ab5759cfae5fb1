//! Templates: the "build" writes what the Dockerfile says, and is over when its log was read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{
    Answer, CREATED, Known, Outcome, Plane, Run, World, fail, ndjson, ok, success, success_with,
    wrote,
};

type Templates = Arc<Mutex<BTreeMap<String, Value>>>;

pub(crate) async fn start() -> Plane {
    let templates = Templates::default();
    let built = templates.clone();
    let world = World::new(move |known: &mut Known, run: &Run| {
        let rootfs = known.here(run).request["rootfs"].as_str().unwrap_or_default().to_owned();
        let ready = built.lock().unwrap().get(&rootfs).is_some_and(|it| it["status"] == "ready");
        match ready && run.script() == "/opt/tools/greet" {
            true => wrote("hello from the template\n"),
            false => Outcome::Unknown,
        }
    });
    let area = Router::new()
        .route("/v1/templates", post(create))
        .route("/v1/templates/{template}", get(look).delete(remove))
        .route("/v1/templates/{template}/logs", get(log))
        .with_state((world.clone(), templates));
    Plane::start(world, area).await
}

type Area = State<(World, Templates)>;

async fn create(State((world, templates)): Area, Json(request): Json<Value>) -> Answer {
    let dockerfile = request["dockerfile"].as_str().unwrap_or_default();
    if !dockerfile.starts_with("FROM nodeops/sandbox:debian\n") {
        return fail(400, "the base is not allowed");
    }
    let id = world.id("tpl_");
    let template = json!({"id": id, "name": request["name"], "base": "", "status": "pending",
        "ext4_size_bytes": 0, "created_at": CREATED});
    let mut kept = template.clone();
    kept["dockerfile"] = dockerfile.into();
    templates.lock().unwrap().insert(id.clone(), kept);
    world.state().others.insert(id);
    success_with(201, template)
}

/// The template is ready one look after its log says so.
async fn look(State((_, templates)): Area, Path(id): Path<String>) -> Answer {
    let mut templates = templates.lock().unwrap();
    let Some(template) = templates.get_mut(&id) else { return fail(404, "template not found") };
    let mut seen = template.clone();
    seen.as_object_mut().unwrap().remove("dockerfile");
    if template["status"] == "building" {
        template["status"] = "ready".into();
        template["ext4_size_bytes"] = (64 << 20).into();
    }
    success(seen)
}

async fn log(State((_, templates)): Area, Path(id): Path<String>) -> Answer {
    let mut templates = templates.lock().unwrap();
    let Some(template) = templates.get_mut(&id) else { return fail(404, "template not found") };
    template["status"] = "building".into();
    let dockerfile = template["dockerfile"].as_str().unwrap_or_default();
    let line = |line: &str| json!({"ts": CREATED, "level": "info", "line": line, "attempt": 1});
    let mut lines: Vec<_> = dockerfile.lines().map(line).collect();
    lines.push(json!({"final": true, "status": "ready"}));
    ndjson(&lines, true)
}

async fn remove(State((world, templates)): Area, Path(id): Path<String>) -> Answer {
    world.state().others.remove(&id);
    match templates.lock().unwrap().remove(&id) {
        Some(_) => ok(),
        None => fail(404, "template not found"),
    }
}
