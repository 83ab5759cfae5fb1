//! Pause, and pausing by itself (api.md 4.6, 6.3).

use std::sync::Arc;

use createos_sdk::SandboxId;

use super::lifecycle::Transition;
use super::slot::{Interrupt, Slot, Work};
use super::{Core, CoreError, State};
use crate::runtime::Saved;
use crate::store::{Change, Sandbox};

/// What a view says of a sandbox that is frozen: it must not pass for one that is on disk.
pub(super) const FROZEN: &str = "paused in memory: its processes stand still and are kept for as \
                                 long as the engine runs; its files are kept in any case";

/// Who wants the pause.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cause {
    Request,
    /// It has been idle for long: only if it still is.
    Idle,
}

impl Core {
    /// Pauses a running sandbox. What goes on in it is interrupted.
    pub(crate) async fn pause(&self, id: &SandboxId) -> Result<Transition, CoreError> {
        let sandbox = self.get(id).await?;
        if sandbox.state != State::Running {
            return paused_already(sandbox);
        }
        let (core, id) = (self.clone(), id.clone());
        self.run_to_end(async move { core.begin_pause(&id, Cause::Request).await })?.await
    }

    async fn begin_pause(&self, id: &SandboxId, cause: Cause) -> Result<Transition, CoreError> {
        let slot = self.inner.slots.get(id);
        let work = slot.work().await;
        let store = &self.inner.store;
        let intent = store.change(id, &[State::Running], State::Pausing, Change::Plain).await?;
        let Some(sandbox) = intent else { return paused_already(self.get(id).await?) };
        if cause == Cause::Idle && slot.activity.held() > 0 {
            // It began before the intent was written; nothing begins after that.
            store.change(id, &[State::Pausing], State::Running, Change::Plain).await?;
            return Err(CoreError::Conflict("sandbox is not idle".to_owned()));
        }
        slot.interrupt(Interrupt::Paused);
        let pause = self.clone().finish_pause(id.clone(), slot, work);
        self.wait_a_moment(self.run_to_end(pause)?).await;
        Ok(Transition::Begun(sandbox))
    }

    async fn finish_pause(
        self,
        id: SandboxId,
        slot: Arc<Slot>,
        _work: Work,
    ) -> Result<(), CoreError> {
        // What was interrupted gets time to let go of its processes.
        slot.activity.quiet_within(self.inner.tuning.quiet_wait).await;
        self.disconnect_out(&slot).await;
        let store = &self.inner.store;
        match self.inner.runtime.pause(&id).await {
            Ok(saved) => {
                let note = (saved == Saved::Frozen).then(|| FROZEN.to_owned());
                let paused = Change::Saved(saved, note);
                store.change(&id, &[State::Pausing], State::Paused, paused).await?;
            }
            Err(error) => {
                tracing::warn!(sandbox = %id, %error, "the sandbox could not be paused");
                slot.renew();
                if let Ok(sandbox) = self.get(&id).await {
                    self.mount_all(&sandbox).await;
                }
                self.hear(&id, &slot).await;
                let reason = Change::Because(format!("it could not be paused: {error}"));
                let runs = store.change(&id, &[State::Pausing], State::Running, reason).await?;
                if let Some(sandbox) = runs {
                    self.connect_out(&sandbox, &slot).await;
                    self.begin_idle_time(&sandbox);
                }
            }
        }
        Ok(())
    }

    /// Begins to count a running sandbox's idle time anew.
    pub(super) fn begin_idle_time(&self, sandbox: &Sandbox) {
        let unit = self.inner.tuning.auto_pause_unit;
        let seconds = sandbox.spec.auto_pause_seconds;
        let seconds = seconds.map(|seconds| u32::try_from(seconds).unwrap_or(u32::MAX));
        let limit = seconds.map(|seconds| unit.saturating_mul(seconds));
        self.inner.slots.get(sandbox.id()).activity.restart(limit);
    }

    /// A managed process at work keeps its sandbox awake, whether anybody looks at it or not.
    async fn has_running_process(&self, id: &SandboxId) -> bool {
        let processes = self.inner.runtime.processes(id).await;
        processes.is_ok_and(|all| all.iter().any(|process| !process.tree_ended))
    }

    /// Pauses what has been idle for longer than it may.
    pub(super) async fn pause_idle(&self) {
        for id in self.inner.slots.overdue() {
            // Whatever becomes of this try, the next one is not due at once.
            if let Ok(sandbox) = self.get(&id).await {
                self.begin_idle_time(&sandbox);
                if sandbox.state == State::Running {
                    let core = self.clone();
                    let pause = async move {
                        if core.has_running_process(&id).await {
                            return Ok(());
                        }
                        core.begin_pause(&id, Cause::Idle).await.map(drop)
                    };
                    // Nobody waits for it: the outcome is the state it leaves.
                    drop(self.run_to_end(pause));
                }
            }
        }
    }
}

fn paused_already(sandbox: Sandbox) -> Result<Transition, CoreError> {
    match sandbox.state {
        State::Paused => Ok(Transition::Done(sandbox)),
        State::Pausing => Ok(Transition::Begun(sandbox)),
        state => Err(CoreError::Conflict(format!("sandbox is not running; it is {state}"))),
    }
}
