//! `POST /v1/sandboxes`, and what list and get show of it.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

use super::rig::{KEY, Rig, SHAPE, SSH_KEY};
use crate::core::fake::Fake;

async fn create(rig: &Rig, request: Value) -> super::rig::Reply {
    rig.call("POST", "/v1/sandboxes", Some(request)).await
}

#[tokio::test]
async fn the_answer_and_the_view_have_every_field_of_the_contract() {
    let rig = Rig::new().await;
    let reply = create(
        &rig,
        json!({"shape": "s-0.5vcpu-1gb", "rootfs": "devbox:1", "name": "demo",
               "envs": {"STAGE": "dev", "TOKEN": "hunter2"}, "egress": ["*"], "networks": [],
               "disks": null, "ssh_pubkeys": [format!("{SSH_KEY}  me"), format!("{SSH_KEY} me")],
               "ingress_enabled": false, "region": "local", "disk_mib": 10240,
               "bandwidth_quota_bytes": 0, "host_id": "h-1", "node_selector": {"a": "b"},
               "mode": "x"}),
    )
    .await;
    assert_eq!(reply.status, 201);
    let mut created = reply.data();
    let id = created["id"].as_str().unwrap().to_owned();
    assert!(id.len() == 29 && id.starts_with("sb-") && id == id.to_lowercase(), "{id}");
    assert!(created["created_at"].as_str().unwrap().ends_with('Z'));
    created["id"].take();
    created["created_at"].take();
    assert_eq!(
        created,
        json!({"id": null, "status": "running", "name": "demo", "ip": "10.0.0.2",
               "shape": "s-0.5vcpu-1gb", "rootfs": "devbox:1", "vcpu": 1, "mem_mib": 1024,
               "disk_mib": 10240, "spawn_ms": 12.345, "created_at": null,
               "bandwidth_quota_bytes": 5_368_709_120_u64, "ingress_enabled": false,
               "region": "local"})
    );

    let mut view = rig.get(&format!("/v1/sandboxes/{id}")).await.data();
    for time in ["created_at", "running_at"] {
        assert!(view[time].take().as_str().unwrap().ends_with('Z'));
    }
    assert_eq!(
        view,
        json!({"id": id, "status": "running", "name": "demo", "ip": "10.0.0.2", "vcpu": 1,
               "mem_mib": 1024, "disk_mib": 10240, "shape": "s-0.5vcpu-1gb", "rootfs": "devbox:1",
               "region": "local", "created_at": null, "running_at": null, "spawn_ms": 12.345,
               "ingress_enabled": false, "envs": ["STAGE", "TOKEN"],
               "ssh_pubkeys": [format!("{SSH_KEY} me")]})
    );

    let boots = rig.fake.boots.lock().unwrap();
    assert_eq!(boots[0].name, "demo");
    assert_eq!(boots[0].ip, Ipv4Addr::new(10, 0, 0, 2));
    assert_eq!(boots[0].limits.cpu_percent, 50);
    assert_eq!(boots[0].limits.memory_bytes, 1 << 30);
}

#[tokio::test]
async fn the_smallest_request_gets_a_name_and_the_defaults() {
    let rig = Rig::new().await;
    let mut names = HashSet::new();
    let mut ips = HashSet::new();
    for _ in 0..20 {
        let created = create(&rig, json!({"shape": SHAPE, "name": "", "rootfs": ""})).await.data();
        let name = created["name"].as_str().unwrap().to_owned();
        assert!(name.len() <= 22 && name.contains('-'), "{name}");
        assert_eq!(created["rootfs"], "devbox:1");
        assert!(names.insert(name) && ips.insert(created["ip"].as_str().unwrap().to_owned()));
    }
}

#[tokio::test]
async fn broken_rules_are_named_by_field() {
    let rig = Rig::new().await;
    let big = "x".repeat(4097);
    let many: Value =
        (0..65).map(|i| (format!("K{i}"), json!(""))).collect::<serde_json::Map<_, _>>().into();
    for (request, field) in [
        (json!({}), "body"),
        (json!({"shape": null}), "shape"),
        (json!({"shape": 7}), "shape"),
        (json!({"shape": ""}), "shape"),
        (json!({"shape": "s-9vcpu-1gb"}), "shape"),
        (json!({"shape": SHAPE, "rootfs": "windows:11"}), "rootfs"),
        (json!({"shape": SHAPE, "rootfs": "tpl_01k4m2c9zq8v7n5t3r1p0x6y2w"}), "rootfs"),
        (json!({"shape": SHAPE, "name": "Bad_Name"}), "name"),
        (json!({"shape": SHAPE, "name": "a-name-of-twenty-three-"}), "name"),
        (json!({"shape": SHAPE, "name": "-a"}), "name"),
        (json!({"shape": SHAPE, "name": ["a"]}), "name"),
        (json!({"shape": SHAPE, "envs": {"1A": "x"}}), "envs"),
        (json!({"shape": SHAPE, "envs": {"": "x"}}), "envs"),
        (json!({"shape": SHAPE, "envs": {"A B": "x"}}), "envs"),
        (json!({"shape": SHAPE, "envs": {"A": "a\0b"}}), "envs"),
        (json!({"shape": SHAPE, "envs": {"A": big}}), "envs"),
        (json!({"shape": SHAPE, "envs": many}), "envs"),
        (json!({"shape": SHAPE, "envs": {"A": 1}}), "envs.A"),
        (json!({"shape": SHAPE, "envs": {"A": null}}), "envs.A"),
        (json!({"shape": SHAPE, "envs": ["A=1"]}), "envs"),
        (json!({"shape": SHAPE, "disk_mib": -1}), "disk_mib"),
        (json!({"shape": SHAPE, "disk_mib": 1.5}), "disk_mib"),
        (json!({"shape": SHAPE, "egress": "x"}), "egress"),
        (json!({"shape": SHAPE, "egress": [1]}), "egress[0]"),
        (json!({"shape": SHAPE, "ssh_pubkeys": ["nonsense"]}), "ssh_pubkeys"),
        (json!({"shape": SHAPE, "auto_pause_after_seconds": 59}), "auto_pause_after_seconds"),
        (json!({"shape": SHAPE, "auto_pause_after_seconds": 86401}), "auto_pause_after_seconds"),
        (json!({"shape": SHAPE, "region": "us"}), "region"),
        (json!({"shape": SHAPE, "bandwidth_quota_bytes": 1}), "bandwidth_quota_bytes"),
        (json!({"shape": SHAPE, "networks": [{"name": "x"}]}), "networks[0]"),
        (json!({"shape": "x".repeat(100_000)}), "shape"),
        (json!({"shape": SHAPE, "rootfs": "x".repeat(100_000)}), "rootfs"),
        (json!({"shape": SHAPE, "name": "x".repeat(100_000)}), "name"),
        (json!({"shape": SHAPE, "region": "x".repeat(100_000)}), "region"),
        (json!({"shape": SHAPE, "egress": "x".repeat(100_000)}), "egress"),
        (json!({"shape": SHAPE, "ssh_pubkeys": ["x".repeat(100_000)]}), "ssh_pubkeys"),
        (json!({"shape": SHAPE, "envs": {"-".repeat(100_000): ""}}), "envs"),
    ] {
        let reply = create(&rig, request.clone()).await;
        assert_eq!(reply.status, 400, "{request} {reply:?}");
        assert!(reply.json()["data"][field].is_string(), "{request} {reply:?}");
        assert!(reply.body.len() < 2000, "no echo of what was sent");
    }
    assert!(rig.fake.boots.lock().unwrap().is_empty());
    assert_eq!(rig.get("/v1/sandboxes").await.data()["pagination"]["total"], 0);
}

#[tokio::test]
async fn every_broken_rule_is_told_at_once() {
    let rig = Rig::new().await;
    let reply = create(&rig, json!({"shape": "x", "name": "X", "region": "us"})).await;
    let data = reply.json()["data"].clone();
    assert_eq!(data.as_object().unwrap().len(), 3, "{data}");
    // Tools look for these words and the list (api.md 4.1).
    let shape = data["shape"].as_str().unwrap();
    assert!(shape.contains("not allowed") && shape.contains("[s-0.25vcpu-512mb, "), "{shape}");
}

#[tokio::test]
async fn what_does_not_exist_and_what_cannot_be_done_are_different() {
    let rig = Rig::new().await;
    for (request, status, field) in [
        (json!({"networks": [{"id": "mesh"}]}), 404, "networks"),
        (json!({"disks": [{"disk_id": "d", "mount_path": "/mnt"}]}), 404, "disk_id"),
        (json!({"egress": ["*", "api.example.org"]}), 400, "egress"),
        (json!({"egress": ["10.0.0.0/33"]}), 400, "egress"),
        (json!({"disk_mib": 299}), 400, "disk_mib"),
        (json!({"disk_mib": 2_000_000}), 403, "disk_mib"),
    ] {
        let mut request = request;
        request["shape"] = SHAPE.into();
        let reply = create(&rig, request.clone()).await;
        assert_eq!(reply.status, status, "{request}");
        assert!(reply.json()["data"][field].is_string(), "{reply:?}");
    }
    assert!(rig.fake.boots.lock().unwrap().is_empty());
}

#[tokio::test]
async fn bodies_that_are_no_json_object() {
    let rig = Rig::new().await;
    let headers = [("x-api-key", KEY), ("content-type", "application/json")];
    let deep = "[".repeat(100_000);
    for body in
        ["", " ", "{", "null", "[]", "7", "\"x\"", "{\"shape\":\"a\"} x", "\u{feff}{}", &deep]
    {
        let reply = rig.send("POST", "/v1/sandboxes", &headers, body.to_owned()).await;
        assert_eq!(reply.status, 400, "{body:.20}");
        assert!(reply.json()["data"].is_object());
    }
    let invalid = rig.send("POST", "/v1/sandboxes", &headers, vec![b'{', 0xFF, b'}']).await;
    assert_eq!(invalid.status, 400);
    let huge = rig.send("POST", "/v1/sandboxes", &headers, vec![b' '; (16 << 20) + 1]).await;
    assert_eq!(huge.status, 413);
}

#[tokio::test]
async fn a_name_belongs_to_one_living_sandbox() {
    let rig = Rig::new().await;
    let id = rig.sandbox_with(json!({"name": "demo"})).await;
    let again = create(&rig, json!({"shape": SHAPE, "name": "demo"})).await;
    assert_eq!(again.status, 409);
    assert!(again.message().contains("\"demo\" is taken"), "{}", again.message());

    rig.call("DELETE", &format!("/v1/sandboxes/{id}"), None).await;
    rig.until(&id, "destroyed").await;
    rig.sandbox_with(json!({"name": "demo"})).await;
}

#[tokio::test]
async fn of_many_creates_with_one_name_exactly_one_wins() {
    let rig = Rig::new().await;
    let creates = (0..16).map(|_| create(&rig, json!({"shape": SHAPE, "name": "demo"})));
    let mut codes: Vec<u16> = join_all(creates).await.iter().map(|reply| reply.status).collect();
    codes.sort_unstable();
    assert_eq!(codes[0], 201);
    assert!(codes[1..].iter().all(|code| *code == 409), "{codes:?}");
    assert_eq!(rig.fake.alive.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_failed_boot_leaves_nothing_but_its_record() {
    let rig = Rig::new().await;
    *rig.fake.boot_error.lock().unwrap() = Some("user namespaces are off; turn them on".into());
    let reply = create(&rig, json!({"shape": SHAPE, "name": "demo"})).await;
    assert_eq!(reply.status, 501);
    assert!(reply.message().contains("user namespaces are off"));
    assert!(rig.fake.disk.lock().unwrap().is_empty());

    let failed = rig.get("/v1/sandboxes?status=failed").await.data();
    assert_eq!(failed["pagination"]["total"], 1);
    let reason = failed["data"][0]["status_reason"].as_str().unwrap();
    assert!(reason.contains("user namespaces are off"), "{reason}");

    *rig.fake.boot_error.lock().unwrap() = None;
    let living = rig.sandbox_with(json!({"name": "demo"})).await;
    // The failed one can be destroyed although its name and address have a new owner.
    let failed = failed["data"][0]["id"].as_str().unwrap().parse().unwrap();
    let gone = rig.call("DELETE", &format!("/v1/sandboxes/{failed}"), None).await;
    assert_eq!(gone.data(), json!({"id": failed, "status": "destroyed"}));
    assert_eq!(rig.status(&failed).await, "destroyed");
    assert_eq!(rig.status(&living).await, "running");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_a_whole_sandbox() {
    let rig = Rig::new().await;
    rig.fake.hold();
    let body = json!({"shape": SHAPE, "name": "demo"}).to_string();
    let mut stream = tokio::net::TcpStream::connect(rig.engine.local_addr()).await.unwrap();
    let head = format!(
        "POST /v1/sandboxes HTTP/1.1\r\nhost: localhost\r\nx-api-key: {KEY}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let listed = async || rig.get("/v1/sandboxes").await.data()["data"].clone();
    rig.eventually(async || {
        let rows = listed().await;
        (rows[0]["status"] == "creating").then_some(()).ok_or(rows.to_string())
    })
    .await;
    assert!(listed().await[0].get("ip").is_none(), "no address while creating");
    drop(stream);
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    rig.fake.release();
    rig.eventually(async || {
        let rows = listed().await;
        (rows[0]["status"] == "running").then_some(()).ok_or(rows.to_string())
    })
    .await;
    assert_eq!(rig.fake.alive.lock().unwrap().len(), 1);
    assert_eq!(Fake::count(&rig.fake.killed), 0);
}

#[tokio::test]
async fn lists_are_pages_newest_first() {
    let rig = Rig::new().await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(rig.sandbox().await);
    }
    rig.force(&ids[1], "paused");
    let list = async |query: &str| {
        let data = rig.get(&format!("/v1/sandboxes{query}")).await.data();
        let rows = data["data"].as_array().unwrap().iter();
        let found: Vec<usize> =
            rows.map(|row| ids.iter().position(|id| row["id"] == id.as_str()).unwrap()).collect();
        (found, data["pagination"].clone())
    };
    let page = |total, limit, offset, count| json!({"total": total, "limit": limit, "offset": offset, "count": count});
    assert_eq!(list("").await, (vec![4, 3, 2, 1, 0], page(5, 50, 0, 5)));
    assert_eq!(list("?limit=2&offset=1").await, (vec![3, 2], page(5, 2, 1, 2)));
    assert_eq!(list("?limit=2&offset=4").await, (vec![0], page(5, 2, 4, 1)));
    assert_eq!(list("?limit=900&offset=9").await, (vec![], page(5, 500, 9, 0)));
    assert_eq!(list("?status=paused").await, (vec![1], page(1, 50, 0, 1)));
    assert_eq!(list("?status=running&limit=1").await, (vec![4], page(4, 1, 0, 1)));
    assert_eq!(list("?status=").await.1["total"], 5);
    for state in ["creating", "pausing", "resuming", "forking", "error", "destroying", "destroyed"]
    {
        assert_eq!(list(&format!("?status={state}")).await.0, Vec::<usize>::new(), "{state}");
    }
    let unknown = rig.get("/v1/sandboxes?status=asleep").await;
    assert_eq!(unknown.status, 400);
    assert!(unknown.json()["data"]["status"].as_str().unwrap().contains("asleep"));
}

#[tokio::test]
async fn a_sandbox_is_found_by_id_and_by_address_however_they_are_written() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let encoded: String = id.as_str().bytes().map(|byte| format!("%{byte:02X}")).collect();
    for path in [
        format!("/v1/sandboxes/{id}"),
        format!("/v1/sandboxes/{}", id.as_str().replace('-', "%2D")),
        format!("/v1/sandboxes/{encoded}"),
        "/v1/sandboxes/by-ip/10.0.0.2".to_owned(),
        "/v1/sandboxes/by%2Dip/10%2E0%2E0%2E2".to_owned(),
    ] {
        assert_eq!(rig.get(&path).await.data()["id"], id.as_str(), "{path}");
    }
    for path in [
        "sb-unknown",
        "sb_old",
        "..",
        "%2E%2E",
        "%00",
        "%FF",
        "a%2Fb",
        "by-ip",
        "by-ip/10.0.0.3",
        "by-ip/x",
        "by-ip/::1",
        &"x".repeat(5000),
    ] {
        let reply = rig.get(&format!("/v1/sandboxes/{path}")).await;
        assert_eq!(reply.status, 404, "{path:.40}");
        assert_eq!(reply.message(), "sandbox not found", "{path:.40}");
    }
}
