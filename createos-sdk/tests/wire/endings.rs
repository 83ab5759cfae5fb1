//! Guards of everything that can be guarded: what is made under one is ended, however it goes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use createos_sdk::wire::{DiskConfig, DiskCredentials};
use createos_sdk::{Client, ErrorKind, Guard, Guardable, Guarded, Network, ProcessId, Sandbox};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use super::{ID, client, fail, success, view};

const SOON: Duration = Duration::from_secs(10);

/// A server that keeps what is made: one thing of each kind, by its path.
#[derive(Clone, Default)]
struct Plane(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    made: BTreeMap<String, Value>,
    seen: Vec<String>,
    slow_create: Duration,
    /// What the next attempts to end something answer.
    refusals: Vec<u16>,
    /// Networks are refused while there are sandboxes, and these go so long after they were told.
    slow_destroy: Duration,
}

impl Plane {
    async fn start() -> (Self, MockServer, Client) {
        let (plane, server) = (Self::default(), MockServer::start().await);
        Mock::given(wiremock::matchers::any()).respond_with(plane.clone()).mount(&server).await;
        let client = client(&server.uri());
        (plane, server, client)
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.0.lock().unwrap())
    }

    fn is_empty(&self) -> bool {
        self.with(|state| state.made.is_empty())
    }

    fn deletes(&self) -> usize {
        self.with(|state| state.seen.iter().filter(|line| line.starts_with("DELETE")).count())
    }

    async fn until(&self, what: impl Fn(&mut State) -> bool) {
        let waiting = async {
            while !self.with(&what) {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, waiting).await.expect("it does not come to that");
    }

    async fn eventually_empty(&self) {
        self.until(|state| !state.seen.is_empty() && state.made.is_empty()).await;
    }
}

/// What a collection answers with, and the id in it.
fn answer(collection: &str) -> (&'static str, Value) {
    let created = "2026-08-02T10:00:00Z";
    match collection {
        "sandboxes" => (ID, view("running")),
        "networks" => ("net-1", json!({"id": "net-1", "name": "mesh", "created_at": created})),
        "disks" => {
            let config = json!({"bucket": "b", "endpoint": "https://s3.example.org"});
            let disk = json!({"id": "disk_1", "name": "data", "kind": "s3", "config": config,
                              "created_at": created});
            ("disk_1", disk)
        }
        "templates" => {
            let template = json!({"id": "tpl_1", "name": "tools", "base": "", "status": "pending",
                                  "ext4_size_bytes": 0, "created_at": created});
            ("tpl_1", template)
        }
        "processes" => {
            let process = json!({"process_id": "prc-1", "kind": "process", "pid": 12,
                "state": "running", "leader_exited": false, "tree_exited": false,
                "created_at": created, "output": {"oldest_seq": 0, "newest_seq": 0, "bytes": 0}});
            ("prc-1", process)
        }
        other => panic!("{other}"),
    }
}

impl Respond for Plane {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let path = request.url.path().to_owned();
        let mut state = self.0.lock().unwrap();
        state.seen.push(format!("{} {path}", request.method));
        if request.method.as_str() == "POST" {
            let (id, made) = answer(path.rsplit('/').next().unwrap());
            state.made.insert(format!("{path}/{id}"), made.clone());
            return success(made).set_delay(state.slow_create);
        }
        assert_eq!(request.method.as_str(), "DELETE", "{path}");
        if let Some(status) = state.refusals.pop() {
            return fail(status, "in use");
        }
        let sandbox = format!("/v1/sandboxes/{ID}");
        if path.starts_with("/v1/networks/") && state.made.contains_key(&sandbox) {
            return fail(409, "network has members");
        }
        if path == sandbox {
            let (plane, after) = (self.clone(), state.slow_destroy);
            std::thread::spawn(move || {
                std::thread::sleep(after);
                plane.with(|state| state.made.remove(&path));
            });
            return success(json!({"id": ID, "status": "destroying"}));
        }
        match state.made.remove(&path) {
            // A process answers with itself, the others with any object.
            Some(made) => success(made),
            None => fail(404, "not found"),
        }
    }
}

fn network(client: &Client) -> Guarded<Network> {
    client.create_network("mesh").guarded()
}

fn keys() -> DiskCredentials {
    DiskCredentials::new("AK", "hunter2")
}

/// What a guard promises, for one kind of thing.
async fn it_keeps_its_promises<T: Guardable>(make: impl Fn(&Client) -> Guarded<T>) {
    let (plane, _server, client) = Plane::start().await;
    let guard = make(&client).await.unwrap();
    assert!(!plane.is_empty());
    guard.close().await.unwrap();
    assert!(plane.is_empty());

    // Dropped, by a panic too.
    drop(make(&client).await.unwrap());
    plane.eventually_empty().await;
    let again = make(&client);
    let panicking = tokio::spawn(async move {
        let _guard = again.await.unwrap();
        panic!("on purpose");
    });
    assert!(panicking.await.unwrap_err().is_panic());
    plane.eventually_empty().await;

    // Given up while it is being made.
    plane.with(|state| state.slow_create = Duration::from_millis(200));
    assert!(timeout(Duration::from_millis(50), make(&client)).await.is_err());
    plane.until(|state| !state.made.is_empty()).await;
    plane.eventually_empty().await;
    plane.with(|state| state.slow_create = Duration::ZERO);

    // Never begun.
    let seen = plane.with(|state| state.seen.len());
    drop(make(&client));
    assert_eq!(plane.with(|state| state.seen.len()), seen);

    // Gone already.
    let guard = make(&client).await.unwrap();
    plane.with(|state| state.made.clear());
    guard.close().await.unwrap();

    // An error is told, and then tried again without anybody to tell.
    let guard = make(&client).await.unwrap();
    plane.with(|state| state.refusals = vec![403]);
    assert_eq!(guard.close().await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    plane.eventually_empty().await;

    // Kept.
    let before = plane.deletes();
    let _kept = make(&client).await.unwrap().keep();
    sleep(Duration::from_millis(50)).await;
    assert!(!plane.is_empty() && plane.deletes() == before);
}

#[tokio::test]
async fn networks_are_removed() {
    it_keeps_its_promises(network).await;
}

#[tokio::test]
async fn disks_are_removed() {
    it_keeps_its_promises(|client| {
        let config = DiskConfig::new("b", "https://s3.example.org");
        client.create_disk("data", config, keys()).guarded()
    })
    .await;
}

#[tokio::test]
async fn templates_are_removed() {
    it_keeps_its_promises(|client| client.create_template("tools", "FROM x\n").guarded()).await;
}

#[tokio::test]
async fn processes_are_terminated() {
    it_keeps_its_promises(|client| {
        let sandbox = client.sandbox(ID.parse::<createos_sdk::SandboxId>().unwrap());
        sandbox.spawn("server").guarded()
    })
    .await;
}

#[tokio::test]
async fn what_was_there_before_can_be_guarded_too() {
    let (plane, _server, client) = Plane::start().await;
    let network = client.create_network("mesh").await.unwrap();
    drop(network.guard());
    plane.eventually_empty().await;

    let process = client.sandbox(ID.parse::<createos_sdk::SandboxId>().unwrap());
    let process = process.process("prc-1".parse::<ProcessId>().unwrap());
    drop(process.guard());
    let line = format!("DELETE /v1/sandboxes/{ID}/processes/prc-1");
    plane.until(|state| state.seen.contains(&line)).await;
}

/// Both orders: sandboxes that are told to go leave some time after.
#[tokio::test]
async fn a_network_waits_for_the_sandboxes_that_leave_it() {
    struct NetworkFirst {
        _network: Guard<Network>,
        _sandbox: Guard<Sandbox>,
    }
    let (plane, _server, client) = Plane::start().await;
    plane.with(|state| state.slow_destroy = Duration::from_millis(400));
    let both = || async {
        let sandbox = client.create_sandbox("s").guarded();
        let (_network, _sandbox) = tokio::try_join!(network(&client), sandbox).unwrap();
        NetworkFirst { _network, _sandbox }
    };
    drop(both().await);
    plane.eventually_empty().await;

    let NetworkFirst { _network, _sandbox } = both().await;
    drop(_sandbox);
    _network.close().await.unwrap();
    assert!(plane.is_empty());
}

#[tokio::test]
async fn a_disk_waits_for_those_that_have_it() {
    let (plane, _server, client) = Plane::start().await;
    let create = || {
        let config = DiskConfig::new("b", "https://s3.example.org");
        client.create_disk("data", config, keys()).guarded()
    };
    let guard = create().await.unwrap();
    plane.with(|state| state.refusals = vec![409, 503, 409]);
    guard.close().await.unwrap();
    assert_eq!(plane.deletes(), 4);
    drop(create().await.unwrap());
    plane.with(|state| state.refusals = vec![409]);
    plane.eventually_empty().await;
}

#[tokio::test]
async fn a_network_can_be_deleted_while_its_last_members_are_destroyed() {
    let server = MockServer::start().await;
    let (_, mut whole) = answer("networks");
    whole["members"] = json!([{"sandbox_id": ID, "status": "destroying"},
                              {"sandbox_id": "sb-2", "status": "destroyed"}]);
    let delete = || Mock::given(wiremock::matchers::method("DELETE"));
    delete().respond_with(fail(409, "has members")).up_to_n_times(2).mount(&server).await;
    delete().respond_with(success(json!({"ok": true}))).mount(&server).await;
    Mock::given(wiremock::matchers::any()).respond_with(success(whole)).mount(&server).await;
    let network =
        client(&server.uri()).network("net-1".parse::<createos_sdk::NetworkId>().unwrap());
    network.delete().await.unwrap();
    assert_eq!(server.received_requests().await.unwrap().len(), 4);
}

#[tokio::test]
async fn nothing_secret_shows() {
    let (plane, _server, client) = Plane::start().await;
    let creating = client.create_disk("data", DiskConfig::new("b", "https://x.example"), keys());
    let mut shown = format!("{creating:?}");
    let guarded = creating.guarded();
    shown += &format!("{guarded:?}");
    let guard = guarded.await.unwrap();
    shown += &format!("{guard:?}");
    assert!(!shown.contains("hunter2") && !shown.contains(super::KEY), "{shown}");
    assert!(shown.contains("Guard(Disk("), "{shown}");
    guard.close().await.unwrap();
    assert!(plane.is_empty());
}
