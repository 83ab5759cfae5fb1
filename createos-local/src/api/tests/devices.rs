//! Devices, and what they are attached to.

use serde_json::{Value, json};

use super::rig::Rig;

const KEY: &str = "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
const OTHER_KEY: &str = "AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=";

pub(super) async fn device(rig: &Rig, name: &str, key: &str) -> Value {
    let body = json!({"name": name, "pubkey": key, "hostname": "h", "os": "linux"});
    let created = rig.call("POST", "/v1/devices", Some(body)).await;
    assert_eq!(created.status, 201, "{created:?}");
    created.data()
}

#[tokio::test]
async fn devices_come_and_go() {
    let rig = Rig::new().await;
    let laptop = device(&rig, "laptop", KEY).await;
    let id = laptop["id"].as_str().unwrap();
    assert!(id.starts_with("dev-"), "{id}");
    assert_eq!(laptop["client_ip"], "100.64.0.2");
    assert_eq!((&laptop["pubkey"], &laptop["os"]), (&json!(KEY), &json!("linux")));
    assert_eq!(rig.get(&format!("/v1/devices/{id}")).await.data(), laptop);
    let twin = json!({"name": "twin", "pubkey": KEY});
    assert_eq!(rig.call("POST", "/v1/devices", Some(twin)).await.status, 409);
    assert_eq!(device(&rig, "phone", OTHER_KEY).await["client_ip"], "100.64.0.3");
    let page = rig.get("/v1/devices?limit=1").await.data();
    assert_eq!(
        (&page["data"][0]["name"], &page["pagination"]["total"]),
        (&json!("phone"), &json!(2))
    );

    let rig = rig.restart(|_, _| {}).await;
    let path = format!("/v1/devices/{id}");
    assert_eq!(rig.get(&path).await.data(), laptop);
    assert_eq!(rig.call("DELETE", &path, None).await.data(), json!({"ok": true}));
    for method in ["GET", "DELETE"] {
        assert_eq!(rig.call(method, &path, None).await.status, 404);
    }
}

#[tokio::test]
async fn what_is_no_device_is_refused() {
    let rig = Rig::new().await;
    for (body, field) in [
        (json!({"name": "", "pubkey": KEY}), "name"),
        (json!({"name": "a\nb", "pubkey": KEY}), "name"),
        (json!({"name": "a", "pubkey": KEY, "os": "x".repeat(300)}), "os"),
        (json!({"name": "a", "pubkey": ""}), "pubkey"),
        (json!({"name": "a", "pubkey": "AAAA"}), "pubkey"),
        // With this one, every secret is the same.
        (json!({"name": "a", "pubkey": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}), "pubkey"),
        (json!({"name": "a", "pubkey": KEY.trim_end_matches('=')}), "pubkey"),
        (json!({"name": "a", "pubkey": format!("{KEY}AAAA")}), "pubkey"),
        (json!({"name": "a"}), "body"),
        (json!({"name": 7, "pubkey": KEY}), "name"),
    ] {
        let reply = rig.call("POST", "/v1/devices", Some(body.clone())).await;
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.json()["data"][field].is_string(), "{body}: {reply:?}");
    }
    assert_eq!(rig.get("/v1/devices").await.data()["data"], json!([]));
}

#[tokio::test]
async fn devices_are_attached_to_networks() {
    let rig = Rig::new().await;
    let created = rig.call("POST", "/v1/networks", Some(json!({"name": "mesh"}))).await.data();
    let laptop = device(&rig, "laptop", KEY).await;
    let path = format!("/v1/devices/{}/networks", laptop["id"].as_str().unwrap());
    assert_eq!(rig.get(&path).await.data(), json!([]));
    for key in ["mesh", created["id"].as_str().unwrap()] {
        let attached = rig.call("POST", &path, Some(json!({"network_id": key}))).await;
        assert_eq!(attached.data(), json!({"ok": true}));
    }
    let row = &rig.get(&path).await.data()[0];
    assert_eq!((&row["network_id"], &row["network_name"]), (&created["id"], &json!("mesh")));
    assert!(row["attached_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(rig.call("POST", &path, Some(json!({"network_id": "none"}))).await.status, 404);
    assert_eq!(rig.call("POST", &path, Some(json!({}))).await.status, 400);
    let none = "/v1/devices/dev-none/networks";
    assert_eq!(rig.get(none).await.status, 404);
    assert_eq!(rig.call("POST", none, Some(json!({"network_id": "mesh"}))).await.status, 404);

    assert_eq!(rig.call("DELETE", &format!("{path}/mesh"), None).await.data(), json!({"ok": true}));
    assert_eq!(rig.call("DELETE", &format!("{path}/mesh"), None).await.status, 404);
    rig.call("POST", &path, Some(json!({"network_id": "mesh"}))).await;
    assert_eq!(
        rig.call("DELETE", "/v1/networks/mesh", None).await.status,
        200,
        "devices are no members"
    );
    assert_eq!(rig.get(&path).await.data(), json!([]));
}
