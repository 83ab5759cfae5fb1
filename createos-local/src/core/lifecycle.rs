//! Destroy, and sandboxes that end by themselves.

use createos_sdk::SandboxId;

use super::slot::Interrupt;
use super::{Core, CoreError, State};
use crate::runtime::{BootSpec, Died};
use crate::store::{Change, Sandbox};

/// What became of a request for another state.
#[derive(Debug)]
pub(crate) enum Transition {
    /// It is there already.
    Done(Sandbox),
    /// It is on its way; poll until it is there, or has failed.
    Begun(Sandbox),
}

/// The states that a death leaves for `error`; of paused ones, only frozen ones can die.
const ALIVE: [State; 3] = [State::Running, State::Pausing, State::Paused];

pub(super) fn boot_spec(sandbox: &Sandbox) -> BootSpec {
    BootSpec {
        id: sandbox.id().clone(),
        name: sandbox.spec.name.clone(),
        ip: sandbox.ip,
        limits: sandbox.limits(),
        nesting: sandbox.spec.nesting,
    }
}

impl Core {
    /// Removes a sandbox from whatever state; on a destroyed one nothing happens. The removal
    /// goes on in the background when it takes longer than a moment.
    pub(crate) async fn destroy(&self, id: &SandboxId) -> Result<Sandbox, CoreError> {
        let store = &self.inner.store;
        let intent = store.change(id, &State::DESTROYABLE, State::Destroying, Change::Plain);
        let (sandbox, removal) = match intent.await? {
            Some(sandbox) => {
                self.inner.slots.get(id).interrupt(Interrupt::Ended);
                (sandbox, self.run_to_end(self.clone().finish_destroy(id.clone()))?)
            }
            None => match self.get(id).await? {
                sandbox if sandbox.state == State::Failed => {
                    (sandbox, self.run_to_end(self.clone().clear_failed(id.clone()))?)
                }
                sandbox => return Ok(sandbox),
            },
        };
        match tokio::time::timeout(self.inner.tuning.destroy_wait, removal).await {
            Ok(Ok(destroyed)) => Ok(destroyed),
            // Still at it, or it failed and upkeep will try again: the intent stands.
            _ => Ok(sandbox),
        }
    }

    /// Removes what is left of a `destroying` sandbox. Whoever comes second finds it done.
    pub(super) async fn finish_destroy(self, id: SandboxId) -> Result<Sandbox, CoreError> {
        let slot = self.inner.slots.get(&id);
        let _work = slot.work().await;
        let sandbox = self.get(&id).await?;
        if sandbox.state != State::Destroying {
            return Ok(sandbox);
        }
        self.disconnect_out(&slot).await;
        self.inner.private_names.remove(&id);
        if let Err(error) = self.inner.runtime.remove(&id).await {
            tracing::warn!(sandbox = %id, %error, "the removal failed and will be tried again");
            return Err(error.into());
        }
        let done =
            self.inner.store.change(&id, &[State::Destroying], State::Destroyed, Change::Plain);
        let destroyed = done.await?.ok_or(CoreError::NoSandbox)?;
        self.inner.store.detach_disks(&id, None).await?;
        self.inner.slots.remove(&id);
        Ok(destroyed)
    }

    /// Clears away what a failed create may have left. Its name and address may be another
    /// sandbox's by now, so it does not go through `destroying`.
    async fn clear_failed(self, id: SandboxId) -> Result<Sandbox, CoreError> {
        let slot = self.inner.slots.get(&id);
        let _work = slot.work().await;
        let removed = self.inner.runtime.remove(&id).await;
        self.inner.slots.remove(&id);
        removed?;
        let done = self.inner.store.change(&id, &[State::Failed], State::Destroyed, Change::Plain);
        match done.await? {
            Some(destroyed) => Ok(destroyed),
            None => self.get(&id).await,
        }
    }

    /// Writes down that a sandbox ended by itself and clears away what is left running.
    pub(super) async fn bury(self, died: Died) -> Result<(), CoreError> {
        let Some(slot) = self.inner.slots.get_existing(&died.id) else { return Ok(()) };
        // A death during boot waits here until the boot has been written down.
        let _work = slot.work().await;
        let reason = Change::Because(died.reason.clone());
        let changed = self.inner.store.change(&died.id, &ALIVE, State::Error, reason).await?;
        if changed.is_some() {
            tracing::warn!(sandbox = %died.id, reason = died.reason, "the sandbox ended by itself");
            slot.interrupt(Interrupt::Ended);
            self.inner.runtime.stop(&died.id).await?;
        }
        Ok(())
    }
}
