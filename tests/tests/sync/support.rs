//! Two directories and what they have.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use createos_sdk::Sandbox;
use createos_sdk::sync::{SyncEvent, SyncReport, SyncSession};
use futures::TryStreamExt;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Entry {
    /// With its permissions.
    Dir(u32),
    /// With its permissions and content.
    File(u32, Vec<u8>),
    Link(Vec<u8>),
}

pub(crate) type Tree = BTreeMap<Vec<u8>, Entry>;

pub(crate) struct Pair {
    pub(crate) sandbox: Sandbox,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) remote: String,
}

impl Pair {
    pub(crate) fn new(sandbox: &Sandbox, remote: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        Self { sandbox: sandbox.clone(), dir, remote: remote.to_owned() }
    }

    pub(crate) fn here(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.here(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, content).expect("a file");
    }

    pub(crate) async fn sh(&self, script: &str) -> String {
        let script = format!("cd {} && {script}", self.remote);
        createos_tests::sh(&self.sandbox, &script).await
    }

    /// Makes both sides the same, once; without a problem.
    pub(crate) async fn once(&self) -> SyncReport {
        let sync = self.sandbox.sync(self.dir.path(), &self.remote).await;
        let mut sync = sync.unwrap_or_else(|error| panic!("no sync: {error}"));
        let events = until(&mut sync, "both are the same", async || true).await;
        let is_problem = |event: &&SyncEvent| matches!(event, SyncEvent::Problem { .. });
        let problems: Vec<_> = events.iter().filter(is_problem).collect();
        assert!(problems.is_empty(), "{problems:#?}");
        match events.into_iter().last() {
            Some(SyncEvent::Settled(report)) => report,
            other => panic!("not settled: {other:?}"),
        }
    }

    pub(crate) fn local(&self) -> Tree {
        read_tree(self.dir.path())
    }

    /// Read through `tar`, so by other means than those of the sync.
    pub(crate) async fn remote(&self) -> Tree {
        let copy = tempfile::tempdir().expect("a directory");
        let root = copy.path().join("copy");
        fs::create_dir(&root).expect("a directory");
        let archive = format!("/tmp/look-{:x}.tar", std::process::id());
        let pack = format!("tar -cf {archive} --hard-dereference -C {} . && echo ok", self.remote);
        assert_eq!(createos_tests::sh(&self.sandbox, &pack).await, "ok\n");
        let packed = copy.path().join("archive");
        self.sandbox.files().download_to(&archive, &packed).await.expect("the archive");
        let mut tar = std::process::Command::new("tar");
        let unpacked = tar.arg("-xpf").arg(&packed).arg("-C").arg(&root).status().expect("tar");
        assert!(unpacked.success());
        read_tree(&root)
    }

    pub(crate) async fn assert_same(&self) -> Tree {
        let (local, remote) = (self.local(), self.remote().await);
        assert_same(&local, &remote);
        local
    }
}

pub(crate) fn assert_same(local: &Tree, remote: &Tree) {
    for (path, entry) in local {
        let name = String::from_utf8_lossy(path);
        assert_eq!(remote.get(path), Some(entry), "{name:?}: remote, local");
    }
    let more: Vec<_> = remote
        .keys()
        .filter(|path| !local.contains_key(*path))
        .map(|path| String::from_utf8_lossy(path))
        .collect();
    assert!(more.is_empty(), "only in the sandbox: {more:?}");
}

pub(crate) fn read_tree(root: &Path) -> Tree {
    let mut tree = Tree::new();
    let mut levels = vec![PathBuf::new()];
    while let Some(level) = levels.pop() {
        for entry in fs::read_dir(root.join(&level)).expect("a directory") {
            let below = level.join(entry.expect("an entry").file_name());
            let path = root.join(&below);
            let meta = fs::symlink_metadata(&path).expect("a file");
            let mode = meta.permissions().mode() & 0o777;
            let entry = if meta.is_dir() {
                levels.push(below.clone());
                Entry::Dir(mode)
            } else if meta.is_symlink() {
                let target = fs::read_link(&path).expect("a link");
                Entry::Link(target.as_os_str().as_bytes().to_vec())
            } else {
                Entry::File(mode, fs::read(&path).expect("a file"))
            };
            tree.insert(below.as_os_str().as_bytes().to_vec(), entry);
        }
    }
    tree
}

pub(crate) fn path_of(root: &Path, name: &[u8]) -> PathBuf {
    root.join(OsStr::from_bytes(name))
}

/// Follows a sync until it is settled and the condition holds.
pub(crate) async fn until(
    sync: &mut SyncSession,
    what: &str,
    mut done: impl AsyncFnMut() -> bool,
) -> Vec<SyncEvent> {
    let mut seen = Vec::new();
    let follow = async {
        loop {
            let event = sync.try_next().await.unwrap_or_else(|error| panic!("{what}: {error}"));
            let event = event.unwrap_or_else(|| panic!("{what}: the sync ended"));
            let settled = matches!(event, SyncEvent::Settled(_));
            seen.push(event);
            if settled && done().await {
                return;
            }
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), follow).await.is_err() {
        let mut stderr = std::io::stderr();
        let _ = writeln!(stderr, "{seen:#?}");
        panic!("not so after a minute: {what}");
    }
    seen
}
