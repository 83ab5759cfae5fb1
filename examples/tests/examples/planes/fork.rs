//! Pausing and forking; children have the files of their source, and variables of their own.

use axum::extract::{Path, State};
use axum::routing::post;
use axum::{Json, Router};
use serde_json::Value;

use super::{Answer, Known, Outcome, Plane, Run, World, fail, success_with, view, wrote};

/// How small each way makes the text.
const RESULTS: [(&str, usize); 3] = [("gzip -1", 900), ("gzip -9", 800), ("xz -9", 700)];

pub(crate) async fn start() -> Plane {
    let world = World::new(command);
    let area = Router::new()
        .route("/v1/sandboxes/{id}/pause", post(pause))
        .route("/v1/sandboxes/{id}/fork", post(fork))
        .with_state(world.clone());
    Plane::start(world, area).await
}

fn command(known: &mut Known, run: &Run) -> Outcome {
    let sandbox = known.here(run);
    if run.script().ends_with("seq 200000 >/workspace/text") {
        sandbox.files.insert("/workspace/text".into(), "1 2 3".into());
        return wrote("");
    }
    let way = sandbox.request["envs"]["WAY"].clone();
    let found = RESULTS.into_iter().find(|(name, _)| way == *name);
    let prepared = sandbox.files.contains_key("/workspace/text");
    match found.filter(|_| prepared && run.script().contains("$WAY <text >result")) {
        Some((_, size)) => {
            sandbox.files.insert("/workspace/result".into(), vec![0; size].into());
            wrote(format!("{size}\n"))
        }
        None => Outcome::Unknown,
    }
}

async fn pause(State(world): State<World>, Path(id): Path<String>) -> Answer {
    world.live(&id, |sandbox| sandbox.status = "pausing")?;
    success_with(202, view(&id, "pausing"))
}

async fn fork(
    State(world): State<World>,
    Path(source): Path<String>,
    Json(request): Json<Value>,
) -> Answer {
    let files = match world.state().sandboxes.get(&source) {
        None => return fail(404, "sandbox not found"),
        Some(sandbox) if sandbox.status != "paused" => {
            return fail(409, "sandbox is not paused");
        }
        Some(sandbox) => sandbox.files.clone(),
    };
    let id = world.add(request, "forking");
    world.state().sandboxes.get_mut(&id).unwrap().files = files;
    let mut child = view(&id, "forking");
    child["forked_from"] = source.into();
    success_with(202, child)
}
