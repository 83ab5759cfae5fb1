//! A control plane that answers what a test tells it to.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::Answer;

/// The sandbox of [`plane`].
pub(crate) const ID: &str = "sb-01k4m2c9zq8v7n5t3r1p0x6y2w";

/// The command, signed in to a control plane by its environment, in a home of its own.
pub(crate) struct Cli {
    pub(crate) home: tempfile::TempDir,
    url: String,
}

impl Cli {
    pub(crate) fn new(url: &str) -> Self {
        Self { home: tempfile::tempdir().expect("a directory"), url: url.to_owned() }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_createos"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.home.path())
            .env("CREATEOS_SANDBOX_URL", &self.url)
            .env("CREATEOS_API_KEY", "skp_test_0123456789")
            .current_dir(self.home.path())
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Answer {
        Answer::of(self.command(arguments).output().expect("the program runs"))
    }
}

/// An answer that carries data.
pub(crate) fn success(data: Value) -> ResponseTemplate {
    ResponseTemplate::new(200).set_body_json(json!({"status": "success", "data": data}))
}

/// A refusal.
pub(crate) fn fail(status: u16, data: Value) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(json!({"status": "fail", "data": data}))
}

/// One page that holds the whole list.
pub(crate) fn rows(rows: Value) -> ResponseTemplate {
    let count = rows.as_array().map_or(0, Vec::len);
    let pagination = json!({"total": count, "limit": 500, "offset": 0, "count": count});
    success(json!({"data": rows, "pagination": pagination}))
}

/// What the plane says of the sandbox [`ID`].
pub(crate) fn sandbox(name: &str, status: &str) -> Value {
    json!({"id": ID, "name": name, "status": status, "vcpu": 1, "mem_mib": 256, "disk_mib": 10240,
           "created_at": "2026-08-02T10:00:00Z", "ingress_enabled": false, "region": "us"})
}

/// A plane with one sandbox called `demo`.
pub(crate) async fn plane(status: &str) -> MockServer {
    let server = MockServer::start().await;
    let one = sandbox("demo", status);
    let list = Mock::given(method("GET")).and(path("/v1/sandboxes"));
    list.respond_with(rows(json!([one]))).mount(&server).await;
    let get = Mock::given(method("GET")).and(path(format!("/v1/sandboxes/{ID}")));
    get.respond_with(success(one)).mount(&server).await;
    let disks = Mock::given(method("GET")).and(path(format!("/v1/sandboxes/{ID}/disks")));
    disks.respond_with(rows(json!([]))).mount(&server).await;
    server
}

/// A plane with something of everything.
pub(crate) async fn furnished() -> MockServer {
    let server = plane("running").await;
    for (at, data) in [
        (
            "/v1/disks",
            json!([{"id": "disk_1", "name": "data", "kind": "s3", "created_at":
            "2026-08-02T10:00:00Z", "config": {"bucket": "b", "endpoint": "https://e.example"}}]),
        ),
        (
            "/v1/networks",
            json!([{"id": "net-1", "name": "backend", "created_at":
            "2026-08-02T10:00:00Z"}]),
        ),
        (
            "/v1/templates",
            json!([{"id": "tpl_1", "name": "python-tools", "base": "debian",
            "status": "ready", "ext4_size_bytes": 1, "created_at": "2026-08-02T10:00:00Z"}]),
        ),
    ] {
        Mock::given(method("GET")).and(path(at)).respond_with(rows(data)).mount(&server).await;
    }
    let shapes = json!([{"id": "s-1vcpu-256mb", "vcpu": 1, "mem_mib": 256, "default_disk_mib": 1}]);
    let get = Mock::given(method("GET")).and(path("/v1/shapes"));
    get.respond_with(success(shapes)).mount(&server).await;
    let images = json!({"rootfs": ["devbox:1"], "default": "devbox:1", "entries": []});
    let get = Mock::given(method("GET")).and(path("/v1/rootfs"));
    get.respond_with(success(images)).mount(&server).await;
    server
}
