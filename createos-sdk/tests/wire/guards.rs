//! Guards that destroy, and creating that adopts.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use createos_sdk::{Client, ErrorKind, RetryPolicy};
use serde_json::{Value, json};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

use super::{ID, builder, client, success, view};

/// A server that keeps the sandbox: `METHOD path` of every request, and what it does to it.
#[derive(Clone, Default)]
struct Plane(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    seen: Vec<String>,
    sandbox: Option<Value>,
    /// What the next creates answer, after they did their work.
    creates: Vec<u16>,
    destroys: Vec<u16>,
    slow_create: Duration,
}

impl Plane {
    async fn start(&self) -> MockServer {
        let server = MockServer::start().await;
        Mock::given(wiremock::matchers::any()).respond_with(self.clone()).mount(&server).await;
        server
    }

    fn seen(&self, what: &str) -> usize {
        self.0.lock().unwrap().seen.iter().filter(|line| line.starts_with(what)).count()
    }

    fn exists(&self) -> bool {
        self.0.lock().unwrap().sandbox.is_some()
    }

    fn with(&self, change: impl FnOnce(&mut State)) -> Self {
        change(&mut self.0.lock().unwrap());
        self.clone()
    }

    async fn eventually_gone(&self) {
        for _ in 0..500 {
            if !self.exists() && self.seen("DELETE") > 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the sandbox leaked");
    }
}

fn fail(status: u16) -> ResponseTemplate {
    ResponseTemplate::new(status).set_body_json(json!({"status": "error", "message": "no"}))
}

impl Respond for Plane {
    fn respond(&self, request: &Request) -> ResponseTemplate {
        let mut state = self.0.lock().unwrap();
        state.seen.push(format!("{} {}", request.method, request.url.path()));
        match (request.method.as_str(), request.url.path()) {
            ("POST", "/v1/sandboxes") if state.sandbox.is_some() => fail(409),
            ("POST", "/v1/sandboxes") => {
                let asked: Value = serde_json::from_slice(&request.body).unwrap();
                let answer = state.creates.pop().unwrap_or(201);
                if answer != 502 {
                    let mut made = view("running");
                    made["name"] = asked["name"].clone();
                    made["shape"] = asked["shape"].clone();
                    made["rootfs"] = json!("devbox:1");
                    state.sandbox = Some(made.clone());
                    let good = success(made).set_delay(state.slow_create);
                    return if answer == 201 { good } else { fail(answer) };
                }
                fail(answer)
            }
            ("GET", "/v1/sandboxes") => success(json!(state.sandbox.iter().collect::<Vec<_>>())),
            ("DELETE", _) => match state.destroys.pop() {
                Some(status) => fail(status),
                None => {
                    state.sandbox = None;
                    success(json!({"id": ID, "status": "destroying"}))
                }
            },
            (_, path) if path.ends_with("/pause") => success(view("pausing")),
            (_, path) if path.ends_with("/resume") => {
                state.sandbox.as_mut().unwrap()["status"] = json!("running");
                success(view("resuming"))
            }
            _ => success(state.sandbox.clone().unwrap()),
        }
    }
}

async fn started() -> (Plane, MockServer, Client) {
    let plane = Plane::default();
    let server = plane.start().await;
    let client = client(&server.uri());
    (plane, server, client)
}

#[tokio::test]
async fn a_dropped_guard_destroys_and_a_kept_one_does_not() {
    let (plane, _server, client) = started().await;
    let guard = client.create_sandbox("s").guarded().await.unwrap();
    assert_eq!(guard.id().as_str(), ID);
    assert!(guard.created().is_some());
    let kept = guard.keep();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(plane.exists());
    drop(kept.guard());
    plane.eventually_gone().await;
}

#[tokio::test]
async fn a_guard_can_pause_instead() {
    let (plane, _server, client) = started().await;
    drop(client.create_sandbox("s").guarded().pause_on_drop().await.unwrap());
    for _ in 0..500 {
        if plane.seen(&format!("POST /v1/sandboxes/{ID}/pause")) == 1 {
            assert!(plane.exists());
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it was not paused");
}

#[tokio::test]
async fn close_tells_its_error_and_the_background_tries_again() {
    let (plane, _server, client) = started().await;
    plane.with(|state| state.destroys = vec![403]);
    let guard = client.create_sandbox("s").guarded().await.unwrap();
    assert_eq!(guard.close().await.unwrap_err().kind(), ErrorKind::PermissionDenied);
    plane.eventually_gone().await;

    let guard = client.create_sandbox("s").guarded().await.unwrap();
    let before = plane.seen("DELETE");
    guard.close().await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(plane.seen("DELETE"), before + 1, "closed once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn panics_aborts_and_timeouts_do_not_leak() {
    let (plane, _server, client) = started().await;
    let again = client.clone();
    let panicking = tokio::spawn(async move {
        let _guard = again.create_sandbox("s").guarded().await.unwrap();
        panic!("on purpose");
    });
    assert!(panicking.await.unwrap_err().is_panic());
    plane.eventually_gone().await;

    let again = client.clone();
    let task = tokio::spawn(async move {
        let _guard = again.create_sandbox("s").guarded().await.unwrap();
        std::future::pending::<()>().await;
    });
    while !plane.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    task.abort();
    plane.eventually_gone().await;
}

#[tokio::test]
async fn giving_up_the_create_itself_does_not_leak() {
    let (plane, _server, client) = started().await;
    plane.with(|state| state.slow_create = Duration::from_millis(200));
    let creating = client.create_sandbox("s").guarded().into_future();
    assert!(tokio::time::timeout(Duration::from_millis(50), creating).await.is_err());
    plane.eventually_gone().await;
}

/// What every program does at its end: the guard goes, then the runtime.
#[test]
fn a_runtime_that_ends_right_after_does_not_leak() {
    use tokio::runtime::Builder;
    let servers = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for builder in [Builder::new_current_thread, Builder::new_multi_thread] {
        let (plane, _server, client) = servers.block_on(started());
        let own = builder().enable_all().build().unwrap();
        own.block_on(async {
            drop(client.create_sandbox("s").guarded().await.unwrap());
        });
        drop(own);
        assert!(!plane.exists(), "dropped in the runtime");

        let own = builder().enable_all().build().unwrap();
        let guard = own.block_on(client.create_sandbox("s").guarded().into_future()).unwrap();
        drop(guard);
        assert!(!plane.exists(), "dropped outside, with the runtime at rest");

        own.block_on(async {
            let creating = client.create_sandbox("s").guarded();
            let (up, at) = tokio::sync::oneshot::channel();
            tokio::spawn(async move {
                let _guard = creating.await.unwrap();
                up.send(()).unwrap();
                std::future::pending::<()>().await;
            });
            at.await.unwrap();
        });
        assert!(plane.exists());
        drop(own);
        assert!(!plane.exists(), "dropped by the end of the runtime");
    }
}

#[tokio::test]
async fn a_taken_name_is_adopted_when_it_is_the_same() {
    let (plane, _server, client) = started().await;
    let make = || client.create_sandbox("s-1vcpu-1gb").name("worker-1").adopt();
    let first = make().await.unwrap();
    assert!(first.created().is_some());
    let second = make().rootfs("devbox:1").await.unwrap();
    assert_eq!(second.id(), first.id());
    assert!(second.created().is_none() && second.view().is_some());

    let other = make().rootfs("debian:13").await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Conflict);
    assert!(other.message().contains("devbox:1"), "{other}");
    let other = client.create_sandbox("s-2vcpu-2gb").name("worker-1").adopt().await.unwrap_err();
    assert_eq!(other.kind(), ErrorKind::Conflict);
    assert!(!other.may_have_acted());
    let plain = client.create_sandbox("s-1vcpu-1gb").name("worker-1").await.unwrap_err();
    assert_eq!(plain.kind(), ErrorKind::Conflict);
    let nameless = client.create_sandbox("s").adopt().await.unwrap_err();
    assert_eq!(nameless.kind(), ErrorKind::InvalidArgument);

    plane.with(|state| state.sandbox.as_mut().unwrap()["status"] = json!("paused"));
    make().await.unwrap();
    assert_eq!(plane.seen(&format!("POST /v1/sandboxes/{ID}/resume")), 1);
    plane.with(|state| state.sandbox.as_mut().unwrap()["status"] = json!("error"));
    assert_eq!(make().await.unwrap_err().kind(), ErrorKind::Conflict);
}

#[tokio::test]
async fn what_a_failed_create_left_behind_is_adopted_and_what_it_did_not_is_made() {
    for (answers, creates) in [(vec![500], 1), (vec![502], 2), (vec![503, 502], 2)] {
        let (plane, _server, client) = started().await;
        plane.with(|state| state.creates = answers.clone());
        client.create_sandbox("s").name("worker-1").adopt().await.unwrap();
        assert_eq!(plane.seen("POST /v1/sandboxes"), creates, "{answers:?}");
    }
    let (plane, server, _) = started().await;
    plane.with(|state| state.creates = vec![502, 502]);
    let once = builder(&server.uri()).retry(RetryPolicy::none()).build().unwrap();
    let error = once.create_sandbox("s").name("worker-1").adopt().await.unwrap_err();
    assert!(error.may_have_acted() && error.kind() == ErrorKind::Server);
    assert_eq!(plane.seen("POST /v1/sandboxes"), 1);
}
