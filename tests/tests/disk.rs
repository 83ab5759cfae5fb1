//! Disks of sandboxes: their size is a limit, they grow while they are used, and they give back
//! what is deleted.

use std::time::Duration;

use createos_sdk::wire::SandboxStatus;
use createos_sdk::{ErrorKind, Sandbox};
use createos_tests::Fixture;

async fn sh(sandbox: &Sandbox, script: &str) -> String {
    let output = sandbox.command("sh").args(["-c", script]).output().await.expect("exec");
    format!("{}{}", output.stdout_lossy(), output.stderr_lossy())
}

/// Size of the root filesystem in MiB, as programs inside see it.
async fn size(sandbox: &Sandbox) -> u64 {
    let df = sh(sandbox, "df --output=size -BM / | tail -1").await;
    df.trim().trim_end_matches('M').parse().expect("a size")
}

async fn with_disk(fixture: &Fixture, mib: u64) -> Sandbox {
    let create = fixture.client.create_sandbox("s-1vcpu-256mb").disk_mib(mib);
    create.await.expect("a disk (Debian package xfsprogs, as root)")
}

#[tokio::test]
async fn a_full_disk_is_full_for_its_sandbox_alone() {
    let fixture = Fixture::start().await;
    let (full, neighbour) = (with_disk(&fixture, 400).await, fixture.sandbox().await);
    assert!((380..=400).contains(&size(&full).await), "{}", size(&full).await);
    assert!((10_000..=10_240).contains(&size(&neighbour).await));

    let fill = "head -c 600M /dev/zero >/big; echo status $?; stat -c %s /big";
    let filled = sh(&full, fill).await;
    assert!(filled.contains("No space left on device"), "{filled}");
    let written: u64 = filled.lines().filter_map(|line| line.parse().ok()).next().expect("a size");
    assert!((350 << 20..401 << 20).contains(&written), "{written}");
    // Everything else goes on, and says what is the matter.
    let refused = full.files().write("/more", vec![0; 8 << 20]).await.expect_err("full");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    assert!(refused.to_string().contains("No space left"), "{refused}");
    assert_eq!(sh(&full, "echo alive").await, "alive\n");
    assert_eq!(sh(&neighbour, "head -c 600M /dev/zero >/big && echo fits").await, "fits\n");
    assert_eq!(sh(&full, "rm /big && echo x >/small && cat /small").await, "x\n");
    fixture.end().await;
}

#[tokio::test]
async fn a_disk_grows_under_a_program_that_uses_it() {
    let fixture = Fixture::start().await;
    let sandbox = with_disk(&fixture, 400).await;
    let busy = "for i in $(seq 200); do echo $i >>/log; sleep 0.01; done; wc -l </log";
    let busy = tokio::spawn(sandbox.command("sh").args(["-c", busy]).output());
    let resized = sandbox.resize(1024).await.expect("resize");
    assert_eq!(resized.disk_mib, 1024);
    assert!((1000..=1024).contains(&size(&sandbox).await), "{}", size(&sandbox).await);
    assert_eq!(sh(&sandbox, "head -c 600M /dev/zero >/big && echo fits").await, "fits\n");
    let counted = busy.await.expect("task").expect("exec");
    assert_eq!(counted.stdout_lossy(), "200\n");
    for size in [1024, 100] {
        let refused = sandbox.resize(size).await.expect_err("not larger");
        assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    }
    assert_eq!(sandbox.refresh().await.expect("view").disk_mib, Some(1024));
    fixture.end().await;
}

/// Space that files below a directory take on this machine.
fn taken(directory: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let mut total = 0;
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(metadata) = entry.metadata() else { continue };
        total += if metadata.is_dir() { taken(&entry.path()) } else { metadata.blocks() * 512 };
    }
    total
}

#[tokio::test]
async fn what_is_deleted_is_given_back() {
    let fixture = Fixture::start().await;
    let directory = fixture.engine.data_dir().to_owned();
    let sandbox = fixture.sandbox().await;
    let before = taken(&directory);
    sh(&sandbox, "head -c 200M /dev/urandom >/big; sync").await;
    assert!(taken(&directory) > before + (190 << 20));
    sh(&sandbox, "rm /big; sync").await;
    let given_back = async {
        while taken(&directory) > before + (20 << 20) {
            sh(&sandbox, "sync").await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), given_back).await.expect("the space comes back");
    sh(&sandbox, "head -c 200M /dev/urandom >/big; sync").await;
    sandbox.destroy().await.expect("destroy");
    let gone = async {
        while taken(&directory) > before + (20 << 20) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("with it goes its disk");
    fixture.end().await;
}

#[tokio::test]
async fn a_disk_outlives_the_engine() {
    let home = tempfile::tempdir().expect("directory");
    let data = home.path().join("data");
    let start = || createos_local::Engine::builder().data_dir(&data).start();
    let engine = start().await.expect("engine");
    let create = engine.client().create_sandbox("s-1vcpu-256mb").disk_mib(400);
    let sandbox = create.await.expect("create");
    sh(&sandbox, "echo kept >/kept; rm /etc/hostname; mkdir -p /usr/local/x; sync").await;
    sandbox.resize(800).await.expect("resize");
    let id = sandbox.id().clone();
    engine.shutdown().await;

    let engine = start().await.expect("engine again");
    let sandbox = engine.client().sandbox(id);
    assert_eq!(sandbox.refresh().await.expect("view").status, SandboxStatus::Error);
    sandbox.resume().await.expect("resume");
    let found = "cat /kept; ls -d /usr/local/x";
    assert_eq!(sh(&sandbox, found).await, "kept\n/usr/local/x\n");
    assert!((780..=800).contains(&size(&sandbox).await), "{}", size(&sandbox).await);
    // A disk that is not of the usual size is made as it is asked for.
    sandbox.destroy().await.expect("destroy");
    engine.shutdown().await;
    let loops = std::fs::read_dir("/sys/block").expect("devices").flatten().filter(|device| {
        let backing = device.path().join("loop/backing_file");
        std::fs::read_to_string(backing)
            .is_ok_and(|file| file.contains(home.path().to_str().expect("UTF-8")))
    });
    assert_eq!(loops.count(), 0, "no loop device stays");
}

#[tokio::test]
async fn a_fork_shares_what_is_there_and_nothing_leaks_between_the_two() {
    let fixture = Fixture::start().await;
    let directory = fixture.engine.data_dir().to_owned();
    let source = fixture.sandbox().await;
    let make = "head -c 200M /dev/urandom >/big; mkdir /d; echo 1 >/d/a; echo 2 >/d/b; \
                ln /d/a /d/hard; touch /usr/local/tool; sync; sha256sum </big";
    let sum = sh(&source, make).await;
    source.pause().await.expect("pause");
    let before = taken(&directory);
    let child = source.fork().await.expect("fork");
    assert!(taken(&directory) < before + (20 << 20), "the files are shared, not copied");
    assert_eq!(sh(&child, "sha256sum </big").await, sum);
    let change = "rm /d/a; echo child >/d/b; mv /d /e; rm -r /usr/local/tool; ls /e";
    assert_eq!(sh(&child, change).await, "b\nhard\n");
    source.resume().await.expect("resume");
    assert_eq!(
        sh(&source, "cat /d/a /d/b /d/hard; ls /usr/local/tool").await,
        "1\n2\n1\n/usr/local/tool\n"
    );
    sh(&source, "echo source >/d/b").await;
    assert_eq!(sh(&child, "cat /e/b").await, "child\n");

    // A chain of forks, longer than layers may lie upon each other.
    let mut last = child;
    for generation in 0..13 {
        sh(&last, &format!("echo {generation} >>/log; rm -f /e/hard")).await;
        last.pause().await.expect("pause");
        let next = last.fork().await.expect("fork");
        last.destroy().await.expect("destroy");
        last = next;
    }
    assert_eq!(sh(&last, "wc -l </log; ls /e").await, "13\nb\n");
    assert_eq!(sh(&last, "sha256sum </big").await, sum);
    last.destroy().await.expect("destroy");
    source.destroy().await.expect("destroy");
    let gone = async {
        while taken(&directory) > 60 << 20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), gone).await.expect("layers go with the last");
    fixture.end().await;
}

#[tokio::test]
async fn a_fork_of_one_that_stands_still_has_its_files_as_they_are() {
    let fixture = Fixture::start().await;
    let source = fixture.sandbox().await;
    let busy = "i=0; while :; do i=$((i+1)); echo $i >>/log; sleep 0.01; done";
    let start = format!("nohup setsid sh -c '{busy}' >/dev/null 2>&1 </dev/null &");
    sh(&source, &start).await;
    sh(&source, "until [ -s /log ]; do sleep 0.01; done; head -c 20M /dev/urandom >/big; sha256sum </big >/sum").await;
    source.pause().await.expect("pause");
    let child = source.fork().await.expect("fork");
    assert_eq!(sh(&child, "sha256sum </big | diff - /sum && echo same").await, "same\n");
    source.resume().await.expect("resume");
    // Whether or not the fork has the source's processes too, each goes on by itself from the
    // same moment, and neither has a line of the other's.
    let whole = "awk '$1 != NR { torn = 1 } END { exit !NR || torn }' /log && echo whole";
    assert_eq!(sh(&child, whole).await, "whole\n");
    assert_eq!(sh(&source, whole).await, "whole\n");
    let goes_on = "n=$(wc -l </log); until [ $(wc -l </log) -gt $n ]; do sleep 0.01; done; echo on";
    assert_eq!(sh(&source, goes_on).await, "on\n");
    fixture.end().await;
}
