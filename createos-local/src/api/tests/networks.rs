//! Private networks over a scripted machine.

use serde_json::{Value, json};

use super::rig::{Rig, SHAPE};

async fn network(rig: &Rig, name: &str) -> String {
    let created = rig.call("POST", "/v1/networks", Some(json!({"name": name}))).await;
    assert_eq!(created.status, 201, "{created:?}");
    created.data()["id"].as_str().unwrap().to_owned()
}

async fn attach(rig: &Rig, sandbox: impl std::fmt::Display, network: &str) -> super::rig::Reply {
    let path = format!("/v1/sandboxes/{sandbox}/networks");
    rig.call("POST", &path, Some(json!({"id": network}))).await
}

async fn detach(rig: &Rig, sandbox: impl std::fmt::Display, network: &str) -> super::rig::Reply {
    rig.call("DELETE", &format!("/v1/sandboxes/{sandbox}/networks/{network}"), None).await
}

async fn members(rig: &Rig, network: &str) -> Vec<Value> {
    let view = rig.get(&format!("/v1/networks/{network}")).await.data();
    view["members"].as_array().cloned().unwrap_or_default()
}

#[tokio::test]
async fn networks_come_and_go() {
    let rig = Rig::new().await;
    let empty = rig.get("/v1/networks").await.data();
    assert_eq!(empty["data"], json!([]));
    assert_eq!(empty["pagination"]["total"], 0);
    let id = network(&rig, "mesh").await;
    assert!(id.starts_with("net-") && id.len() == 30, "{id}");
    for key in ["mesh", "MESH", &id, &id.replace('-', "%2D")] {
        let view = rig.get(&format!("/v1/networks/{key}")).await.data();
        assert_eq!((view["id"].as_str(), view["name"].as_str()), (Some(&*id), Some("mesh")));
        assert!(view["created_at"].as_str().unwrap().ends_with('Z'));
        assert!(view.get("members").is_none() && view.get("member_count").is_none());
    }
    network(&rig, "other").await;
    let page = rig.get("/v1/networks?limit=1&offset=1").await.data();
    assert_eq!(page["data"][0]["name"], "mesh");
    assert_eq!(page["pagination"], json!({"total": 2, "limit": 1, "offset": 1, "count": 1}));
    assert_eq!(rig.call("DELETE", "/v1/networks/mesh", None).await.data(), json!({"ok": true}));
    assert_eq!(rig.call("DELETE", "/v1/networks/mesh", None).await.status, 404);
    assert_eq!(rig.get(&format!("/v1/networks/{id}")).await.status, 404);
}

#[tokio::test]
async fn names_are_unique_and_their_number_is_limited() {
    let rig = Rig::tuned(|tuning| tuning.max_networks = 2).await;
    network(&rig, "mesh").await;
    let create = async |body: Value| rig.call("POST", "/v1/networks", Some(body)).await;
    for bad in ["mesh", "Mesh", "", "a b", "a.b", "-a", "a-", "ä", &"x".repeat(64)] {
        let reply = create(json!({"name": bad})).await;
        assert_eq!(reply.status, 400, "{bad}");
        assert!(reply.json()["data"]["name"].is_string(), "{bad}");
    }
    assert_eq!(create(json!({"name": "net-01k4m30v5c1n6f8d2b9x7a4q0e"})).await.status, 400);
    for bad in [json!({}), json!({"name": 7}), json!([]), json!("mesh")] {
        assert_eq!(create(bad).await.status, 400);
    }
    network(&rig, "Second_2").await;
    let refused = create(json!({"name": "third"})).await;
    assert_eq!(refused.status, 403);
    assert!(refused.message().contains("delete some"), "{}", refused.message());
    assert_eq!(create(json!({"name": "mesh"})).await.status, 400, "a taken name is told first");
}

#[tokio::test]
async fn sandboxes_join_at_create_and_leave_with_their_end() {
    let rig = Rig::new().await;
    let id = network(&rig, "mesh").await;
    let wanted = json!({"networks": [{"id": "mesh"}, {"id": id}], "name": "web"});
    let web = rig.sandbox_with(wanted).await;
    let db = rig.sandbox_with(json!({"networks": [{"id": id}]})).await;
    let row = members(&rig, "mesh").await;
    assert_eq!(
        row[0],
        json!({"sandbox_id": web, "status": "running", "ip": "10.64.0.2", "name": "web"})
    );
    assert_eq!((row.len(), row[1]["ip"].as_str()), (2, Some("10.64.0.3")));
    let list = rig.get("/v1/networks").await.data();
    assert_eq!(list["data"][0]["member_count"], 2);
    assert!(list["data"][0].get("members").is_none());
    let links = rig.fake.links.lock().unwrap()[&web].clone();
    assert_eq!(links.len(), 1, "named twice, joined once");
    assert_eq!(links[0].address.to_string(), "10.64.0.2");

    let refused = rig.call("DELETE", "/v1/networks/mesh", None).await;
    assert_eq!(refused.status, 409);
    assert!(refused.message().contains("2 members"), "{}", refused.message());
    rig.fake.hold();
    rig.call("DELETE", &format!("/v1/sandboxes/{web}"), None).await;
    assert_eq!(members(&rig, "mesh").await.len(), 1, "from the first step of its end on");
    assert_eq!(detach(&rig, &web, "mesh").await.status, 200, "it is off already");
    rig.fake.release();
    rig.until(&web, "destroyed").await;
    assert_eq!(detach(&rig, &web, "mesh").await.status, 404);
    rig.call("DELETE", &format!("/v1/sandboxes/{db}"), None).await;
    assert_eq!(rig.call("DELETE", "/v1/networks/mesh", None).await.status, 200);
}

#[tokio::test]
async fn a_create_on_an_unknown_network_leaves_nothing() {
    let rig = Rig::new().await;
    network(&rig, "mesh").await;
    let wanted = json!({"shape": SHAPE, "networks": [{"id": "mesh"}, {"id": "none"}]});
    let refused = rig.call("POST", "/v1/sandboxes", Some(wanted)).await;
    assert_eq!(refused.status, 404);
    assert!(refused.message().contains("network not found: none"), "{}", refused.message());
    assert_eq!(rig.get("/v1/sandboxes").await.data()["pagination"]["total"], 0);

    *rig.fake.link_error.lock().unwrap() = Some("no cables here; get some".to_owned());
    let wanted = json!({"shape": SHAPE, "networks": [{"id": "mesh"}]});
    let refused = rig.call("POST", "/v1/sandboxes", Some(wanted)).await;
    assert_eq!(refused.status, 501);
    assert!(refused.message().contains("get some"), "{}", refused.message());
    assert!(members(&rig, "mesh").await.is_empty());
    assert!(rig.fake.alive.lock().unwrap().is_empty());
}

#[tokio::test]
async fn running_sandboxes_join_and_leave() {
    let rig = Rig::new().await;
    let id = network(&rig, "mesh").await;
    let sandbox = rig.sandbox().await;
    assert_eq!(attach(&rig, &sandbox, "mesh").await.data(), json!({"ok": true}));
    assert_eq!(attach(&rig, &sandbox, &id).await.status, 200, "twice is harmless");
    assert_eq!(members(&rig, "mesh").await[0]["ip"], "10.64.0.2");
    assert_eq!(attach(&rig, &sandbox, "none").await.status, 404);
    assert_eq!(attach(&rig, "sb-none", "mesh").await.status, 404);
    let path = format!("/v1/sandboxes/{sandbox}/networks");
    for bad in [json!({}), json!({"id": 7}), json!([])] {
        assert_eq!(rig.call("POST", &path, Some(bad)).await.status, 400);
    }
    assert_eq!(detach(&rig, &sandbox, "MESH").await.data(), json!({"ok": true}));
    assert!(rig.fake.links.lock().unwrap()[&sandbox].is_empty());
    assert_eq!(detach(&rig, &sandbox, "mesh").await.status, 404, "it is not on it any more");
    assert_eq!(detach(&rig, &sandbox, "none").await.status, 404);
    assert_eq!(detach(&rig, "sb-none", "mesh").await.status, 404);
    attach(&rig, &sandbox, "mesh").await;
    assert_eq!(members(&rig, "mesh").await[0]["ip"], "10.64.0.3", "a freed address rests");

    *rig.fake.link_error.lock().unwrap() = Some("no".to_owned());
    assert_eq!(detach(&rig, &sandbox, "mesh").await.status, 501);
    assert_eq!(members(&rig, "mesh").await.len(), 1, "what was not done is not written down");
    network(&rig, "second").await;
    assert_eq!(attach(&rig, &sandbox, "second").await.status, 501);
    assert!(members(&rig, "second").await.is_empty());
}

#[tokio::test]
async fn networks_are_kept_while_a_sandbox_does_not_run() {
    let rig = Rig::new().await;
    for name in ["mesh", "second"] {
        network(&rig, name).await;
    }
    let sandbox = rig.sandbox_with(json!({"networks": [{"id": "mesh"}, {"id": "second"}]})).await;
    rig.call("POST", &format!("/v1/sandboxes/{sandbox}/pause"), None).await;
    rig.until(&sandbox, "paused").await;
    let refused = attach(&rig, &sandbox, "mesh").await;
    assert_eq!(refused.status, 409);
    assert!(refused.message().contains("not running"), "{}", refused.message());
    assert_eq!(detach(&rig, &sandbox, "second").await.status, 200);
    let fork = rig.call("POST", &format!("/v1/sandboxes/{sandbox}/fork"), Some(json!({}))).await;
    assert_eq!(fork.status, 202);
    assert_eq!(members(&rig, "mesh").await.len(), 1, "places are not inherited");

    let rig = rig.restart(|_, _| {}).await;
    let row = members(&rig, "mesh").await;
    assert_eq!(
        (row[0]["ip"].as_str(), row[0]["status"].as_str()),
        (Some("10.64.0.2"), Some("paused"))
    );
    rig.call("POST", &format!("/v1/sandboxes/{sandbox}/resume"), None).await;
    rig.until(&sandbox, "running").await;
    let links = rig.fake.links.lock().unwrap()[&sandbox].clone();
    assert_eq!((links.len(), links[0].address.to_string()), (1, "10.64.0.2".to_owned()));
}

#[tokio::test]
async fn one_that_cannot_be_put_on_its_networks_again_is_in_error() {
    let rig = Rig::new().await;
    network(&rig, "mesh").await;
    let sandbox = rig.sandbox_with(json!({"networks": [{"id": "mesh"}]})).await;
    rig.call("POST", &format!("/v1/sandboxes/{sandbox}/pause"), None).await;
    rig.until(&sandbox, "paused").await;
    *rig.fake.link_error.lock().unwrap() = Some("the cables are gone".to_owned());
    rig.call("POST", &format!("/v1/sandboxes/{sandbox}/resume"), None).await;
    rig.until(&sandbox, "error").await;
    let view = rig.get(&format!("/v1/sandboxes/{sandbox}")).await.data();
    assert!(view["status_reason"].as_str().unwrap().contains("the cables are gone"));
    *rig.fake.link_error.lock().unwrap() = None;
    rig.call("POST", &format!("/v1/sandboxes/{sandbox}/resume"), None).await;
    rig.until(&sandbox, "running").await;
    assert_eq!(rig.fake.links.lock().unwrap()[&sandbox].len(), 1);
}
