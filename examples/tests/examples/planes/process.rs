//! One managed process, which goes on with every input, and of whose long output only the end is
//! kept.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{Answer, CREATED, Outcome, Plane, World, fail, ndjson, success, success_with};

const ID: &str = "prc-1";

/// How much input it has had.
type Inputs = Arc<AtomicUsize>;
type Area = State<(World, Inputs)>;
type Place = Path<(String, String)>;

pub(crate) async fn start() -> Plane {
    let world = World::new(|_, _| Outcome::Unknown);
    let all = "/v1/sandboxes/{id}/processes";
    let one = format!("{all}/{{process}}");
    let area = Router::new()
        .route(all, post(create))
        .route(&format!("{one}/connect"), get(connect))
        .route(&format!("{one}/input"), post(input))
        .route(&format!("{one}/wait"), get(wait))
        .with_state((world.clone(), Inputs::default()));
    Plane::start(world, area).await
}

fn object(state: &str) -> Value {
    let ended = state == "exited";
    json!({"process_id": ID, "kind": "process", "pid": 12, "state": state, "leader_exited": ended,
           "tree_exited": ended, "created_at": CREATED, "cmd": "sh",
           "output": {"oldest_seq": 0, "newest_seq": 0, "bytes": 0}})
}

async fn create(
    State((world, _)): Area,
    Path(id): Path<String>,
    Json(request): Json<Value>,
) -> Answer {
    match world.live(&id, |_| request["cmd"] == "sh")? {
        true => success_with(201, object("running")),
        false => fail(400, "no such program"),
    }
}

/// What is kept: after the second input only the end.
fn kept(inputs: usize) -> Vec<Value> {
    // In base64: "ready\n", "1\n2\n3\n", "xxx\n", "done\n".
    let data = |seq: u64, data: &str| json!({"type": "data", "seq": seq, "stream": "stdout", "data_base64": data});
    match inputs {
        0 => vec![data(1, "cmVhZHkK")],
        1 => vec![data(1, "cmVhZHkK"), data(2, "MQoyCjMK")],
        _ => vec![
            data(40, "eHh4Cg=="),
            data(41, "ZG9uZQo="),
            json!({"type": "exit", "seq": 42, "exit_code": 7}),
        ],
    }
}

async fn connect(
    State((_, inputs)): Area,
    Path((_, process)): Place,
    query: Query<BTreeMap<String, String>>,
) -> Answer {
    if process != ID {
        return fail(404, "process not found");
    }
    let after: u64 = query.get("after").map_or(0, |after| after.parse().unwrap());
    let inputs = inputs.load(Ordering::Relaxed);
    let mut frames = kept(inputs);
    let oldest = frames[0]["seq"].as_u64().unwrap();
    if after > 0 && after + 1 < oldest {
        let expired = json!({"type": "error", "error": "output_offset_expired",
                             "oldest_available_seq": oldest});
        return ndjson(&[expired], true);
    }
    frames.retain(|frame| frame["seq"].as_u64().unwrap() > after);
    ndjson(&frames, inputs >= 2)
}

async fn input(State((_, inputs)): Area, _: Place, Json(request): Json<Value>) -> Answer {
    // "go\n" in base64.
    if request["data_base64"] != "Z28K" {
        return fail(400, "input that is not in the script");
    }
    success(json!({"input_seq": inputs.fetch_add(1, Ordering::Relaxed) + 1}))
}

async fn wait(State((_, inputs)): Area, _: Place) -> Answer {
    match inputs.load(Ordering::Relaxed) {
        0 | 1 => success(object("running")),
        _ => {
            let mut process = object("exited");
            process["exit_code"] = 7.into();
            success(process)
        }
    }
}
