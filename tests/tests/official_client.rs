//! The official `createos` crate, unmodified, against our engine.

use std::collections::HashMap;
use std::time::Duration;

use createos::{
    Client, CreateSandboxRequest, Error, ExecOptions, ExecStreamEventType, Instance,
    ListSandboxesOptions, ManagedProcessConnectOptions, ManagedProcessCreateRequest,
    ManagedProcessDeleteOptions, ManagedProcessKind, ManagedProcessSignal, ManagedProcessState,
    ManagedProcessWaitOptions, ManagedProcessWaitScope, PaginationOptions, PtySize, RequestOptions,
    RunCommandRequest, WaitOptions,
};
use createos_local::Engine;

struct Fixture {
    engine: Engine,
    client: Client,
}

impl Fixture {
    async fn start() -> Self {
        let engine = Engine::builder().ephemeral().start().await.expect("the engine starts");
        let client = Client::builder()
            .base_url(engine.url())
            .api_key(engine.api_key().expose())
            .build()
            .expect("the official client");
        Self { engine, client }
    }

    async fn create(&self, name: &str) -> Instance {
        let request = CreateSandboxRequest {
            shape: "s-1vcpu-256mb".into(),
            name: Some(name.into()),
            environment_variables: HashMap::from([("STAGE".into(), "dev".into())]),
            ..Default::default()
        };
        self.client.create_sandbox(request).await.expect("create")
    }
}

fn run(command: &str, arguments: &[&str]) -> RunCommandRequest {
    RunCommandRequest {
        command: command.into(),
        arguments: arguments.iter().map(|argument| (*argument).into()).collect(),
        ..Default::default()
    }
}

fn status_of(error: Error) -> u16 {
    match error {
        Error::Api(error) => error.status.as_u16(),
        other => panic!("not an answer of the API: {other}"),
    }
}

#[tokio::test]
async fn a_whole_life() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.create("whole-life").await;
    assert_eq!(sandbox.status().as_str(), "running");
    assert_eq!(sandbox.name().as_deref(), Some("whole-life"));
    assert!(sandbox.ip_address().is_some());
    sandbox.refresh().await.expect("refresh");

    let out = sandbox.run_command(run("bash", &["-lc", "echo $STAGE"]), ExecOptions::default());
    let out = out.await.expect("exec");
    assert_eq!((out.result.standard_output.as_str(), out.result.exit_code), ("dev\n", 0));
    let shell = sandbox.shell("echo out; echo err >&2; exit 3").await;
    assert!(matches!(shell, Err(Error::Command(_))), "{shell:?}");

    let ip = sandbox.ip_address().expect("an address");
    let found = fixture.client.sandbox_by_ip(&ip).await.expect("by address");
    assert_eq!(found.id(), sandbox.id());
    assert_eq!(fixture.client.sandbox(&sandbox.id()).await.expect("get").id(), sandbox.id());
    let listed = fixture.client.sandboxes(ListSandboxesOptions::default()).await.expect("list");
    assert_eq!(listed.iter().map(Instance::id).collect::<Vec<_>>(), [sandbox.id()]);

    sandbox.destroy().await.expect("destroy");
    let wait = WaitOptions { timeout: Duration::from_secs(10), ..Default::default() };
    sandbox.wait_until_destroyed(wait).await.expect("destroyed");
    sandbox.destroy().await.expect("destroy again");
    fixture.engine.shutdown().await;
}

#[tokio::test]
async fn streamed_output_arrives_in_order_and_ends_with_the_code() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.create("streamer").await;
    let script = "for i in 1 2 3; do echo line $i; sleep 0.05; done; echo grüße >&2; exit 4";
    let mut stream = sandbox
        .stream_command(run("sh", &["-c", script]), ExecOptions::default())
        .await
        .expect("stream");
    let (mut out, mut err, mut code) = (String::new(), String::new(), None);
    while let Some(event) = stream.next().await.expect("an event") {
        match event.kind.as_str() {
            ExecStreamEventType::STDOUT => out.push_str(&event.data),
            ExecStreamEventType::STDERR => err.push_str(&event.data),
            ExecStreamEventType::EXIT => code = event.exit_code,
            other => panic!("unexpected {other}"),
        }
    }
    assert_eq!((out.as_str(), err.as_str()), ("line 1\nline 2\nline 3\n", "grüße\n"));
    assert_eq!(code, Some(4));
    fixture.engine.shutdown().await;
}

#[tokio::test]
async fn files_go_up_and_come_down() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.create("files").await;
    let content: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
    let options = RequestOptions::default();
    let files = sandbox.files();
    files.upload("/work/a b/ü.bin", content.clone(), &options).await.expect("upload");
    let response = files.download("/work/a b/ü.bin", &options).await.expect("download");
    assert_eq!(response.bytes().await.expect("content"), content);

    let missing = files.download("/nowhere", &options).await.expect_err("missing");
    assert_eq!(status_of(missing), 404);
    let directory = files.download("/work", &options).await.expect_err("a directory");
    assert_eq!(status_of(directory), 400);
    let relative = files.upload("work/x", "x", &options).await.expect_err("relative");
    assert_eq!(status_of(relative), 400);
    fixture.engine.shutdown().await;
}

#[tokio::test]
async fn catalog_identity_and_service_answer() {
    let fixture = Fixture::start().await;
    let client = &fixture.client;
    assert!(client.health().await.expect("health").up);
    assert!(client.readiness().await.expect("readiness").ready);
    let shapes = client.shapes().await.expect("shapes");
    for shape in ["s-1vcpu-256mb", "s-1vcpu-1gb", "s-2vcpu-2gb", "s-2vcpu-4gb", "s-4vcpu-4gb"] {
        assert!(shapes.iter().any(|known| known.id == shape), "{shape}");
    }
    let rootfs = client.root_file_systems().await.expect("rootfs");
    assert_eq!(rootfs.default, "devbox:1");
    assert_eq!(client.who_am_i().await.expect("whoami").stats.total, 0);
    let sandbox = fixture.create("settings").await;
    assert!(sandbox.disks(PaginationOptions::default()).await.expect("disks").is_empty());
    assert_eq!(sandbox.bandwidth().await.expect("bandwidth").quota_bytes, 5_368_709_120);
    assert!(sandbox.egress().await.expect("egress").rules.is_empty());
    assert_eq!(client.who_am_i().await.expect("whoami").stats.running, 1);
    fixture.engine.shutdown().await;
}

#[tokio::test]
async fn refusals_carry_status_and_text() {
    let fixture = Fixture::start().await;
    let client = &fixture.client;
    let sandbox = fixture.create("taken").await;
    let create = |request: CreateSandboxRequest| async {
        match client.create_sandbox(request).await.err().expect("refused") {
            Error::Api(error) => (error.status.as_u16(), error.message.clone()),
            other => panic!("not an answer of the API: {other}"),
        }
    };
    let request = |shape: &str| CreateSandboxRequest { shape: shape.into(), ..Default::default() };

    let (status, message) = create(request("s-9vcpu-1gb")).await;
    assert_eq!(status, 400);
    assert!(message.contains("s-9vcpu-1gb"), "{message}");
    let unknown = CreateSandboxRequest { rootfs: Some("nope:1".into()), ..request("s-1vcpu-1gb") };
    assert_eq!(create(unknown).await.0, 400);
    let taken = CreateSandboxRequest { name: Some("taken".into()), ..request("s-1vcpu-1gb") };
    assert_eq!(create(taken).await.0, 409);
    let bad_key = HashMap::from([("1BAD".into(), "x".into())]);
    let bad_env = CreateSandboxRequest { environment_variables: bad_key, ..request("s-1vcpu-1gb") };
    assert_eq!(create(bad_env).await.0, 400);

    let mut undeclared = run("env", &[]);
    undeclared.environment_variables.insert("NEW".into(), "1".into());
    let refused = sandbox.run_command(undeclared, ExecOptions::default()).await;
    assert_eq!(status_of(refused.expect_err("undeclared")), 400);
    let missing = sandbox.run_command(run("no-such-program", &[]), ExecOptions::default()).await;
    let missing = missing.expect("a result, not a failure");
    assert_eq!(missing.result.exit_code, 127);
    assert!(!missing.result.error_message.is_empty());

    let nobody = client.sandbox("sb-00000000000000000000000000").await;
    assert_eq!(status_of(nobody.err().expect("unknown")), 404);
    let stranger = Client::builder().base_url(fixture.engine.url()).api_key("skp_wrong").build();
    let stranger = stranger.expect("client").who_am_i().await.expect_err("wrong key");
    assert_eq!(status_of(stranger), 401);

    sandbox.destroy().await.expect("destroy");
    let gone = sandbox.run_command(run("true", &[]), ExecOptions::default()).await;
    assert_eq!(status_of(gone.expect_err("destroyed")), 409);
    fixture.engine.shutdown().await;
}

#[tokio::test]
async fn managed_processes_through_every_method() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.create("processes").await;
    let processes = sandbox.processes();
    let request = ManagedProcessCreateRequest {
        command: "bash".into(),
        arguments: vec!["-c".into(), "echo $STAGE$NEW $PWD; cat; exit 3".into()],
        working_directory: Some("/usr".into()),
        environment_variables: HashMap::from([("NEW".into(), "1".into())]),
        pty: None,
    };
    let process = processes.create(request).await.expect("create");
    let id = process.process_id.as_str();
    assert_eq!(process.state.as_str(), ManagedProcessState::RUNNING);
    assert_eq!(process.kind.as_str(), ManagedProcessKind::PROCESS);
    assert_eq!(processes.list().await.expect("list").len(), 1);
    assert_eq!(processes.get(id).await.expect("get").pid, process.pid);

    assert_eq!(processes.input(id, "typed\n").await.expect("input"), 1);
    processes.close_stdin(id).await.expect("close");
    let ended = processes.wait(id, ManagedProcessWaitOptions::default()).await.expect("wait");
    assert_eq!((ended.leader_exited, ended.exit_code), (true, Some(3)));
    let mut stream =
        processes.connect(id, ManagedProcessConnectOptions::default()).await.expect("connect");
    let (mut output, mut exit) = (Vec::new(), None);
    while let Some(event) = stream.next().await.expect("an event") {
        output.extend(event.data);
        exit = event.exit_code.or(exit);
    }
    assert_eq!(String::from_utf8_lossy(&output), "dev1 /usr\ntyped\n");
    assert_eq!(exit, Some(3));

    let request = ManagedProcessCreateRequest {
        pty: Some(PtySize { rows: 24, cols: 80 }),
        ..Default::default()
    };
    let shell = processes.create(request).await.expect("a shell");
    let id = shell.process_id.as_str();
    assert_eq!(shell.kind.as_str(), ManagedProcessKind::PTY);
    processes.resize(id, PtySize { rows: 32, cols: 100 }).await.expect("resize");
    processes.input(id, "stty size; exec sleep 7000\r").await.expect("input");
    let mut stream =
        processes.connect(id, ManagedProcessConnectOptions::default()).await.expect("connect");
    let mut screen = String::new();
    while !screen.contains("32 100\r\n") {
        let event = stream.next().await.expect("an event").expect("it goes on");
        screen.push_str(&String::from_utf8_lossy(&event.data));
    }
    processes.signal(id, ManagedProcessSignal::WINDOW_CHANGE.into()).await.expect("signal");
    let grace =
        ManagedProcessDeleteOptions { grace_period: Some(Duration::ZERO), ..Default::default() };
    let deleted = processes.delete(id, grace).await.expect("delete");
    assert!(deleted.tree_exited && deleted.signal.as_deref() == Some("SIGKILL"), "{deleted:?}");
    let waiting = ManagedProcessWaitOptions {
        scope: Some(ManagedProcessWaitScope::TREE.into()),
        wait_timeout: Some(Duration::from_secs(1)),
        ..Default::default()
    };
    assert!(processes.wait(id, waiting).await.expect("wait").tree_exited);
    assert_eq!(status_of(processes.get("prc-unknown").await.expect_err("unknown")), 404);
    fixture.engine.shutdown().await;
}
