//! Managed processes (api.md 5.1 to 5.4).

use std::time::{Duration, Instant};

use createos_sdk::SandboxId;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::rig::{KEY, Reply, Rig};

impl Rig {
    async fn spawn(&self, id: &SandboxId, request: Value) -> Value {
        let reply = self.processes(id, "POST", "", Some(request)).await;
        assert_eq!(reply.status, 201, "{reply:?}");
        reply.data()
    }

    async fn processes(
        &self,
        id: &SandboxId,
        method: &str,
        rest: &str,
        body: Option<Value>,
    ) -> Reply {
        self.call(method, &format!("/v1/sandboxes/{id}/processes{rest}"), body).await
    }

    /// A process of this program, and the path of its routes.
    async fn program(&self, id: &SandboxId, program: &str) -> String {
        let process = self.spawn(id, json!({"cmd": program})).await;
        format!("/{}", process["process_id"].as_str().unwrap())
    }

    /// The lines of a stream, up to its end or `count` of them.
    async fn lines(&self, id: &SandboxId, rest: &str, count: usize) -> Vec<Value> {
        let path = format!("/v1/sandboxes/{id}/processes{rest}");
        let answer = self.open("GET", &path, &[("x-api-key", KEY)], "").await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
        let mut body = answer.into_body();
        let mut text = Vec::new();
        let lines = |text: &[u8]| text.iter().filter(|byte| **byte == b'\n').count();
        while lines(&text) < count {
            let Some(frame) = body.frame().await else { break };
            text.extend_from_slice(frame.unwrap().data_ref().unwrap());
        }
        let text = String::from_utf8(text).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn a_view_has_exactly_the_fields_of_the_contract() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let request = json!({"cmd": "sleep", "args": ["9"], "cwd": "/work", "env": {"A": "1"}});
    let mut view = rig.spawn(&id, request).await;
    let process_id = view["process_id"].take();
    assert!(process_id.as_str().unwrap().starts_with("prc-"), "{process_id}");
    let running = json!({
        "process_id": null, "kind": "process", "pid": 7, "state": "running",
        "leader_exited": false, "tree_exited": false, "created_at": "2023-11-14T22:13:20Z",
        "cmd": "sleep", "args": ["9"], "cwd": "/work",
        "output": {"oldest_seq": 0, "newest_seq": 0, "bytes": 0}
    });
    assert_eq!(view, running);

    let mut shell = rig.spawn(&id, json!({"pty": {}})).await;
    shell["process_id"].take();
    let expected = json!({
        "process_id": null, "kind": "pty", "pid": 7, "state": "running",
        "leader_exited": false, "tree_exited": false, "created_at": "2023-11-14T22:13:20Z",
        "foreground": {"pid": 9, "cmd": "vi", "args": ["x"]},
        "output": {"oldest_seq": 0, "newest_seq": 0, "bytes": 0}
    });
    assert_eq!(shell, expected);

    let ended = rig.spawn(&id, json!({"cmd": "echo", "args": ["hi"]})).await;
    assert_eq!((&ended["state"], &ended["exit_code"]), (&json!("exited"), &json!(0)));
    assert_eq!(ended["finished_at"], "2023-11-14T22:13:21.500Z");
    assert_eq!(ended["output"], json!({"oldest_seq": 1, "newest_seq": 2, "bytes": 2}));

    let left = rig.spawn(&id, json!({"cmd": "stubborn"})).await;
    assert_eq!((&left["state"], &left["leader_exited"]), (&json!("running"), &json!(true)));
    assert!(left.get("finished_at").is_none());

    let list = rig.processes(&id, "GET", "", None).await.data();
    let kinds: Vec<_> =
        list["processes"].as_array().unwrap().iter().map(|it| &it["kind"]).collect();
    assert_eq!(kinds, ["process", "pty", "process", "process"]);
    let other = rig.sandbox().await;
    assert_eq!(rig.processes(&other, "GET", "", None).await.data(), json!({"processes": []}));
}

#[tokio::test]
async fn what_cannot_be_started_is_refused_with_the_field() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    for (request, status, field) in [
        (json!({}), 400, "cmd"),
        (json!({"cmd": ""}), 400, "cmd"),
        (json!({"cmd": "a\u{0}b"}), 400, "cmd"),
        (json!({"cmd": "no-such-program"}), 400, "cmd"),
        (json!({"cmd": "sleep", "args": ["a\u{0}b"]}), 400, "args"),
        (json!({"cmd": "sleep", "args": ["x".repeat(128 << 10)]}), 400, "args"),
        (json!({"pty": {}, "args": ["x"]}), 400, "args"),
        (json!({"cmd": "sleep", "cwd": "work"}), 400, "cwd"),
        (json!({"cmd": "sleep", "cwd": ""}), 400, "cwd"),
        (json!({"cmd": "sleep", "cwd": "/missing"}), 400, "cwd"),
        (json!({"cmd": "sleep", "env": {"1A": "x"}}), 400, "env"),
        (json!({"cmd": "sleep", "env": {"A": "a\u{0}b"}}), 400, "env"),
        (json!({"cmd": "sleep", "pty": {"rows": 70000}}), 400, "pty.rows"),
        (json!({"cmd": "crowded"}), 422, ""),
    ] {
        let reply = rig.processes(&id, "POST", "", Some(request.clone())).await;
        assert_eq!(reply.status, status, "{request}: {reply:?}");
        assert!(field.is_empty() || reply.json()["data"].get(field).is_some(), "{reply:?}");
    }
    assert_eq!(rig.processes(&id, "GET", "", None).await.data(), json!({"processes": []}));
}

#[tokio::test]
async fn variables_of_the_sandbox_are_inherited_and_new_ones_are_welcome() {
    let rig = Rig::new().await;
    let id = rig.sandbox_with(json!({"envs": {"STAGE": "dev", "KEPT": "1"}})).await;
    let request = json!({"cmd": "env", "env": {"STAGE": "x", "NEW": "2"}});
    let process = rig.spawn(&id, request).await;
    let connect = format!("/{}/connect", process["process_id"].as_str().unwrap());
    let data = rig.lines(&id, &connect, 1).await.remove(0);
    // KEPT=1 NEW=2 STAGE=x
    assert_eq!(data["data_base64"], "S0VQVD0xCk5FVz0yClNUQUdFPXgK");
}

#[tokio::test]
async fn output_is_replayed_and_followed_to_its_end() {
    let rig = Rig::tuned(|tuning| tuning.heartbeat = Duration::from_millis(50)).await;
    let id = rig.sandbox().await;
    let process = rig.spawn(&id, json!({"cmd": "echo", "args": ["step", "1"]})).await;
    let echo = format!("/{}/connect", process["process_id"].as_str().unwrap());
    let data = json!({"type": "data", "seq": 6, "stream": "stdout", "data_base64": "c3RlcCAx"});
    let exit = json!({"type": "exit", "seq": 7, "exit_code": 0});
    for query in ["", "?after=", "?after=0"] {
        let lines = rig.lines(&id, &format!("{echo}{query}"), 9).await;
        assert_eq!(lines, [data.clone(), exit.clone()], "{query}");
    }
    let lines = rig.lines(&id, &format!("{echo}?after=4"), 9).await;
    assert_eq!((&lines[0]["data_base64"], &lines[1]), (&json!("IDE="), &exit));
    assert_eq!(rig.lines(&id, &format!("{echo}?after=6"), 9).await, [exit]);

    let cat = rig.program(&id, "cat").await;
    let connect = format!("{cat}/connect");
    let follow = rig.lines(&id, &connect, 3);
    let feed = async {
        tokio::time::sleep(Duration::from_millis(120)).await;
        rig.processes(&id, "POST", &format!("{cat}/input"), Some(json!({"data_base64": "aGkK"})))
            .await
    };
    let (lines, fed) = tokio::join!(follow, feed);
    assert_eq!(fed.data(), json!({"input_seq": 1}));
    assert_eq!(lines[0], json!({"type": "heartbeat"}));
    assert!(lines.iter().any(|line| line["data_base64"] == "aGkK"), "{lines:?}");

    let flood = rig.program(&id, "flood").await;
    let expired =
        json!({"type": "error", "error": "output_offset_expired", "oldest_available_seq": 41});
    assert_eq!(rig.lines(&id, &format!("{flood}/connect?after=3"), 9).await, [expired]);
    let bad = rig.processes(&id, "GET", &format!("{flood}/connect?after=-1"), None).await;
    assert_eq!(bad.status, 400);
}

#[tokio::test]
async fn a_sandbox_that_ends_breaks_the_stream_off() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let process = rig.program(&id, "sleep").await;
    let path = format!("/v1/sandboxes/{id}/processes{process}/connect");
    let mut body = rig.open("GET", &path, &[("x-api-key", KEY)], "").await.into_body();
    rig.fake.die(&id, "out of memory");
    let broken = loop {
        match body.frame().await {
            Some(Ok(_)) => {}
            Some(Err(_)) => break true,
            None => break false,
        }
    };
    assert!(broken, "an end without an exit would look like one");
    rig.until(&id, "error").await;
    assert_eq!(rig.processes(&id, "GET", "", None).await.status, 409);
}

#[tokio::test]
async fn input_signals_and_sizes() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let cat = rig.program(&id, "cat").await;
    let post =
        async |rest: String, body: Option<Value>| rig.processes(&id, "POST", &rest, body).await;
    for number in 1..4 {
        let taken = post(format!("{cat}/input"), Some(json!({"data_base64": "eA=="}))).await;
        assert_eq!(taken.data(), json!({"input_seq": number}));
    }
    for body in [json!({"data_base64": "%"}), json!({"data_base64": 1}), json!({})] {
        assert_eq!(post(format!("{cat}/input"), Some(body)).await.status, 400);
    }
    let long = json!({"data_base64": "eHh4".repeat(200_000)});
    assert_eq!(post(format!("{cat}/input"), Some(long)).await.status, 413);
    let deaf = rig.program(&id, "deaf").await;
    let full = post(format!("{deaf}/input"), Some(json!({"data_base64": "eA=="}))).await;
    assert_eq!(full.status, 503, "{full:?}");

    for body in [None, Some(Value::Null), Some(json!({}))] {
        assert_eq!(post(format!("{cat}/stdin/close"), body).await.data(), json!({"ok": true}));
    }
    let closed = post(format!("{cat}/input"), Some(json!({"data_base64": "eA=="}))).await;
    assert_eq!(closed.status, 409);

    let shell = rig.spawn(&id, json!({"pty": {"rows": 3}})).await;
    let shell = format!("/{}", shell["process_id"].as_str().unwrap());
    let resized = post(format!("{shell}/resize"), Some(json!({"rows": 32, "cols": 100}))).await;
    assert_eq!(resized.data(), json!({"ok": true}));
    for body in [json!({"rows": 0, "cols": 1}), json!({"rows": 1}), json!({"rows": "1", "cols": 1})]
    {
        assert_eq!(post(format!("{shell}/resize"), Some(body)).await.status, 400);
    }
    for signal in
        ["SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGWINCH"]
    {
        let process = rig.program(&id, "sleep").await;
        let sent = post(format!("{process}/signal"), Some(json!({"signal": signal}))).await;
        assert_eq!(sent.data(), json!({"ok": true}), "{signal}");
        let waited = rig.processes(&id, "GET", &format!("{process}/wait"), None).await.data();
        assert_eq!((&waited["signal"], waited.get("exit_code")), (&json!(signal), None));
    }
    for signal in ["SIGSTOP", "TERM", "15", ""] {
        let sent = post(format!("{cat}/signal"), Some(json!({"signal": signal}))).await;
        assert_eq!(sent.status, 400, "{signal}");
    }
}

#[tokio::test]
async fn waits_end_with_the_process_or_the_time() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let left = rig.program(&id, "stubborn").await;
    let wait =
        async |rest: &str| rig.processes(&id, "GET", &format!("{left}/wait{rest}"), None).await;
    for query in ["", "?scope=", "?scope=leader&timeout_ms=99999999999999999999"] {
        assert_eq!(wait(query).await.data()["exit_code"], 3, "{query}");
    }
    let began = Instant::now();
    let waited = wait("?scope=tree&timeout_ms=100").await;
    assert!(began.elapsed() >= Duration::from_millis(100));
    assert_eq!((waited.status, &waited.data()["tree_exited"]), (200, &json!(false)));
    for query in ["?scope=all", "?timeout_ms=-1", "?timeout_ms=1.5", "?timeout_ms=x"] {
        assert_eq!(wait(query).await.status, 400, "{query}");
    }
    let (waited, deleted) = tokio::join!(wait("?scope=tree"), async {
        rig.processes(&id, "DELETE", &left, None).await
    });
    assert_eq!(waited.data()["state"], "exited");
    assert_eq!(deleted.data()["tree_exited"], true);
}

#[tokio::test]
async fn ending_one_answers_with_its_end_as_often_as_asked() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let process = rig.program(&id, "sleep").await;
    let delete =
        async |query: &str| rig.processes(&id, "DELETE", &format!("{process}{query}"), None).await;
    assert_eq!(delete("?grace_ms=soon").await.status, 400);
    for _ in 0..2 {
        let view = delete("?grace_ms=0").await.data();
        assert_eq!((&view["state"], &view["signal"]), (&json!("exited"), &json!("SIGKILL")));
    }
    let other = rig.program(&id, "sleep").await;
    let view = rig.processes(&id, "DELETE", &other, None).await.data();
    assert_eq!(view["signal"], "SIGTERM");
    assert_eq!(rig.processes(&id, "GET", &other, None).await.data()["state"], "exited");
}

#[tokio::test]
async fn unknown_processes_are_not_found_and_sandboxes_come_first() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let input = json!({"data_base64": "eA=="});
    for (method, rest, body) in [
        ("GET", "", None),
        ("DELETE", "", None),
        ("GET", "/connect", None),
        ("POST", "/input", Some(input)),
        ("POST", "/stdin/close", None),
        ("POST", "/resize", Some(json!({"rows": 1, "cols": 1}))),
        ("POST", "/signal", Some(json!({"signal": "SIGINT"}))),
        ("GET", "/wait", None),
    ] {
        for process in ["prc-unknown", "prc%2Dunknown", "p%2Fq", "%20"] {
            let rest = format!("/{process}{rest}");
            let reply = rig.processes(&id, method, &rest, body.clone()).await;
            assert_eq!(reply.status, 404, "{method} {rest}");
            assert!(reply.message().contains("process"), "{reply:?}");
        }
        let unknown =
            rig.call(method, &format!("/v1/sandboxes/sb-x/processes/p{rest}"), None).await;
        assert_eq!((unknown.status, unknown.message().as_str()), (404, "sandbox not found"));
    }
    rig.force(&id, "paused");
    for (method, rest) in [("GET", ""), ("POST", ""), ("GET", "/p"), ("POST", "/p/input")] {
        let reply = rig.processes(&id, method, rest, None).await;
        assert_eq!(reply.status, 409, "{method} {rest}");
        assert!(reply.message().starts_with("sandbox is not running"), "{reply:?}");
    }
}
