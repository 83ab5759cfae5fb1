//! Work without a request: deaths, forgetting the ended, removals that failed before.

use std::time::{Duration, SystemTime};

use super::usage::REMEMBERED;
use super::{Core, CoreError, State};
use crate::runtime::Died;
use crate::store::Change;

/// How often counters are written down: a killed engine loses no more of them.
const KEEP_COUNTERS: Duration = Duration::from_secs(2);

/// How often sessions of devices do what is due by the clock.
const TEND_SESSIONS: Duration = Duration::from_millis(250);

impl Core {
    pub(super) fn start_upkeep(&self) {
        if let Some(mut deaths) = self.inner.runtime.deaths() {
            let core = self.clone();
            self.until_stopped(async move {
                while let Some(died) = deaths.recv().await {
                    core.note_death(died);
                }
            });
        }
        let core = self.clone();
        self.until_stopped(async move {
            loop {
                tokio::time::sleep(core.inner.tuning.idle_check).await;
                core.pause_idle().await;
            }
        });
        let core = self.clone();
        self.until_stopped(async move {
            loop {
                tokio::time::sleep(TEND_SESSIONS).await;
                core.tend_sessions().await;
            }
        });
        let core = self.clone();
        self.until_stopped(async move {
            loop {
                tokio::time::sleep(KEEP_COUNTERS).await;
                if let Err(error) = core.keep_counters().await {
                    tracing::warn!(%error, "what sandboxes sent and received is not kept");
                }
            }
        });
        let core = self.clone();
        self.until_stopped(async move {
            loop {
                tokio::time::sleep(core.inner.tuning.upkeep).await;
                if let Err(error) = core.tidy().await {
                    tracing::warn!(%error, "upkeep failed and will be tried again");
                }
            }
        });
    }

    fn until_stopped(&self, work: impl Future<Output = ()> + Send + 'static) {
        let stop = self.inner.stop.clone();
        tokio::spawn(async move { stop.run_until_cancelled(work).await });
    }

    /// Each death is handled on its own, so that a stuck sandbox holds up no other.
    fn note_death(&self, died: Died) {
        let id = died.id.clone();
        let core = self.clone();
        let burial = async move {
            if let Err(error) = core.bury(died).await {
                tracing::error!(sandbox = %id, %error, "after a sandbox ended by itself");
            }
            Ok(())
        };
        // During shutdown there is no point: the next start finds it.
        drop(self.run_to_end(burial));
    }

    /// One round of upkeep.
    async fn tidy(&self) -> Result<(), CoreError> {
        self.inner.store.note_alive().await?;
        if let Some(limit) = SystemTime::now().checked_sub(REMEMBERED) {
            self.inner.store.forget_runs(limit).await?;
        }
        if let Some(limit) = SystemTime::now().checked_sub(self.inner.tuning.keep_ended) {
            self.inner.store.forget_ended(limit).await?;
        }
        for sandbox in self.inner.store.in_states(&[State::Destroying]).await? {
            let id = sandbox.id();
            if !self.inner.slots.get(id).is_busy() {
                // Nobody is at it: the removal failed before. A failure is logged there.
                drop(self.run_to_end(self.clone().finish_destroy(id.clone()))?);
            }
        }
        if let Err(error) = self.inner.runtime.tidy().await {
            tracing::warn!(%error, "files of no use could not be removed");
        }
        self.tidy_transitions().await
    }

    /// Ends transitions whose outcome could not be written down.
    async fn tidy_transitions(&self) -> Result<(), CoreError> {
        for sandbox in self.inner.store.in_states(&[State::Resuming]).await? {
            if !self.inner.slots.get(sandbox.id()).is_busy() {
                drop(self.run_to_end(self.clone().finish_resume(sandbox.id().clone()))?);
            }
        }
        let held = [State::Pausing, State::Forking];
        for sandbox in self.inner.store.in_states(&held).await? {
            let id = sandbox.id();
            let Some(_work) = self.inner.slots.get(id).try_work() else { continue };
            // Who begins these states holds the sandbox until they are over.
            self.inner.runtime.stop(id).await?;
            let reason = Change::Because("the engine could not write down its state".to_owned());
            self.inner.store.change(id, &held, State::Error, reason).await?;
        }
        Ok(())
    }
}
