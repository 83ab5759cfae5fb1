//! `POST /v1/sandboxes/:id/exec`, buffered and streamed.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::rig::{KEY, Rig};
use crate::core::fake::Fake;

impl Rig {
    /// The frames of a streamed exec, and whether the answer was whole.
    async fn frames(&self, id: &createos_sdk::SandboxId, request: Value) -> (Vec<Value>, bool) {
        let path = format!("/v1/sandboxes/{id}/exec?stream=true");
        let answer = self.open("POST", &path, &[("x-api-key", KEY)], request.to_string()).await;
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
        let mut body = answer.into_body();
        let (mut text, mut whole) = (Vec::new(), true);
        while let Some(frame) = body.frame().await {
            match frame {
                Ok(frame) => text.extend_from_slice(frame.data_ref().unwrap()),
                Err(_) => {
                    whole = false;
                    break;
                }
            }
        }
        let lines = std::str::from_utf8(&text).unwrap();
        assert!(lines.is_empty() || lines.ends_with('\n'));
        (lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), whole)
    }
}

#[tokio::test]
async fn a_command_runs_and_tells_how_it_ended() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let data = rig.exec(&id, json!({"cmd": "echo", "args": ["a", "b c"]})).await.data();
    assert_eq!(data["result"], json!({"stdout": "a b c", "stderr": "", "exit_code": 0}));
    assert!(data["exec_ms"].is_f64());

    for (request, result) in [
        (
            json!({"cmd": "complain", "args": ["x"]}),
            json!({"stdout": "", "stderr": "x", "exit_code": 1}),
        ),
        (
            json!({"cmd": "exit", "args": ["42"]}),
            json!({"stdout": "", "stderr": "", "exit_code": 42}),
        ),
        (
            json!({"cmd": "signal", "args": ["9"]}),
            json!({"stdout": "", "stderr": "", "exit_code": 137}),
        ),
        (
            json!({"cmd": "signal", "args": ["15"]}),
            json!({"stdout": "", "stderr": "", "exit_code": 143}),
        ),
        (
            json!({"cmd": "cat", "stdin": "in\nput"}),
            json!({"stdout": "in\nput", "stderr": "", "exit_code": 0}),
        ),
        (
            json!({"cmd": "cat", "args": null, "env": null, "stream": null}),
            json!({"stdout": "", "stderr": "", "exit_code": 0}),
        ),
    ] {
        let data = rig.exec(&id, request.clone()).await.data();
        assert_eq!(data["result"], result, "{request}");
    }
}

#[tokio::test]
async fn output_that_is_not_text_comes_twice() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let data = rig.exec(&id, json!({"cmd": "bytes", "args": ["61ff62"]})).await.data();
    assert_eq!(data["result"]["stdout"], "a\u{fffd}b");
    assert_eq!(data["result"]["stdout_base64"], STANDARD.encode(b"a\xffb"));
    assert!(data["result"].get("stderr_base64").is_none());
}

#[tokio::test]
async fn a_program_that_cannot_start_is_a_result() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let result = rig.exec(&id, json!({"cmd": "nope"})).await.data()["result"].clone();
    let expected =
        json!({"stdout": "", "stderr": "", "exit_code": 127, "error": "nope: no such program"});
    assert_eq!(result, expected);
    let result = rig.exec(&id, json!({"cmd": "crowded"})).await.data()["result"].clone();
    assert_eq!(
        (&result["exit_code"], &result["error"]),
        (&json!(126), &json!("too many processes"))
    );

    let (frames, whole) = rig.frames(&id, json!({"cmd": "nope"})).await;
    assert!(whole);
    assert_eq!(frames, [json!({"error": "nope: no such program"}), json!({"exit_code": 127})]);
}

#[tokio::test]
async fn the_environment_is_the_sandbox_s_and_only_its_keys_can_change() {
    let rig = Rig::new().await;
    let id = rig.sandbox_with(json!({"envs": {"STAGE": "dev", "B": "2"}})).await;
    let run = async |env: Value| rig.exec(&id, json!({"cmd": "env", "env": env})).await;
    assert_eq!(run(json!({})).await.data()["result"]["stdout"], "B=2\nSTAGE=dev\n");
    let once = run(json!({"STAGE": "prod"})).await.data();
    assert_eq!(once["result"]["stdout"], "B=2\nSTAGE=prod\n");
    assert_eq!(run(json!({})).await.data()["result"]["stdout"], "B=2\nSTAGE=dev\n");

    let undeclared = run(json!({"NEW": "hunter2"})).await;
    assert_eq!(undeclared.status, 400);
    assert_eq!(undeclared.json()["data"], json!({"env": "NEW was not declared at create time"}));
    assert_eq!(run(json!({"B": "x".repeat(4096)})).await.status, 200);
    for bad in [json!({"B": "x".repeat(4097)}), json!({"B": "a\0b"})] {
        let reply = run(bad).await;
        assert_eq!(reply.status, 400);
        assert!(reply.json()["data"]["env"].as_str().unwrap().contains('B'));
    }
    assert_eq!(run(json!({"B": 7})).await.json()["data"].as_object().unwrap().len(), 1);
}

#[tokio::test]
async fn requests_that_cannot_be_right() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    for (request, field) in [
        (json!({}), "body"),
        (json!([]), "body"),
        (json!({"cmd": ""}), "cmd"),
        (json!({"cmd": "a\0b"}), "cmd"),
        (json!({"cmd": 7}), "cmd"),
        (json!({"cmd": "echo", "args": "x"}), "args"),
        (json!({"cmd": "echo", "args": ["a\0"]}), "args"),
        (json!({"cmd": "echo", "stdin": 7}), "stdin"),
    ] {
        for stream in ["", "?stream=true"] {
            let path = format!("/v1/sandboxes/{id}/exec{stream}");
            let reply = rig.call("POST", &path, Some(request.clone())).await;
            assert_eq!(reply.status, 400, "{request}");
            assert!(reply.json()["data"][field].is_string(), "{request} {reply:?}");
        }
    }
    let headers = [("x-api-key", KEY)];
    let path = format!("/v1/sandboxes/{id}/exec");
    assert_eq!(rig.send("POST", &path, &headers, "{\"cmd\":").await.status, 400);
    assert_eq!(rig.send("POST", &path, &headers, "").await.status, 400);
}

#[tokio::test]
async fn a_stream_is_asked_for_in_the_query_or_the_body() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}/exec");
    let kind = async |query: &str, stream: Value| {
        let body = json!({"cmd": "echo", "stream": stream}).to_string();
        let path = format!("{path}{query}");
        let answer = rig.open("POST", &path, &[("x-api-key", KEY)], body).await;
        answer.headers()["content-type"].to_str().unwrap().to_owned()
    };
    assert_eq!(kind("", json!(false)).await, "application/json");
    assert_eq!(kind("?stream=false", json!(false)).await, "application/json");
    assert_eq!(kind("?stream=true", json!(false)).await, "application/x-ndjson");
    assert_eq!(kind("", json!(true)).await, "application/x-ndjson");
}

#[tokio::test]
async fn frames_never_split_a_character() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let (frames, whole) = rig
        .frames(&id, json!({"cmd": "bytes", "args": ["61c3", "a4f09f", "98", "80", "ff", "e282"]}))
        .await;
    assert!(whole);
    assert_eq!(
        frames,
        [
            json!({"stdout": "a"}),
            json!({"stdout": "ä"}),
            json!({"stdout": "😀"}),
            json!({"stdout": "\u{fffd}", "stdout_base64": STANDARD.encode(b"\xff")}),
            json!({"stdout": "\u{fffd}", "stdout_base64": STANDARD.encode(b"\xe2\x82")}),
            json!({"exit_code": 0}),
        ]
    );
}

#[tokio::test]
async fn large_output_comes_in_frames_that_clients_accept() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    // Control characters grow sixfold in JSON.
    let (frames, whole) =
        rig.frames(&id, json!({"cmd": "cat", "stdin": "\u{1}".repeat(1 << 20)})).await;
    assert!(whole);
    let mut total = 0;
    for frame in &frames {
        assert!(frame.to_string().len() < 512 << 10);
        total += frame["stdout"].as_str().map_or(0, str::len);
    }
    assert_eq!(total, 1 << 20);
}

#[tokio::test]
async fn a_silent_stream_shows_that_it_lives() {
    let rig = Rig::tuned(|tuning| tuning.heartbeat = Duration::from_millis(20)).await;
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}/exec?stream=true");
    let body = json!({"cmd": "hang"}).to_string();
    let answer = rig.open("POST", &path, &[("x-api-key", KEY)], body).await;
    let mut body = answer.into_body();
    let mut next = async || body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(next().await, "{\"stdout\":\"begun\\n\"}\n");
    assert_eq!(next().await, "{\"hb\":true}\n");
    assert_eq!(next().await, "{\"hb\":true}\n");
}

#[tokio::test]
async fn a_client_that_goes_away_kills_the_command() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let killed = async |wanted: usize| {
        rig.eventually(async || {
            let killed = Fake::count(&rig.fake.killed);
            (killed == wanted).then_some(()).ok_or(killed.to_string())
        })
        .await;
    };
    let path = format!("/v1/sandboxes/{id}/exec?stream=true");
    let body = json!({"cmd": "hang"}).to_string();
    let answer = rig.open("POST", &path, &[("x-api-key", KEY)], body.clone()).await;
    let mut streamed = answer.into_body();
    streamed.frame().await.unwrap().unwrap();
    drop(streamed);
    killed(1).await;

    let path = format!("/v1/sandboxes/{id}/exec");
    let buffered = rig.send("POST", &path, &[("x-api-key", KEY)], body);
    tokio::time::timeout(Duration::from_millis(100), buffered).await.unwrap_err();
    killed(2).await;

    // One that never reads holds the command up, and is noticed when it goes.
    let path = format!("/v1/sandboxes/{id}/exec?stream=true");
    let body = json!({"cmd": "flood"}).to_string();
    let unread = rig.open("POST", &path, &[("x-api-key", KEY)], body).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(Fake::count(&rig.fake.killed), 2);
    drop(unread);
    killed(3).await;
}

#[tokio::test]
async fn too_much_buffered_output_kills_the_command_and_says_so() {
    let rig = Rig::tuned(|tuning| tuning.max_buffered = 1 << 20).await;
    let id = rig.sandbox().await;
    let result = rig.exec(&id, json!({"cmd": "flood"})).await.data()["result"].clone();
    assert_eq!(result["exit_code"], 137);
    assert_eq!(result["stdout"].as_str().unwrap().len(), 1 << 20);
    assert!(result["error"].as_str().unwrap().contains("1 MiB"), "{}", result["error"]);
    assert_eq!(Fake::count(&rig.fake.killed), 1);

    let exactly = rig.exec(&id, json!({"cmd": "cat", "stdin": "x".repeat(1 << 20)})).await.data();
    assert_eq!(exactly["result"]["exit_code"], 0);
    assert!(exactly["result"].get("error").is_none());
}

#[tokio::test]
async fn a_command_that_runs_too_long_is_killed() {
    let rig = Rig::tuned(|tuning| tuning.exec_limit = Duration::from_millis(100)).await;
    let id = rig.sandbox().await;
    let result = rig.exec(&id, json!({"cmd": "hang"})).await.data()["result"].clone();
    assert_eq!((&result["stdout"], &result["exit_code"]), (&json!("begun\n"), &json!(137)));
    assert!(result["error"].as_str().unwrap().contains("killed after"));

    let (frames, whole) = rig.frames(&id, json!({"cmd": "hang"})).await;
    assert!(whole);
    assert_eq!(frames[0], json!({"stdout": "begun\n"}));
    assert!(frames[1]["error"].as_str().unwrap().contains("killed after"));
    assert_eq!(frames[2], json!({"exit_code": 137}));
    // One that never stops talking is not spared, read or not.
    let (frames, _) = rig.frames(&id, json!({"cmd": "flood"})).await;
    assert_eq!(frames.last().unwrap()["exit_code"], 137);
}

#[tokio::test]
async fn a_lost_command_is_an_error_and_never_a_success() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    for (cmd, text) in [("lose", "the agent went away"), ("vanish", "end was not reported")] {
        let reply = rig.exec(&id, json!({"cmd": cmd})).await;
        // Clients repeat a POST on 503, and this one may have run.
        assert_eq!(reply.status, 502, "{reply:?}");
        assert!(reply.message().contains(text), "{}", reply.message());

        let (frames, whole) = rig.frames(&id, json!({"cmd": cmd})).await;
        assert!(!whole, "without its exit frame the answer must break off");
        assert_eq!(frames[0], json!({"stdout": "part"}));
        assert!(frames[1]["error"].as_str().unwrap().contains(text));
        assert_eq!(frames.len(), 2);
    }
}

#[tokio::test]
async fn a_destroy_interrupts_commands() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let destroy = async || {
        tokio::time::sleep(Duration::from_millis(50)).await;
        rig.call("DELETE", &format!("/v1/sandboxes/{id}"), None).await
    };
    let (buffered, (frames, whole), destroyed) = tokio::join!(
        rig.exec(&id, json!({"cmd": "hang"})),
        rig.frames(&id, json!({"cmd": "hang"})),
        destroy()
    );
    assert_eq!(destroyed.data()["status"], "destroyed");
    assert_eq!(buffered.status, 502);
    assert!(buffered.message().contains("sandbox ended"), "{}", buffered.message());
    assert!(!whole && frames.last().unwrap()["error"].is_string(), "{frames:?}");
    assert_eq!(Fake::count(&rig.fake.killed), 2);
}
