//! Requests as they must arrive (api.md 11): method, decoded path, query, body, headers.

use std::time::Duration;

use createos_sdk::wire::SandboxStatus;
use createos_sdk::{Client, RequestOptions, Result, SandboxId};
use serde_json::{Value, json};
use wiremock::{MockServer, Request};

use super::{ID, KEY, answering, builder, client, sandbox, success, view};

pub(crate) async fn only(server: &MockServer) -> Request {
    let mut requests = server.received_requests().await.unwrap();
    assert_eq!(requests.len(), 1);
    requests.remove(0)
}

pub(crate) fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.get(name).map(|value| value.to_str().unwrap())
}

#[track_caller]
pub(crate) fn check(request: &Request, method: &str, path: &str, query: &str, body: Option<Value>) {
    assert_eq!(request.method.as_str(), method);
    assert_eq!(request.url.path(), path);
    assert_eq!(request.url.query().unwrap_or_default(), query);
    match body {
        None => {
            assert!(request.body.is_empty());
            assert_eq!(header(request, "content-type"), None);
        }
        Some(body) => {
            assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), body);
            assert_eq!(header(request, "content-type"), Some("application/json"));
        }
    }
    assert!(header(request, "user-agent").unwrap().starts_with("createos-sdk/"));
    for other in ["authorization", "x-auth-token", "x-access-token", "cookie"] {
        assert_eq!(header(request, other), None);
    }
}

#[tokio::test]
async fn open_routes_carry_no_credential() -> Result<()> {
    let server = answering(success(json!({"up": true}))).await;
    client(&server.uri()).health().await?;
    let request = only(&server).await;
    check(&request, "GET", "/healthz", "", None);
    assert_eq!(header(&request, "x-api-key"), None);

    let server = answering(success(json!({"data": [], "pagination": {"total": 0}}))).await;
    client(&server.uri()).shapes().await?;
    let request = only(&server).await;
    check(&request, "GET", "/v1/shapes", "limit=500&offset=0", None);
    assert_eq!(header(&request, "x-api-key"), None);

    let server = answering(success(json!({"rootfs": ["a"], "default": "a"}))).await;
    assert_eq!(client(&server.uri()).rootfs().await?.default, "a");
    let request = only(&server).await;
    check(&request, "GET", "/v1/rootfs", "", None);
    assert_eq!(header(&request, "x-api-key"), None);

    let server = answering(success(json!({"ready": true}))).await;
    assert!(client(&server.uri()).readiness().await?.ready);
    let request = only(&server).await;
    check(&request, "GET", "/readyz", "", None);
    assert_eq!(header(&request, "x-api-key"), None);
    Ok(())
}

#[tokio::test]
async fn the_credential_goes_out_under_its_own_name_alone() -> Result<()> {
    let me = json!({"user_id": "u", "stats": {"running": 0, "paused": 0, "other": 0, "total": 0}});
    let server = answering(success(me)).await;
    client(&server.uri()).whoami().await?;
    let request = only(&server).await;
    check(&request, "GET", "/v1/whoami", "", None);
    assert_eq!(header(&request, "x-api-key"), Some(KEY));
    server.reset().await;

    let token = Client::builder().base_url(server.uri()).access_token("jwt").build()?;
    assert!(token.whoami().await.is_err(), "the mock was reset");
    let request = &server.received_requests().await.unwrap()[0];
    assert_eq!(header(request, "x-access-token"), Some("jwt"));
    assert_eq!(header(request, "x-api-key"), None);
    Ok(())
}

#[tokio::test]
async fn the_path_of_the_base_url_is_kept() -> Result<()> {
    let server = answering(success(view("running"))).await;
    let prefixed = client(&format!("{}/some/prefix/", server.uri()));
    prefixed.get_sandbox(ID.parse::<SandboxId>()?).await?;
    let request = only(&server).await;
    check(&request, "GET", &format!("/some/prefix/v1/sandboxes/{ID}"), "", None);
    Ok(())
}

#[tokio::test]
async fn an_id_is_one_path_segment_whatever_is_in_it() -> Result<()> {
    let server = answering(success(view("running"))).await;
    let id: SandboxId = "a?b#c%2Fd;e".parse()?;
    client(&server.uri()).get_sandbox(&id).await?;
    let request = only(&server).await;
    assert_eq!(request.url.path(), "/v1/sandboxes/a%3Fb%23c%252Fd;e");
    assert_eq!(request.url.query(), None);

    let server = answering(success(view("running"))).await;
    client(&server.uri()).sandbox_by_ip("10.0.0.4".parse().unwrap()).await?;
    check(&only(&server).await, "GET", "/v1/sandboxes/by-ip/10.0.0.4", "", None);
    Ok(())
}

fn created() -> Value {
    json!({"id": ID, "status": "running", "ip": "10.0.4.17", "shape": "s-1vcpu-1gb", "vcpu": 1,
           "mem_mib": 1024, "disk_mib": 10240, "spawn_ms": 12.5, "bandwidth_quota_bytes": -1})
}

#[tokio::test]
async fn create_with_the_shape_alone() -> Result<()> {
    let server = answering(success(created())).await;
    let sandbox = client(&server.uri()).create_sandbox("s-1vcpu-1gb").await?;
    let body = json!({"shape": "s-1vcpu-1gb"});
    let request = only(&server).await;
    check(&request, "POST", "/v1/sandboxes", "", Some(body));
    assert_eq!(header(&request, "x-api-key"), Some(KEY));
    assert_eq!(sandbox.id().as_str(), ID);
    assert_eq!(sandbox.created().unwrap().spawn_time(), Some(Duration::from_micros(12_500)));
    assert!(sandbox.view().is_none(), "the answer is not a view");
    Ok(())
}

#[tokio::test]
async fn create_with_everything() -> Result<()> {
    let server = answering(success(created())).await;
    client(&server.uri())
        .create_sandbox("s-1vcpu-1gb")
        .rootfs("devbox:1")
        .name("demo")
        .disk_mib(20_480)
        .network_named("mesh")
        .network("net-1".parse::<createos_sdk::NetworkId>()?)
        .disk("disk_1".parse::<createos_sdk::DiskId>()?, "/mnt/a")
        .disk_part("disk_2".parse::<createos_sdk::DiskId>()?, "/mnt/b", "sub/dir")
        .egress(["api.example.org:443", "10.0.0.0/8"])
        .env("STAGE", "dev")
        .envs([("A", "1"), ("B", "2")])
        .ssh_pubkey("ssh-ed25519 AAAA me")
        .ingress(true)
        .auto_pause_after(Duration::from_secs(900))
        .region("us")
        .node_selector("zone", "a")
        .await?;
    let body = json!({
        "shape": "s-1vcpu-1gb", "rootfs": "devbox:1", "name": "demo", "disk_mib": 20480,
        "networks": [{"id": "mesh"}, {"id": "net-1"}],
        "disks": [{"disk_id": "disk_1", "mount_path": "/mnt/a"},
                  {"disk_id": "disk_2", "mount_path": "/mnt/b", "sub_path": "sub/dir"}],
        "egress": ["api.example.org:443", "10.0.0.0/8"],
        "envs": {"STAGE": "dev", "A": "1", "B": "2"},
        "ssh_pubkeys": ["ssh-ed25519 AAAA me"], "ingress_enabled": true,
        "auto_pause_after_seconds": 900, "region": "us", "node_selector": {"zone": "a"}});
    check(&only(&server).await, "POST", "/v1/sandboxes", "", Some(body));
    Ok(())
}

#[tokio::test]
async fn lists_ask_for_pages() -> Result<()> {
    let empty = json!({"data": [], "pagination": {"total": 0, "limit": 1, "offset": 0}});
    let server = answering(success(empty)).await;
    client(&server.uri()).sandboxes().status(SandboxStatus::Running).page(1, 0).await?;
    let query = "status=running&limit=1&offset=0";
    check(&only(&server).await, "GET", "/v1/sandboxes", query, None);
    server.reset().await;
    let _ = client(&server.uri()).sandboxes().await;
    let requests = server.received_requests().await.unwrap();
    check(&requests[0], "GET", "/v1/sandboxes", "limit=500&offset=0", None);

    let empty = json!({"data": [], "pagination": {"total": 0}});
    let server = answering(success(empty)).await;
    sandbox(&server.uri()).disks().await?;
    let path = format!("/v1/sandboxes/{ID}/disks");
    check(&only(&server).await, "GET", &path, "limit=500&offset=0", None);
    Ok(())
}

#[tokio::test]
async fn commands() -> Result<()> {
    let answer = json!({"result": {"stdout": "x", "stderr": "", "exit_code": 0}, "exec_ms": 1.0});
    let path = format!("/v1/sandboxes/{ID}/exec");
    let server = answering(success(answer.clone())).await;
    sandbox(&server.uri()).command("uname").await?;
    check(&only(&server).await, "POST", &path, "", Some(json!({"cmd": "uname"})));

    let server = answering(success(answer)).await;
    sandbox(&server.uri())
        .command("node")
        .arg("--version")
        .args(["a b", "\u{e4}\""])
        .env("STAGE", "ci")
        .stdin("in\n")
        .await?;
    let body = json!({"cmd": "node", "args": ["--version", "a b", "\u{e4}\""],
                      "stdin": "in\n", "env": {"STAGE": "ci"}});
    check(&only(&server).await, "POST", &path, "", Some(body));
    Ok(())
}

#[tokio::test]
async fn streamed_commands_say_so_twice() -> Result<()> {
    let frames = wiremock::ResponseTemplate::new(200).set_body_string("{\"exit_code\":0}\n");
    let server = answering(frames).await;
    let status = sandbox(&server.uri()).command("bash").args(["-lc", "x"]).status().await?;
    assert!(status.success());
    let body = json!({"cmd": "bash", "args": ["-lc", "x"], "stream": true});
    let path = format!("/v1/sandboxes/{ID}/exec");
    check(&only(&server).await, "POST", &path, "stream=true", Some(body));
    Ok(())
}

#[tokio::test]
async fn uploads_and_downloads() -> Result<()> {
    let server = answering(success(json!({"bytes": 2, "path": "/a b"}))).await;
    sandbox(&server.uri()).files().write("/a b/\u{e4}&", "hi").await?;
    let request = only(&server).await;
    assert_eq!(request.method.as_str(), "PUT");
    assert_eq!(request.url.path(), format!("/v1/sandboxes/{ID}/files"));
    assert_eq!(request.url.query(), Some("path=%2Fa+b%2F%C3%A4%26"));
    assert_eq!(request.body, b"hi");
    assert_eq!(header(&request, "content-type"), Some("application/octet-stream"));
    assert_eq!(header(&request, "content-length"), Some("2"));
    assert_eq!(header(&request, "transfer-encoding"), None);

    let server = answering(wiremock::ResponseTemplate::new(200).set_body_bytes(*b"\xff\x00")).await;
    let bytes = sandbox(&server.uri()).files().read("/x").await?;
    assert_eq!(bytes, &b"\xff\x00"[..]);
    let path = format!("/v1/sandboxes/{ID}/files");
    check(&only(&server).await, "GET", &path, "path=%2Fx", None);
    Ok(())
}

#[tokio::test]
async fn lifecycle() -> Result<()> {
    let path = format!("/v1/sandboxes/{ID}");
    let server = answering(success(view("resuming"))).await;
    let paused = sandbox(&server.uri());
    let seen = paused.resume().no_wait().await?;
    assert_eq!(seen.status, SandboxStatus::Resuming);
    assert_eq!(paused.clone().view().unwrap().status, SandboxStatus::Resuming);
    check(&only(&server).await, "POST", &format!("{path}/resume"), "", None);

    let server = answering(success(json!({"id": ID, "status": "destroying"}))).await;
    let doomed = sandbox(&server.uri());
    assert_eq!(doomed.destroy().await?, SandboxStatus::Destroying);
    check(&only(&server).await, "DELETE", &path, "", None);

    let quota = json!({"id": ID, "quota_bytes": 10, "used_bytes": 4, "ingress_bytes": 1,
                       "remaining_bytes": 6, "capped": false});
    let server = answering(success(quota)).await;
    assert_eq!(sandbox(&server.uri()).bandwidth().await?.remaining_bytes, 6);
    check(&only(&server).await, "GET", &format!("{path}/bandwidth"), "", None);
    Ok(())
}

#[tokio::test]
async fn headers_of_a_call_are_added_to_ours() -> Result<()> {
    let server = answering(success(json!({"up": true}))).await;
    let extra = RequestOptions::new().header("X-Tenant", "t-1").header("x-tenant", "t-2");
    builder(&server.uri()).build()?.health().with(extra).await?;
    let request = only(&server).await;
    let values: Vec<_> = request.headers.get_all("x-tenant").iter().collect();
    assert_eq!(values, ["t-1", "t-2"]);
    Ok(())
}
