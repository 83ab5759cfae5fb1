//! Pause, resume, fork and auto-pause on the real engine.

use std::time::{Duration, Instant};

use createos_sdk::wire::SandboxStatus::{Error, Paused, Running};
use createos_sdk::{ErrorKind, ExecEvent, Sandbox};
use createos_tests::{Fixture, sh};
use futures::StreamExt;

/// Keeps a number in memory and nowhere else, and says it to whoever asks.
const MEMORY: &str = "
import random, socket
secret = str(random.random())
server = socket.create_server(('127.0.0.1', 7000))
open('/root/up', 'w').close()
while True:
    peer, _ = server.accept()
    peer.sendall(secret.encode())
    peer.close()
";

async fn start_memory(sandbox: &Sandbox) -> String {
    sandbox.files().write("/root/memory.py", MEMORY).await.expect("write");
    let script = "nohup python3 /root/memory.py >/dev/null 2>&1 </dev/null & \
                  while [ ! -e /root/up ]; do sleep 0.01; done";
    sh(sandbox, script).await;
    recall(sandbox).await
}

async fn recall(sandbox: &Sandbox) -> String {
    sh(sandbox, "exec bash -c 'exec 3<>/dev/tcp/127.0.0.1/7000 && cat <&3'").await
}

#[tokio::test]
async fn a_process_keeps_its_memory_across_a_pause() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let secret = start_memory(&sandbox).await;
    assert!(secret.starts_with("0."), "{secret}");
    for _ in 0..3 {
        let paused = sandbox.pause().await.expect("pause");
        assert_eq!(paused.status, Paused);
        assert!(paused.paused_at.is_some());
        let refused = sandbox.command("true").output().await.expect_err("paused");
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        let running = sandbox.resume().await.expect("resume");
        assert_eq!(running.status, Running);
        assert_eq!(recall(&sandbox).await, secret);
    }
    fixture.end().await;
}

#[tokio::test]
async fn an_idle_sandbox_pauses_and_comes_back_with_its_files() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    sandbox.files().write("/work/file", "kept").await.expect("write");
    let before = sandbox.refresh().await.expect("view");
    let paused = sandbox.pause().await.expect("pause");
    assert!(paused.status_reason.is_none(), "nothing to say: {paused:?}");
    assert_eq!(sandbox.pause().await.expect("again").status, Paused);
    let me = fixture.client.whoami().await.expect("whoami");
    assert_eq!((me.stats.paused, me.stats.running), (1, 0));
    let after = sandbox.resume().await.expect("resume");
    assert_eq!(sandbox.resume().await.expect("again").status, Running);
    assert_eq!((&after.ip, &after.name), (&before.ip, &before.name));
    assert!(after.last_resumed_at.is_some());
    assert_eq!(sandbox.files().read("/work/file").await.expect("read"), "kept");
    assert_eq!(sh(&sandbox, "hostname").await.trim(), before.name.as_deref().expect("a name"));
    fixture.end().await;
}

/// A minute is the shortest time there is (api.md 4.4).
#[tokio::test]
async fn who_is_left_alone_for_a_minute_pauses_by_itself() {
    let fixture = Fixture::start().await;
    let minute = Duration::from_secs(60);
    let create = async || {
        let create = fixture.client.create_sandbox("s-1vcpu-256mb").auto_pause_after(minute);
        create.await.expect("a sandbox")
    };
    let (idle, busy) = (create().await, create().await);
    let secret = start_memory(&idle).await;
    let left_alone = Instant::now();
    let events = busy.command("sleep").arg("1000").stream().await.expect("stream");
    let paused = idle.wait_until(Paused).budget(minute * 2).await.expect("it pauses");
    assert!(left_alone.elapsed() >= minute, "{:?}", left_alone.elapsed());
    assert!(paused.expect("a view").paused_at.is_some());
    assert_eq!(busy.refresh().await.expect("view").status, Running);
    drop(events);
    idle.resume().await.expect("resume");
    assert_eq!(recall(&idle).await, secret);
    fixture.end().await;
}

#[tokio::test]
async fn a_pause_interrupts_streams_and_says_so() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let script = "echo begun; sleep 1000";
    let mut events = sandbox.command("sh").args(["-c", script]).stream().await.expect("stream");
    let first = events.next().await.expect("an event").expect("no error");
    assert!(matches!(first, ExecEvent::Stdout(bytes) if bytes == "begun\n"));
    let rest = async {
        let mut errors = Vec::new();
        while let Some(event) = events.next().await {
            errors.extend(event.err());
        }
        errors
    };
    let (rest, paused) = tokio::join!(tokio::time::timeout(Duration::from_secs(5), rest), async {
        sandbox.pause().await
    });
    assert_eq!(paused.expect("pause").status, Paused);
    let errors = rest.expect("the stream ends at once");
    assert!(!errors.is_empty(), "a command that was cut off has not ended well");
    sandbox.resume().await.expect("resume");
    let mut left = String::new();
    for _ in 0..100 {
        left = sh(&sandbox, "pgrep -x sleep").await;
        if left.is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(left, "", "its command ends as if its client had gone");
    fixture.end().await;
}

#[tokio::test]
async fn a_fork_is_a_sandbox_of_its_own_with_the_same_files() {
    let fixture = Fixture::start().await;
    let source = fixture.sandbox().await;
    source.files().write("/work/file", "shared").await.expect("write");
    sh(&source, "mkdir /usr/local/own; ln /work/file /work/same; rm /etc/issue").await;
    let running = source.fork().await.expect_err("it runs");
    assert_eq!(running.kind(), ErrorKind::Conflict);
    let parent = source.pause().await.expect("pause");
    let child = source.fork().await.expect("fork");
    let view = child.refresh().await.expect("view");
    assert_eq!(view.status, Running);
    assert_eq!(view.forked_from.as_ref(), Some(source.id()));
    assert_ne!((&view.id, &view.name, &view.ip), (&parent.id, &parent.name, &parent.ip));
    assert_eq!(source.refresh().await.expect("view").status, Paused);
    let look = "cat /work/same; ls -d /usr/local/own /etc/issue 2>/dev/null; echo $STAGE; hostname";
    let name = view.name.as_deref().expect("a name");
    assert_eq!(sh(&child, look).await, format!("shared/usr/local/own\ntest\n{name}\n"));

    child.files().write("/work/file", "child").await.expect("write");
    source.resume().await.expect("resume");
    assert_eq!(source.files().read("/work/file").await.expect("read"), "shared");
    source.files().write("/work/new", "source").await.expect("write");
    let missing = child.files().read("/work/new").await.expect_err("not the child's");
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    source.destroy().await.expect("destroy");
    child.pause().await.expect("pause");
    let again = child.fork().start_paused().await.expect("fork of a fork");
    assert_eq!(again.refresh().await.expect("view").status, Paused);
    again.resume().await.expect("resume");
    assert_eq!(again.files().read("/work/file").await.expect("read"), "child");
    fixture.end().await;
}

#[tokio::test]
async fn a_fork_of_a_busy_sandbox_has_its_memory_or_says_that_it_has_not() {
    let fixture = Fixture::start().await;
    let source = fixture.sandbox().await;
    let secret = start_memory(&source).await;
    source.pause().await.expect("pause");
    let child = source.fork().await.expect("fork");
    if child.refresh().await.expect("view").status_reason.is_some() {
        assert_eq!(sh(&child, "pgrep -f '[m]emory.py'").await, "");
        assert_eq!(child.files().read_string("/root/memory.py").await.expect("read"), MEMORY);
    } else {
        assert_eq!(recall(&child).await, secret);
    }
    source.resume().await.expect("resume");
    assert_eq!(recall(&source).await, secret);
    fixture.end().await;
}

#[tokio::test]
async fn a_fork_takes_what_it_is_given() {
    let fixture = Fixture::start().await;
    let source = fixture.client.create_sandbox("s-1vcpu-256mb").env("A", "1").env("B", "2");
    let source = source.auto_pause_after(Duration::from_secs(900)).await.expect("create");
    assert_eq!(
        source.refresh().await.expect("view").auto_pause_after(),
        Some(Duration::from_secs(900))
    );
    source.pause().await.expect("pause");
    let plain = source.fork().await.expect("fork");
    assert_eq!(sh(&plain, "echo $A$B").await, "12\n");
    assert_eq!(plain.refresh().await.expect("view").auto_pause_after(), None);
    let other = source.fork().env("C", "3").ingress(false).egress(["*"]).await.expect("fork");
    assert_eq!(sh(&other, "echo $A$B$C").await, "3\n");
    let still = source.fork().start_paused().await.expect("fork");
    assert_eq!(still.refresh().await.expect("view").status, Paused);
    fixture.end().await;
}

#[tokio::test]
async fn what_a_restart_of_the_engine_does_to_paused_sandboxes() {
    a_restart(createos_local::Engine::builder()).await;
}

#[tokio::test]
async fn what_a_restart_does_where_memory_cannot_be_saved() {
    assert!(a_restart(createos_local::Engine::builder().criu("/no/criu")).await);
}

/// Whether the one in which something ran was paused in memory.
async fn a_restart(builder: createos_local::EngineBuilder) -> bool {
    let data = tempfile::tempdir().expect("directory");
    let start = || async {
        let engine = builder.clone().data_dir(data.path()).start().await;
        engine.expect("the engine starts")
    };
    let engine = start().await;
    let create = async || {
        let sandbox = engine.client().create_sandbox("s-1vcpu-256mb").await.expect("create");
        sandbox.files().write("/root/kept", "kept").await.expect("write");
        sandbox
    };
    let (idle, busy) = (create().await, create().await);
    start_memory(&busy).await;
    let (idle_view, busy_view) = tokio::join!(idle.pause(), busy.pause());
    idle_view.expect("pause");
    // Where memory is saved to disk there is nothing to say.
    let frozen = busy_view.expect("pause").status_reason.is_some();
    let (idle, busy) = (idle.id().clone(), busy.id().clone());
    engine.shutdown().await;

    let engine = start().await;
    let (idle, busy) = (engine.client().sandbox(idle), engine.client().sandbox(busy));
    assert_eq!(idle.refresh().await.expect("view").status, Paused);
    let view = busy.refresh().await.expect("view");
    assert_eq!(view.status, if frozen { Error } else { Paused });
    assert_eq!(view.status_reason.is_some(), frozen, "{view:?}");
    for sandbox in [idle, busy] {
        sandbox.resume().await.expect("resume");
        assert_eq!(sandbox.files().read("/root/kept").await.expect("read"), "kept");
    }
    engine.shutdown().await;
    frozen
}

#[tokio::test]
async fn many_pause_resume_and_fork_at_once() {
    let fixture = Fixture::start().await;
    let work = (0..12).map(|n| {
        let fixture = &fixture;
        async move {
            let sandbox = fixture.sandbox().await;
            if n % 2 == 0 {
                sh(&sandbox, "nohup sleep 1000 >/dev/null 2>&1 </dev/null &").await;
            }
            sandbox.files().write("/n", n.to_string()).await.expect("write");
            sandbox.pause().await.expect("pause");
            let (one, two) = tokio::join!(sandbox.fork(), sandbox.fork());
            for child in [one.expect("fork"), two.expect("fork")] {
                assert_eq!(child.files().read_string("/n").await.expect("read"), n.to_string());
                child.destroy().await.expect("destroy");
            }
            sandbox.resume().await.expect("resume");
            sandbox.destroy().await.expect("destroy");
        }
    });
    futures::future::join_all(work).await;
    fixture.end().await;
}

#[tokio::test]
async fn the_official_client_pauses_resumes_and_forks() {
    let fixture = Fixture::start().await;
    let client = createos::Client::builder()
        .base_url(fixture.engine.url())
        .api_key(fixture.engine.api_key().expose())
        .build()
        .expect("client");
    let request =
        createos::CreateSandboxRequest { shape: "s-1vcpu-256mb".into(), ..Default::default() };
    let sandbox = client.create_sandbox(request).await.expect("create");
    let options = createos::RequestOptions::default();
    sandbox.files().upload("/root/kept", "kept", &options).await.expect("upload");
    let wait = || createos::WaitOptions { timeout: Duration::from_secs(20), ..Default::default() };
    sandbox.pause().await.expect("pause");
    sandbox.wait_until_paused(wait()).await.expect("paused");
    let child = sandbox.fork(createos::ForkSandboxRequest::default()).await.expect("fork");
    child.wait_until_running(wait()).await.expect("the child runs");
    assert_ne!(child.id(), sandbox.id());
    let copied = child.files().download("/root/kept", &options).await.expect("download");
    assert_eq!(copied.bytes().await.expect("content"), "kept");
    sandbox.resume().await.expect("resume");
    sandbox.wait_until_running(wait()).await.expect("running");
    sandbox.set_auto_pause(Some(Duration::from_secs(600))).await.expect("auto-pause");
    sandbox.set_auto_pause(None).await.expect("no auto-pause");
    fixture.end().await;
}
