//! What a user of a sync relies on, one by one.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use createos_sdk::ErrorKind;
use createos_sdk::sync::{SyncEvent, SyncMode};
use createos_tests::Fixture;
use futures::TryStreamExt;

use crate::support::{Entry, Pair, path_of, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_is_kept_the_same() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    everything_travels(&Pair::new(&sandbox, "/root/work")).await;
    changes_meet(&Pair::new(&sandbox, "/root/meet")).await;
    kinds_are_swapped(&Pair::new(&sandbox, "/root/swap")).await;
    patterns_leave_out(&Pair::new(&sandbox, "/root/patterns")).await;
    nothing_is_reached_through_links(&Pair::new(&sandbox, "/root/links")).await;
    modes(&sandbox).await;
    live(&Pair::new(&sandbox, "/root/live")).await;
    memory(&Pair::new(&sandbox, "/root/memory")).await;
    refusals(&sandbox).await;
    fixture.end().await;
}

/// Names that every second program trips over.
fn nasty_names() -> Vec<Vec<u8>> {
    let mut names: Vec<Vec<u8>> = [
        "-rf",
        "--",
        "a b",
        " lead",
        "trail ",
        "new\nline",
        "end\n",
        "\n",
        "tab\t",
        "q'uote",
        "d\"ouble",
        "back\\slash",
        "$(touch x)",
        "`id`",
        "*",
        "?",
        "[a]",
        "ünï",
        "日本",
        "a;b",
        "a&b",
        "%s%n",
        "\\n",
        "~",
        "#c",
        "!",
        "...",
        "é\u{301}",
    ]
    .iter()
    .map(|name| name.as_bytes().to_vec())
    .collect();
    names.push(b"\xff\xfe".to_vec());
    names.push(b"caf\xe9\n".to_vec());
    names.push((1..=255u8).filter(|byte| *byte != b'/').collect::<Vec<u8>>()[..120].to_vec());
    names.push((120..=255u8).collect());
    names.push(vec![b'n'; 255]);
    names
}

async fn everything_travels(pair: &Pair) {
    let root = pair.dir.path();
    for (n, name) in nasty_names().into_iter().enumerate() {
        fs::write(path_of(root, &name), format!("content {n}")).expect("a file");
    }
    fs::create_dir(root.join("-dir\n'")).expect("a directory");
    for name in nasty_names() {
        fs::write(path_of(&root.join("-dir\n'"), &name), &name).expect("a file");
        let _ = symlink(path_of(Path::new(""), &name), path_of(&root.join("-dir\n'"), b"l\xff"));
    }
    pair.write("deep/er/and/deeper/still/x", "");
    pair.write("big", vec![7u8; 5 << 20]);
    pair.write("run.sh", "#!/bin/sh\n");
    for (path, mode) in [("run.sh", 0o751), ("deep", 0o700), ("deep/er/and/deeper/still/x", 0o600)]
    {
        fs::set_permissions(pair.here(path), fs::Permissions::from_mode(mode)).expect("a mode");
    }
    symlink("/etc/passwd", pair.here("out")).expect("a link");
    symlink("gone\nx", pair.here("dangling")).expect("a link");
    fs::create_dir(pair.here("empty")).expect("a directory");
    let report = pair.once().await;
    assert!(report.is_clean(), "{report:?}");
    let tree = pair.assert_same().await;
    assert_eq!(report.local_entries, tree.len() as u64);

    // And back: the same tree, into an empty directory.
    let back = Pair::new(&pair.sandbox, &pair.remote);
    assert!(back.once().await.is_clean());
    assert_eq!(back.assert_same().await, tree);

    let again = pair.once().await;
    assert_eq!((again.local_changes, again.remote_changes), (0, 0), "nothing is left to do");
}

async fn changes_meet(pair: &Pair) {
    for name in ["both", "same", "local", "remote", "del-here", "del-there", "del-edit", "touched"]
    {
        pair.write(name, "one");
    }
    let mut sync = pair.sandbox.sync(pair.dir.path(), &pair.remote).await.expect("a sync");
    until(&mut sync, "the first copy", async || true).await;
    // Nothing is polled, so all of this is there at once.
    pair.write("both", "two, here");
    pair.write("same", "two");
    pair.write("local", "two");
    pair.write("del-edit", "two");
    fs::remove_file(pair.here("del-here")).expect("removed");
    pair.sh("echo -n 'two, there' > both; echo -n two > same; echo -n two > remote; \
         rm del-there del-edit; touch touched; ln -s a link; mkdir -m 750 new; echo -n x > new/x")
        .await;
    let events = until(&mut sync, "changes of both sides", async || {
        pair.here("new/x").exists() && !pair.here("del-there").exists()
    })
    .await;
    let conflicts: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            SyncEvent::Conflict { path, .. } => Some(path.to_string()),
            _ => None,
        })
        .collect();
    assert_eq!(conflicts, ["both"]);
    let (local, remote) = (pair.local(), pair.remote().await);
    let content = |tree: &crate::support::Tree, name: &str| match tree.get(name.as_bytes()) {
        Some(Entry::File(_, content)) => String::from_utf8(content.clone()).expect("text"),
        other => format!("{other:?}"),
    };
    assert_eq!(content(&local, "both"), "two, here");
    assert_eq!(content(&remote, "both"), "two, there");
    for name in ["same", "local", "remote", "del-edit"] {
        assert_eq!((name, content(&local, name).as_str()), (name, "two"));
        assert_eq!((name, content(&remote, name).as_str()), (name, "two"));
    }
    assert!(!local.contains_key(&b"del-there"[..]) && !remote.contains_key(&b"del-here"[..]));
    assert_eq!(local.get(&b"new"[..]), Some(&Entry::Dir(0o750)));

    pair.write("both", "two, there");
    let events = until(&mut sync, "a conflict that is over", async || true).await;
    assert!(events.iter().any(|event| matches!(event, SyncEvent::Resolved { .. })), "{events:?}");
    pair.assert_same().await;
}

async fn kinds_are_swapped(pair: &Pair) {
    pair.write("a/x", "x");
    pair.write("a/y/z", "z");
    pair.write("b", "b");
    pair.write("c/x", "x");
    pair.write("d", "d");
    pair.write("e/x", "x");
    symlink("b", pair.here("l")).expect("a link");
    let mut sync = pair.sandbox.sync(pair.dir.path(), &pair.remote).await.expect("a sync");
    until(&mut sync, "the first copy", async || true).await;
    fs::remove_dir_all(pair.here("a")).expect("removed");
    pair.write("a", "now a file");
    fs::remove_file(pair.here("b")).expect("removed");
    pair.write("b/in", "now a directory");
    fs::remove_file(pair.here("l")).expect("removed");
    pair.write("l", "now a file");
    // Both swap this one: what was changed there stays, and here too.
    fs::remove_dir_all(pair.here("e")).expect("removed");
    pair.write("e", "a file");
    pair.sh("rm -r c; echo -n file > c; rm d; mkdir d; echo -n in > d/in; echo -n changed > e/x")
        .await;
    let events = until(&mut sync, "swaps", async || pair.here("d/in").exists()).await;
    let conflicts: Vec<_> = events
        .iter()
        .filter(
            |event| matches!(event, SyncEvent::Conflict { path, .. } if path.as_bytes() == b"e"),
        )
        .collect();
    assert_eq!(conflicts.len(), 1, "{events:?}");
    let (mut local, mut remote) = (pair.local(), pair.remote().await);
    assert_eq!(local.remove(&b"e"[..]), Some(Entry::File(0o644, b"a file".to_vec())));
    assert_eq!(remote.remove(&b"e/x"[..]), Some(Entry::File(0o644, b"changed".to_vec())));
    remote.remove(&b"e"[..]);
    crate::support::assert_same(&local, &remote);
}

async fn patterns_leave_out(pair: &Pair) {
    pair.write("keep/a.txt", "a");
    pair.write("target/out", "o");
    pair.write("keep/x.log", "l");
    pair.write(".git/HEAD", "h");
    pair.sandbox.command("mkdir").args(["-p", &pair.remote]).await.expect("mkdir");
    pair.sh("mkdir -p node_modules/x .git; echo 1 > node_modules/x/y; echo 1 > .git/there").await;
    let sync = pair.sandbox.sync(pair.dir.path(), &pair.remote);
    let sync = sync.excludes(["target/", "*.log", "node_modules", ""]);
    assert!(sync.clone().once().await.expect("a sync").is_clean());
    assert_eq!(
        pair.sh("find . -name .git -prune -o -type f -print").await,
        "./node_modules/x/y\n./keep/a.txt\n"
    );
    assert!(!pair.here("node_modules").exists() && !pair.here(".git/there").exists());
    // What is left out keeps its directory, and nothing of it goes.
    fs::remove_dir_all(pair.here("keep")).expect("removed");
    sync.clone().once().await.expect("a sync");
    let with_vcs = sync.ignore_vcs(false).once().await.expect("a sync");
    assert!(with_vcs.is_clean());
    assert!(pair.here(".git/there").exists());
    assert_eq!(pair.sh("cat .git/HEAD; ls node_modules/x").await, "hy\n");
}

async fn nothing_is_reached_through_links(pair: &Pair) {
    let outside = tempfile::tempdir().expect("a directory");
    fs::write(outside.path().join("secret"), "s").expect("a file");
    symlink(outside.path(), pair.here("d")).expect("a link");
    pair.sandbox.command("mkdir").args(["-p", &pair.remote]).await.expect("mkdir");
    pair.sh("mkdir d; echo evil > d/evil; echo over > d/secret").await;
    let report = pair.once().await;
    assert_eq!(report.conflicts.len(), 1, "{report:?}");
    let names: Vec<_> = fs::read_dir(outside.path()).expect("a directory").collect();
    assert_eq!(names.len(), 1);
    assert_eq!(fs::read_to_string(outside.path().join("secret")).expect("a file"), "s");
    assert_eq!(pair.sh("cat d/secret").await, "over\n");
}

async fn modes(sandbox: &createos_sdk::Sandbox) {
    let pair = Pair::new(sandbox, "/root/one-way");
    pair.write("a", "here");
    pair.write("gone", "here");
    pair.write("mine", "here");
    let one_way = || pair.sandbox.sync(pair.dir.path(), &pair.remote).mode(SyncMode::OneWay);
    let mut sync = one_way().await.expect("a sync");
    until(&mut sync, "the first copy", async || true).await;
    pair.sh("echo extra > extra; echo there > mine; rm a").await;
    fs::remove_file(pair.here("gone")).expect("removed");
    until(&mut sync, "one way", async || pair.sh("ls").await == "a\nextra\nmine\n").await;
    assert!(!pair.here("extra").exists(), "nothing comes back");
    assert_eq!(fs::read_to_string(pair.here("mine")).expect("a file"), "here");
    assert_eq!(pair.sh("cat a mine").await, "herethere\n", "its own change stays");
    drop(sync);

    let mirror = pair.sandbox.sync(pair.dir.path(), &pair.remote).mode(SyncMode::Mirror);
    let report = mirror.once().await.expect("a mirror");
    assert!(report.is_clean() && report.local_changes == 0, "{report:?}");
    pair.assert_same().await;
    assert_eq!(pair.sh("ls; cat mine").await, "a\nmine\nhere");
}

async fn live(pair: &Pair) {
    let mut sync = pair.sandbox.sync(pair.dir.path(), &pair.remote).await.expect("a sync");
    assert_eq!(sync.remote_path(), "/root/live");
    until(&mut sync, "the start", async || true).await;
    let stop = sync.stop_handle();
    let (sandbox, remote) = (pair.sandbox.clone(), pair.remote.clone());
    let there = tokio::spawn(async move {
        let script = format!("cd {remote} && sleep 1 && echo -n there > from-there");
        createos_tests::sh(&sandbox, &script).await
    });
    until(&mut sync, "a change there", async || pair.here("from-there").exists()).await;
    there.await.expect("a script");
    let here = pair.here("from-here");
    let writer = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(500));
        fs::write(here, "here").expect("a file");
    });
    let name = "cat from-here 2>/dev/null || true";
    until(&mut sync, "a change here", async || pair.sh(name).await == "here").await;
    writer.join().expect("written");
    // The last file goes too: a side that was emptied on purpose is believed.
    fs::remove_file(pair.here("from-here")).expect("removed");
    fs::remove_file(pair.here("from-there")).expect("removed");
    until(&mut sync, "emptied", async || pair.sh("ls -A").await.is_empty()).await;
    pair.write("last", "x");
    stop.stop();
    let rest: Vec<SyncEvent> = sync.try_collect().await.expect("it ends well");
    drop(rest);
    assert_eq!(pair.sh("ls -A | grep createos || true").await, "", "nothing is left behind");

    let mut sync = pair.sandbox.sync(pair.dir.path(), &pair.remote).await.expect("a sync");
    until(&mut sync, "the start", async || true).await;
    pair.sh("cd .. && rm -r live").await;
    let error = loop {
        match sync.try_next().await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("it ends without an error"),
            Err(error) => break error,
        }
    };
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(pair.here("last").exists(), "nothing is deleted for a directory that vanished");
}

async fn memory(pair: &Pair) {
    let file = tempfile::tempdir().expect("a directory");
    let file = file.path().join("state");
    for name in ["a", "b", "c", "d/e"] {
        pair.write(name, name);
    }
    let sync = || pair.sandbox.sync(pair.dir.path(), &pair.remote).remember_in(&file);
    assert!(sync().once().await.expect("a sync").is_clean());
    fs::remove_file(pair.here("a")).expect("removed");
    pair.sh("rm b; echo -n more >> c; rm -r d").await;
    fs::remove_file(pair.here("c")).expect("removed");
    let report = sync().once().await.expect("a sync");
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(pair.sh("ls; cat c").await, "c\ncmore");
    pair.assert_same().await;
    // A side that lost everything meanwhile is filled again, not emptied.
    fs::remove_file(pair.here("c")).expect("removed");
    assert!(sync().once().await.expect("a sync").is_clean());
    assert_eq!(fs::read_to_string(pair.here("c")).expect("a file"), "cmore");
    // Without a memory, or with a damaged one, nothing is deleted.
    fs::write(&file, "{").expect("written");
    pair.write("x", "x");
    sync().once().await.expect("a sync");
    fs::remove_file(pair.here("x")).expect("removed");
    assert!(pair.once().await.is_clean());
    assert!(pair.here("x").exists());
}

async fn refusals(sandbox: &createos_sdk::Sandbox) {
    let dir = tempfile::tempdir().expect("a directory");
    for path in ["", "work", "/", "//.", "/a/../b", "/a\nb"] {
        let error = sandbox.sync(dir.path(), path).await.expect_err(path);
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{path:?}: {error}");
    }
    let error = sandbox.sync(dir.path().join("gone"), "/root/x").await.expect_err("gone");
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    let error = sandbox.sync(dir.path(), "/etc/passwd").await.expect_err("a file");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    let error = sandbox.sync(dir.path(), "/root/x").exclude("[z-a]").await.expect_err("a pattern");
    assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
}
