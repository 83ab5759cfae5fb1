//! Noticing changes.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::filter::Filter;
use super::remote::RemoteRoot;
use crate::error::{ErrorKind, Result};
use crate::guard::Guard;
use crate::process::{Process, ProcessEvent, ProcessStream};

/// How long a program in the sandbox watches before it is started anew: one whose client was
/// killed ends by itself.
const TERM: Duration = Duration::from_secs(300);
/// How often the side is looked at that cannot be watched.
const POLL: Duration = Duration::from_secs(5);

/// Watches the directory here.
pub(super) struct LocalWatch {
    changed: Arc<Notify>,
    /// Dropping it ends the watch. `None` where the system does not watch.
    watcher: Option<RecommendedWatcher>,
}

impl LocalWatch {
    pub(super) async fn start(root: &Path, filter: Arc<Filter>) -> Self {
        let changed = Arc::new(Notify::new());
        let (root, tell) = (root.to_owned(), changed.clone());
        // It visits every directory.
        let watcher = tokio::task::spawn_blocking(move || watch(&root, filter, tell)).await;
        Self { changed, watcher: watcher.ok().flatten() }
    }

    /// Waits until something may have changed. Dropping the wait loses nothing.
    pub(super) async fn changed(&self) {
        match self.watcher {
            Some(_) => self.changed.notified().await,
            None => {
                drop(tokio::time::timeout(POLL, self.changed.notified()).await);
            }
        }
    }
}

fn watch(root: &Path, filter: Arc<Filter>, tell: Arc<Notify>) -> Option<RecommendedWatcher> {
    let base = root.to_owned();
    let real = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let counts = move |path: &Path| {
        let below = path.strip_prefix(&base).or_else(|_| path.strip_prefix(&real));
        below.map_or(true, |below| !filter.excludes_deep(below.as_os_str().as_bytes()))
    };
    let on_event = move |event: notify::Result<notify::Event>| {
        let counts = match event {
            Ok(event) if matches!(event.kind, EventKind::Access(_)) => false,
            Ok(event) => event.paths.is_empty() || event.paths.iter().any(|path| counts(path)),
            Err(_) => true,
        };
        if counts {
            tell.notify_one();
        }
    };
    let mut watcher = notify::recommended_watcher(on_event).ok()?;
    watcher.watch(root, RecursiveMode::Recursive).ok()?;
    Some(watcher)
}

/// Watches the directory in the sandbox.
pub(super) struct RemoteWatch {
    process: Option<(Guard<Process>, ProcessStream)>,
    entries: u64,
}

impl RemoteWatch {
    /// Starts a program that tells of changes; from now on none is missed.
    pub(super) async fn start(root: &RemoteRoot, filter: &Filter, entries: u64) -> Result<Self> {
        let script = root.watcher(filter, interval(entries), TERM.as_secs());
        let spawned = root.sandbox.spawn("sh").args(["-c".to_owned(), script]).guarded().await;
        let process = match spawned {
            Ok(process) => {
                let events = process.attach().await?;
                Some((process, events))
            }
            // A server without managed processes.
            Err(error) if error.kind() == ErrorKind::Unsupported => None,
            Err(error) => return Err(error),
        };
        Ok(Self { process, entries })
    }

    /// Ends it, and waits until it has ended.
    pub(super) async fn close(self) {
        if let Some((process, events)) = self.process {
            drop(events);
            // One that cannot be reached ends by itself.
            drop(process.close().await);
        }
    }

    /// Whether there are so many more entries that it should look less often.
    pub(super) fn is_outgrown(&self, entries: u64) -> bool {
        interval(entries) != interval(self.entries)
    }

    /// Waits until something may have changed; `false` when the watch is over. Dropping the wait
    /// loses nothing.
    pub(super) async fn changed(&mut self) -> Result<bool> {
        let Some((_, events)) = &mut self.process else {
            tokio::time::sleep(POLL).await;
            return Ok(true);
        };
        match events.next().await {
            Some(Ok(ProcessEvent::Output { .. } | ProcessEvent::Gap { .. })) => Ok(true),
            Some(Ok(_)) | None => Ok(false),
            Some(Err(error)) => Err(error),
        }
    }
}

/// Seconds between two looks: what one costs grows with the number of files.
fn interval(entries: u64) -> u64 {
    match entries {
        0..2_000 => 1,
        2_000..10_000 => 2,
        10_000..50_000 => 5,
        _ => 15,
    }
}
