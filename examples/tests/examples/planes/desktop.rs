//! A desktop with one program, a terminal: it must be started, and clicked into, before it hears
//! what is typed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::{Answer, Outcome, Plane, World, fail, ok, success};

#[derive(Default)]
struct Desktop {
    looks: usize,
    started: bool,
    focused: bool,
    typed: String,
}

type Area = State<(World, Arc<Mutex<Desktop>>)>;

pub(crate) async fn start() -> Plane {
    let world = World::new(|_, _| Outcome::Unknown);
    let path = |rest: &str| format!("/v1/sandboxes/{{id}}/computer/{rest}");
    let area = Router::new()
        .route(&path("screen"), get(screen))
        .route(&path("screenshot"), get(screenshot))
        .route(&path("launch"), post(launch))
        .route(&path("windows"), get(windows))
        .route(&path("windows/{window}/geometry"), get(geometry))
        .route(&path("mouse/click"), post(click))
        .route(&path("keyboard/type"), post(type_text))
        .route(&path("keyboard/press"), post(press))
        .with_state((world.clone(), Arc::default()));
    Plane::start(world, area).await
}

/// It is not there at the first look.
async fn screen(State((world, desktop)): Area, Path(id): Path<String>) -> Answer {
    if !world.live(&id, |sandbox| sandbox.request["rootfs"] == "desktop:1")? {
        return fail(501, "this image has no desktop tools");
    }
    let mut desktop = desktop.lock().unwrap();
    desktop.looks += 1;
    match desktop.looks {
        1 => fail(409, "desktop_unavailable"),
        _ => success(json!({"width": 1280, "height": 800})),
    }
}

async fn screenshot(State((_, desktop)): Area) -> Answer {
    let shown = format!("{:?}", desktop.lock().unwrap().typed);
    let png = [b"\x89PNG\r\n\x1a\n", shown.as_bytes()].concat();
    Ok(([(header::CONTENT_TYPE, "image/png")], png).into_response())
}

async fn launch(State((_, desktop)): Area, Json(request): Json<Value>) -> Answer {
    if request["application"] != "xterm" {
        return fail(400, "no such program");
    }
    desktop.lock().unwrap().started = true;
    ok()
}

/// The window shows some time after the start.
async fn windows(State((_, desktop)): Area, query: Query<BTreeMap<String, String>>) -> Answer {
    let mut desktop = desktop.lock().unwrap();
    desktop.looks += 1;
    match desktop.started && desktop.looks > 3 && query["application"] == "xterm" {
        true => success(json!([{"id": "0x1a", "title": "xterm"}])),
        false => success(json!([])),
    }
}

async fn geometry(Path((_, window)): Path<(String, String)>) -> Answer {
    match &*window {
        "0x1a" => success(json!({"id": "0x1a", "x": 100, "y": 50, "width": 400, "height": 300,
                                 "screen": 0})),
        _ => fail(404, "no such window"),
    }
}

async fn click(State((_, desktop)): Area, Json(request): Json<Value>) -> Answer {
    desktop.lock().unwrap().focused = request == json!({"x": 300, "y": 200});
    ok()
}

async fn type_text(State((_, desktop)): Area, Json(request): Json<Value>) -> Answer {
    let mut desktop = desktop.lock().unwrap();
    if desktop.focused {
        desktop.typed += request["text"].as_str().unwrap_or_default();
    }
    ok()
}

/// The terminal carries out what was typed: `echo … >path`.
async fn press(
    State((world, desktop)): Area,
    Path(id): Path<String>,
    Json(request): Json<Value>,
) -> Answer {
    let typed = desktop.lock().unwrap().typed.clone();
    let said = typed.strip_prefix("echo ").and_then(|rest| rest.split_once(" >"));
    let (Some((text, path)), true) = (said, request == json!({"keys": ["Return"]})) else {
        return fail(400, "keys that are not in the script");
    };
    let file = format!("{text}\n");
    world.live(&id, |sandbox| sandbox.files.insert(path.to_owned(), file.into()))?;
    ok()
}
