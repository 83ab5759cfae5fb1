//! Private networks; the members are what the sandboxes say they are on.

use axum::extract::{Path, Request, State};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

use super::upgrade::upgrade;
use super::{
    Answer, CREATED, Known, Outcome, Plane, Run, Sandbox, World, fail, ok, serving, success, wrote,
};

pub(crate) async fn start() -> Plane {
    start_where(true).await
}

/// What is started there never listens.
pub(crate) async fn start_deaf() -> Plane {
    start_where(false).await
}

async fn start_where(listens: bool) -> Plane {
    let world = World::new(|known, run| fetch(known, run).unwrap_or(Outcome::Unknown));
    let area = Router::new()
        .route("/v1/networks", post(create))
        .route("/v1/networks/{network}", get(look).delete(remove))
        .route("/v1/sandboxes/{id}/networks/{network}", delete(leave))
        .route("/v1/sandboxes/{id}/tunnel/8000", post(tunnel))
        .with_state(world.clone())
        .merge(serving::routes(world.clone(), listens));
    Plane::start(world, area).await
}

/// The visitor asks for `http://<sandbox>.fc.local:8000/greeting`; it finds who is on the same
/// networks.
fn fetch(known: &mut Known, run: &Run) -> Option<Outcome> {
    let (_, rest) = run.script().split_once("http://")?;
    let (id, _) = rest.split_once(".fc.local:8000/greeting")?;
    let networks = known.here(run).request["networks"].clone();
    let server = known.sandboxes.get(id).filter(|it| it.request["networks"] == networks)?;
    if server.request["serves"] != "8000" {
        return None;
    }
    let greeting = server.files.get("/srv/greeting")?;
    String::from_utf8(greeting.to_vec()).ok().map(wrote)
}

fn is_on(sandbox: &Sandbox, network: &str) -> bool {
    sandbox.request["networks"].as_array().is_some_and(|all| all.contains(&json!({"id": network})))
}

/// Something listens from the second try on.
async fn tunnel(State(world): State<World>, Path(id): Path<String>, request: Request) -> Answer {
    let listens = world.live(&id, |sandbox| {
        let serves = sandbox.request["serves"] == "8000";
        std::mem::replace(&mut sandbox.request["listens"], serves.into()) == true
    })?;
    match listens {
        true => {
            upgrade(request, async move |mut io| io.read_to_end(&mut Vec::new()).await.map(drop))
        }
        false => fail(502, "nothing listens on the port"),
    }
}

async fn create(State(world): State<World>, Json(request): Json<Value>) -> Answer {
    let id = world.id("net-");
    world.state().others.insert(id.clone());
    success(json!({"id": id, "name": request["name"], "created_at": CREATED}))
}

/// Addresses are there from the second look on.
async fn look(State(world): State<World>, Path(network): Path<String>) -> Answer {
    let mut state = world.state();
    if !state.others.contains(&network) {
        return fail(404, "network not found");
    }
    let on = state.sandboxes.iter_mut().filter(|(_, one)| is_on(one, &network));
    let mut members = Vec::new();
    for (at, (id, sandbox)) in on.enumerate() {
        let mut member = json!({"sandbox_id": id, "status": sandbox.status, "name": id});
        if sandbox.request["seen"] == true {
            member["ip"] = format!("10.64.0.{}", at + 2).into();
        }
        sandbox.request["seen"] = true.into();
        members.push(member);
    }
    success(json!({"id": network, "name": "mesh", "created_at": CREATED, "members": members}))
}

async fn remove(State(world): State<World>, Path(network): Path<String>) -> Answer {
    let mut state = world.state();
    if state.sandboxes.values().any(|one| is_on(one, &network)) {
        return fail(409, "the network has members");
    }
    match state.others.remove(&network) {
        true => ok(),
        false => fail(404, "network not found"),
    }
}

async fn leave(State(world): State<World>, Path((id, network)): Path<(String, String)>) -> Answer {
    let left = world.live(&id, |sandbox| {
        let was = is_on(sandbox, &network);
        sandbox.request["networks"] = json!([]);
        was
    })?;
    match left {
        true => ok(),
        false => fail(404, "not on this network"),
    }
}
