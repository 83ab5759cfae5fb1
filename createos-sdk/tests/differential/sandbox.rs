//! Calls that concern one sandbox.

use std::time::Duration;

use createos::{
    AttachDiskOptions, DetachDiskOptions, ExecOptions, ForkSandboxRequest,
    ManagedProcessConnectOptions, ManagedProcessCreateRequest, ManagedProcessDeleteOptions,
    ManagedProcessWaitOptions, PaginationOptions, PtySize, RequestOptions, RunCommandRequest,
};
use createos_sdk::wire::Signal;
use createos_sdk::{DiskId, ProcessId};

use super::recorder::Pair;

pub(crate) async fn run(pair: &mut Pair) {
    life(pair).await;
    settings(pair).await;
    commands(pair).await;
    processes(pair).await;
}

async fn life(pair: &mut Pair) {
    let (theirs, ours) = (pair.instance.clone(), pair.sandbox.clone());
    pair.same("sandbox.refresh", theirs.refresh(), ours.refresh()).await;
    pair.same("sandbox.pause", theirs.pause(), ours.pause().no_wait()).await;
    pair.same("sandbox.resume", theirs.resume(), ours.resume().no_wait()).await;
    let plain = ForkSandboxRequest::default();
    pair.same("sandbox.fork", theirs.fork(plain), ours.fork().no_wait()).await;
    let full = ForkSandboxRequest {
        start_paused: true,
        ssh_public_keys: Some(vec!["ssh-ed25519 AAAA".into()]),
        egress_rules: Some(vec!["*".into()]),
        ingress_enabled: Some(false),
        environment_variables: Some([("SEED".into(), "2".into())].into()),
    };
    let fork = ours
        .fork()
        .start_paused()
        .ssh_pubkey("ssh-ed25519 AAAA")
        .egress(["*"])
        .ingress(false)
        .env("SEED", "2")
        .no_wait();
    pair.same("sandbox.fork.full", theirs.fork(full), fork).await;
    pair.same("sandbox.destroy", theirs.destroy(), ours.destroy()).await;
}

async fn settings(pair: &mut Pair) {
    let (theirs, ours) = (pair.instance.clone(), pair.sandbox.clone());
    pair.same("sandbox.resize", theirs.resize(20480), ours.resize(20480)).await;
    pair.same("sandbox.set_ingress", theirs.set_ingress(true), ours.set_ingress(true)).await;
    let ten = Some(Duration::from_secs(600));
    pair.same("sandbox.set_auto_pause", theirs.set_auto_pause(ten), ours.set_auto_pause(ten)).await;
    let off = (theirs.set_auto_pause(None), ours.set_auto_pause(None));
    pair.same("sandbox.disable_auto_pause", off.0, off.1).await;
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0jbyYn0Qq6AvS4oPmtjPYqUYuhNPhPwoKvP1VWG0Jw";
    let keys = (theirs.add_ssh_public_keys(vec![key.into()]), ours.add_ssh_pubkeys([key]));
    pair.same("sandbox.ssh_pubkeys", keys.0, keys.1).await;
    pair.same("sandbox.egress", theirs.egress(), ours.egress()).await;
    let rules = vec!["api.example.org:443".to_owned()];
    let set = (theirs.set_egress(rules.clone()), ours.set_egress(rules));
    pair.same("sandbox.set_egress", set.0, set.1).await;
    pair.same("sandbox.bandwidth", theirs.bandwidth(), ours.bandwidth()).await;
    let gib = 1 << 30;
    let recharge = (theirs.recharge_bandwidth(gib), ours.recharge_bandwidth(gib as u64));
    pair.same("sandbox.recharge", recharge.0, recharge.1).await;
    let net = "net-1";
    pair.same("sandbox.attach_network", theirs.attach_network(net), ours.attach_network(net)).await;
    pair.same("sandbox.detach_network", theirs.detach_network(net), ours.detach_network(net)).await;
    let page = PaginationOptions::default();
    pair.same("sandbox.disks", theirs.disks(page), ours.disks()).await;
    let attach = AttachDiskOptions {
        disk_id: "disk_1".into(),
        mount_path: "/mnt/data".into(),
        sub_path: Some("part".into()),
    };
    let disk = "disk_1".parse::<DiskId>().unwrap();
    let ours_attach = ours.attach_disk(&disk, "/mnt/data").sub_path("part").no_wait();
    pair.same("sandbox.attach_disk", theirs.attach_disk(attach), ours_attach).await;
    let detach = DetachDiskOptions { disk_id: "disk_1".into(), mount_path: "/mnt/data".into() };
    let ours_detach = ours.detach_disk(&disk, "/mnt/data");
    pair.same("sandbox.detach_disk", theirs.detach_disk(detach), ours_detach).await;
}

async fn commands(pair: &mut Pair) {
    let (theirs, ours) = (pair.instance.clone(), pair.sandbox.clone());
    let uname = || RunCommandRequest { command: "uname".into(), ..Default::default() };
    let plain = ExecOptions::default;
    let run = theirs.run_command(uname(), plain());
    pair.same("sandbox.run", run, ours.command("uname").output()).await;
    let full = RunCommandRequest {
        command: "sh".into(),
        arguments: vec!["-c".into(), "x".into()],
        standard_input: Some("in".into()),
        environment_variables: [("STAGE".into(), "dev".into())].into(),
        stream: false,
    };
    let command = || ours.command("sh").args(["-c", "x"]).stdin("in").env("STAGE", "dev");
    // What is given as an option wins over what is in the request.
    let options = || ExecOptions {
        standard_input: Some("in".into()),
        environment_variables: Some([("STAGE".into(), "dev".into())].into()),
        ..Default::default()
    };
    let run = theirs.run_command(full.clone(), options());
    pair.same("sandbox.run.full", run, command().output()).await;
    let shell = ours.command("bash").args(["-lc", "echo hi"]).output();
    pair.same("sandbox.shell", theirs.shell("echo hi"), shell).await;
    let stream = theirs.stream_command(full, options());
    pair.same("sandbox.stream", stream, command().stream()).await;
    let none = RequestOptions::default();
    let files = theirs.files();
    let upload = files.upload("/a b/ü+", "hi", &none);
    pair.same("files.upload", upload, ours.files().write("/a b/ü+", "hi")).await;
    let download = files.download("/a b/ü+", &none);
    pair.same("files.download", download, ours.files().read("/a b/ü+")).await;
}

async fn processes(pair: &mut Pair) {
    let (theirs, ours) = (pair.instance.processes(), pair.sandbox.clone());
    let plain = ManagedProcessCreateRequest { command: "x".into(), ..Default::default() };
    pair.same("process.create", theirs.create(plain), ours.spawn("x")).await;
    let full = ManagedProcessCreateRequest {
        command: "bash".into(),
        arguments: vec!["-l".into()],
        working_directory: Some("/work".into()),
        environment_variables: [("A".into(), "b".into())].into(),
        pty: Some(PtySize { rows: 24, cols: 80 }),
    };
    let spawn = ours.spawn("bash").arg("-l").cwd("/work").env("A", "b").pty(24, 80);
    pair.same("process.create.full", theirs.create(full), spawn).await;
    pair.same("process.list", theirs.list(), ours.processes()).await;
    let process = ours.process("prc-1".parse::<ProcessId>().unwrap());
    pair.same("process.get", theirs.get("prc-1"), process.refresh()).await;
    let after = ManagedProcessConnectOptions { after_sequence: 7, ..Default::default() };
    pair.same("process.connect", theirs.connect("prc-1", after), process.attach().after(7)).await;
    pair.same("process.input", theirs.input("prc-1", "ls\n"), process.input("ls\n")).await;
    pair.same("process.close_stdin", theirs.close_stdin("prc-1"), process.close_stdin()).await;
    let size = PtySize { rows: 32, cols: 100 };
    pair.same("process.resize", theirs.resize("prc-1", size), process.resize(32, 100)).await;
    let interrupt = theirs.signal("prc-1", "SIGINT".into());
    pair.same("process.signal", interrupt, process.signal(Signal::Interrupt)).await;
    let wait = ManagedProcessWaitOptions {
        scope: Some("tree".into()),
        wait_timeout: Some(Duration::from_secs(300)),
        ..Default::default()
    };
    let limit = Duration::from_secs(300);
    let waiting = process.wait().tree().limit(limit);
    pair.same("process.wait", theirs.wait("prc-1", wait), waiting).await;
    let grace = Duration::from_millis(500);
    let delete = ManagedProcessDeleteOptions { grace_period: Some(grace), ..Default::default() };
    let terminate = process.terminate().grace(grace);
    pair.same("process.delete", theirs.delete("prc-1", delete), terminate).await;
}
