//! Calls that concern the account.

use std::time::Duration;

use createos::{
    DiskCreateRequest, GetTemplateOptions, ListSandboxesOptions, NetworkCreateRequest,
    PaginationOptions, TemplateCreateRequest, TemplateLogsOptions,
};
use createos_sdk::wire::{DiskConfig, DiskCredentials, SandboxStatus};
use createos_sdk::{DiskId, NetworkId, TemplateId};

use super::recorder::Pair;

pub(crate) async fn run(pair: &mut Pair) {
    let (theirs, ours) = (pair.theirs.clone(), pair.ours.clone());
    pair.same("health", theirs.health(), ours.health()).await;
    pair.same("readiness", theirs.readiness(), ours.readiness()).await;
    pair.same("whoami", theirs.who_am_i(), ours.whoami()).await;
    pair.same("shapes", theirs.shapes(), ours.shapes()).await;
    pair.same("rootfs", theirs.root_file_systems(), ours.rootfs()).await;
    pair.same("hosts", theirs.hosts(), ours.hosts()).await;
    let all = ListSandboxesOptions::default();
    pair.same("sandboxes", theirs.sandboxes(all), ours.sandboxes()).await;
    let paused = ListSandboxesOptions { status: Some("paused".into()), ..Default::default() };
    let list = ours.sandboxes().status(SandboxStatus::Paused);
    pair.same("sandboxes.paused", theirs.sandboxes(paused), list).await;
    let ip = "10.0.0.2";
    let by_ip = ours.sandbox_by_ip(ip.parse().unwrap());
    pair.same("sandbox_by_ip", theirs.sandbox_by_ip(ip), by_ip).await;
    create(pair).await;
    networks(pair).await;
    disks(pair).await;
    templates(pair).await;
}

async fn create(pair: &mut Pair) {
    let (theirs, ours) = (pair.theirs.clone(), pair.ours.clone());
    let plain = createos::CreateSandboxRequest { shape: "s".into(), ..Default::default() };
    pair.same("create.plain", theirs.create_sandbox(plain), ours.create_sandbox("s")).await;
    let full = createos::CreateSandboxRequest {
        shape: "s".into(),
        rootfs: Some("devbox:1".into()),
        name: Some("demo".into()),
        networks: vec![createos::NetworkEntry { id: "net-1".into() }],
        disk_mib: Some(20480),
        egress_rules: vec!["api.example.org:443".into()],
        environment_variables: [("STAGE".into(), "dev".into())].into(),
        ssh_public_keys: vec!["ssh-ed25519 AAAA".into()],
        host_id: None,
        node_selector: [("zone".into(), "a".into())].into(),
        ingress_enabled: true,
        disks: vec![createos::DiskAttachment {
            disk_id: "disk_1".into(),
            mount_path: "/mnt".into(),
            sub_path: Some("part".into()),
        }],
        region: Some("us".into()),
        auto_pause_after_seconds: Some(600),
    };
    let create = ours
        .create_sandbox("s")
        .rootfs("devbox:1")
        .name("demo")
        .network("net-1".parse::<NetworkId>().unwrap())
        .disk_mib(20480)
        .egress(["api.example.org:443"])
        .env("STAGE", "dev")
        .ssh_pubkey("ssh-ed25519 AAAA")
        .node_selector("zone", "a")
        .ingress(true)
        .disk_part("disk_1".parse::<DiskId>().unwrap(), "/mnt", "part")
        .region("us")
        .auto_pause_after(Duration::from_secs(600));
    pair.same("create.full", theirs.create_sandbox(full), create).await;
}

async fn networks(pair: &mut Pair) {
    let (theirs, ours) = (pair.theirs.networks(), pair.ours.clone());
    let new = NetworkCreateRequest { name: "mesh".into() };
    pair.same("networks.create", theirs.create(new), ours.create_network("mesh")).await;
    let page = PaginationOptions::default();
    pair.same("networks.list", theirs.list(page), ours.networks()).await;
    let id = || "net-1".parse::<NetworkId>().unwrap();
    pair.same("networks.get", theirs.get("net-1"), ours.get_network("net-1")).await;
    pair.same("networks.delete", theirs.delete("net-1"), ours.network(id()).delete()).await;
}

async fn disks(pair: &mut Pair) {
    let (theirs, ours) = (pair.theirs.disks(), pair.ours.clone());
    let keys = || createos::DiskCredentials { access_key: "a".into(), secret_key: "s".into() };
    let new = DiskCreateRequest {
        name: "data".into(),
        kind: "s3".into(),
        config: createos::DiskConfig {
            bucket: "b".into(),
            endpoint: "https://s3.example.org".into(),
            region: Some("auto".into()),
            use_path_style: true,
        },
        credentials: keys(),
    };
    let mut bucket = DiskConfig::new("b", "https://s3.example.org");
    bucket.region = Some("auto".to_owned());
    bucket.use_path_style = true;
    let create = ours.create_disk("data", bucket, DiskCredentials::new("a", "s"));
    pair.same("disks.create", theirs.create(new), create).await;
    let page = PaginationOptions::default();
    pair.same("disks.list", theirs.list(page), ours.disks()).await;
    let disk = ours.disk("disk_1".parse::<DiskId>().unwrap());
    pair.same("disks.get", theirs.get("disk_1"), ours.get_disk("disk_1")).await;
    let rotate = disk.rotate_credentials(DiskCredentials::new("a", "s"));
    pair.same("disks.rotate", theirs.rotate_credentials("disk_1", keys()), rotate).await;
    pair.same("disks.delete", theirs.delete("disk_1"), disk.delete()).await;
}

async fn templates(pair: &mut Pair) {
    let (theirs, ours) = (pair.theirs.templates(), pair.ours.clone());
    let new = TemplateCreateRequest {
        name: "t".into(),
        dockerfile: "FROM nodeops/sandbox:debian".into(),
        base: Some("devbox:1".into()),
    };
    let create = ours.create_template("t", "FROM nodeops/sandbox:debian").base("devbox:1");
    pair.same("template.create", theirs.create(new), create).await;
    let page = PaginationOptions::default();
    pair.same("template.list", theirs.list(page), ours.templates()).await;
    let plain = GetTemplateOptions::default();
    pair.same("template.get", theirs.get("tpl_1", plain), ours.get_template("tpl_1")).await;
    let template = ours.template("tpl_1".parse::<TemplateId>().unwrap());
    let include = GetTemplateOptions { include: Some("dockerfile".into()), ..Default::default() };
    pair.same("template.dockerfile", theirs.get("tpl_1", include), template.dockerfile()).await;
    let attempt = || TemplateLogsOptions { attempt: Some(2), ..Default::default() };
    let logs = || template.logs().attempt(2);
    pair.same("template.logs", theirs.logs("tpl_1", attempt()), logs()).await;
    pair.same("template.follow", theirs.follow_logs("tpl_1", attempt()), logs().follow()).await;
    pair.same("template.delete", theirs.delete("tpl_1"), template.delete()).await;
}
