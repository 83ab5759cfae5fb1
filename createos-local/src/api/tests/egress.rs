//! Outbound rules and traffic.

use serde_json::{Value, json};

use super::rig::{Rig, SHAPE};
use crate::core::fake::Fake;

#[tokio::test]
async fn rules_are_kept_shown_and_replaced_as_a_whole() {
    let rig = Rig::new().await;
    let rules = json!(["api.example.org:443", "*.example.net", "203.0.113.7:5432", "10.0.0.0/8"]);
    let id = rig.sandbox_with(json!({"egress": rules})).await;
    let path = format!("/v1/sandboxes/{id}/egress");
    let shown = |rules: &Value| json!({"id": id, "egress": rules});
    assert_eq!(rig.get(&path).await.data(), shown(&rules));
    let view = rig.get(&format!("/v1/sandboxes/{id}")).await.data();
    assert_eq!(view["egress"], rules);

    let put = async |body: Value| rig.call("PUT", &path, Some(body)).await;
    let other = json!(["a.test"]);
    assert_eq!(put(json!({"egress": other})).await.data(), shown(&other));
    assert_eq!(rig.get(&path).await.data(), shown(&other));
    for open in [
        json!({"egress": []}),
        json!({"egress": null}),
        json!({}),
        json!({"egress": ["*"]}),
        Value::Null,
    ] {
        put(json!({"egress": other})).await.data();
        assert_eq!(put(open.clone()).await.data(), shown(&json!([])), "{open}");
    }

    put(json!({"egress": other})).await.data();
    for bad in ["", "*", "a b", "https://a.test", "a.test:0", "a.test:x", "10.0.0.0/33", "1.2.3"] {
        let reply = put(json!({"egress": ["fine.test", bad]})).await;
        assert_eq!(reply.status, 400, "{bad}");
        let why = reply.json()["data"]["egress"].as_str().unwrap().to_owned();
        assert!(why.starts_with(&format!("{bad:?}")), "{why}");
    }
    assert_eq!(put(json!({"egress": "a.test"})).await.status, 400);
    assert_eq!(rig.get(&path).await.data(), shown(&other), "nothing of them was taken");
}

#[tokio::test]
async fn only_a_running_sandbox_gets_other_rules() {
    let rig = Rig::new().await;
    let id = rig.sandbox_with(json!({"egress": ["a.test"]})).await;
    let path = format!("/v1/sandboxes/{id}/egress");
    let missing = rig.call("PUT", "/v1/sandboxes/sb-none/egress", Some(json!(7))).await;
    assert_eq!(missing.status, 404);
    rig.force(&id, "paused");
    assert_eq!(rig.call("PUT", &path, Some(json!({}))).await.status, 409);
    assert_eq!(rig.call("PUT", &path, Some(json!({"egress": ["*", "x"]}))).await.status, 400);
    assert_eq!(rig.get(&path).await.data()["egress"], json!(["a.test"]));
    rig.force(&id, "destroyed");
    assert_eq!(rig.get(&path).await.status, 404);
    assert_eq!(rig.call("PUT", &path, Some(json!({}))).await.status, 404);
}

#[tokio::test]
async fn a_machine_without_a_way_out_refuses_rules_and_says_why() {
    let rig = Rig::new().await;
    *rig.fake.reaches_out.lock().unwrap() = false;
    let create = json!({"shape": SHAPE, "egress": ["a.test"]});
    let refused = rig.call("POST", "/v1/sandboxes", Some(create)).await;
    assert_eq!(refused.status, 501);
    assert!(refused.message().contains("get another"), "{}", refused.message());
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}/egress");
    let refused = rig.call("PUT", &path, Some(json!({"egress": ["a.test"]}))).await;
    assert_eq!(refused.status, 501);
    assert_eq!(rig.call("PUT", &path, Some(json!({"egress": ["*"]}))).await.status, 200);
}

#[tokio::test]
async fn a_recharge_adds_and_outlives_the_engine() {
    const QUOTA: i64 = 5_368_709_120;
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}/bandwidth");
    let recharge = format!("{path}/recharge");
    let quota = async |body: Value| {
        let data = rig.call("POST", &recharge, Some(body)).await.data();
        assert_eq!(data["remaining_bytes"], data["quota_bytes"]);
        data["quota_bytes"].as_i64().unwrap()
    };
    assert_eq!(quota(json!({"add_bytes": 1})).await, QUOTA + 1);
    assert_eq!(quota(json!({"gib": 2})).await, QUOTA + 1 + (2 << 30));
    assert_eq!(quota(json!({"gib": 2, "add_bytes": 1})).await, QUOTA + 2 + (2 << 30));
    for bad in [
        json!({}),
        json!({"add_bytes": 0}),
        json!({"add_bytes": -1}),
        json!({"add_bytes": 1.5}),
        json!({"gib": -1}),
        json!({"gib": 9_223_372_036_854_775_807_i64}),
    ] {
        assert_eq!(rig.call("POST", &recharge, Some(bad.clone())).await.status, 400, "{bad}");
    }
    let missing = rig.call("POST", "/v1/sandboxes/sb-none/bandwidth/recharge", None).await;
    assert_eq!(missing.status, 404);

    let used = |database: &rusqlite::Connection, _: &Fake| {
        let sql = "UPDATE traffic SET sent = quota + 5, received = 7";
        assert_eq!(database.execute(sql, []).unwrap(), 1);
    };
    let rig = rig.restart(used).await;
    let bandwidth = rig.get(&path).await.data();
    let quota = QUOTA + 2 + (2 << 30);
    assert_eq!(
        bandwidth,
        json!({"id": id, "quota_bytes": quota, "used_bytes": quota + 5, "ingress_bytes": 7,
               "remaining_bytes": -5, "capped": true})
    );
    let back = rig.call("POST", &recharge, Some(json!({"add_bytes": 6}))).await.data();
    assert_eq!((&back["remaining_bytes"], &back["capped"]), (&json!(1), &json!(false)));
}

#[tokio::test]
async fn a_fork_has_counters_and_a_quota_of_its_own_and_the_rules_of_its_source() {
    let rig = Rig::new().await;
    let source = rig.sandbox_with(json!({"egress": ["a.test"]})).await;
    let add = json!({"add_bytes": 5});
    rig.call("POST", &format!("/v1/sandboxes/{source}/bandwidth/recharge"), Some(add)).await.data();
    rig.call("POST", &format!("/v1/sandboxes/{source}/pause"), None).await.data();
    rig.until(&source, "paused").await;
    let fork = async |request: Value| {
        let path = format!("/v1/sandboxes/{source}/fork");
        let child = rig.call("POST", &path, Some(request)).await.data();
        let id = child["id"].as_str().unwrap().to_owned();
        let rules = rig.get(&format!("/v1/sandboxes/{id}/egress")).await.data()["egress"].clone();
        let bandwidth = rig.get(&format!("/v1/sandboxes/{id}/bandwidth")).await.data();
        (rules, bandwidth["quota_bytes"].as_i64().unwrap())
    };
    assert_eq!(fork(json!({})).await, (json!(["a.test"]), 5_368_709_120));
    let other = json!({"egress": ["b.test:80"], "bandwidth_quota_bytes": 7});
    assert_eq!(fork(other).await, (json!(["b.test:80"]), 7));
    let open = json!({"egress": ["*"], "bandwidth_quota_bytes": -1});
    assert_eq!(fork(open).await, (json!([]), -1));
}
