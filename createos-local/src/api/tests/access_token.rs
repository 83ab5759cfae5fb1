//! Delegated tokens: made, shown once, recognised, rotated, revoked, and what they reach.

use serde_json::{Value, json};

use super::rig::{KEY, Reply, Rig};

async fn with(rig: &Rig, token: &str, method: &str, path: &str) -> Reply {
    rig.send(method, path, &[("x-api-key", token)], "{}").await
}

fn token(reply: &Reply) -> String {
    reply.data()["token"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_token_lives_from_its_creation_to_its_revocation() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}/access-token");
    let rotate = format!("{path}/rotate");
    assert_eq!(rig.get(&path).await.data(), json!({"enabled": false}));
    assert_eq!(rig.call("POST", &rotate, None).await.status, 404);

    let created = rig.call("POST", &path, None).await;
    let first = token(&created);
    assert!(first.starts_with("skp_sb_") && first.len() == 47, "{}", first.len());
    assert_eq!(created.data()["enabled"], true);
    assert!(created.data().get("rotated_at").is_none());
    assert_eq!(rig.call("POST", &path, None).await.status, 409);
    let view = rig.get(&path).await;
    let hint = format!("skp_sb_{}...{}", &first[7..11], &first[43..]);
    assert_eq!(view.data()["token_hint"], hint);
    assert_eq!(view.data()["created_at"], created.data()["created_at"]);
    assert!(!String::from_utf8_lossy(&view.body).contains(&first));

    let own = format!("/v1/sandboxes/{id}");
    assert_eq!(with(&rig, &first, "GET", &own).await.status, 200);
    let rotated = rig.call("POST", &rotate, None).await;
    let second = token(&rotated);
    assert_eq!(rotated.data()["created_at"], created.data()["created_at"]);
    assert!(rotated.data()["rotated_at"].is_string());
    assert_eq!(with(&rig, &first, "GET", &own).await.status, 401);

    // It outlives the engine, and is not in its database.
    let rig = rig.restart(|_, _| {}).await;
    assert_eq!(with(&rig, &second, "GET", &own).await.status, 200);
    for entry in std::fs::read_dir(rig.dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap_or_default();
        assert!(!bytes.windows(second.len()).any(|window| window == second.as_bytes()));
    }

    for _ in 0..2 {
        assert_eq!(rig.call("DELETE", &path, None).await.data(), json!({"enabled": false}));
    }
    assert_eq!(with(&rig, &second, "GET", &own).await.status, 401);
    assert_eq!(rig.get(&path).await.data(), json!({"enabled": false}));
}

#[tokio::test]
async fn it_reaches_its_own_sandbox_s_work_and_nothing_else() {
    let rig = Rig::new().await;
    let (own, other) = (rig.sandbox().await, rig.sandbox().await);
    let path = format!("/v1/sandboxes/{own}/access-token");
    let token = token(&rig.call("POST", &path, None).await);
    let token = token.as_str();
    let exec = |id| format!("/v1/sandboxes/{id}/exec");
    let run = rig.send("POST", &exec(&own), &[("x-api-key", token)], r#"{"cmd":"true"}"#).await;
    assert_eq!(run.status, 200, "{run:?}");
    // What it does not own does not exist for it.
    for (method, path) in [
        ("GET", format!("/v1/sandboxes/{other}")),
        ("DELETE", format!("/v1/sandboxes/{other}")),
        ("POST", exec(&other)),
        ("GET", "/v1/sandboxes/sb-unknown".to_owned()),
    ] {
        assert_eq!(with(&rig, token, method, &path).await.status, 404, "{method} {path}");
    }
    for (method, path) in [
        ("GET", path.clone()),
        ("POST", format!("{path}/rotate")),
        ("PATCH", format!("/v1/sandboxes/{own}")),
        ("POST", format!("/v1/sandboxes/{own}/fork")),
        ("GET", "/v1/sandboxes".to_owned()),
        ("POST", "/v1/sandboxes".to_owned()),
        ("GET", "/v1/whoami".to_owned()),
    ] {
        assert_eq!(with(&rig, token, method, &path).await.status, 403, "{method} {path}");
    }
    let mut changed = token.to_owned();
    changed.replace_range(10..11, if &token[10..11] == "A" { "B" } else { "A" });
    let own = format!("/v1/sandboxes/{own}");
    for wrong in [changed.as_str(), "skp_sb_", &token[..46], &token.to_uppercase()] {
        assert_eq!(with(&rig, wrong, "GET", &own).await.status, 401);
    }
    assert_eq!(with(&rig, token, "DELETE", &own).await.status, 200);
    assert_eq!(rig.status(&other).await, "running");
}

#[tokio::test]
async fn states_without_a_future_have_none() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}/access-token");
    let statuses = async || {
        let mut statuses = Vec::new();
        for method in ["POST", "GET", "DELETE"] {
            statuses.push(rig.send(method, &path, &[("x-api-key", KEY)], "").await.status);
        }
        statuses
    };
    let expected: [(&str, Value); 5] = [
        ("paused", json!([200, 200, 200])),
        ("error", json!([200, 200, 200])),
        ("destroying", json!([409, 200, 409])),
        ("failed", json!([409, 200, 409])),
        ("destroyed", json!([404, 404, 404])),
    ];
    for (state, expected) in expected {
        rig.force(&id, state);
        assert_eq!(json!(statuses().await), expected, "{state}");
    }
}
