//! Planes that follow a script: servers on loopback that know one area as api.md tells it, well
//! enough for one example.
//!
//! What all areas need is here: sandboxes that can be made, looked at and destroyed, their files,
//! and commands whose outcome the area decides. The JSON is written out and not made from the
//! types of the SDK, so that a mistake there cannot hide on both sides.

pub(crate) mod desktop;
pub(crate) mod disk;
pub(crate) mod fork;
pub(crate) mod network;
pub(crate) mod process;
mod serving;
pub(crate) mod template;
pub(crate) mod terminal;
pub(crate) mod tunnel;
mod upgrade;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use axum::body::{Body, Bytes};
use axum::extract::{Path, Query, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

pub(crate) const KEY: &str = "skp_of_the_tests";
const CREATED: &str = "2026-08-02T10:00:00Z";

/// A plane that runs until it is dropped.
pub(crate) struct Plane {
    url: String,
    world: World,
    serving: JoinHandle<()>,
}

impl Plane {
    /// `area` is everything beyond the sandboxes themselves; `guest` is what runs inside of them.
    async fn start(world: World, area: Router) -> Self {
        let unexpected = world.clone();
        let routes = sandboxes(world.clone()).merge(area).fallback(move |request: Request| {
            let line = format!("{} {}", request.method(), request.uri());
            unexpected.state().unexpected.push(line);
            async { Refusal(404, "no such route") }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let routes = routes.layer(from_fn(only_with_the_key));
        let serving = async move { axum::serve(listener, routes).await.unwrap() };
        Self { url, world, serving: tokio::spawn(serving) }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// The example has cleaned up, and asked for nothing that is not in the script.
    #[track_caller]
    pub(crate) fn is_empty_and_heard_nothing_odd(&self) {
        let state = self.world.state();
        let left: Vec<_> = state.sandboxes.keys().chain(&state.others).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        assert!(state.unexpected.is_empty(), "not in the script: {:?}", state.unexpected);
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn only_with_the_key(request: Request, next: Next) -> Response {
    match request.headers().get("x-api-key") {
        Some(key) if key == KEY => next.run(request).await,
        _ => Refusal(401, "invalid api key").into_response(),
    }
}

/// Decides what becomes of a command.
type Guest = dyn Fn(&mut Known, &Run) -> Outcome + Send + Sync;

/// What a plane knows.
#[derive(Clone)]
struct World {
    state: Arc<Mutex<Known>>,
    guest: Arc<Guest>,
    ids: Arc<AtomicUsize>,
}

#[derive(Default)]
struct Known {
    sandboxes: BTreeMap<String, Sandbox>,
    /// Networks, disks and templates that are there.
    others: BTreeSet<String>,
    unexpected: Vec<String>,
}

impl Known {
    /// The sandbox that a command runs in.
    fn here(&mut self, run: &Run) -> &mut Sandbox {
        self.sandboxes.get_mut(&run.sandbox).unwrap()
    }
}

struct Sandbox {
    status: &'static str,
    /// The body it was created with.
    request: Value,
    files: BTreeMap<String, Bytes>,
}

/// A command as it was asked for.
struct Run {
    sandbox: String,
    program: String,
    args: Vec<String>,
}

impl Run {
    /// The last argument, which of a shell is the script.
    fn script(&self) -> &str {
        self.args.last().map_or("", |last| last)
    }
}

/// What becomes of a command.
enum Outcome {
    Wrote(String),
    /// The script of this plane does not know it.
    Unknown,
}

fn wrote(text: impl Into<String>) -> Outcome {
    Outcome::Wrote(text.into())
}

impl World {
    fn new(guest: impl Fn(&mut Known, &Run) -> Outcome + Send + Sync + 'static) -> Self {
        Self { state: Arc::default(), guest: Arc::new(guest), ids: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, Known> {
        self.state.lock().unwrap()
    }

    /// An id that was not given out before.
    fn id(&self, kind: &str) -> String {
        format!("{kind}{:026}", self.ids.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Does this with a sandbox, which must be there and run.
    fn live<T>(&self, id: &str, act: impl FnOnce(&mut Sandbox) -> T) -> Result<T, Refusal> {
        match self.state().sandboxes.get_mut(id) {
            None => fail(404, "sandbox not found"),
            Some(sandbox) if sandbox.status != "running" => fail(409, "sandbox is not running"),
            Some(sandbox) => Ok(act(sandbox)),
        }
    }

    fn add(&self, request: Value, status: &'static str) -> String {
        let id = self.id("sb-");
        let sandbox = Sandbox { status, request, files: BTreeMap::new() };
        self.state().sandboxes.insert(id.clone(), sandbox);
        id
    }
}

fn answer(status: u16, body: &Value) -> Response {
    let status = StatusCode::from_u16(status).unwrap();
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

fn success(data: Value) -> Answer {
    success_with(200, data)
}

fn success_with(status: u16, data: Value) -> Answer {
    Ok(answer(status, &json!({"status": "success", "data": data})))
}

fn ok() -> Answer {
    success(json!({"ok": true}))
}

/// What a request is refused with.
struct Refusal(u16, &'static str);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        answer(self.0, &json!({"status": "fail", "data": self.1}))
    }
}

type Answer = Result<Response, Refusal>;

fn fail<T>(status: u16, why: &'static str) -> Result<T, Refusal> {
    Err(Refusal(status, why))
}

/// Rows that are few enough for one page.
fn page(rows: &[Value]) -> Answer {
    let count = rows.len();
    let pagination = json!({"total": count, "limit": 500, "offset": 0, "count": count});
    success(json!({"data": rows, "pagination": pagination}))
}

/// A stream of lines, which goes on in silence after them unless this is its end.
fn ndjson(lines: &[Value], ends: bool) -> Answer {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let lines = futures::stream::iter([Ok::<_, std::io::Error>(text)]);
    let body = match ends {
        true => Body::from_stream(lines),
        false => Body::from_stream(lines.chain(futures::stream::pending())),
    };
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

fn view(id: &str, status: &str) -> Value {
    json!({"id": id, "status": status, "name": format!("box-{}", &id[id.len() - 2..]), "vcpu": 1,
           "mem_mib": 1024, "disk_mib": 10240, "created_at": CREATED, "ingress_enabled": false})
}

fn sandboxes(world: World) -> Router {
    let one = "/v1/sandboxes/{id}";
    Router::new()
        .route("/v1/sandboxes", post(create))
        .route(one, get(look).delete(destroy))
        .route(&format!("{one}/exec"), post(exec))
        .route(&format!("{one}/files"), get(read).put(write))
        .with_state(world)
}

async fn create(State(world): State<World>, Json(request): Json<Value>) -> Answer {
    let id = world.add(request, "running");
    let mut data = view(&id, "running");
    for (field, value) in [
        ("ip", json!("10.0.4.17")),
        ("shape", json!("s-1vcpu-1gb")),
        ("spawn_ms", json!(1.5)),
        ("bandwidth_quota_bytes", json!(-1)),
    ] {
        data[field] = value;
    }
    success_with(201, data)
}

/// A change of state that has begun is finished by the next look.
async fn look(State(world): State<World>, Path(id): Path<String>) -> Answer {
    let mut state = world.state();
    let Some(sandbox) = state.sandboxes.get_mut(&id) else {
        return fail(404, "sandbox not found");
    };
    sandbox.status = match sandbox.status {
        "pausing" => "paused",
        "forking" => "running",
        settled => settled,
    };
    success(view(&id, sandbox.status))
}

async fn destroy(State(world): State<World>, Path(id): Path<String>) -> Answer {
    match world.state().sandboxes.remove(&id) {
        Some(_) => success(json!({"id": id, "status": "destroyed"})),
        None => fail(404, "sandbox not found"),
    }
}

async fn exec(
    State(world): State<World>,
    Path(id): Path<String>,
    Json(request): Json<Value>,
) -> Answer {
    let run = Run {
        program: request["cmd"].as_str().unwrap_or_default().to_owned(),
        args: serde_json::from_value(request["args"].clone()).unwrap_or_default(),
        sandbox: id.clone(),
    };
    world.live(&id, |_| ())?;
    let outcome = (world.guest)(&mut world.state(), &run);
    match (outcome, request["stream"] == true) {
        (Outcome::Wrote(text), false) => success(json!({
            "result": {"stdout": text, "stderr": "", "exit_code": 0}, "exec_ms": 1.5})),
        (Outcome::Wrote(text), true) => {
            ndjson(&[json!({"stdout": text}), json!({"exit_code": 0})], true)
        }
        _ => {
            let line = format!("{} {:?} in {}", run.program, run.args, run.sandbox);
            world.state().unexpected.push(line);
            fail(400, "a command that is not in the script")
        }
    }
}

type Pairs = Query<BTreeMap<String, String>>;

async fn read(State(world): State<World>, Path(id): Path<String>, query: Pairs) -> Answer {
    match world.live(&id, |sandbox| sandbox.files.get(&query["path"]).cloned())? {
        Some(bytes) => {
            Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes).into_response())
        }
        None => fail(404, "no such file"),
    }
}

async fn write(
    State(world): State<World>,
    Path(id): Path<String>,
    query: Pairs,
    body: Bytes,
) -> Answer {
    let path = query["path"].clone();
    let answer = json!({"bytes": body.len(), "path": path});
    world.live(&id, |sandbox| sandbox.files.insert(path, body))?;
    success(answer)
}
