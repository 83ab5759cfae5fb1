//! Promises about types: what they may be used for, how large they are, what they show.

use std::fmt::Debug;
use std::time::Duration;

use createos_sdk::{
    Attach, Client, ClientBuilder, Command, CreateSandbox, Download, DownloadFile, DownloadTo,
    Error, ExecEvent, ExecStream, Files, GuestHttp, GuestRequest, GuestResponse, Items, List,
    OpenTerminal, Operation, Output, Pending, Process, ProcessEvent, ProcessExit, ProcessId,
    ProcessStdin, ProcessStream, ReadFile, ReadText, RequestOptions, RetryPolicy, Sandbox, Secret,
    SpawnProcess, Terminal, TerminalReader, TerminalResizer, TerminalWriter, TerminateProcess,
    Tunnel, TunnelEvent, TunnelListener, TunnelStream, Upload, WaitProcess, WaitUntil, WriteFile,
    wire,
};

use super::{ID, KEY, answering, builder, client, sandbox};

const PLANTED: &str = "hunter2";

#[test]
fn types_can_be_shared_moved_and_stored() {
    fn handle<T: Clone + Debug + Send + Sync + Unpin + 'static>() {}
    fn value<T: Debug + Send + Sync + 'static>() {}
    fn stream<T: Debug + Send + Unpin + 'static>() {}
    handle::<Client>();
    handle::<ClientBuilder>();
    handle::<Sandbox>();
    handle::<Files>();
    handle::<Command>();
    handle::<CreateSandbox>();
    handle::<RequestOptions>();
    handle::<RetryPolicy>();
    handle::<Secret>();
    handle::<List<Sandbox>>();
    handle::<Output>();
    handle::<ExecEvent>();
    handle::<OpenTerminal>();
    handle::<TerminalResizer>();
    handle::<GuestHttp>();
    handle::<Process>();
    handle::<ProcessEvent>();
    handle::<ProcessExit>();
    handle::<SpawnProcess>();
    handle::<Attach>();
    handle::<WaitProcess>();
    handle::<TerminateProcess>();
    value::<Tunnel>();
    value::<TunnelEvent>();
    value::<TunnelListener>();
    value::<GuestRequest>();
    value::<Error>();
    value::<Operation<wire::WhoAmI>>();
    value::<WaitUntil>();
    value::<WriteFile>();
    value::<ReadFile>();
    value::<ReadText>();
    value::<DownloadFile>();
    value::<DownloadTo>();
    value::<Upload>();
    stream::<ExecStream>();
    stream::<Download>();
    stream::<Items<Sandbox>>();
    stream::<createos_sdk::template::LogStream>();
    handle::<createos_sdk::Template>();
    handle::<createos_sdk::Network>();
    handle::<createos_sdk::Disk>();
    handle::<createos_sdk::Device>();
    handle::<createos_sdk::ChangeState>();
    handle::<createos_sdk::ForkSandbox>();
    handle::<createos_sdk::network::CreateNetwork>();
    handle::<createos_sdk::disk::CreateDisk>();
    value::<createos_sdk::Guard<Sandbox>>();
    stream::<Pending<()>>();
    stream::<Terminal>();
    stream::<TerminalReader>();
    stream::<TerminalWriter>();
    stream::<ProcessStream>();
    stream::<ProcessStdin>();
    stream::<TunnelStream>();
    stream::<GuestResponse>();
}

#[test]
fn futures_and_results_are_small() {
    assert!(size_of::<Pending<Output>>() <= 16);
    assert_eq!(size_of::<Error>(), size_of::<usize>());
    assert!(size_of::<Sandbox>() <= 16 && size_of::<Client>() <= 16);
    assert!(size_of::<Command>() < 1024 && size_of::<CreateSandbox>() < 1024);
    assert!(size_of::<ExecStream>() < 1024 && size_of::<Download>() < 1024);
    fn size<F: Future>(_: &F) -> usize {
        size_of::<F>()
    }
    let sandbox = sandbox("http://127.0.0.1:1");
    let waiting = async {
        let stream = sandbox.command("x").stream().await?;
        stream.wait().await
    };
    assert!(size(&waiting) < 16 << 10, "{}", size(&waiting));
    assert!(size_of::<Process>() <= 16 && size_of::<ProcessStream>() < 1024);
    let process = sandbox.process("prc-1".parse::<ProcessId>().unwrap());
    let talking = async {
        let listener = sandbox.tunnel(1).listen("127.0.0.1:0").await?;
        listener.shutdown(Duration::ZERO).await;
        sandbox.http(1).get("/").await?.bytes().await?;
        drop(process.attach().await?);
        drop(sandbox.terminal().open().await?);
        drop(sandbox.terminal().open_web_socket().await?);
        process.wait().await
    };
    assert!(size(&talking) < 16 << 10, "{}", size(&talking));
}

/// Every call of the API, as a future: none is too large to be put on a stack.
#[test]
fn every_call_is_a_small_future() {
    fn check(name: &str, call: impl IntoFuture) {
        let size = size_of_val(&call.into_future());
        assert!(size < 16 << 10, "{name}: {size}");
    }
    fn checks<F: IntoFuture>(_: F) {
        let size = size_of::<F>().max(size_of::<F::IntoFuture>());
        assert!(size < 16 << 10, "{}: {size}", std::any::type_name::<F>());
    }
    let (client, sandbox) = (client("http://127.0.0.1:1"), sandbox("http://127.0.0.1:1"));
    let (files, computer) = (sandbox.files(), sandbox.computer());
    let process = sandbox.process("prc-1".parse::<ProcessId>().unwrap());
    let disk = || client.disk("disk_1".parse::<createos_sdk::DiskId>().unwrap());
    let network = client.network("net-1".parse::<createos_sdk::NetworkId>().unwrap());
    let template = client.template("tpl_1".parse::<createos_sdk::TemplateId>().unwrap());
    checks(client.whoami());
    checks(client.sandboxes());
    checks(client.create_sandbox("s"));
    checks(client.create_sandbox("s").guarded());
    checks(client.create_network("n"));
    checks(client.create_network("n").guarded());
    checks(client.create_template("t", "FROM x"));
    checks(sandbox.pause());
    checks(sandbox.fork());
    checks(sandbox.fork().guarded());
    checks(sandbox.destroy());
    checks(sandbox.wait_until(wire::SandboxStatus::Running));
    checks(sandbox.command("x"));
    check("status", sandbox.command("x").status());
    check("stream", sandbox.command("x").stream());
    checks(sandbox.spawn("x"));
    checks(process.wait());
    checks(process.terminate());
    checks(process.attach());
    checks(process.input("x"));
    checks(files.write("/x", "x"));
    checks(files.read("/x"));
    checks(files.read_string("/x"));
    checks(files.download("/x"));
    checks(files.download_to("/x", "x"));
    checks(files.upload_dir("x", "/x"));
    checks(files.download_dir("/x", "x"));
    checks(files.list("/x"));
    checks(files.rename("/x", "/y"));
    checks(files.read_excerpt("/x", 1, 1));
    checks(sandbox.wait_until_joined("n"));
    checks(sandbox.wait_until_mounted("/x"));
    checks(sandbox.tunnel(1).wait_until_open());
    checks(sandbox.tunnel(1).connect());
    checks(sandbox.tunnel(1).listen("127.0.0.1:0"));
    checks(sandbox.http(1).get("/"));
    checks(sandbox.terminal().open());
    checks(sandbox.terminal().open_web_socket());
    checks(sandbox.attach_disk("data", "/m"));
    checks(disk().delete());
    checks(network.delete());
    checks(template.wait_until_ready());
    checks(template.logs());
    checks(template.logs().follow());
    checks(computer.screenshot());
    checks(computer.wait_until_ready());
    checks(computer.mouse().click());
    checks(computer.keyboard().type_text("x"));
    checks(createos_sdk::local::pause());
}

#[track_caller]
fn shows_nothing(value: &impl Debug) {
    for text in [format!("{value:?}"), format!("{value:#?}")] {
        assert!(!text.contains(PLANTED) && !text.contains(KEY), "{text}");
    }
}

#[tokio::test]
async fn secrets_show_in_no_debug_and_no_error() {
    let server = answering(wiremock::ResponseTemplate::new(401)).await;
    let url = server.uri();
    let options = || RequestOptions::new().header("x-tenant", PLANTED);
    shows_nothing(&Secret::from(PLANTED));
    shows_nothing(&options());
    shows_nothing(
        &builder(&url)
            .access_token(PLANTED)
            .proxy(format!("http://me:{PLANTED}@127.0.0.1:1"))
            .base_url(format!("https://me:{PLANTED}@example.org")),
    );
    let client = client(&url);
    let sandbox = sandbox(&url);
    shows_nothing(&client);
    shows_nothing(&sandbox);
    shows_nothing(&sandbox.files());
    shows_nothing(&client.create_sandbox("s").env("TOKEN", PLANTED).with(options()));
    shows_nothing(&sandbox.command("x").env("TOKEN", PLANTED).stdin(PLANTED).with(options()));
    shows_nothing(&sandbox.files().write("/x", PLANTED).with(options()));
    shows_nothing(&sandbox.files().read("/x").with(options()));
    shows_nothing(&sandbox.files().download("/x").with(options()));
    shows_nothing(&sandbox.tunnel(1).with(options()));
    shows_nothing(&sandbox.terminal().with(options()));
    shows_nothing(&sandbox.spawn("x").env("TOKEN", PLANTED).with(options()));
    let process = sandbox.process("prc-1".parse::<ProcessId>().unwrap());
    shows_nothing(&process.input(PLANTED));
    shows_nothing(&process.attach().with(options()));
    shows_nothing(&process.wait().with(options()));
    shows_nothing(&process.terminate().with(options()));
    let mut stdin = process.stdin();
    let _ = tokio::io::AsyncWriteExt::write(&mut stdin, PLANTED.as_bytes()).await;
    shows_nothing(&stdin);
    shows_nothing(&wire::ProcessInput::new(PLANTED.as_bytes()));
    let request = sandbox.http(1).post(format!("/?token={PLANTED}"), PLANTED);
    shows_nothing(&request.header("x-token", PLANTED).with(options()));
    shows_nothing(&client.whoami().with(options()));
    shows_nothing(&client.sandboxes().with(options()));
    shows_nothing(&client.sandboxes().with(options()).stream());
    shows_nothing(&sandbox.wait_until(wire::SandboxStatus::Running).with(options()));
    shows_nothing(&sandbox.fork().env("TOKEN", PLANTED).with(options()));
    shows_nothing(&sandbox.pause().with(options()));
    let keys = || wire::DiskCredentials::new(PLANTED, PLANTED);
    let bucket = wire::DiskConfig::new("b", "https://s3.example.org");
    shows_nothing(&keys());
    shows_nothing(&client.create_disk("data", bucket, keys()).with(options()));
    let disk = client.disk("disk_1".parse::<createos_sdk::DiskId>().unwrap());
    shows_nothing(&disk.rotate_credentials(keys()).with(options()));
    shows_nothing(&disk.rotate_credentials(keys()).await.unwrap_err());
    shows_nothing(&sandbox.attach_disk("data", "/m").with(options()));
    shows_nothing(&sandbox.with_token(PLANTED).unwrap().access_token().create());
    shows_nothing(&createos_sdk::local::pause().reason("r").with(options()));
    let computer = sandbox.computer();
    shows_nothing(&computer.clipboard().write(PLANTED));
    shows_nothing(&computer.keyboard().type_text(PLANTED).with(options()));
    shows_nothing(&client.create_network("n").with(options()));
    shows_nothing(&client.create_template("t", "FROM x").with(options()));
    let error = sandbox.command("x").env("TOKEN", PLANTED).stdin(PLANTED).await.unwrap_err();
    shows_nothing(&error);
    assert!(!error.to_string().contains(PLANTED));

    let proxied = builder(&url).proxy(format!("http://me:{PLANTED}@127.0.0.1:1")).build().unwrap();
    let quick = RequestOptions::new().retry(RetryPolicy::none()).timeout(Duration::from_secs(5));
    let error = proxied.get_sandbox(ID.parse::<createos_sdk::SandboxId>().unwrap());
    let error = error.with(quick).await.unwrap_err();
    shows_nothing(&error);
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        assert!(!error.to_string().contains(PLANTED));
        cause = error.source();
    }
}

/// What travels: bodies that carry secrets, as the two ends hold them.
#[test]
fn secrets_show_in_no_body() {
    fn read<T: serde::de::DeserializeOwned + Debug>(json: &str) {
        let json = json.replace('$', PLANTED);
        shows_nothing(&serde_json::from_str::<T>(&json).unwrap());
    }
    read::<wire::CreateSandbox>(r#"{"shape":"s","envs":{"TOKEN":"$"}}"#);
    read::<wire::ForkSandbox>(r#"{"envs":{"TOKEN":"$"}}"#);
    read::<wire::ExecRequest>(r#"{"cmd":"x","stdin":"$","env":{"TOKEN":"$"}}"#);
    read::<wire::CreateProcess>(r#"{"cmd":"x","env":{"TOKEN":"$"}}"#);
    read::<wire::CreateDisk>(
        r#"{"name":"d","kind":"s3","config":{"bucket":"b","endpoint":"https://s3"},
            "credentials":{"access_key":"$","secret_key":"$"}}"#,
    );
    read::<wire::DiskCredentials>(r#"{"access_key":"$","secret_key":"$"}"#);
    read::<wire::AccessToken>(
        r#"{"token":"$","enabled":true,"created_at":"2026-08-02T10:00:00Z"}"#,
    );
    read::<wire::ScreenConnection>(
        r#"{"screen_id":"screen-0","port":6080,"path":"/vnc.html","token":"$",
            "url":"https://example.org/vnc.html?token=$"}"#,
    );
}
