//! S3 disks against a real S3 server (api.md 4.17, 5.7, 6.7).

#![allow(clippy::unwrap_used)]

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use createos_sdk::wire::{DiskAttachment, DiskCredentials, MountStatus};
use createos_sdk::{Disk, ErrorKind, Sandbox};
use createos_tests::s3::{BUCKET, S3};
use createos_tests::{EngineProcess, Fixture, sh, until};

const MOUNT: &str = "/mnt/data";

async fn disk(fixture: &Fixture, s3: &S3, name: &str) -> Disk {
    let created = fixture.client.create_disk(name, s3.config(), s3.keys()).await;
    created.unwrap_or_else(|error| panic!("no disk: {error}"))
}

/// A sandbox with the whole bucket at [`MOUNT`].
async fn with_disk(fixture: &Fixture, disk: &Disk) -> Sandbox {
    let creating = fixture.client.create_sandbox("s-1vcpu-256mb").disk(disk.id().clone(), MOUNT);
    let sandbox = creating.await.unwrap();
    sandbox.wait_until_mounted(MOUNT).await.unwrap();
    sandbox
}

/// What a script prints, standard error included, and its exit code.
async fn try_sh(sandbox: &Sandbox, script: &str) -> (String, i32) {
    let script = format!("( {script}\n) 2>&1; echo \"=$?\"");
    let text = sh(sandbox, &script).await;
    let (text, code) = text.trim_end().rsplit_once('=').unwrap();
    (text.to_owned(), code.parse().unwrap())
}

/// What a script prints, which must succeed in every line.
async fn run(sandbox: &Sandbox, script: &str) -> String {
    let (text, code) = try_sh(sandbox, &format!("set -e\n{script}")).await;
    assert_eq!(code, 0, "{script}\n{text}");
    text
}

async fn row(sandbox: &Sandbox) -> DiskAttachment {
    sandbox.disks().await.unwrap().into_iter().next().expect("a disk is attached")
}

/// Waits until the mount has this status, and returns what it says.
async fn until_status(sandbox: &Sandbox, wanted: MountStatus) -> String {
    let begun = Instant::now();
    loop {
        let row = row(sandbox).await;
        if row.mount_status == wanted {
            return row.mount_error.unwrap_or_default();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "{row:?} is not {wanted}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_bucket_must_show_that_it_is_there_and_keys_that_they_open_it() {
    let (mut s3, fixture) = (S3::start(), Fixture::start().await);
    let create = async |config, keys| fixture.client.create_disk("data", config, keys).await;
    let refused = async |config, keys, words: &str| {
        let error = create(config, keys).await.expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    };
    let no_key = DiskCredentials::new("AKOTHER", "hunter2");
    refused(s3.config(), no_key, "InvalidAccessKeyId").await;
    let wrong = DiskCredentials::new("AKTEST", "hunter2");
    refused(s3.config(), wrong, "SignatureDoesNotMatch").await;
    let mut elsewhere = s3.config();
    elsewhere.bucket = "nobody-has-this".to_owned();
    refused(elsewhere, s3.keys(), "NoSuchBucket").await;
    let mut closed = s3.config();
    closed.endpoint = "http://127.0.0.1:1".to_owned();
    refused(closed, s3.keys(), "cannot be reached").await;
    for (fault, words) in [("broken", "SlowDown"), ("refuse", "AccessDenied")] {
        s3.fault(fault);
        refused(s3.config(), s3.keys(), words).await;
    }
    s3.fault("stall");
    let begun = Instant::now();
    refused(s3.config(), s3.keys(), "within 3 s").await;
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    s3.fault("none");

    let disk = create(s3.config(), s3.keys()).await.unwrap();
    let view = disk.view().unwrap();
    assert_eq!((view.name.as_str(), view.config.bucket.as_str()), ("data", BUCKET));
    let again = create(s3.config(), s3.keys()).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::Conflict);
    assert_eq!(fixture.client.get_disk("data").await.unwrap().id(), disk.id());
    disk.delete().await.unwrap();
    assert_eq!(disk.delete().await.unwrap_err().kind(), ErrorKind::NotFound);
    fixture.end().await;
}

#[tokio::test]
async fn programs_work_on_it_and_another_sandbox_sees_what_they_did() {
    let (s3, fixture) = (S3::start(), Fixture::start().await);
    let disk = disk(&fixture, &s3, "data").await;
    let one = with_disk(&fixture, &disk).await;
    let seen = run(&one, "stat -c '%U:%G %A' /mnt/data; grep /mnt/data /proc/mounts").await;
    assert!(seen.starts_with("root:root drwxr-xr-x\n"), "{seen}");
    assert!(seen.contains("nosuid,nodev"), "{seen}");

    // What is written is what is read: whole, appended to, cut, in the middle.
    let script = "cd /mnt/data; echo hello >a.txt; echo more >>a.txt; cat a.txt; \
        truncate -s 3 a.txt; cat a.txt; echo; printf J | dd of=a.txt conv=notrunc status=none; \
        cat a.txt; echo; truncate -s 5 a.txt; od -c a.txt | head -1; : >a.txt; stat -c %s a.txt";
    let text = run(&one, script).await;
    let wanted = "hello\nmore\nhel\nJel\n0000000   J   e   l  \\0  \\0\n0\n";
    assert_eq!(text, wanted);

    // Names that keys are not fond of.
    let script = "mkdir names; cd names; for name in 'a b' 'ü%20+&=?#' '*~!@$^' \"q'\\\"\" -- ; do \
        echo \"$name\" >\"./$name\"; [ \"$(cat \"./$name\")\" = \"$name\" ]; done; ls | wc -l";
    assert_eq!(run(&one, &format!("cd /mnt/data; {script}")).await, "5\n");

    // Directories.
    let script = "cd /mnt/data; mkdir -p d/e; echo 1 >d/e/f; mv d g; cat g/e/f; \
        rmdir g 2>/dev/null && exit 1; mv g/e/f g/x; rmdir g/e; ls g; rm -r g; ! ls g 2>/dev/null";
    assert_eq!(run(&one, script).await, "1\nx\n");

    // What it cannot do is refused in a word.
    let script =
        "cd /mnt/data; ln -s a b && exit 1; ln a.txt b && exit 1; mkfifo p && exit 1; ls p";
    let (text, _) = try_sh(&one, script).await;
    assert_eq!(text.matches("Operation not permitted").count(), 3, "{text}");

    // Programs that know nothing of buckets.
    let script = "cd /mnt/data; git init -q r; cd r; git config user.email a@b; \
        git config user.name n; echo hi >f; git add .; git commit -qm one; git fsck --strict; \
        git log --format=%s; cd ..; git clone -q r s; cat s/f; cp -r r c; diff -r r c; \
        tar cf t.tar r; mkdir u; tar xf t.tar -C u --no-same-owner; diff -r r u/r; rm -r s c u";
    assert_eq!(run(&one, script).await, "one\nhi\n");
    let script = "cd /mnt/data; printf 'one\\ntwo\\n' >v.txt; \
        vim -es -c '%s/two/three/' -c wq v.txt </dev/null; cat v.txt; sed -i s/one/1/ v.txt; cat v.txt; \
        python3 -c 'import sqlite3; c=sqlite3.connect(\"q.db\"); c.execute(\"create table t(x)\"); \
        c.execute(\"insert into t values(7)\"); c.commit(); c.close()'; \
        python3 -c 'import sqlite3; print(*sqlite3.connect(\"q.db\").execute(\"select x from t\"))'";
    assert_eq!(run(&one, script).await, "one\nthree\n1\nthree\n(7,)\n");

    // Transfers, which are no program's business.
    one.files().write("/mnt/data/new/up", vec![7; 3_000_000]).await.unwrap();
    let back = one.files().read("/mnt/data/new/up").await.unwrap();
    assert!(back.len() == 3_000_000 && back.iter().all(|byte| *byte == 7));

    let two = with_disk(&fixture, &disk).await;
    assert_eq!(run(&two, "cat /mnt/data/v.txt; ls /mnt/data/r").await, "1\nthree\nf\n");
    run(&two, "echo from two >/mnt/data/two").await;
    until(&one, "cat /mnt/data/two", "from two\n").await;

    // A part of it, and what is there stays there.
    let part = fixture.client.create_sandbox("s-1vcpu-256mb").await.unwrap();
    part.attach_disk(disk.id(), "/part").sub_path("r").await.unwrap();
    assert_eq!(run(&part, "cd /part; cat f; echo sub >sub; ls ..| grep -c part").await, "hi\n1\n");
    until(&one, "cat /mnt/data/r/sub", "sub\n").await;
    fixture.end().await;
}

#[tokio::test]
async fn large_files_and_large_directories() {
    let (mut s3, fixture) = (S3::start(), Fixture::start().await);
    let disk = disk(&fixture, &s3, "data").await;
    let one = with_disk(&fixture, &disk).await;
    // In parts, and read ahead.
    let script = "cd /mnt/data; head -c 70000001 /dev/urandom >/tmp/big; cp /tmp/big big; \
        cmp big /tmp/big; dd if=big bs=7777 skip=5000 count=9 status=none | md5sum >/tmp/1; \
        dd if=/tmp/big bs=7777 skip=5000 count=9 status=none | md5sum | cmp - /tmp/1; \
        printf end >>big; stat -c %s big; tail -c 3 big; echo; mv big moved; \
        head -c 70000001 moved | cmp - /tmp/big; rm moved /tmp/big";
    assert_eq!(run(&one, script).await, "70000004\nend\n");
    // Several pages.
    let before = s3.requests();
    let script = "mkdir /mnt/data/many; cd /mnt/data/many; seq 1100 | xargs -P 8 touch; \
        ls -f | grep -vc '^\\.'; ls -f | sort | uniq -d; sleep 1.1; ls -l | grep -c rw; cd ..; rm -r many; ls";
    assert_eq!(run(&one, script).await, "1100\n1100\n");
    println!("{} requests for 1100 files", s3.requests() - before);
    fixture.end().await;
}

#[tokio::test]
async fn a_server_in_trouble_is_told_and_nothing_hangs() {
    let (mut s3, fixture) = (S3::start(), Fixture::start().await);
    let disk = disk(&fixture, &s3, "data").await;
    let (one, other) = (with_disk(&fixture, &disk).await, fixture.sandbox().await);
    run(&one, "cd /mnt/data; echo kept >kept; mkdir d").await;
    for (fault, words) in [
        ("refuse", "AccessDenied"),
        ("broken", "SlowDown"),
        ("garbage", "does not answer as S3 does"),
        ("half", "cannot be reached"),
        ("stall", "within 3 s"),
    ] {
        tokio::time::sleep(Duration::from_millis(1100)).await;
        s3.fault(fault);
        let begun = Instant::now();
        // An upload that fails is an error of the close.
        let script = "import os, sys\nf = os.open('/mnt/data/new', os.O_CREAT | os.O_WRONLY)\n\
            os.write(f, b'x')\nos.close(f)";
        let (text, code) = try_sh(&one, &format!("python3 -c \"{script}\"")).await;
        assert_ne!(code, 0, "{fault}: {text}");
        let (text, code) = try_sh(&one, "cat /mnt/data/kept").await;
        assert_ne!(code, 0, "{fault}: {text}");
        let why = until_status(&one, MountStatus::Error).await;
        assert!(why.contains(words), "{fault}: {why}");
        assert!(begun.elapsed() < Duration::from_secs(60), "{fault}: {:?}", begun.elapsed());
        // Nobody else notices.
        let begun = Instant::now();
        assert_eq!(sh(&other, "echo well").await, "well\n");
        assert_eq!(sh(&one, "echo well").await, "well\n");
        assert!(begun.elapsed() < Duration::from_secs(3), "{fault}: {:?}", begun.elapsed());
        s3.fault("none");
        until_status(&one, MountStatus::Mounted).await;
        until(&one, "cat /mnt/data/kept 2>&1", "kept\n").await;
    }
    // Keys that are replaced in the bucket, and then here.
    s3.set_keys("AKNEW", "new/secret");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let (text, _) = try_sh(&one, "ls /mnt/data").await;
    assert!(text.contains("Permission denied"), "{text}");
    assert!(until_status(&one, MountStatus::Error).await.contains("InvalidAccessKeyId"));
    disk.rotate_credentials(DiskCredentials::new("AKNEW", "new/secret")).await.unwrap();
    one.pause().await.unwrap();
    one.resume().await.unwrap();
    one.wait_until_mounted(MOUNT).await.unwrap();
    assert_eq!(run(&one, "cat /mnt/data/kept").await, "kept\n");

    // One that dies while somebody is at work, and stays dead.
    let begun = Instant::now();
    run(&one, "nohup sh -c 'while :; do date >/mnt/data/x; done' >/dev/null 2>&1 &").await;
    s3.kill();
    until_status(&one, MountStatus::Error).await;
    one.detach_disk(disk.id(), MOUNT).await.unwrap();
    assert_eq!(sh(&one, "echo well").await, "well\n");
    one.attach_disk(disk.id(), MOUNT).no_wait().await.unwrap();
    until_status(&one, MountStatus::Error).await;
    run(&one, "nohup cat /mnt/data/kept >/dev/null 2>&1 &").await;
    one.destroy().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    disk.delete().await.unwrap();
    assert_eq!(sh(&other, "echo well").await, "well\n");
    fixture.end().await;
}

#[tokio::test]
async fn detaching_saves_what_is_open_and_leaves_the_path_to_others() {
    let (s3, fixture) = (S3::start(), Fixture::start().await);
    let disk = disk(&fixture, &s3, "data").await;
    let one = fixture.sandbox().await;
    one.attach_disk("data", MOUNT).await.unwrap();
    let taken = one.attach_disk("data", MOUNT).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::Conflict, "{taken}");
    assert_eq!(disk.delete().await.unwrap_err().kind(), ErrorKind::Conflict);

    let hold = "import time\nf = open('/mnt/data/open', 'w', buffering=1)\nf.write('so far\\n')\n\
        open('/tmp/ready', 'w').close()\ntime.sleep(1000)";
    run(&one, &format!("nohup python3 -c \"{hold}\" >/dev/null 2>&1 &")).await;
    until(&one, "ls /tmp/ready 2>/dev/null", "/tmp/ready\n").await;
    one.detach_disk("data", MOUNT).await.unwrap();
    assert!(one.disks().await.unwrap().is_empty());
    assert_eq!(one.detach_disk("data", MOUNT).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(run(&one, "ls /mnt/data; grep -c fuse /proc/mounts || true").await, "0\n");

    one.attach_disk("data", "/mnt/else where").await.unwrap();
    assert_eq!(run(&one, "cat '/mnt/else where/open'").await, "so far\n");
    // Whatever is done to the directories above it.
    run(&one, "mv /mnt /moved").await;
    one.detach_disk("data", "/mnt/else where").await.unwrap();
    assert_eq!(run(&one, "grep -c fuse /proc/mounts || true").await, "0\n");

    // A place that is no directory, and one through a link that leads nowhere else.
    run(&one, "mkdir /mnt; echo x >/mnt/file; ln -s / /mnt/up").await;
    let error = one.attach_disk("data", "/mnt/file").await.unwrap_err();
    assert!(error.to_string().contains("/mnt/file"), "{error}");
    one.attach_disk("data", "/mnt/up/deep").await.unwrap();
    assert_eq!(run(&one, "ls /deep").await, "open\n");
    let here = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!here.contains("fuse.s3"), "no mount on the host: {here}");
    one.detach_disk("data", "/mnt/up/deep").await.unwrap();

    // Again and again.
    for _ in 0..20 {
        one.attach_disk("data", MOUNT).await.unwrap();
        one.detach_disk("data", MOUNT).await.unwrap();
    }
    let begun = Instant::now();
    // Other tests have some.
    while threads() >= 40 {
        assert!(begun.elapsed() < Duration::from_secs(10), "{} threads are left", threads());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fixture.end().await;
}

#[tokio::test]
async fn disks_are_there_again_after_every_kind_of_pause_and_a_fork_has_none() {
    let (s3, fixture) = (S3::start(), Fixture::start().await);
    let disk = disk(&fixture, &s3, "data").await;
    let one = with_disk(&fixture, &disk).await;
    run(&one, "echo kept >/mnt/data/kept").await;
    // With nothing running, it is booted again.
    one.pause().await.unwrap();
    one.resume().await.unwrap();
    one.wait_until_mounted(MOUNT).await.unwrap();
    assert_eq!(run(&one, "cat /mnt/data/kept").await, "kept\n");
    // With something running, that goes on.
    run(&one, "nohup sleep 1000 >/dev/null 2>&1 & echo $! >/tmp/pid").await;
    one.pause().await.unwrap();
    let reason = one.refresh().await.unwrap().status_reason.clone();
    assert_eq!(reason, None, "its processes are on disk");
    let child = one.fork().await.unwrap();
    assert!(child.disks().await.unwrap().is_empty());
    assert_eq!(run(&child, "ls /mnt/data; grep -c fuse /proc/mounts || true").await, "0\n");
    child.destroy().await.unwrap();
    one.resume().await.unwrap();
    one.wait_until_mounted(MOUNT).await.unwrap();
    assert_eq!(run(&one, "kill -0 $(cat /tmp/pid); cat /mnt/data/kept").await, "kept\n");
    // With something running that uses it, that stands still in memory, and goes on.
    let hold = "import time\nf = open('/mnt/data/log', 'w', buffering=1)\nn = 0\n\
        while True:\n  n += 1\n  f.write('%d\\n' % n)\n  time.sleep(0.05)";
    run(&one, &format!("nohup python3 -c \"{hold}\" >/dev/null 2>&1 & echo $! >/tmp/pid")).await;
    until(&one, "[ -s /mnt/data/log ] && echo some", "some\n").await;
    one.pause().await.unwrap();
    let reason = one.refresh().await.unwrap().status_reason.clone().unwrap_or_default();
    assert!(reason.contains("paused in memory"), "{reason}");
    one.resume().await.unwrap();
    one.wait_until_mounted(MOUNT).await.unwrap();
    let lines = run(&one, "wc -l </mnt/data/log").await;
    let more = format!("[ $(wc -l </mnt/data/log) -gt {} ] && echo more", lines.trim());
    until(&one, &more, "more\n").await;
    run(&one, "kill $(cat /tmp/pid)").await;
    fixture.end().await;
}

#[tokio::test]
async fn the_next_engine_mounts_them_again_and_nothing_is_left_of_the_last() {
    let (s3, dir) = (S3::start(), tempfile::tempdir().unwrap());
    let start = async || {
        let engine = createos_local::Engine::builder().data_dir(dir.path()).start().await.unwrap();
        Fixture { client: engine.client(), engine }
    };
    let fixture = start().await;
    let made = disk(&fixture, &s3, "data").await;
    let one = with_disk(&fixture, &made).await;
    run(&one, "echo kept >/mnt/data/kept").await;
    fixture.end().await;

    let fixture = start().await;
    let one = fixture.client.sandbox(one.id().clone());
    assert_eq!(row(&one).await.mount_status, MountStatus::Pending);
    one.resume().await.unwrap();
    one.wait_until_mounted(MOUNT).await.unwrap();
    assert_eq!(run(&one, "cat /mnt/data/kept").await, "kept\n");
    one.destroy().await.unwrap();
    fixture.client.get_disk("data").await.unwrap().delete().await.unwrap();
    fixture.end().await;
    let staged = std::fs::read_dir(dir.path().join("staging")).unwrap().count();
    assert_eq!(staged, 0);
}

/// Threads of this process that serve file systems.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.starts_with("createos-fuse") || name.starts_with("fuser")).count()
}

#[tokio::test]
async fn while_a_server_stalls_everything_else_goes_on_and_pauses_and_ends_are_bounded() {
    let (mut s3, fixture) = (S3::start(), Fixture::start().await);
    let disk = disk(&fixture, &s3, "data").await;
    let one = with_disk(&fixture, &disk).await;
    run(&one, "echo kept >/mnt/data/kept; sleep 1.1").await;
    s3.fault("stall");
    run(&one, "for n in 1 2 3 4; do nohup cat /mnt/data/kept >/dev/null 2>&1 & done").await;
    let transfer = one.files().read("/mnt/data/kept");
    let meanwhile = async {
        for _ in 0..5 {
            let begun = Instant::now();
            assert_eq!(sh(&one, "ls / | grep -c mnt").await, "1\n");
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        }
        let begun = Instant::now();
        run(&one, "nohup sleep 1000 >/dev/null 2>&1 & nohup cat /mnt/data/kept >/dev/null 2>&1 &")
            .await;
        one.pause().await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    };
    let (read, ()) = futures::join!(transfer.into_future(), meanwhile);
    read.expect_err("it stalled, or was interrupted by the pause");
    one.resume().await.unwrap();
    assert_eq!(run(&one, "pgrep -c -x sleep").await, "1\n");
    s3.fault("none");
    until_status(&one, MountStatus::Mounted).await;
    until(&one, "cat /mnt/data/kept 2>&1", "kept\n").await;
    s3.fault("stall");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let hold = "nohup sh -c 'echo x >/mnt/data/x; cat /mnt/data/kept' >/dev/null 2>&1 &";
    run(&one, hold).await;
    let begun = Instant::now();
    one.destroy().await.unwrap();
    one.wait_until(createos_sdk::wire::SandboxStatus::Destroyed).await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    fixture.end().await;
}

#[tokio::test]
async fn an_engine_that_is_killed_leaves_nothing_mounted_and_the_next_one_goes_on() {
    let (s3, dir) = (S3::start(), tempfile::tempdir().unwrap());
    let start = || {
        let program = env!("CARGO_BIN_EXE_createos-tests-engine");
        EngineProcess::start(Command::new(program).arg(dir.path()))
    };
    let engine = start();
    let made = engine.client.create_disk("data", s3.config(), s3.keys()).await.unwrap();
    let creating = engine.client.create_sandbox("s-1vcpu-256mb").disk(made.id().clone(), MOUNT);
    let one = creating.await.unwrap();
    one.wait_until_mounted(MOUNT).await.unwrap();
    run(&one, "echo kept >/mnt/data/kept").await;
    let hold = "exec 9>/mnt/data/open; while :; do echo more >&9; sleep 0.0123456; done";
    run(&one, &format!("nohup sh -c '{hold}' >/dev/null 2>&1 &")).await;
    until(&one, "pgrep -f -c 'slee[p] 0.0123456' | grep -c .", "1\n").await;
    engine.kill();
    let begun = Instant::now();
    let is_left = || {
        let found = Command::new("pgrep").args(["-f", "slee[p] 0.0123456"]).output();
        !found.unwrap().stdout.is_empty()
    };
    while is_left() {
        assert!(begun.elapsed() < Duration::from_secs(10), "a process that writes is left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(std::fs::read_dir(dir.path().join("staging")).unwrap().count(), 0);

    let engine = start();
    let one = engine.client.sandbox(one.id().clone());
    one.resume().await.unwrap();
    one.wait_until_mounted(MOUNT).await.unwrap();
    assert_eq!(run(&one, "cat /mnt/data/kept").await, "kept\n");
    engine.end();
}

/// An engine of an ordinary user, who may open `/dev/fuse` or not; root tries both without
/// changing anything on the machine.
fn users_engine(home: &Path, may_open: bool) -> EngineProcess {
    const USER: u32 = 12_345;
    let (program, data_dir) = (home.join("engine"), home.join("data"));
    std::fs::copy(env!("CARGO_BIN_EXE_createos-tests-engine"), &program).unwrap();
    std::fs::create_dir(&data_dir).unwrap();
    std::fs::set_permissions(&data_dir, Permissions::from_mode(0o700)).unwrap();
    std::fs::set_permissions(home, Permissions::from_mode(0o755)).unwrap();
    std::os::unix::fs::chown(&data_dir, Some(USER), Some(USER)).unwrap();
    let (mode, home) = (if may_open { "666" } else { "600" }, home.display());
    let script = format!(
        "set -e; mknod {home}/fuse c 10 229; chmod {mode} {home}/fuse; \
         mount --bind {home}/fuse /dev/fuse; \
         exec setpriv --reuid={USER} --regid={USER} --clear-groups {home}/engine {home}/data"
    );
    EngineProcess::start(Command::new("unshare").args(["--mount", "sh", "-c", &script]))
}

#[tokio::test]
async fn an_ordinary_user_is_told_what_is_missing_and_served_where_it_is_there() {
    let is_root = rustix::process::geteuid().is_root();
    assert!(is_root, "only root can show both to an engine; run these tests as root");
    let (s3, home) = (S3::start(), tempfile::tempdir().unwrap());
    let engine = users_engine(home.path(), false);
    engine.client.create_disk("data", s3.config(), s3.keys()).await.unwrap();
    let one = engine.client.create_sandbox("s-1vcpu-256mb").await.unwrap();
    let error = one.attach_disk("data", MOUNT).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedState, "{error}");
    for words in ["/dev/fuse", "Permission denied", "run the engine as root"] {
        assert!(error.to_string().contains(words), "{error}");
    }
    assert_eq!(sh(&one, "echo well").await, "well\n");
    engine.end();

    let home = tempfile::tempdir().unwrap();
    let engine = users_engine(home.path(), true);
    engine.client.create_disk("data", s3.config(), s3.keys()).await.unwrap();
    let one = engine.client.create_sandbox("s-1vcpu-256mb").await.unwrap();
    one.attach_disk("data", MOUNT).await.unwrap();
    assert_eq!(run(&one, "cd /mnt/data; echo mine >x; stat -c %U x; cat x").await, "root\nmine\n");
    run(&one, "nohup sleep 1000 >/dev/null 2>&1 &").await;
    one.pause().await.unwrap();
    one.resume().await.unwrap();
    assert_eq!(run(&one, "cat /mnt/data/x").await, "mine\n");
    one.detach_disk("data", MOUNT).await.unwrap();
    assert_eq!(run(&one, "ls /mnt/data; grep -c fuse.s3 /proc/mounts || true").await, "0\n");
    one.attach_disk("data", MOUNT).await.unwrap();
    one.destroy().await.unwrap();
    engine.end();
}

/// The official client, unmodified.
#[tokio::test]
async fn the_official_client_creates_attaches_and_detaches_disks() {
    use createos::{
        AttachDiskOptions, Client, CreateSandboxRequest, DetachDiskOptions, DiskConfig,
        DiskCreateRequest, DiskCredentials, PaginationOptions,
    };
    let (s3, fixture) = (S3::start(), Fixture::start().await);
    let client = Client::builder().base_url(fixture.engine.url());
    let client = client.api_key(fixture.engine.api_key().expose()).without_retry().build().unwrap();
    let config = s3.config();
    let request = DiskCreateRequest {
        name: "data".into(),
        kind: "s3".into(),
        config: DiskConfig {
            bucket: config.bucket,
            endpoint: config.endpoint,
            region: config.region,
            use_path_style: true,
        },
        credentials: DiskCredentials {
            access_key: s3.keys().access_key.expose().to_owned(),
            secret_key: s3.keys().secret_key.expose().to_owned(),
        },
    };
    let disks = client.disks();
    let disk = disks.create(request).await.expect("create");
    assert_eq!(disks.get("data").await.expect("get").id, disk.id);
    assert_eq!(disks.list(PaginationOptions::default()).await.expect("list").len(), 1);
    let request = CreateSandboxRequest { shape: "s-1vcpu-256mb".into(), ..Default::default() };
    let sandbox = client.create_sandbox(request).await.expect("sandbox");
    let attach =
        AttachDiskOptions { disk_id: disk.id.clone(), mount_path: MOUNT.into(), sub_path: None };
    sandbox.attach_disk(attach).await.expect("attach");
    assert_eq!(sandbox.disks(PaginationOptions::default()).await.expect("disks").len(), 1);
    let detach = DetachDiskOptions { disk_id: disk.id, mount_path: MOUNT.into() };
    sandbox.detach_disk(detach).await.expect("detach");
    disks.delete("data").await.expect("delete");
    fixture.end().await;
}
