//! Templates over the scripted machine (api.md 5.8, 6.8, 9.10, 9.16).

use std::time::Duration;

use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use super::rig::{KEY, Reply, Rig, SHAPE};
use crate::core::BuildLimits;
use crate::runtime::{Image, ImageConfig};

const FROM: &str = "FROM nodeops/sandbox:debian\n";

async fn submit(rig: &Rig, name: &str, rest: &str) -> Reply {
    let request = json!({"name": name, "dockerfile": format!("{FROM}{rest}")});
    rig.call("POST", "/v1/templates", Some(request)).await
}

async fn status(rig: &Rig, name: &str) -> String {
    let view = rig.get(&format!("/v1/templates/{name}")).await.data();
    view["status"].as_str().unwrap().to_owned()
}

async fn until(rig: &Rig, name: &str, wanted: &str) {
    rig.eventually(async || {
        let status = status(rig, name).await;
        (status == wanted).then_some(()).ok_or(status)
    })
    .await;
}

async fn log(rig: &Rig, name: &str) -> String {
    let reply = rig.get(&format!("/v1/templates/{name}/logs")).await;
    assert_eq!(reply.headers["content-type"], "text/plain; charset=utf-8");
    String::from_utf8(reply.body.to_vec()).unwrap()
}

fn limits(change: impl FnOnce(&mut BuildLimits)) -> impl FnOnce(&mut crate::core::Tuning) {
    move |tuning| change(&mut tuning.build)
}

#[tokio::test]
async fn a_template_is_built_listed_used_and_deleted() {
    let rig = Rig::new().await;
    let reply = submit(
        &rig,
        "tools",
        "ARG V=1\nENV MODE=fast\nWORKDIR /app\nUSER web\nRUN [\"env\"]\nRUN echo $MODE\nCMD x\n",
    )
    .await;
    assert_eq!(reply.status, 201);
    let mut created = reply.data();
    let id = created["id"].take().as_str().unwrap().to_owned();
    assert!(id.starts_with("tpl_") && id.len() == 30, "{id}");
    assert!(created["created_at"].take().is_string());
    assert_eq!(
        created,
        json!({"id": null, "name": "tools", "base": "nodeops/sandbox:debian",
               "status": "pending", "ext4_size_bytes": 0, "created_at": null})
    );
    until(&rig, "tools", "ready").await;
    let view = rig.get(&format!("/v1/templates/{id}?include=dockerfile")).await.data();
    assert_eq!(view["ext4_size_bytes"], 4096);
    assert!(view["built_at"].is_string());
    assert!(view["dockerfile"].as_str().unwrap().ends_with("CMD x\n"));
    assert!(rig.get("/v1/templates/tools").await.data().get("dockerfile").is_none());

    let log = log(&rig, "tools").await;
    for said in [
        "Step 1/8 : FROM nodeops/sandbox:debian",
        "Step 6/8 : RUN [\"env\"]\nMODE=fast\n",
        "V=1\n",
        "Step 7/8 : RUN echo $MODE\n[\"-c\", \"echo $MODE\"]",
        "Step 8/8 : CMD x\n ---> kept for reference",
        "Built: 4096 bytes\n",
    ] {
        assert!(log.contains(said), "{said:?} in {log}");
    }
    let list = rig.get("/v1/templates?limit=1").await.data();
    assert_eq!(
        (&list["data"][0]["name"], &list["pagination"]["total"]),
        (&json!("tools"), &json!(1))
    );

    for rootfs in ["tools", &id] {
        let sandbox = rig.sandbox_with(json!({"rootfs": rootfs, "envs": {"A": "b"}})).await;
        assert!(rig.fake.file(&sandbox, "/template").is_some());
        let view = rig.get(&format!("/v1/sandboxes/{sandbox}")).await.data();
        assert_eq!((&view["rootfs"], &view["envs"]), (&json!(rootfs), &json!(["A"])));
        let env = rig.exec(&sandbox, json!({"cmd": "env", "env": {"MODE": "slow"}})).await.data();
        let env = env["result"]["stdout"].as_str().unwrap().to_owned();
        assert!(
            env.contains("MODE=slow\n") && env.contains("A=b\n") && !env.contains("V="),
            "{env}"
        );
    }
    assert_eq!(rig.call("DELETE", "/v1/templates/tools", None).await.data(), json!({"ok": true}));
    assert!(rig.fake.images.templates.lock().unwrap().is_empty());
    for (method, path) in [
        ("GET", "/tools"),
        ("DELETE", "/tools"),
        ("GET", "/tools/logs"),
        ("GET", &format!("/{id}")),
    ] {
        let reply = rig.call(method, &format!("/v1/templates{path}"), None).await;
        assert_eq!((reply.status, reply.message().contains("template not found")), (404, true));
    }
    let request = json!({"shape": SHAPE, "rootfs": "tools"});
    let reply = rig.call("POST", "/v1/sandboxes", Some(request)).await;
    assert_eq!(
        (reply.status, reply.message()),
        (404, "rootfs: the template tools was deleted".into())
    );
    assert_eq!(submit(&rig, "tools", "").await.status, 201, "the name is free");
}

#[tokio::test]
async fn what_breaks_a_rule_is_refused_with_the_field() {
    let rig = Rig::new().await;
    for (request, field, why) in [
        (json!({"name": "", "dockerfile": FROM}), "name", "letters"),
        (json!({"name": "a b", "dockerfile": FROM}), "name", "letters"),
        (json!({"name": "a/b", "dockerfile": FROM}), "name", "letters"),
        (json!({"name": "x".repeat(64), "dockerfile": FROM}), "name", "letters"),
        (json!({"name": "tpl_1", "dockerfile": FROM}), "name", "id"),
        (json!({"name": "t", "dockerfile": ""}), "dockerfile", "there is no FROM"),
        (
            json!({"name": "t", "dockerfile": format!("{FROM}COPY a b")}),
            "dockerfile",
            "line 2: COPY",
        ),
        (
            json!({"name": "t", "dockerfile": format!("{FROM}#{}", "x".repeat(1 << 16))}),
            "dockerfile",
            "at most 65536",
        ),
        (json!({"name": "t", "dockerfile": FROM, "base": "nope"}), "base", "catalog"),
        (json!({"name": "t"}), "body", "dockerfile"),
    ] {
        let reply = rig.call("POST", "/v1/templates", Some(request.clone())).await;
        assert_eq!(reply.status, 400, "{request}");
        let text = reply.json()["data"][field].as_str().unwrap_or_default().to_owned();
        assert!(text.contains(why), "{request}: {reply:?}");
    }
    let alpine = json!({"name": "t", "dockerfile": "FROM nodeops/sandbox:alpine"});
    let reply = rig.call("POST", "/v1/templates", Some(alpine)).await;
    assert_eq!(reply.status, 501);
    assert!(reply.message().contains("createos local image import"), "{}", reply.message());
    assert_eq!(rig.get("/v1/templates").await.data()["pagination"]["total"], 0);
}

#[tokio::test]
async fn failed_builds_keep_their_log_and_cannot_be_used() {
    let rig = Rig::new().await;
    for (name, run, why) in [
        ("code", "[\"exit\", \"7\"]", "the command failed with code 7"),
        ("signal", "[\"signal\", \"9\"]", "the command was killed by signal 9"),
        ("missing", "[\"nonsense\"]", "nonsense: no such program"),
        ("lost", "[\"lose\"]", "part\nthe engine could not build it: the agent went away"),
        ("gone", "[\"vanish\"]", "the command's end was not reported"),
    ] {
        submit(&rig, name, &format!("RUN {run}")).await.data();
        until(&rig, name, "failed").await;
        let log = log(&rig, name).await;
        assert!(log.contains(why), "{log}");
        let request = json!({"shape": SHAPE, "rootfs": name});
        let reply = rig.call("POST", "/v1/sandboxes", Some(request)).await;
        assert_eq!(reply.status, 409, "{reply:?}");
    }
    assert_eq!(submit(&rig, "code", "").await.status, 409, "a failed one has its name, too");
    assert!(rig.fake.images.templates.lock().unwrap().is_empty());
    assert!(rig.fake.disk.lock().unwrap().is_empty(), "nothing is left of what built");
}

#[tokio::test]
async fn time_output_and_log_are_bounded() {
    let rig = Rig::tuned(limits(|build| {
        build.time = Duration::from_millis(300);
        build.output_bytes = 1 << 20;
        build.log_bytes = 10_000;
    }))
    .await;
    submit(&rig, "endless", "RUN [\"hang\"]").await.data();
    submit(&rig, "flood", "RUN [\"flood\"]").await.data();
    until(&rig, "endless", "failed").await;
    until(&rig, "flood", "failed").await;
    assert!(log(&rig, "endless").await.contains("begun\nthe build took longer than 0 seconds"));
    let flood = log(&rig, "flood").await;
    assert!(flood.contains("[the log is full") && flood.contains("wrote more than 1 MiB"));
    assert!(flood.len() < 20_000, "{}", flood.len());
    rig.eventually(async || {
        let killed = crate::core::fake::Fake::count(&rig.fake.killed);
        (killed == 2).then_some(()).ok_or(killed.to_string())
    })
    .await;
}

#[tokio::test]
async fn two_are_built_at_once_others_wait_and_too_many_are_told_when() {
    let rig = Rig::tuned(limits(|build| build.waiting = 1)).await;
    for name in ["a", "b", "c"] {
        assert_eq!(submit(&rig, name, "RUN [\"hang\"]").await.status, 201);
    }
    until(&rig, "a", "building").await;
    until(&rig, "b", "building").await;
    assert_eq!(status(&rig, "c").await, "pending");
    let reply = submit(&rig, "d", "").await;
    assert_eq!((reply.status, reply.headers["retry-after"].to_str().unwrap()), (429, "30"));
    assert_eq!(rig.get("/v1/templates/d").await.status, 404);
    let request = json!({"shape": SHAPE, "rootfs": "c"});
    assert_eq!(rig.call("POST", "/v1/sandboxes", Some(request)).await.status, 409);
    rig.call("DELETE", "/v1/templates/a", None).await.data();
    until(&rig, "c", "building").await;
}

#[tokio::test]
async fn a_log_is_followed_to_its_end_and_by_attempt() {
    let rig = Rig::new().await;
    submit(&rig, "t", "RUN [\"echo\", \"one\\r\\ntwo\"]").await.data();
    let reply = rig.get("/v1/templates/t/logs?follow=true&attempt=1&limit=5").await;
    assert_eq!(reply.headers["content-type"], "application/x-ndjson");
    let frames: Vec<Value> = reply
        .body
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect();
    let (last, lines) = frames.split_last().unwrap();
    assert_eq!(*last, json!({"final": true, "status": "ready"}));
    let texts: Vec<_> = lines.iter().map(|line| line["line"].as_str().unwrap()).collect();
    assert_eq!(texts[2..], ["one", "two", "Built: 4096 bytes"]);
    for line in lines {
        assert_eq!((&line["level"], &line["attempt"]), (&json!("info"), &json!(1)));
        assert!(line["ts"].as_str().unwrap().ends_with('Z'));
    }
    for (attempt, status) in [("2", 404), ("x", 400), ("-1", 400), ("", 200), ("1", 200)] {
        for follow in ["", "&follow=true"] {
            let path = format!("/v1/templates/t/logs?attempt={attempt}{follow}");
            assert_eq!(rig.get(&path).await.status, status, "{path}");
        }
    }
}

#[tokio::test]
async fn a_deleted_build_ends_and_its_follower_hears_it() {
    let rig = Rig::new().await;
    submit(&rig, "t", "RUN [\"hang\"]").await.data();
    until(&rig, "t", "building").await;
    let path = "/v1/templates/t/logs?follow=true";
    let answer = rig.open("GET", path, &[("x-api-key", KEY)], "").await;
    rig.call("DELETE", "/v1/templates/t", None).await.data();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(body.ends_with(b"{\"final\":true,\"status\":\"cancelled\"}\n"), "{body:?}");
    rig.eventually(async || {
        let left = rig.fake.disk.lock().unwrap().len();
        (left == 0).then_some(()).ok_or(left.to_string())
    })
    .await;
}

#[tokio::test]
async fn a_build_that_was_interrupted_has_failed_and_a_waiting_one_goes_on() {
    let rig = Rig::new().await;
    submit(&rig, "stopped", "RUN [\"hang\"]").await.data();
    until(&rig, "stopped", "building").await;
    let rig = rig.restart(|_, _| {}).await;
    assert!(log(&rig, "stopped").await.contains("the engine was stopped during the build"));
    submit(&rig, "killed", "RUN [\"echo\", \"x\"]").await.data();
    submit(&rig, "waiting", "RUN [\"echo\", \"x\"]").await.data();
    until(&rig, "killed", "ready").await;
    until(&rig, "waiting", "ready").await;
    let rig = rig
        .restart(|database, fake| {
            let set = "UPDATE templates SET status = ?2 WHERE name = ?1";
            database.execute(set, ["killed", "building"]).unwrap();
            database.execute(set, ["waiting", "pending"]).unwrap();
            database.execute("DELETE FROM template_log", []).unwrap();
            assert_eq!(fake.images.templates.lock().unwrap().len(), 2);
        })
        .await;
    assert_eq!(status(&rig, "killed").await, "failed");
    assert!(log(&rig, "killed").await.contains("the engine ended while"));
    until(&rig, "waiting", "ready").await;
    assert_eq!(rig.fake.images.templates.lock().unwrap().len(), 1);
    assert_eq!(status(&rig, "stopped").await, "failed");
}

#[tokio::test]
async fn imported_images_are_in_the_catalog_and_bases_of_templates() {
    let rig = Rig::new().await;
    let env = [("LANG".to_owned(), "C.UTF-8".to_owned())].into();
    let config = ImageConfig { env, directory: Some("/srv".into()), user: None };
    let image = |name: &str| Image { name: name.to_owned(), config: config.clone() };
    rig.fake.images.images.lock().unwrap().extend([image("alpine:3.20"), image("tool:latest")]);
    let catalog = rig.get("/v1/rootfs").await.data();
    assert_eq!(catalog["rootfs"], json!(["devbox:1", "alpine:3.20", "tool:latest"]));
    assert_eq!(catalog["default"], "devbox:1");
    for rootfs in ["tool", "tool:latest", "alpine:3.20"] {
        let sandbox = rig.sandbox_with(json!({"rootfs": rootfs})).await;
        assert!(rig.fake.file(&sandbox, "/image").is_some());
        let env = rig.exec(&sandbox, json!({"cmd": "env"})).await.data();
        assert_eq!(env["result"]["stdout"], "LANG=C.UTF-8\n");
    }
    let alpine = json!({"name": "t", "dockerfile": "FROM nodeops/sandbox:alpine\nWORKDIR x"});
    rig.call("POST", "/v1/templates", Some(alpine)).await.data();
    until(&rig, "t", "ready").await;
    let sandbox = rig.sandbox_with(json!({"rootfs": "t"})).await;
    assert_eq!(rig.fake.file(&sandbox, "/image").unwrap(), "alpine:3.20");
    let debian = json!({"name": "u", "dockerfile": FROM, "base": "tool"});
    assert_eq!(rig.call("POST", "/v1/templates", Some(debian)).await.data()["base"], "tool");
    until(&rig, "u", "ready").await;
    let sandbox = rig.sandbox_with(json!({"rootfs": "u"})).await;
    assert_eq!(rig.fake.file(&sandbox, "/image").unwrap(), "tool:latest");
}
