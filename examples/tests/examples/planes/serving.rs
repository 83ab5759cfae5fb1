//! Managed web servers: what is started serves the port that is its last argument, until it is
//! terminated.

use axum::extract::{Path, State};
use axum::routing::{delete, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{Answer, CREATED, World, fail, success, success_with};

const ID: &str = "prc-1";

/// With `listens` false they run, and never listen.
pub(super) fn routes(world: World, listens: bool) -> Router {
    Router::new()
        .route("/v1/sandboxes/{id}/processes", post(start))
        .route("/v1/sandboxes/{id}/processes/{process}", delete(stop))
        .with_state((world, listens))
}

type Area = State<(World, bool)>;

fn process(state: &str) -> Value {
    let ended = state == "exited";
    json!({"process_id": ID, "kind": "process", "pid": 12, "state": state, "leader_exited": ended,
           "tree_exited": ended, "created_at": CREATED, "cmd": "python3",
           "output": {"oldest_seq": 0, "newest_seq": 0, "bytes": 0}})
}

async fn start(
    State((world, listens)): Area,
    Path(id): Path<String>,
    Json(request): Json<Value>,
) -> Answer {
    let args = request["args"].as_array().map_or(&[][..], Vec::as_slice);
    let port = match args {
        [_, module, .., port] if module == "http.server" => port,
        _ => return fail(400, "no such program"),
    };
    if listens {
        world.live(&id, |sandbox| sandbox.request["serves"] = port.clone())?;
    }
    success_with(201, process("running"))
}

async fn stop(State((world, _)): Area, Path((id, asked)): Path<(String, String)>) -> Answer {
    if asked != ID {
        return fail(404, "process not found");
    }
    world.live(&id, |sandbox| sandbox.request["serves"] = Value::Null)?;
    success(process("exited"))
}
