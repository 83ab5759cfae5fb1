//! Resume: a paused sandbox runs on, and one in error starts again from its files (api.md 4.7).

use std::fmt::Display;

use createos_sdk::SandboxId;

use super::lifecycle::{Transition, boot_spec};
use super::slot::Slot;
use super::{Core, CoreError, State};
use crate::runtime::{BootInfo, RuntimeError};
use crate::store::{Change, Sandbox};

impl Core {
    /// Lets a paused sandbox run on, or starts one in `error` again.
    pub(crate) async fn resume(&self, id: &SandboxId) -> Result<Transition, CoreError> {
        let (core, id) = (self.clone(), id.clone());
        self.run_to_end(async move { core.begin_resume(&id).await })?.await
    }

    async fn begin_resume(&self, id: &SandboxId) -> Result<Transition, CoreError> {
        let (store, from) = (&self.inner.store, [State::Paused, State::Error]);
        let intent = store.change(id, &from, State::Resuming, Change::Plain).await?;
        let Some(sandbox) = intent else {
            let sandbox = self.get(id).await?;
            return match sandbox.state {
                State::Running => Ok(Transition::Done(sandbox)),
                State::Resuming => Ok(Transition::Begun(sandbox)),
                state => Err(CoreError::Conflict(format!(
                    "sandbox is {state}; only a paused one or one in error can be resumed"
                ))),
            };
        };
        let resume = self.clone().finish_resume(id.clone());
        self.wait_a_moment(self.run_to_end(resume)?).await;
        Ok(Transition::Begun(sandbox))
    }

    /// Does what is left of a resume. Whoever comes second finds it done.
    pub(super) async fn finish_resume(self, id: SandboxId) -> Result<(), CoreError> {
        let slot = self.inner.slots.get(&id);
        let _work = slot.work().await;
        let sandbox = self.get(&id).await?;
        if sandbox.state != State::Resuming {
            return Ok(());
        }
        if !sandbox.awaits_copy {
            return self.run_again(&slot, sandbox).await;
        }
        match self.fill_again(&sandbox).await {
            Ok(Some(filled)) => self.run_again(&slot, filled).await,
            // Destroyed meanwhile: the rest is the destroyer's work.
            Ok(None) => Ok(()),
            Err(error) => self.put_into_error(&id, State::Resuming, &error).await,
        }
    }

    /// Makes a `resuming` sandbox run; the caller works on it.
    pub(super) async fn run_again(&self, slot: &Slot, sandbox: Sandbox) -> Result<(), CoreError> {
        let (id, store) = (sandbox.id(), &self.inner.store);
        slot.renew();
        match self.let_run(&sandbox).await {
            Ok(boot) => {
                self.mount_all(&sandbox).await;
                self.hear(id, slot).await;
                self.connect_out(&sandbox, slot).await;
                let resumed = Change::Resumed(boot.spawn);
                let from = [State::Resuming];
                if let Some(running) = store.change(id, &from, State::Running, resumed).await? {
                    self.begin_idle_time(&running);
                    self.try_install_ssh_pubkeys(&running).await;
                    self.begin_desktop(&running, slot);
                }
                Ok(())
            }
            Err(error) => {
                self.inner.runtime.stop(id).await?;
                self.put_into_error(id, State::Resuming, &error).await
            }
        }
    }

    async fn let_run(&self, sandbox: &Sandbox) -> Result<BootInfo, RuntimeError> {
        let (runtime, spec) = (&self.inner.runtime, boot_spec(sandbox));
        let boot = match sandbox.saved {
            Some(saved) => runtime.resume(spec, saved).await,
            None => runtime.boot(spec).await,
        }?;
        self.link(sandbox).await?;
        Ok(boot)
    }

    pub(super) async fn put_into_error(
        &self,
        id: &SandboxId,
        from: State,
        error: &(impl Display + Sync),
    ) -> Result<(), CoreError> {
        tracing::warn!(sandbox = %id, %error, "the sandbox could not be started");
        let reason = Change::Because(error.to_string());
        self.inner.store.change(id, &[from], State::Error, reason).await?;
        Ok(())
    }
}
