//! Networks, disks, tokens, devices, hosts and metrics.

use std::time::Duration;

use createos_sdk::wire::{DiskConfig, DiskCredentials, HostStatus};
use createos_sdk::{DeviceId, DiskId, ErrorKind, NetworkId, RequestOptions, Result, SessionId};
use serde_json::{Value, json};
use wiremock::matchers::{method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::golden::{check, header, only};
use super::{ID, KEY, answering, client, fail, sandbox, success};

fn ok() -> ResponseTemplate {
    success(json!({"ok": true}))
}

fn page(rows: Value) -> ResponseTemplate {
    let total = rows.as_array().unwrap().len();
    success(json!({"data": rows, "pagination":
        {"total": total, "limit": 500, "offset": 0, "count": total}}))
}

const LIST: &str = "limit=500&offset=0";

fn network() -> Value {
    json!({"id": "net-1", "name": "mesh", "created_at": "2026-08-02T10:00:00Z"})
}

fn network_id() -> NetworkId {
    "net-1".parse().unwrap()
}

#[tokio::test]
async fn networks() -> Result<()> {
    let server = answering(success(network())).await;
    let made = client(&server.uri()).create_network("mesh").await?;
    assert_eq!((made.id().as_str(), &*made.view().unwrap().name), ("net-1", "mesh"));
    check(&only(&server).await, "POST", "/v1/networks", "", Some(json!({"name": "mesh"})));

    let server = answering(page(json!([network()]))).await;
    assert_eq!(client(&server.uri()).networks().await?[0].id(), &network_id());
    check(&only(&server).await, "GET", "/v1/networks", LIST, None);

    let mut whole = network();
    whole["members"] = json!([{"sandbox_id": ID, "status": "running", "ip": "10.64.0.2"}]);
    let server = answering(success(whole)).await;
    let found = client(&server.uri()).get_network("mesh").await?;
    assert_eq!(found.view().unwrap().members[0].ip.as_deref(), Some("10.64.0.2"));
    check(&only(&server).await, "GET", "/v1/networks/mesh", "", None);
    server.reset().await;
    Mock::given(method("GET")).respond_with(success(network())).mount(&server).await;
    assert!(found.refresh().await?.members.is_empty());
    check(&only(&server).await, "GET", "/v1/networks/net-1", "", None);

    let server = answering(ok()).await;
    client(&server.uri()).network(network_id()).delete().await?;
    check(&only(&server).await, "DELETE", "/v1/networks/net-1", "", None);
    Ok(())
}

#[tokio::test]
async fn membership() -> Result<()> {
    let path = format!("/v1/sandboxes/{ID}/networks");
    let server = answering(ok()).await;
    sandbox(&server.uri()).attach_network("mesh").await?;
    check(&only(&server).await, "POST", &path, "", Some(json!({"id": "mesh"})));
    let server = answering(ok()).await;
    sandbox(&server.uri()).detach_network(network_id()).await?;
    check(&only(&server).await, "DELETE", &format!("{path}/net-1"), "", None);
    let server = answering(fail(409, "sandbox is not running")).await;
    let error = sandbox(&server.uri()).attach_network("mesh").await.unwrap_err();
    assert_eq!((error.kind(), error.resource()), (ErrorKind::Conflict, Some(ID)));
    Ok(())
}

#[tokio::test]
async fn an_empty_network_that_is_still_refused_is_tried_again() {
    let server = MockServer::start().await;
    let delete = || Mock::given(method("DELETE"));
    delete().respond_with(fail(409, "has members")).up_to_n_times(2).mount(&server).await;
    delete().respond_with(ok()).mount(&server).await;
    Mock::given(method("GET")).respond_with(success(network())).mount(&server).await;
    client(&server.uri()).network(network_id()).delete().await.unwrap();
    assert_eq!(server.received_requests().await.unwrap().len(), 4);

    let server = MockServer::start().await;
    delete().respond_with(fail(409, "has members")).mount(&server).await;
    Mock::given(method("GET")).respond_with(success(network())).mount(&server).await;
    let deleting = client(&server.uri()).network(network_id()).delete();
    let error = deleting.settling(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Conflict, "has members"));
}

#[tokio::test]
async fn a_network_with_members_is_refused_at_once() {
    let mut whole = network();
    whole["members"] = json!([{"sandbox_id": ID, "status": "running"}]);
    let server = MockServer::start().await;
    Mock::given(method("DELETE")).respond_with(fail(409, "has members")).mount(&server).await;
    Mock::given(method("GET")).respond_with(success(whole)).mount(&server).await;
    let error = client(&server.uri()).network(network_id()).delete().await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Conflict, Some(409)));
    assert_eq!(server.received_requests().await.unwrap().len(), 2);
}

fn disk() -> Value {
    json!({"id": "disk_1", "name": "data", "kind": "s3", "created_at": "2026-08-02T10:00:00Z",
           "config": {"bucket": "b", "endpoint": "https://s3.example.org"}})
}

fn keys() -> DiskCredentials {
    DiskCredentials::new("AK", "hunter2")
}

fn disk_id() -> DiskId {
    "disk_1".parse().unwrap()
}

#[tokio::test]
async fn disks() -> Result<()> {
    let server = answering(success(disk())).await;
    let config = DiskConfig::new("b", "https://s3.example.org").in_region("auto").path_style();
    let made = client(&server.uri()).create_disk("data", config, keys()).await?;
    assert_eq!(made.view().unwrap().name, "data");
    let credentials = json!({"access_key": "AK", "secret_key": "hunter2"});
    let body = json!({"name": "data", "kind": "s3", "credentials": credentials,
        "config": {"bucket": "b", "endpoint": "https://s3.example.org", "region": "auto",
                   "use_path_style": true}});
    check(&only(&server).await, "POST", "/v1/disks", "", Some(body));

    let server = answering(page(json!([disk()]))).await;
    assert_eq!(client(&server.uri()).disks().await?[0].id(), &disk_id());
    check(&only(&server).await, "GET", "/v1/disks", LIST, None);

    let server = answering(success(disk())).await;
    client(&server.uri()).get_disk("data").await?;
    check(&only(&server).await, "GET", "/v1/disks/data", "", None);

    let server = answering(success(disk())).await;
    client(&server.uri()).disk(disk_id()).rotate_credentials(keys()).await?;
    let body = json!({"credentials": credentials});
    check(&only(&server).await, "PATCH", "/v1/disks/disk_1", "", Some(body));

    let server = answering(success(json!({"deleted": true}))).await;
    client(&server.uri()).disk(disk_id()).delete().await?;
    check(&only(&server).await, "DELETE", "/v1/disks/disk_1", "", None);
    let server = answering(fail(409, "disk is attached")).await;
    let error = client(&server.uri()).disk(disk_id()).delete().await.unwrap_err();
    assert_eq!((error.kind(), error.resource()), (ErrorKind::Conflict, Some("disk_1")));
    Ok(())
}

fn attachment(status: &str) -> Value {
    json!({"disk_id": "disk_1", "name": "data", "kind": "s3", "mount_path": "/mnt/data",
           "config": {"bucket": "b", "endpoint": "https://s3.example.org"},
           "mount_status": status, "mount_error": "access denied"})
}

/// A server with the disk `data`, whose mount is first `first` and then `then`.
async fn with_disk(first: &str, then: &str) -> MockServer {
    let server = MockServer::start().await;
    let rows = format!("/v1/sandboxes/{ID}/disks");
    let get = |at: &str| Mock::given(method("GET")).and(path(at));
    get("/v1/disks/data").respond_with(success(disk())).mount(&server).await;
    let other = json!({"disk_id": "disk_1", "name": "data", "kind": "s3", "mount_path": "/other",
        "config": {"bucket": "b", "endpoint": "e"}, "mount_status": "mounted"});
    let row = |status: &str| page(json!([other, attachment(status)]));
    get(&rows).respond_with(row(first)).up_to_n_times(1).mount(&server).await;
    get(&rows).respond_with(row(then)).mount(&server).await;
    let post = Mock::given(method("POST")).and(path(rows));
    post.respond_with(success(json!({"id": ID, "ok": true}))).mount(&server).await;
    let delete = Mock::given(method("DELETE"));
    delete.respond_with(success(json!({"detached": true}))).mount(&server).await;
    server
}

#[tokio::test]
async fn a_disk_is_attached_by_its_id_and_waited_for() -> Result<()> {
    let path = format!("/v1/sandboxes/{ID}/disks");
    let server = with_disk("pending", "mounted").await;
    sandbox(&server.uri()).attach_disk("data", "/mnt/data").sub_path("a/b").await?;
    let requests = server.received_requests().await.unwrap();
    check(&requests[0], "GET", "/v1/disks/data", "", None);
    let body = json!({"disk_id": "disk_1", "mount_path": "/mnt/data", "sub_path": "a/b"});
    check(&requests[1], "POST", &path, "", Some(body));
    check(&requests[2], "GET", &path, LIST, None);
    assert_eq!(requests.len(), 4);

    let server = with_disk("pending", "pending").await;
    sandbox(&server.uri()).attach_disk(disk_id(), "/mnt/data").no_wait().await?;
    let body = json!({"disk_id": "disk_1", "mount_path": "/mnt/data"});
    check(&only(&server).await, "POST", &path, "", Some(body));
    Ok(())
}

#[tokio::test]
async fn a_mount_that_fails_says_why() {
    for status in ["error", "failed"] {
        let server = with_disk("pending", status).await;
        let attaching = sandbox(&server.uri()).attach_disk(disk_id(), "/mnt/data");
        let error = attaching.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UnexpectedState, "{status}");
        assert!(error.message().contains("access denied") && error.may_have_acted(), "{error}");
    }
    let server = with_disk("pending", "pending").await;
    let attaching = sandbox(&server.uri()).attach_disk(disk_id(), "/mnt/data");
    let error = attaching.budget(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.message().contains("pending"), "{error}");
}

#[tokio::test]
async fn a_disk_is_detached_by_its_id() -> Result<()> {
    let path = format!("/v1/sandboxes/{ID}/disks/disk_1");
    let server = with_disk("mounted", "mounted").await;
    sandbox(&server.uri()).detach_disk("data", "/mnt/data").await?;
    let requests = server.received_requests().await.unwrap();
    check(&requests[0], "GET", "/v1/disks/data", "", None);
    check(&requests[1], "DELETE", &path, "mount_path=%2Fmnt%2Fdata", None);

    let server = with_disk("mounted", "mounted").await;
    sandbox(&server.uri()).detach_disk(disk_id(), "/mnt/data").await?;
    check(&only(&server).await, "DELETE", &path, "mount_path=%2Fmnt%2Fdata", None);
    Ok(())
}

#[tokio::test]
async fn a_disk_name_in_create_is_looked_up_and_an_unknown_one_is_an_error() -> Result<()> {
    let server = MockServer::start().await;
    let created = json!({"id": ID, "status": "running"});
    Mock::given(method("GET")).respond_with(success(disk())).mount(&server).await;
    Mock::given(method("POST")).respond_with(success(created)).mount(&server).await;
    client(&server.uri()).create_sandbox("s").disk_named("data", "/mnt/data").await?;
    let requests = server.received_requests().await.unwrap();
    check(&requests[0], "GET", "/v1/disks/data", "", None);
    let body = json!({"shape": "s", "disks": [{"disk_id": "disk_1", "mount_path": "/mnt/data"}]});
    check(&requests[1], "POST", "/v1/sandboxes", "", Some(body));

    let server = answering(fail(404, "disk not found")).await;
    let creating = client(&server.uri()).create_sandbox("s").disk_named("gone", "/mnt/data");
    let error = creating.await.unwrap_err();
    assert_eq!((error.kind(), error.resource()), (ErrorKind::NotFound, Some("gone")));
    check(&only(&server).await, "GET", "/v1/disks/gone", "", None);
    Ok(())
}

#[tokio::test]
async fn a_deadline_counts_for_the_lookup_of_a_name_too() {
    let slow = success(disk()).set_delay(Duration::from_millis(800));
    let server = answering(slow).await;
    let limited = || RequestOptions::new().deadline(Duration::from_millis(1400));
    let sandbox = sandbox(&server.uri());
    for error in [
        sandbox.attach_disk("data", "/m").with(limited()).await.unwrap_err(),
        sandbox.detach_disk("data", "/m").with(limited()).await.unwrap_err(),
        {
            let create = client(&server.uri()).create_sandbox("s").disk_named("data", "/m");
            create.with(limited()).await.unwrap_err()
        },
    ] {
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        assert!(error.elapsed() < Duration::from_millis(1200), "of the second call: {error:?}");
    }
}

#[tokio::test]
async fn access_tokens() -> Result<()> {
    let path = format!("/v1/sandboxes/{ID}/access-token");
    let token = json!({"token": "skp_sb_planted", "enabled": true,
                       "created_at": "2026-08-02T10:00:00Z"});
    let server = answering(success(token.clone())).await;
    let owner = sandbox(&server.uri());
    let made = owner.access_token().create().await?;
    assert_eq!(made.token.expose(), "skp_sb_planted");
    check(&only(&server).await, "POST", &path, "", None);

    let server = answering(success(token)).await;
    sandbox(&server.uri()).access_token().rotate().await?;
    check(&only(&server).await, "POST", &format!("{path}/rotate"), "", None);

    let server = answering(success(json!({"enabled": false}))).await;
    assert!(!sandbox(&server.uri()).access_token().get().await?.enabled);
    check(&only(&server).await, "GET", &path, "", None);
    let server = answering(success(json!({"enabled": false}))).await;
    assert!(!sandbox(&server.uri()).access_token().disable().await?.enabled);
    check(&only(&server).await, "DELETE", &path, "", None);

    let server = answering(fail(409, "already enabled")).await;
    let error = sandbox(&server.uri()).access_token().create().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    Ok(())
}

#[tokio::test]
async fn a_delegated_handle_sends_its_token_and_nothing_else() -> Result<()> {
    let server = answering(success(super::view("running"))).await;
    let owner = sandbox(&server.uri());
    let delegated = owner.with_token("skp_sb_planted")?;
    assert!(!format!("{delegated:?} {:?}", delegated.client()).contains("planted"));
    delegated.refresh().await?;
    owner.refresh().await?;
    let requests = server.received_requests().await.unwrap();
    assert_eq!(header(&requests[0], "x-api-key"), Some("skp_sb_planted"));
    assert_eq!(header(&requests[1], "x-api-key"), Some(KEY));
    let error = owner.with_token(" ").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    Ok(())
}

const PUBKEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

fn device() -> Value {
    json!({"id": "dev-1", "name": "laptop", "client_ip": "100.64.0.2", "pubkey": PUBKEY,
           "created_at": "2026-08-02T10:00:00Z"})
}

fn device_id() -> DeviceId {
    "dev-1".parse().unwrap()
}

#[tokio::test]
async fn devices() -> Result<()> {
    let server = answering(success(device())).await;
    let making = client(&server.uri()).create_device("laptop", PUBKEY).hostname("h").os("linux");
    assert_eq!(making.await?.view().unwrap().client_ip, "100.64.0.2");
    let body = json!({"name": "laptop", "pubkey": PUBKEY, "hostname": "h", "os": "linux"});
    check(&only(&server).await, "POST", "/v1/devices", "", Some(body));

    let server = answering(page(json!([device()]))).await;
    assert_eq!(client(&server.uri()).devices().await?[0].id(), &device_id());
    check(&only(&server).await, "GET", "/v1/devices", LIST, None);
    let server = answering(success(device())).await;
    let found = client(&server.uri()).get_device(device_id()).await?;
    check(&only(&server).await, "GET", "/v1/devices/dev-1", "", None);
    found.refresh().await?;

    let server = answering(ok()).await;
    client(&server.uri()).device(device_id()).delete().await?;
    check(&only(&server).await, "DELETE", "/v1/devices/dev-1", "", None);
    Ok(())
}

#[tokio::test]
async fn networks_and_sessions_of_a_device() -> Result<()> {
    let base = "/v1/devices/dev-1";
    let rows = json!([{"network_id": "net-1", "network_name": "mesh",
                       "attached_at": "2026-08-02T10:00:00Z"}]);
    let server = answering(success(rows)).await;
    assert_eq!(client(&server.uri()).device(device_id()).networks().await?[0].network_name, "mesh");
    check(&only(&server).await, "GET", &format!("{base}/networks"), "", None);
    let server = answering(success(json!(null))).await;
    assert!(client(&server.uri()).device(device_id()).networks().await?.is_empty());

    let server = answering(ok()).await;
    client(&server.uri()).device(device_id()).attach_network("mesh").await?;
    let body = json!({"network_id": "mesh"});
    check(&only(&server).await, "POST", &format!("{base}/networks"), "", Some(body));
    let server = answering(ok()).await;
    client(&server.uri()).device(device_id()).detach_network("mesh").await?;
    check(&only(&server).await, "DELETE", &format!("{base}/networks/mesh"), "", None);

    let session = json!({"session_id": "ses-1", "device_id": "dev-1", "relay_host_id": "h-1",
        "client_config": "[Interface]\n", "expires_at": "2026-08-02T10:01:00Z"});
    let server = answering(success(session)).await;
    let opened = client(&server.uri()).device(device_id()).open_session().await?;
    assert_eq!(opened.client_config, "[Interface]\n");
    check(&only(&server).await, "POST", &format!("{base}/sessions"), "", None);
    let id: SessionId = "ses-1".parse()?;
    let server = answering(ok()).await;
    client(&server.uri()).device(device_id()).renew_session(&id).await?;
    check(&only(&server).await, "PUT", &format!("{base}/sessions/ses-1"), "", None);
    let server = answering(ok()).await;
    client(&server.uri()).device(device_id()).close_session(&id).await?;
    check(&only(&server).await, "DELETE", &format!("{base}/sessions/ses-1"), "", None);

    let server = answering(fail(404, "session not found")).await;
    let error = client(&server.uri()).device(device_id()).renew_session(&id).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    Ok(())
}

#[tokio::test]
async fn hosts_and_usage() -> Result<()> {
    let rows = json!([{"id": "h-1", "status": "draining", "free_mib": 1, "vm_count": 2}]);
    let server = answering(page(rows)).await;
    assert_eq!(client(&server.uri()).hosts().await?[0].status, HostStatus::Draining);
    check(&only(&server).await, "GET", "/v1/hosts", LIST, None);
    let server = answering(fail(403, "administrators only")).await;
    let error = client(&server.uri()).hosts().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied);

    let server = answering(success(json!({"anything": 7}))).await;
    assert_eq!(client(&server.uri()).metrics().await?.count("anything"), Some(7));
    check(&only(&server).await, "GET", "/v1/metrics", "", None);
    let server = answering(success(json!({}))).await;
    client(&server.uri()).metrics_timeseries([("from", "a b")]).await?;
    check(&only(&server).await, "GET", "/v1/metrics/timeseries", "from=a+b", None);
    let server = answering(ResponseTemplate::new(501)).await;
    let error = client(&server.uri()).metrics().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    Ok(())
}

#[tokio::test]
async fn bad_arguments_of_resources_are_refused_before_any_traffic() {
    let server = answering(ResponseTemplate::new(500)).await;
    let (client, sandbox) = (client(&server.uri()), sandbox(&server.uri()));
    let device = client.device(device_id());
    let config = || DiskConfig::new("b", "https://s3.example.org");
    let blank = || DiskCredentials::new("AK", " ");
    let create = |name: &str| client.create_disk(name, config(), keys());
    let errors = [
        ("name", client.create_network(" ").await.map(drop).unwrap_err()),
        ("network id", client.get_network("../x").await.map(drop).unwrap_err()),
        ("network id", sandbox.attach_network("a/b").await.unwrap_err()),
        ("network id", sandbox.detach_network("").await.unwrap_err()),
        ("name", create("Data").await.map(drop).unwrap_err()),
        ("secret_key", {
            client.create_disk("data", config(), blank()).await.map(drop).unwrap_err()
        }),
        ("bucket", {
            let config = DiskConfig::new("", "https://s3.example.org");
            client.create_disk("data", config, keys()).await.map(drop).unwrap_err()
        }),
        ("endpoint", {
            let config = DiskConfig::new("b", "s3.example.org");
            client.create_disk("data", config, keys()).await.map(drop).unwrap_err()
        }),
        ("secret_key", {
            client.disk(disk_id()).rotate_credentials(blank()).await.map(drop).unwrap_err()
        }),
        ("disk id", client.get_disk("a/b").await.map(drop).unwrap_err()),
        ("mount_path", sandbox.attach_disk("data", "mnt").await.unwrap_err()),
        ("sub_path", sandbox.attach_disk("data", "/m").sub_path("..").await.unwrap_err()),
        ("disk id", sandbox.attach_disk("a/b", "/m").await.unwrap_err()),
        ("mount_path", sandbox.detach_disk("data", "").await.unwrap_err()),
        ("disk id", sandbox.detach_disk("", "/m").await.unwrap_err()),
        ("pubkey", client.create_device("a", "AAAA").await.map(drop).unwrap_err()),
        ("name", client.create_device("", PUBKEY).await.map(drop).unwrap_err()),
        ("network id", device.attach_network("a b").await.unwrap_err()),
        ("network id", device.detach_network("..").await.unwrap_err()),
    ];
    for (field, error) in errors {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.message().starts_with(field), "{field}: {error}");
        assert!(error.operation().is_some() && !error.may_have_acted(), "{error}");
    }
    assert!(server.received_requests().await.unwrap().is_empty());
}
