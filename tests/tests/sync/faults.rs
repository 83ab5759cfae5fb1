//! What goes wrong while a directory is synced.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use createos_sdk::sync::SyncEvent;
use createos_sdk::wire::SandboxStatus;
use createos_sdk::{Client, ErrorKind};
use createos_tests::Fixture;
use futures::TryStreamExt;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::{Pair, until};

/// A way to the engine that can be cut.
struct Cable {
    url: String,
    whole: watch::Sender<bool>,
}

impl Cable {
    async fn to(engine: &str) -> Self {
        let target = engine.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (whole, see) = watch::channel(true);
        let target = Arc::new(target);
        tokio::spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let (target, mut see) = (target.clone(), see.clone());
                tokio::spawn(async move {
                    if !*see.borrow() {
                        return;
                    }
                    let Ok(mut there) = TcpStream::connect(&*target).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut here, &mut there) => {}
                        _ = see.wait_for(|whole| !whole) => {}
                    }
                });
            }
        });
        Self { url, whole }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_is_cut_costs_nothing() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let cable = Cable::to(fixture.engine.url()).await;
    let client = Client::builder().base_url(&cable.url).api_key(fixture.engine.api_key().clone());
    let client = client.build().expect("a client");
    let pair = Pair::new(&sandbox, "/root/cut");
    for n in 0..300 {
        pair.write(&format!("d{}/f{n}", n % 7), vec![n as u8; 100_000]);
    }
    let remote = client.sandbox(sandbox.id().clone());
    let mut sync = remote.sync(pair.dir.path(), &pair.remote).await.expect("a sync");
    let cut = cable.whole.clone();
    tokio::spawn(async move {
        for pause in [150, 400, 900] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            cut.send_replace(false);
            tokio::time::sleep(Duration::from_millis(1500)).await;
            cut.send_replace(true);
        }
    });
    let events = until(&mut sync, "all of it", async || {
        pair.sh("find . -type f").await.lines().count() == 300
    })
    .await;
    let lost = events.iter().filter(|event| matches!(event, SyncEvent::Lost { .. })).count();
    let restored = events.iter().filter(|event| matches!(event, SyncEvent::Restored)).count();
    assert!(lost > 0 && lost == restored, "{lost} times lost, {restored} times restored");
    pair.assert_same().await;
    // What changes while nobody hears of it is not missed.
    cable.whole.send_replace(false);
    pair.write("while-away", "here");
    pair.sh("echo there > there-while-away; rm -r d1").await;
    fs::remove_dir_all(pair.here("d2")).expect("removed");
    cable.whole.send_replace(true);
    until(&mut sync, "what happened meanwhile", async || {
        pair.here("there-while-away").exists() && !pair.here("d1").exists()
    })
    .await;
    pair.assert_same().await;
    drop(sync);

    let sync = remote.sync(pair.dir.path(), &pair.remote).patience(Duration::from_secs(2));
    let mut sync = sync.await.expect("a sync");
    until(&mut sync, "the start", async || true).await;
    cable.whole.send_replace(false);
    let error = end(&mut sync).await;
    assert!(matches!(error.kind(), ErrorKind::Connection | ErrorKind::StreamLost), "{error}");
    assert!(pair.here("d3").exists());
    fixture.end().await;
}

async fn end(sync: &mut createos_sdk::sync::SyncSession) -> createos_sdk::Error {
    let ended = async {
        loop {
            match sync.try_next().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ends without an error"),
                Err(error) => return error,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), ended).await.expect("an end within a minute")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_on_either_side_is_told_and_got_over() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.client.create_sandbox("s-1vcpu-256mb").disk_mib(512).await;
    let sandbox = sandbox.expect("a sandbox");
    let pair = Pair::new(&sandbox, "/root/full");
    pair.write("small", "s");
    pair.write("big", vec![1u8; 20 << 20]);
    sandbox.command("mkdir").arg(&pair.remote).await.expect("mkdir");
    pair.sh("echo old > kept; dd if=/dev/zero of=/root/filler bs=1M 2>/dev/null; sync").await;
    let mut sync = sandbox.sync(pair.dir.path(), &pair.remote).await.expect("a sync");
    let events = until(&mut sync, "a problem", async || true).await;
    let told = |event: &SyncEvent| matches!(event, SyncEvent::Problem { .. });
    assert!(events.iter().any(told), "{events:?}");
    pair.sh("rm /root/filler").await;
    until(&mut sync, "room", async || pair.sh("ls").await == "big\nkept\nsmall\n").await;
    pair.assert_same().await;
    drop(sync);

    let small = tempfile::tempdir().expect("a directory");
    let mount = |words: &[&str]| {
        let status = std::process::Command::new(words[0]).args(&words[1..]).status();
        assert!(status.expect(words[0]).success(), "{words:?}: a test as root mounts a small disk");
    };
    let path = small.path().to_str().expect("text");
    mount(&["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", path]);
    let _unmount = Unmount(path.to_owned());
    fs::write(small.path().join("mine"), "m").expect("a file");
    let mut sync = sandbox.sync(small.path(), &pair.remote).await.expect("a sync");
    let events = until(&mut sync, "a problem here", async || true).await;
    let why = events.iter().find_map(|event| match event {
        SyncEvent::Problem { message, .. } => Some(message.clone()),
        _ => None,
    });
    assert_eq!(why.as_deref(), Some("no space is left on this machine"), "{events:?}");
    assert_eq!(fs::read_to_string(small.path().join("mine")).expect("a file"), "m");
    assert!(!small.path().join("big").exists(), "no half of a file");
    let left: Vec<_> = fs::read_dir(small.path()).expect("a directory").flatten().collect();
    assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().starts_with('.')));
    pair.sh("echo -n less > big").await;
    until(&mut sync, "room here", async || small.path().join("big").exists()).await;
    assert_eq!(fs::read_to_string(small.path().join("big")).expect("a file"), "less");
    drop(sync);
    fixture.end().await;
}

struct Unmount(String);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").args(["-l", &self.0]).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_that_is_paused_ends_it() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let pair = Pair::new(&sandbox, "/root/paused");
    pair.write("a", "a");
    let mut sync = sandbox.sync(pair.dir.path(), &pair.remote).await.expect("a sync");
    until(&mut sync, "the start", async || true).await;
    let pausing = sandbox.clone();
    let paused = tokio::spawn(async move { pausing.pause().await });
    let error = end(&mut sync).await;
    paused.await.expect("a task").expect("paused");
    assert_eq!(error.kind(), ErrorKind::UnexpectedState, "{error}");
    let status = error.last_status().cloned();
    assert!(matches!(status, Some(SandboxStatus::Paused | SandboxStatus::Pausing)), "{status:?}");
    assert!(pair.here("a").exists());
    fixture.end().await;
}

/// Prints what it costs: run it with `--nocapture`.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_files() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let pair = Pair::new(&sandbox, "/root/many");
    for n in 0..10_000 {
        pair.write(&format!("d{}/e{}/f{n}", n % 20, n % 200), format!("{n}").repeat(100));
    }
    let mut sync = sandbox.sync(pair.dir.path(), &pair.remote).await.expect("a sync");
    let began = Instant::now();
    until(&mut sync, "the first copy", async || true).await;
    println!("10,000 files sent: {:?}", began.elapsed());
    let began = Instant::now();
    pair.sh("find . -name 'f*7' -exec sh -c 'for f; do echo more >> \"$f\"; done' sh {} +").await;
    for n in (0..10_000).filter(|n| n % 10 == 3) {
        fs::remove_file(pair.here(&format!("d{}/e{}/f{n}", n % 20, n % 200))).expect("removed");
    }
    fs::rename(pair.here("d0"), pair.here("moved")).expect("renamed");
    pair.sh("rm -r d5; mv d6 d600; rm -r d8; echo file > d8").await;
    until(&mut sync, "changes of both sides", async || {
        pair.here("d600").exists()
            && pair.here("d8").is_file()
            && pair.sh("ls -d d0 2>&1 || true").await != "d0\n"
    })
    .await;
    println!("1,000 edits, 1,000 deletions, renames and swaps: {:?}", began.elapsed());
    pair.assert_same().await;
    let began = Instant::now();
    pair.write("moved/one-more", "x");
    until(&mut sync, "one file", async || pair.sh("ls moved/one-more").await.contains("one")).await;
    println!("one more file among them: {:?}", began.elapsed());

    let back = Pair::new(&sandbox, &pair.remote);
    let began = Instant::now();
    assert!(back.once().await.is_clean());
    println!("all of them received: {:?}", began.elapsed());
    let cpu =
        "cat /sys/fs/cgroup/cpu.stat /sys/fs/cgroup/cpuacct/cpuacct.usage 2>/dev/null | head -1";
    let before = pair.sh(cpu).await;
    let idle = async { while sync.try_next().await.expect("it goes on").is_some() {} };
    drop(tokio::time::timeout(Duration::from_secs(10), idle).await);
    println!("processor in 10 s of idleness: {} -> {}", before.trim(), pair.sh(cpu).await.trim());
    drop(sync);
    fixture.end().await;
}
