//! Every route is there, guarded, and says what it cannot do.

use axum::http::HeaderMap;
use serde_json::json;

use super::rig::{KEY, Rig};

#[tokio::test]
async fn health_and_readiness_need_no_key() {
    let rig = Rig::new().await;
    for headers in [vec![], vec![("x-api-key", "wrong")], vec![("authorization", "Bearer x")]] {
        let health = rig.send("GET", "/healthz", &headers, "").await;
        assert_eq!(health.data(), json!({"up": true}));
        let ready = rig.send("GET", "/readyz", &headers, "").await;
        assert_eq!(ready.data(), json!({"ready": true}));
        assert_eq!(rig.send("GET", "/v1/shapes", &headers, "").await.status, 200);
        assert_eq!(rig.send("GET", "/v1/rootfs", &headers, "").await.status, 200);
    }
}

#[tokio::test]
async fn the_catalog_is_the_contract_s() {
    let rig = Rig::new().await;
    let shapes = rig.get("/v1/shapes").await.data();
    assert_eq!(shapes["pagination"], json!({"total": 11, "limit": 50, "offset": 0, "count": 11}));
    assert_eq!(
        shapes["data"][0],
        json!({"id": "s-0.25vcpu-512mb", "vcpu": 1, "mem_mib": 512, "default_disk_mib": 10240,
               "cpu_quota_pct": 25})
    );
    assert_eq!(
        shapes["data"][3],
        json!({"id": "s-1vcpu-1gb", "vcpu": 1, "mem_mib": 1024, "default_disk_mib": 10240})
    );
    let page = rig.get("/v1/shapes?limit=2&offset=10").await.data();
    assert_eq!(page["pagination"], json!({"total": 11, "limit": 2, "offset": 10, "count": 1}));
    assert_eq!(rig.get("/v1/shapes?limit=501").await.data()["pagination"]["limit"], 500);

    let rootfs = rig.get("/v1/rootfs").await.data();
    assert_eq!(
        rootfs,
        json!({"rootfs": ["devbox:1"], "default": "devbox:1",
               "entries": [{"name": "devbox:1", "description": "scripted"}]})
    );
}

#[tokio::test]
async fn whoami_counts_what_lives() {
    let rig = Rig::new().await;
    let stats = async || rig.get("/v1/whoami").await.data();
    assert_eq!(
        stats().await,
        json!({"user_id": "usr_local", "stats": {"running": 0, "paused": 0, "other": 0, "total": 0}})
    );
    let ids = [rig.sandbox().await, rig.sandbox().await, rig.sandbox().await, rig.sandbox().await];
    rig.force(&ids[1], "paused");
    rig.force(&ids[2], "failed");
    rig.force(&ids[3], "destroyed");
    let expected = json!({"running": 1, "paused": 1, "other": 1, "total": 3});
    assert_eq!(stats().await["stats"], expected);
}

#[tokio::test]
async fn hosts_are_for_administrators() {
    let rig = Rig::new().await;
    assert_eq!(rig.get("/v1/hosts").await.status, 403);
}

#[tokio::test]
async fn only_the_right_key_in_the_right_header_opens() {
    let rig = Rig::new().await;
    let cases: [(&[(&str, &str)], u16); 11] = [
        (&[("x-api-key", KEY)], 200),
        (&[("X-API-KEY", KEY)], 200),
        (&[], 401),
        (&[("x-api-key", "")], 401),
        (&[("x-api-key", "skp_tesT")], 401),
        (&[("x-api-key", KEY), ("x-api-key", "other")], 401),
        (&[("authorization", "Bearer skp_test")], 401),
        (&[("x-access-token", KEY)], 401),
        (&[("x-auth-token", KEY)], 401),
        // Other credentials are looked at first (api.md 1.2).
        (&[("x-api-key", KEY), ("authorization", "Bearer x")], 401),
        (&[("x-api-key", KEY), ("x-access-token", "x")], 401),
    ];
    for (headers, status) in cases {
        let reply = rig.send("GET", "/v1/whoami", headers, "").await;
        assert_eq!(reply.status, status, "{headers:?}");
        assert!(!String::from_utf8_lossy(&reply.body).contains(KEY));
    }
    let id = rig.sandbox().await;
    // The key is asked for before anything else is told.
    for path in ["/v1/sandboxes".to_owned(), format!("/v1/sandboxes/{id}"), "/v1/nope".to_owned()] {
        assert_eq!(rig.send("GET", &path, &[], "").await.status, 401, "{path}");
    }
    let path = format!("/v1/sandboxes/{id}");
    assert_eq!(rig.send("DELETE", &path, &[("x-api-key", "wrong")], "").await.status, 401);
    assert_eq!(rig.status(&id).await, "running");
}

#[tokio::test]
async fn unknown_routes_and_wrong_methods() {
    let rig = Rig::new().await;
    for path in [
        "/",
        "/nope",
        "/v1",
        "/v1/",
        "/v2/sandboxes",
        "/v1/sandboxes/",
        "/v1/sandboxes/sb-1/",
        "/v1/sandboxes/sb-1/nope",
        "//v1/sandboxes",
        "/v1/sandboxes/a%2Fexec",
        "/healthz/",
    ] {
        assert_eq!(rig.get(path).await.status, 404, "{path}");
    }
    for (method, path) in [
        ("POST", "/healthz"),
        ("DELETE", "/v1/sandboxes"),
        ("PUT", "/v1/sandboxes/sb-1"),
        ("GET", "/v1/sandboxes/sb-1/exec"),
        ("POST", "/v1/sandboxes/sb-1/files?path=/x"),
        ("GET", "/v1/sandboxes/sb-1/resume"),
        ("POST", "/v1/shapes"),
        ("PATCH", "/v1/networks"),
    ] {
        let reply = rig.call(method, path, None).await;
        assert_eq!(reply.status, 405, "{method} {path}");
        assert!(reply.message().contains(method), "{}", reply.message());
    }
}

#[tokio::test]
async fn a_refused_upgrade_closes_the_connection() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let upgrade = [("upgrade", "tcp-tunnel"), ("connection", "Upgrade"), ("x-api-key", KEY)];
    let closes = |headers: &HeaderMap| headers.get("connection").is_some_and(|it| it == "close");
    for (path, status) in [("/tunnel/80", 502), ("/shell", 409)] {
        rig.force(&id, if status == 409 { "paused" } else { "running" });
        let reply = rig.send("POST", &format!("/v1/sandboxes/{id}{path}"), &upgrade, "").await;
        assert!(reply.status == status && closes(&reply.headers), "{reply:?}");
        let reply = rig.send("POST", &format!("/v1/sandboxes/{id}{path}"), &upgrade[..2], "").await;
        assert!(reply.status == 401 && closes(&reply.headers), "{reply:?}");
    }
    // Some clients ask every server for HTTP/2 (api.md 8.2); that is no upgrade of ours.
    let h2c = [
        ("connection", "Upgrade, HTTP2-Settings"),
        ("upgrade", "h2c"),
        ("http2-settings", "AAMAAABkAAQCAAAAAAIAAAAA"),
        ("x-api-key", KEY),
    ];
    assert_eq!(rig.send("GET", "/v1/whoami", &h2c, "").await.status, 200);
}

#[tokio::test]
async fn settings_of_a_sandbox() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let get = async |path: &str| rig.get(&format!("/v1/sandboxes/{id}{path}")).await;
    assert_eq!(get("/egress").await.data(), json!({"id": id, "egress": []}));
    assert_eq!(
        get("/bandwidth").await.data(),
        json!({"id": id, "quota_bytes": 5_368_709_120_u64, "used_bytes": 0, "ingress_bytes": 0,
               "remaining_bytes": 5_368_709_120_u64, "capped": false})
    );
    assert_eq!(
        get("/disks").await.data(),
        json!({"data": [], "pagination": {"total": 0, "limit": 50, "offset": 0, "count": 0}})
    );
}

#[tokio::test]
async fn bodies_and_headers_that_mean_nothing_are_ignored() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let path = format!("/v1/sandboxes/{id}");
    for accept in ["application/json", "image/png", "text/html;q=0.1"] {
        let headers =
            [("x-api-key", KEY), ("accept", accept), ("content-type", "application/json")];
        assert_eq!(rig.send("GET", &path, &headers, "").await.status, 200);
    }
    for (kind, body) in [
        ("application/json", "{}"),
        ("application/json", "null"),
        ("application/json", ""),
        ("text/plain", "not json at all"),
    ] {
        let headers = [("x-api-key", KEY), ("content-type", kind)];
        let reply = rig.send("POST", &format!("{path}/resume"), &headers, body).await;
        assert_eq!(reply.status, 200, "{body:?}");
    }
    let headers = [("x-api-key", KEY), ("content-type", "application/json")];
    assert_eq!(rig.send("DELETE", &path, &headers, "null").await.status, 200);
}
