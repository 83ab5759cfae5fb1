//! At start-up: finish or undo what an earlier engine began (api.md 7.2).

use std::collections::HashSet;

use createos_sdk::SandboxId;

use super::{Core, CoreError, State};
use crate::runtime::Saved;
use crate::store::{Change, Sandbox};

const INTERRUPTED: &str = "the engine ended while this sandbox ran; its files are kept, and \
                           resume starts it again from them";
const THAWED: &str = "the engine ended while this sandbox was paused in memory, and its processes \
                      with it; its files are kept, and resume starts it again from them";
const NOT_RESUMED: &str = "the engine ended while this sandbox was being resumed; resume it again";
const NOT_COPIED: &str = "the engine ended while files were being copied for this sandbox; resume \
                          copies them while its source is paused";
const NOT_CREATED: &str = "the engine ended while this sandbox was being created";

impl Core {
    pub(super) async fn recover(&self) -> Result<(), CoreError> {
        self.inner.store.end_old_runs().await?;
        for sandbox in self.inner.store.in_states(&[State::Creating]).await? {
            self.undo_create(sandbox).await?;
        }
        for sandbox in self.inner.store.in_states(&[State::Destroying]).await? {
            // A failure is logged there; upkeep tries again.
            let _ = self.clone().finish_destroy(sandbox.id().clone()).await;
        }
        let began =
            [State::Running, State::Pausing, State::Paused, State::Resuming, State::Forking];
        for sandbox in self.inner.store.in_states(&began).await? {
            if let Some(reason) = interruption(&sandbox) {
                let reason = Change::Because(reason.to_owned());
                self.inner.store.change(sandbox.id(), &began, State::Error, reason).await?;
            }
        }
        self.remove_orphans().await
    }

    async fn undo_create(&self, sandbox: Sandbox) -> Result<(), CoreError> {
        let id = sandbox.id();
        if let Err(error) = self.inner.runtime.remove(id).await {
            // Without an owner the directory is an orphan of the next start.
            tracing::warn!(sandbox = %id, %error, "half-made files could not be removed");
        }
        let reason = Change::Because(NOT_CREATED.to_owned());
        self.inner.store.change(id, &[State::Creating], State::Failed, reason).await?;
        Ok(())
    }

    /// Removes directories that no living sandbox owns.
    async fn remove_orphans(&self) -> Result<(), CoreError> {
        let living: Vec<State> =
            State::ALL.into_iter().filter(|state| !state.is_terminal()).collect();
        let owners = self.inner.store.in_states(&living).await?;
        let owned: HashSet<&SandboxId> = owners.iter().map(Sandbox::id).collect();
        let found = match self.inner.runtime.on_disk().await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, "files that belong to no sandbox could not be looked for");
                return Ok(());
            }
        };
        for id in found {
            if owned.contains(&id) {
                continue;
            }
            tracing::info!(sandbox = %id, "removing files that belong to no sandbox");
            if let Err(error) = self.inner.runtime.remove(&id).await {
                tracing::warn!(sandbox = %id, %error, "these files could not be removed");
            }
        }
        Ok(())
    }
}

/// What the end of the engine did to a sandbox, if anything: memory on disk and files stay.
fn interruption(sandbox: &Sandbox) -> Option<&'static str> {
    match (sandbox.state, sandbox.saved) {
        (State::Paused, Some(Saved::Frozen)) => Some(THAWED),
        (State::Paused, _) => None,
        (State::Resuming, Some(Saved::Memory | Saved::Files)) => Some(NOT_RESUMED),
        (State::Forking, _) => Some(NOT_COPIED),
        _ => Some(INTERRUPTED),
    }
}
