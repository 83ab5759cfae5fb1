//! The SDK on the real engine: what a program can do with a sandbox.

use std::time::Duration;

use createos_sdk::wire::SandboxStatus;
use createos_sdk::{ErrorKind, ExecEvent, Sandbox};
use createos_tests::{EngineProcess, Fixture, sh, until};
use futures::StreamExt;

#[tokio::test]
async fn a_sandbox_lives_and_goes() {
    let fixture = Fixture::start().await;
    let client = &fixture.client;
    let sandbox = client.create_sandbox("s-1vcpu-256mb").name("my-box").await.expect("create");
    let view = sandbox.refresh().await.expect("view");
    assert_eq!(view.status, SandboxStatus::Running);
    assert_eq!(view.name.as_deref(), Some("my-box"));
    assert_eq!((view.vcpu, view.mem_mib), (Some(1), Some(256)));
    assert_eq!(sh(&sandbox, "hostname").await, "my-box\n");

    let listed = client.sandboxes().await.expect("list");
    assert_eq!(listed.len(), 1);
    assert_eq!(listed[0].id(), sandbox.id());
    let taken = client.create_sandbox("s-1vcpu-256mb").name("my-box").await.expect_err("taken");
    assert_eq!(taken.kind(), ErrorKind::Conflict);

    sandbox.destroy().await.expect("destroy");
    sandbox.destroy().await.expect("destroy again");
    let exec = sandbox.command("true").output().await.expect_err("destroyed");
    assert_eq!(exec.kind(), ErrorKind::Conflict);
    client.create_sandbox("s-1vcpu-256mb").name("my-box").await.expect("the name is free again");
    fixture.end().await;
}

#[tokio::test]
async fn commands_report_exactly_what_happened() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let output = sandbox.command("sh").args(["-c", "echo out; echo err >&2; exit 42"]).output();
    let output = output.await.expect("exec");
    assert_eq!((&output.stdout[..], &output.stderr[..]), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(output.status.code(), 42);

    let killed = sandbox.command("sh").args(["-c", "kill -9 $$"]).output().await.expect("exec");
    assert_eq!(killed.status.code(), 137);

    let missing = sandbox.command("no-such-program").output().await.expect("a result");
    assert_eq!(missing.status.code(), 127);
    assert!(missing.error.expect("a reason").contains("no-such-program"));

    let echoed = sandbox.command("cat").stdin("over\nand out").output().await.expect("exec");
    assert_eq!(echoed.stdout_str().expect("text"), "over\nand out");
    let staged = sandbox.command("sh").args(["-c", "echo $STAGE"]).env("STAGE", "other");
    assert_eq!(staged.output().await.expect("exec").stdout_str().expect("text"), "other\n");
    assert_eq!(sh(&sandbox, "echo $STAGE").await, "test\n");
    let undeclared = sandbox.command("true").env("NEW", "1").output().await.expect_err("refused");
    assert_eq!(undeclared.kind(), ErrorKind::InvalidArgument);
    fixture.end().await;
}

#[tokio::test]
async fn output_is_exact_to_the_byte() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let script = "head -c 300000 /dev/urandom > /tmp/random; cat /tmp/random";
    let output = sandbox.command("sh").args(["-c", script]).output().await.expect("exec");
    let file = sandbox.files().read("/tmp/random").await.expect("read");
    assert_eq!(output.stdout, file);

    let mut streamed = Vec::new();
    let mut events = sandbox.command("cat").arg("/tmp/random").stream().await.expect("stream");
    while let Some(event) = events.next().await {
        if let ExecEvent::Stdout(bytes) = event.expect("event") {
            streamed.extend_from_slice(&bytes);
        }
    }
    assert_eq!(streamed, file);
    fixture.end().await;
}

#[tokio::test]
async fn a_stream_comes_as_it_is_written_and_dropping_it_kills() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let script = "echo first; sleep 4321; echo never";
    let mut events = sandbox.command("sh").args(["-c", script]).stream().await.expect("stream");
    let first = tokio::time::timeout(Duration::from_secs(5), events.next()).await;
    let first = first.expect("at once").expect("an event").expect("no error");
    assert!(matches!(first, ExecEvent::Stdout(bytes) if bytes == "first\n"));
    sleepers(&sandbox, "1\n").await;
    drop(events);
    sleepers(&sandbox, "0\n").await;
    fixture.end().await;
}

/// Waits until so many processes called `sleep` run.
async fn sleepers(sandbox: &Sandbox, wanted: &str) {
    let mut found = String::new();
    for _ in 0..100 {
        found = sh(sandbox, "pgrep -c -x sleep").await;
        if found == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(found, wanted);
}

#[tokio::test]
async fn a_background_child_holds_the_call_only_with_its_pipes() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let detached = "nohup setsid sleep 600 >/dev/null 2>&1 </dev/null & echo started";
    assert_eq!(sh(&sandbox, detached).await, "started\n");
    // It becomes `sleep` a moment after the shell has gone.
    sleepers(&sandbox, "1\n").await;
    let began = std::time::Instant::now();
    assert_eq!(sh(&sandbox, "(sleep 0.5; echo late) & echo early").await, "early\nlate\n");
    assert!(began.elapsed() >= Duration::from_millis(500));
    fixture.end().await;
}

#[tokio::test]
async fn files_keep_every_byte_and_replace_whole() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let files = sandbox.files();
    for content in [vec![], vec![0], (0..=255u8).cycle().take(5_000_000).collect()] {
        files.write("/deep/er/ü \"x\".bin", content.clone()).await.expect("write");
        assert_eq!(files.read("/deep/er/ü \"x\".bin").await.expect("read"), content);
    }
    let missing = files.read("/missing").await.expect_err("missing");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    let directory = files.read("/deep").await.expect_err("a directory");
    assert_eq!(directory.kind(), ErrorKind::InvalidArgument);
    let over = files.write("/deep", "x").await.expect_err("a directory");
    assert_eq!(over.kind(), ErrorKind::InvalidArgument);
    let device = files.read("/dev/null").await.expect_err("a device");
    assert_eq!(device.kind(), ErrorKind::InvalidArgument);

    sh(&sandbox, "ln -s /etc/hostname /tmp/inside; ln -s ../../../../etc/passwd /tmp/up").await;
    let name = files.read_string("/tmp/inside").await.expect("read through a link");
    assert_eq!(name, sh(&sandbox, "cat /etc/hostname").await);
    let passwd = files.read_string("/tmp/up").await.expect("links resolve inside");
    assert_eq!(passwd, sh(&sandbox, "cat /etc/passwd").await);

    let local = tempfile::tempdir().expect("directory");
    let target = local.path().join("copy");
    std::fs::write(&target, "old").expect("an old file");
    files.download_to("/missing", &target).await.expect_err("missing");
    assert_eq!(std::fs::read_to_string(&target).expect("file"), "old");
    files.download_to("/etc/hostname", &target).await.expect("download");
    assert_eq!(std::fs::read_to_string(&target).expect("file"), name);
    fixture.end().await;
}

#[tokio::test]
async fn sandboxes_do_not_see_each_other() {
    let fixture = Fixture::start().await;
    let (one, two) = tokio::join!(fixture.sandbox(), fixture.sandbox());
    sh(&one, "echo secret > /tmp/secret; python3 -m http.server -d / 8000 >/dev/null 2>&1 &").await;
    assert_eq!(sh(&two, "cat /tmp/secret 2>/dev/null; pgrep -f '[h]ttp.server'").await, "");
    let address = one.refresh().await.expect("view").ip.clone().expect("an address");
    let ask = format!("curl -s -m 5 http://{address}:8000/ | grep -c '<title>'");
    until(&one, &ask, "1\n").await;
    // The way out may take the connection before it is refused; no word goes through.
    assert_eq!(sh(&two, &ask).await, "0\n");
    fixture.end().await;
}

#[tokio::test]
async fn a_restarted_engine_knows_its_sandboxes() {
    let data = tempfile::tempdir().expect("directory");
    let start = || async {
        let engine = createos_local::Engine::builder().data_dir(data.path()).start().await;
        engine.expect("the engine starts")
    };
    let engine = start().await;
    let sandbox = engine.client().create_sandbox("s-1vcpu-256mb").name("keeper").await;
    let sandbox = sandbox.expect("create");
    let id = sandbox.id().clone();
    sandbox.files().write("/root/kept", "still here").await.expect("write");
    let gone = engine.client().create_sandbox("s-1vcpu-256mb").await.expect("create");
    gone.destroy().await.expect("destroy");
    let key = engine.api_key().expose().to_owned();
    engine.shutdown().await;

    let engine = start().await;
    assert_eq!(engine.api_key().expose(), key, "the key is kept");
    let sandbox = engine.client().sandbox(id);
    assert_eq!(sandbox.refresh().await.expect("view").status, SandboxStatus::Error);
    let refused = sandbox.command("true").output().await.expect_err("not running");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    sandbox.resume().await.expect("resume");
    sandbox.wait_until(SandboxStatus::Running).await.expect("running");
    assert_eq!(sandbox.files().read("/root/kept").await.expect("read"), "still here");
    sandbox.destroy().await.expect("destroy");
    engine.shutdown().await;
}

#[tokio::test]
async fn twenty_at_once() {
    let fixture = Fixture::start().await;
    let work = (0..20).map(|n| {
        let fixture = &fixture;
        async move {
            let sandbox = fixture.sandbox().await;
            assert_eq!(sh(&sandbox, &format!("echo {n}")).await, format!("{n}\n"));
            sandbox.destroy().await.expect("destroy");
        }
    });
    futures::future::join_all(work).await;
    fixture.end().await;
}

#[tokio::test]
async fn what_the_engine_s_starter_ignored_is_heeded_inside() {
    let directory = tempfile::tempdir().expect("a directory");
    // As `nohup`, a service manager or a shell in the background would.
    let ignoring = "trap '' HUP INT QUIT USR1 TERM; exec \"$0\" \"$1\"";
    let engine = env!("CARGO_BIN_EXE_createos-tests-engine");
    let mut command = std::process::Command::new("sh");
    command.args(["-c", ignoring, engine]).arg(directory.path());
    let engine = EngineProcess::start(&mut command);
    let sandbox = engine.client.create_sandbox("s-1vcpu-256mb").await.expect("a sandbox");
    assert_eq!(sh(&sandbox, "grep SigIgn /proc/self/status").await, "SigIgn:\t0000000000000000\n");
    for signal in ["HUP", "INT", "QUIT", "USR1", "TERM"] {
        let script = format!("trap 'echo {signal}' {signal}; kill -{signal} $$");
        assert_eq!(sh(&sandbox, &script).await, format!("{signal}\n"));
    }
    engine.end();
}
