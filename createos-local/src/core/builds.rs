//! Which builds of templates are under way, and who follows them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use createos_sdk::TemplateId;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// How far the build of a template is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    Pending,
    Building,
    Ready,
    Failed,
}

impl Progress {
    const ALL: [Self; 4] = [Self::Pending, Self::Building, Self::Ready, Self::Failed];

    /// The word on the wire and in the store.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Building => "building",
            Self::Ready => "ready",
            Self::Failed => "failed",
        }
    }

    /// Reads the word of [`Progress::as_str`].
    pub(crate) fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|progress| progress.as_str() == word)
    }

    /// Whether the build is over.
    pub(crate) const fn is_final(self) -> bool {
        matches!(self, Self::Ready | Self::Failed)
    }
}

/// What builds of templates may use. Memory, CPU, processes and disk are enforced where they
/// are for sandboxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildLimits {
    /// Builds at once; others wait. Default 2.
    pub at_once: usize,
    /// Builds that may wait. Default 20.
    pub waiting: usize,
    /// From the first command of a build to its last. Default half an hour.
    pub time: Duration,
    /// What the commands of a build may write to their output before it fails. Default 64 MiB.
    pub output_bytes: u64,
    /// How much of that its log keeps. Default 4 MiB.
    pub log_bytes: u64,
    /// Memory of a build. Default 4 GiB.
    pub memory_bytes: u64,
    /// Hundredths of a CPU. Default 200.
    pub cpu_percent: u32,
    /// Processes of a build at once. Default 4096.
    pub processes: u32,
    /// What a build may write to its files, in MiB. Default 10 GiB.
    pub disk_mib: u64,
}

impl Default for BuildLimits {
    fn default() -> Self {
        Self {
            at_once: 2,
            waiting: 20,
            time: Duration::from_secs(1800),
            output_bytes: 64 << 20,
            log_bytes: 4 << 20,
            memory_bytes: 4 << 30,
            cpu_percent: 200,
            processes: 4096,
            disk_mib: crate::catalog::DISK_MIB,
        }
    }
}

/// All builds that wait or run.
pub(super) struct Builds {
    pub(super) room: Arc<Semaphore>,
    /// What ends each.
    running: Mutex<HashMap<TemplateId, CancellationToken>>,
    /// Changes with every line and every end, of any build.
    news: watch::Sender<()>,
}

impl Builds {
    pub(super) fn new(at_once: usize) -> Self {
        let (news, _) = watch::channel(());
        Self { room: Arc::new(Semaphore::new(at_once)), running: Mutex::default(), news }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<TemplateId, CancellationToken>> {
        // Nothing panics while it is held, so a poisoned one is still whole.
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a build in, unless that many are there already.
    pub(super) fn enter(&self, id: &TemplateId, most: usize) -> Option<CancellationToken> {
        let mut running = self.running();
        if running.len() >= most {
            return None;
        }
        let cancel = CancellationToken::new();
        running.insert(id.clone(), cancel.clone());
        Some(cancel)
    }

    pub(super) fn leave(&self, id: &TemplateId) {
        self.running().remove(id);
    }

    /// Ends a build; whether there was one.
    pub(super) fn cancel(&self, id: &TemplateId) -> bool {
        let running = self.running();
        running.get(id).is_some_and(|cancel| {
            cancel.cancel();
            true
        })
    }

    pub(super) fn tell(&self) {
        self.news.send_replace(());
    }

    /// Sees what is told from now on.
    pub(super) fn listen(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }
}
