//! Starting a sync.

use std::future::IntoFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;

use super::event::{SyncEvent, SyncReport};
use super::filter::Filter;
use super::local::LocalRoot;
use super::remote::{OPERATION, RemoteRoot};
use super::session::SyncSession;
use super::state;
use crate::error::{Error, ErrorKind, Result};
use crate::pending::Pending;
use crate::sandbox::Sandbox;

/// Which way changes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum SyncMode {
    /// Both ways. A file that was changed on both sides is left alone on both.
    #[default]
    TwoWay,
    /// From here into the sandbox, over nothing that was changed there. What else is in the
    /// sandbox stays.
    OneWay,
    /// The sandbox is made the same as here: what was changed there is overwritten, what only
    /// it has is deleted.
    Mirror,
}

/// Starts a sync. Made with [`Sandbox::sync`]; awaiting it gets both directories ready and gives
/// a [`SyncSession`].
///
/// The directory here must be there; the one in the sandbox is made where it is missing.
///
/// # Errors
///
/// `InvalidArgument`: a path or pattern cannot be meant. `Io`: the directory here cannot be
/// opened. `Unsupported`: the sandbox has not the programs that it takes. `Conflict`: the sandbox
/// is not running.
#[derive(Debug, Clone)]
#[must_use = "nothing is done until awaited"]
pub struct StartSync {
    pub(super) sandbox: Sandbox,
    local: PathBuf,
    remote: String,
    pub(super) mode: SyncMode,
    patterns: Vec<String>,
    ignore_vcs: bool,
    pub(super) memory: Option<PathBuf>,
    pub(super) patience: Duration,
}

impl StartSync {
    fn new(sandbox: Sandbox, local: PathBuf, remote: String) -> Self {
        Self {
            sandbox,
            local,
            remote,
            mode: SyncMode::TwoWay,
            patterns: Vec::new(),
            ignore_vcs: true,
            memory: None,
            patience: Duration::from_secs(60),
        }
    }

    /// Which way changes travel. Default: both.
    pub fn mode(mut self, mode: SyncMode) -> Self {
        self.mode = mode;
        self
    }

    /// Leaves out what this pattern fits, on both sides. Patterns are those of `.gitignore`:
    /// `target/`, `*.log`, `/build`, `!keep.log`. Blank ones are dropped.
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.patterns.push(pattern.into());
        self
    }

    /// Leaves out what these patterns fit.
    pub fn excludes<P: Into<String>>(mut self, patterns: impl IntoIterator<Item = P>) -> Self {
        self.patterns.extend(patterns.into_iter().map(Into::into));
        self
    }

    /// Whether the directories of version control (`.git`, `.hg`, …) are left out. Default: yes.
    pub fn ignore_vcs(mut self, ignore: bool) -> Self {
        self.ignore_vcs = ignore;
        self
    }

    /// Remembers in this file what both sides agreed on, for the next sync of the same two
    /// directories: what was deleted in between is then deleted on the other side too, where it
    /// is unchanged there. Without it everything that only one side has is copied.
    ///
    /// The file is made for its owner alone. A file that is of other directories, or cannot be
    /// understood, is replaced.
    pub fn remember_in(mut self, file: impl Into<PathBuf>) -> Self {
        self.memory = Some(file.into());
        self
    }

    /// How long to try to reach the sandbox when the connection is lost, before the sync fails.
    /// Default 60 s.
    pub fn patience(mut self, limit: Duration) -> Self {
        self.patience = limit;
        self
    }

    /// Makes both sides the same once, and ends.
    ///
    /// ```no_run
    /// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
    /// let report = sandbox.sync("project", "/work/project").once().await?;
    /// assert!(report.is_clean(), "left alone: {:?}", report.conflicts);
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of starting, and those of [`SyncSession`]. What cannot be done, and conflicts, are
    /// no errors: the report has them.
    pub fn once(self) -> Pending<SyncReport> {
        Pending::new(async move {
            let mut session = self.await?;
            let stop = session.stop_handle();
            let mut last = None;
            while let Some(event) = session.try_next().await? {
                if let SyncEvent::Settled(report) = event {
                    last = Some(report);
                    stop.stop();
                }
            }
            last.ok_or_else(|| Error::new(ErrorKind::Io, "the sync ended before it was done"))
        })
    }

    async fn run(self) -> Result<SyncSession> {
        let in_operation = |error: Error| error.in_operation(OPERATION);
        let filter = Filter::new(&self.patterns, self.ignore_vcs).map_err(in_operation)?;
        check_remote(&self.remote).map_err(in_operation)?;
        let (path, clearing) = (self.local.clone(), filter.clone());
        let opened = tokio::task::spawn_blocking(move || LocalRoot::open(&path, &clearing)).await;
        let local = opened.unwrap_or_else(|error| Err(std::io::Error::other(error)));
        let local = local.map_err(|error| {
            let message = format!("{} cannot be synced: {error}", self.local.display());
            Error::new(ErrorKind::Io, message).in_operation(OPERATION).with_source(error)
        })?;
        let remote = RemoteRoot::prepare(self.sandbox.clone(), &self.remote).await?;
        let base = match &self.memory {
            Some(file) => state::load(file, &local, &remote),
            None => None,
        };
        Ok(SyncSession::new(self, filter, Arc::new(local), remote, base))
    }
}

fn check_remote(path: &str) -> Result<()> {
    let why = match () {
        () if !path.starts_with('/') => "must be absolute",
        () if path.contains('\0') || path.contains('\n') => "must have no line break and no NUL",
        () if path.split('/').any(|part| part == "..") => "must not contain `..`",
        () if path.split('/').all(|part| part.is_empty() || part == ".") => {
            "must not be the root of the sandbox"
        }
        () => return Ok(()),
    };
    Err(Error::invalid_argument("remote path", format!("{path:?} {why}")))
}

impl IntoFuture for StartSync {
    type Output = Result<SyncSession>;
    type IntoFuture = Pending<SyncSession>;

    fn into_future(self) -> Pending<SyncSession> {
        Pending::new(self.run())
    }
}

impl Sandbox {
    /// Keeps a directory here and one in the sandbox the same, until stopped. See
    /// [`sync`](crate::sync).
    pub fn sync(&self, local: impl Into<PathBuf>, remote: impl Into<String>) -> StartSync {
        StartSync::new(self.clone(), local.into(), remote.into())
    }
}
