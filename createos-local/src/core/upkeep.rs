//! Work without a request: deaths, forgetting the ended, removals that failed before.

use std::time::SystemTime;

use super::{Core, CoreError, State};
use crate::runtime::Died;

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
        if let Some(limit) = SystemTime::now().checked_sub(self.inner.tuning.keep_ended) {
            self.inner.store.forget_ended(limit).await?;
        }
        for sandbox in self.inner.store.in_states(&[State::Destroying]).await? {
            let id = sandbox.id();
            if self.inner.slots.get(id).work.try_lock().is_ok() {
                // Nobody is at it: the removal failed before. A failure is logged there.
                drop(self.run_to_end(self.clone().finish_destroy(id.clone()))?);
            }
        }
        Ok(())
    }
}
