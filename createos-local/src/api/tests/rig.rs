//! An engine for one test, and a client that checks what every answer must have.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::{HeaderMap, Method, Request, StatusCode};
use bytes::Bytes;
use createos_sdk::SandboxId;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::catalog::Rootfs;
use crate::core::Tuning;
use crate::core::fake::Fake;
use crate::engine::{Engine, Machine};

pub(super) const KEY: &str = "skp_test";
pub(super) const SSH_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0jbyYn0Qq6AvS4oPmtjPYqUYuhNPhPwoKvP1VWG0Jw";
pub(super) const SHAPE: &str = "s-1vcpu-256mb";

pub(super) struct Rig {
    pub(super) engine: Engine,
    pub(super) fake: Arc<Fake>,
    pub(super) dir: TempDir,
    tuning: Tuning,
}

/// A whole answer.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Bytes,
}

impl Reply {
    #[track_caller]
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The `data` of a success.
    #[track_caller]
    pub(super) fn data(&self) -> Value {
        assert!(self.status < 300, "{self:?}");
        self.json()["data"].clone()
    }

    /// The text of a refusal.
    #[track_caller]
    pub(super) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap().to_owned()
    }
}

impl Rig {
    pub(super) async fn new() -> Self {
        Self::tuned(|_| {}).await
    }

    pub(super) async fn tuned(change: impl FnOnce(&mut Tuning)) -> Self {
        let mut tuning = Tuning::default();
        change(&mut tuning);
        let dir = tempfile::tempdir().unwrap();
        Self::on(dir, Fake::new(), tuning).await
    }

    /// On a machine that has the programs of a desktop.
    pub(super) async fn with_desktop() -> Self {
        let fake = Fake::new();
        fake.has_desktop.store(true, Ordering::SeqCst);
        Self::on(tempfile::tempdir().unwrap(), fake, Tuning::default()).await
    }

    async fn on(dir: TempDir, fake: Arc<Fake>, tuning: Tuning) -> Self {
        let runtime = Arc::new(Arc::clone(&fake));
        let rootfs =
            vec![Rootfs { name: "devbox:1".to_owned(), description: "scripted".to_owned() }];
        let desktop = match fake.has_desktop.load(Ordering::SeqCst) {
            true => Ok(()),
            false => Err("no programs of a desktop; get some".to_owned()),
        };
        let machine = async |_| Ok(Machine { runtime, rootfs, desktop });
        let builder = Engine::builder().data_dir(dir.path()).api_key(KEY);
        let engine = builder.start_with(tuning, machine).await.unwrap();
        Self { engine, fake, dir, tuning }
    }

    /// A new engine on the same directory and machine. `between` sees the state in between.
    pub(super) async fn restart(self, between: impl FnOnce(&rusqlite::Connection, &Fake)) -> Self {
        let Self { engine, fake, dir, tuning } = self;
        engine.shutdown().await;
        between(&rusqlite::Connection::open(dir.path().join("state.db")).unwrap(), &fake);
        Self::on(dir, fake, tuning).await
    }

    /// Puts a sandbox into a state that no request leads to.
    pub(super) fn force(&self, id: &SandboxId, state: &str) {
        let database = rusqlite::Connection::open(self.dir.path().join("state.db")).unwrap();
        database.busy_timeout(Duration::from_secs(5)).unwrap();
        let changed = database
            .execute("UPDATE sandboxes SET status = ?1 WHERE id = ?2", [state, id.as_str()])
            .unwrap();
        assert_eq!(changed, 1);
    }

    pub(super) async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Reply {
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        self.send(method, path, &[("x-api-key", KEY)], body).await
    }

    pub(super) async fn get(&self, path: &str) -> Reply {
        self.call("GET", path, None).await
    }

    pub(super) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let answer = self.open(method, path, headers, body).await;
        let (parts, body) = answer.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let reply = Reply { status: parts.status.as_u16(), headers: parts.headers, body };
        check(&reply);
        reply
    }

    /// Sends a request on a connection of its own and does not wait for the body.
    pub(super) async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> hyper::Response<Incoming> {
        let addr = self.engine.local_addr();
        let stream = TcpStream::connect(addr).await.unwrap();
        let (mut sender, connection) =
            http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(Method::from_bytes(method.as_bytes()).unwrap())
            .uri(path)
            .header("host", addr.to_string());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        sender.send_request(request.body(Full::new(body.into())).unwrap()).await.unwrap()
    }

    /// A running sandbox.
    pub(super) async fn sandbox(&self) -> SandboxId {
        self.sandbox_with(json!({})).await
    }

    pub(super) async fn sandbox_with(&self, mut request: Value) -> SandboxId {
        request["shape"] = SHAPE.into();
        let created = self.call("POST", "/v1/sandboxes", Some(request)).await;
        assert_eq!(created.status, 201, "{created:?}");
        created.data()["id"].as_str().unwrap().parse().unwrap()
    }

    pub(super) async fn exec(&self, id: &SandboxId, request: Value) -> Reply {
        self.call("POST", &format!("/v1/sandboxes/{id}/exec"), Some(request)).await
    }

    pub(super) async fn status(&self, id: &SandboxId) -> String {
        let view = self.get(&format!("/v1/sandboxes/{id}")).await.data();
        view["status"].as_str().unwrap().to_owned()
    }

    /// Waits until the sandbox has this status.
    pub(super) async fn until(&self, id: &SandboxId, wanted: &str) {
        self.eventually(async || {
            let status = self.status(id).await;
            (status == wanted).then_some(()).ok_or(status)
        })
        .await;
    }

    /// Waits until `check` says yes; what it says otherwise is shown when it never does.
    pub(super) async fn eventually(&self, check: impl AsyncFn() -> Result<(), String>) {
        let mut last = String::new();
        for _ in 0..500 {
            match check().await {
                Ok(()) => return,
                Err(text) => last = text,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it never happened; last: {last}");
    }
}

/// What api.md 1.4 and 1.8 ask of every answer.
#[track_caller]
fn check(reply: &Reply) {
    assert!(reply.headers.contains_key("x-request-id"), "{reply:?}");
    assert!(!reply.headers.contains_key("access-control-allow-origin"), "{reply:?}");
    let kind = reply.headers.get("content-type").unwrap().to_str().unwrap();
    if kind != "application/json" {
        let raw = [
            "application/x-ndjson",
            "application/octet-stream",
            "text/plain; charset=utf-8",
            "image/png",
        ];
        assert!(raw.contains(&kind), "{kind}");
        assert_eq!(reply.status, 200);
        return;
    }
    let body = reply.json();
    let expected = match StatusCode::from_u16(reply.status).unwrap() {
        status if status.is_success() => "success",
        StatusCode::NOT_IMPLEMENTED => "fail",
        status if status.is_client_error() => "fail",
        _ => "error",
    };
    assert_eq!(body["status"], expected, "{reply:?}");
    match expected {
        "success" => assert!(!body["data"].is_null(), "{reply:?}"),
        "fail" => {
            assert!(!body["message"].as_str().unwrap().is_empty());
            let texts = match &body["data"] {
                Value::Object(fields) => fields.values().all(Value::is_string),
                data => data.is_string(),
            };
            assert!(texts, "{reply:?}");
        }
        _ => assert_eq!(body["code"], reply.status, "{reply:?}"),
    }
}
