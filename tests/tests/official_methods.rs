//! The rest of the official crate's methods against our engine: settings, ports, templates, desktops.

use std::time::{Duration, Instant};

use createos::{
    Client, ComputerScreenOptions, CreateSandboxRequest, Error, ExecOptions, GetTemplateOptions,
    HostPublic, Instance, ListSandboxesOptions, NetworkCreateRequest, PaginationOptions,
    RunCommandRequest, TemplateCreateRequest, TemplateLogsOptions, WaitOptions,
};
use createos_local::Engine;

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0jbyYn0Qq6AvS4oPmtjPYqUYuhNPhPwoKvP1VWG0Jw";

async fn start() -> (Engine, Client, Instance) {
    let engine = Engine::builder().ephemeral().start().await.expect("the engine starts");
    let client = Client::builder().base_url(engine.url()).api_key(engine.api_key().expose());
    let client = client.without_retry().build().expect("the official client");
    let request = CreateSandboxRequest { shape: "s-1vcpu-256mb".into(), ..Default::default() };
    let sandbox = client.create_sandbox(request).await.expect("create");
    (engine, client, sandbox)
}

/// The status of an answer that says no.
#[track_caller]
fn refused<T>(outcome: Result<T, Error>) -> u16 {
    match outcome.err().expect("it was not refused") {
        Error::Api(error) => {
            assert!(!error.message.is_empty());
            error.status.as_u16()
        }
        other => panic!("not an answer of the API: {other}"),
    }
}

#[tokio::test]
async fn settings_change_and_are_seen() {
    let (engine, _, sandbox) = start().await;
    assert_eq!(sandbox.add_ssh_public_keys(vec![KEY.into()]).await.expect("keys"), 1);
    sandbox.set_ingress(true).await.expect("ingress on");
    let url = sandbox.preview_url(8000).expect("an address");
    assert!(url.host_str().expect("a host").ends_with(".localhost"), "{url}");
    sandbox.set_ingress(false).await.expect("ingress off");
    assert!(sandbox.preview_url(8000).is_err());
    let ten = Some(Duration::from_secs(600));
    sandbox.set_auto_pause(ten).await.expect("auto-pause");
    assert_eq!(sandbox.data().auto_pause_after_seconds, Some(600));
    sandbox.set_auto_pause(None).await.expect("no auto-pause");
    sandbox.refresh().await.expect("refresh");
    assert_eq!(sandbox.data().auto_pause_after_seconds, None);
    assert_eq!(sandbox.data().ssh_public_keys, [KEY]);
    engine.shutdown().await;
}

#[tokio::test]
async fn rules_and_quotas_change_and_are_seen() {
    let (engine, _, sandbox) = start().await;
    let rules = vec!["api.example.org:443".to_owned(), "203.0.113.0/24".to_owned()];
    sandbox.set_egress(rules.clone()).await.expect("rules");
    assert_eq!(sandbox.egress().await.expect("rules").rules, rules);
    assert_eq!(refused(sandbox.set_egress(vec!["https://example.org".into()]).await), 400);
    sandbox.set_egress(Vec::new()).await.expect("open");
    assert!(sandbox.egress().await.expect("rules").rules.is_empty());
    let before = sandbox.bandwidth().await.expect("bandwidth");
    let after = sandbox.recharge_bandwidth(1 << 30).await.expect("recharge");
    assert_eq!(after.quota_bytes, before.quota_bytes + (1 << 30));
    assert!(!after.capped);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_port_is_waited_for() {
    let (engine, client, sandbox) = start().await;
    let serve = "(sleep 0.3; exec python3 -m http.server 8000) >/dev/null 2>&1 </dev/null &";
    let serve = RunCommandRequest {
        command: "sh".into(),
        arguments: vec!["-c".into(), serve.into()],
        ..Default::default()
    };
    sandbox.run_command(serve, ExecOptions::default()).await.expect("serve");
    sandbox.wait_for_port(None, 8000, Duration::from_secs(20)).await.expect("it listens");
    let never = sandbox.wait_for_port(None, 8001, Duration::from_secs(1)).await;
    assert!(matches!(never, Err(Error::Timeout(_))), "{never:?}");
    sandbox.wait_until_running(WaitOptions::default()).await.expect("running");
    let paused = ListSandboxesOptions { status: Some("paused".into()), ..Default::default() };
    assert!(client.sandboxes(paused).await.expect("list").is_empty());
    let hosts: Result<Vec<HostPublic>, _> = client.hosts().await;
    assert_eq!(refused(hosts), 403);
    engine.shutdown().await;
}

#[tokio::test]
async fn templates_are_built_listed_followed_and_deleted() {
    let (engine, client, _sandbox) = start().await;
    let templates = client.templates();
    let dockerfile = "FROM nodeops/sandbox:debian\nRUN echo hello from the build >/root/said\n";
    let new = TemplateCreateRequest { name: "t".into(), dockerfile: dockerfile.into(), base: None };
    let created = templates.create(new.clone()).await.expect("an answer");
    assert_eq!(created.status.as_str(), "pending");
    assert_eq!(created.ext4_size_bytes, 0);
    assert_eq!(refused(templates.create(new).await), 409);
    let mut events =
        templates.follow_logs("t", TemplateLogsOptions::default()).await.expect("an answer");
    let (mut lines, mut end) = (Vec::new(), String::new());
    while let Some(event) = events.next().await.expect("an answer") {
        lines.push(event.line);
        if event.final_ {
            end = event.status;
        }
    }
    assert_eq!(end, "ready", "{lines:?}");
    let log = templates.logs(&created.id, TemplateLogsOptions::default()).await.expect("an answer");
    assert!(log.contains("Step 2/2 : RUN echo hello from the build"), "{log}");
    let built = templates.get("t", GetTemplateOptions::default()).await.expect("an answer");
    assert!(built.ext4_size_bytes > 0 && built.built_at.is_some());
    assert_eq!(templates.list(PaginationOptions::default()).await.expect("an answer").len(), 1);
    templates.delete("t").await.expect("an answer");
    assert_eq!(refused(templates.delete("t").await), 404);
    let bad = TemplateCreateRequest { name: "b".into(), dockerfile: "FROM x".into(), base: None };
    assert_eq!(refused(templates.create(bad).await), 400);
    engine.shutdown().await;
}

#[tokio::test]
async fn networks_are_joined_and_left() {
    let (engine, client, sandbox) = start().await;
    let networks = client.networks();
    let new = || NetworkCreateRequest { name: "mesh".into() };
    let id = networks.create(new()).await.expect("create").id;
    assert_eq!(refused(networks.create(new()).await), 400);
    sandbox.attach_network("mesh").await.expect("attach");
    let row = &networks.list(PaginationOptions::default()).await.expect("list")[0];
    assert_eq!(row.member_count, 1);
    let members = networks.get(&id).await.expect("get").members;
    assert_eq!(members[0].ip_address, "10.64.0.2");
    assert_eq!(refused(networks.delete("mesh").await), 409);
    sandbox.detach_network(&id).await.expect("detach");
    networks.delete("mesh").await.expect("delete");
    assert_eq!(refused(networks.get("mesh").await), 404);
    engine.shutdown().await;
}

#[tokio::test]
async fn a_desktop_is_seen_and_used() {
    let (engine, client, without) = start().await;
    let options = ComputerScreenOptions::default;
    assert_eq!(refused(without.computer().screen(options()).await), 501);
    let request = CreateSandboxRequest {
        shape: "s-1vcpu-1gb".into(),
        rootfs: Some("desktop:1".into()),
        ..Default::default()
    };
    let sandbox = client.create_sandbox(request).await.expect("create");
    let computer = sandbox.computer();
    let limit = Instant::now() + Duration::from_secs(60);
    let size = loop {
        match computer.screen(options()).await {
            Ok(size) => break size,
            Err(Error::Api(error)) if matches!(error.status.as_u16(), 404 | 409) => {
                assert!(Instant::now() < limit, "the desktop does not come up: {error:?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!((size.width, size.height), (1280, 800));
    computer.keyboard().press(vec!["ctrl".into(), "l".into()], options()).await.expect("press");
    computer.set_clipboard("copied", options()).await.expect("copy");
    assert_eq!(computer.clipboard(options()).await.expect("clipboard").text, "copied");
    assert!(computer.windows().list(Default::default()).await.expect("windows").is_empty());
    assert_eq!(refused(computer.windows().focus("0x7", options()).await), 404);
    let screens = computer.screens().list().await.expect("screens");
    assert_eq!((screens.len(), screens[0].novnc_port), (1, 6080));
    let picture = computer.screenshot(Default::default()).await.expect("screenshot");
    assert!(picture.bytes().await.expect("bytes").starts_with(b"\x89PNG"));
    engine.shutdown().await;
}
