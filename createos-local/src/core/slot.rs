//! What the engine holds in memory for each sandbox: an order for lifecycle work, a way to
//! interrupt what goes on inside, and when anything last did.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use createos_sdk::SandboxId;
use tokio::sync::{OwnedMutexGuard, Semaphore};
use tokio_util::sync::CancellationToken;

use super::CoreError;
use super::activity::{Activity, Awake};
use crate::net::{Account, Traffic, Uplink};

/// Visitors that one sandbox may have at once.
pub(super) const MAX_VISITS: usize = 1000;

/// The right to boot, pause, resume, fork or remove a sandbox.
pub(super) type Work = OwnedMutexGuard<()>;

/// One sandbox's lock and interrupt.
pub(super) struct Slot {
    work: Arc<tokio::sync::Mutex<()>>,
    life: Mutex<Shared>,
    pub(super) activity: Activity,
    /// Room for visitors. They need no key, so they could be any number.
    pub(super) visits: Arc<Semaphore>,
    ingress: Mutex<CancellationToken>,
    pub(super) desktop: super::desktop::Memory,
    /// The way out, while it has one.
    uplink: Mutex<Option<Uplink>>,
    /// Its rules and counters, once they were needed, and the counters as they are kept.
    account: Mutex<Option<(Arc<Account>, Traffic)>>,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            work: Arc::default(),
            life: Mutex::default(),
            activity: Activity::default(),
            visits: Arc::new(Semaphore::new(MAX_VISITS)),
            ingress: Mutex::default(),
            desktop: Default::default(),
            uplink: Mutex::default(),
            account: Mutex::default(),
        }
    }
}

/// One life of a sandbox, from a boot or resume to the next end or pause.
#[derive(Default, Clone)]
struct Shared {
    end: CancellationToken,
    why: Arc<OnceLock<Interrupt>>,
}

/// Why what goes on in a sandbox is interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interrupt {
    Ended,
    Paused,
}

/// Held by everything that goes on in a sandbox: a command, a transfer, a connection.
pub(super) struct Life {
    shared: Shared,
    _awake: Awake,
}

impl Life {
    /// Completes when this life of the sandbox ends.
    pub(super) async fn cancelled(&self) {
        self.shared.end.cancelled().await;
    }

    /// Does the work, unless this life ends before: then `None`.
    pub(super) async fn run_until_cancelled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.shared.end.run_until_cancelled(work).await
    }

    /// What to tell whoever was interrupted.
    pub(super) fn lost(&self) -> CoreError {
        let what = match self.shared.why.get() {
            Some(Interrupt::Paused) => "was paused",
            Some(Interrupt::Ended) | None => "ended",
        };
        CoreError::Lost(format!(
            "the sandbox {what} in the middle of this; part of it may have been done"
        ))
    }
}

impl Slot {
    /// Waits for the work under way to end; nobody else works on the sandbox until the
    /// returned guard is dropped. Who asks first is served first.
    pub(super) async fn work(&self) -> Work {
        Arc::clone(&self.work).lock_owned().await
    }

    /// Works on the sandbox, unless somebody does already.
    pub(super) fn try_work(&self) -> Option<Work> {
        Arc::clone(&self.work).try_lock_owned().ok()
    }

    /// Whether somebody works on the sandbox.
    pub(super) fn is_busy(&self) -> bool {
        self.try_work().is_none()
    }

    /// Takes part in this life of the sandbox. Take it before looking at the state: an end
    /// that comes in between is then seen in one of the two.
    pub(super) fn life(&self) -> Life {
        let awake = self.activity.hold();
        Life { shared: lock(&self.life).clone(), _awake: awake }
    }

    /// Cancelled when this life of the sandbox ends; for what is no activity of its own.
    pub(super) fn end_of_life(&self) -> CancellationToken {
        lock(&self.life).end.clone()
    }

    /// Cancelled when ingress is turned off. Take it before looking whether it is on.
    pub(super) fn end_of_ingress(&self) -> CancellationToken {
        lock(&self.ingress).clone()
    }

    /// Ends every visit; later ones last until the next call.
    pub(super) fn show_visitors_out(&self) {
        std::mem::take(&mut *lock(&self.ingress)).cancel();
    }

    pub(super) fn set_uplink(&self, uplink: Uplink) {
        *lock(&self.uplink) = Some(uplink);
    }

    pub(super) fn take_uplink(&self) -> Option<Uplink> {
        lock(&self.uplink).take()
    }

    pub(super) fn account(&self) -> Option<Arc<Account>> {
        lock(&self.account).as_ref().map(|(account, _)| Arc::clone(account))
    }

    /// Keeps an account, unless there is one already, and returns the one that is there.
    pub(super) fn keep_account(&self, account: Account) -> Arc<Account> {
        let kept = account.meter.read();
        let mut own = lock(&self.account);
        Arc::clone(&own.get_or_insert_with(|| (Arc::new(account), kept)).0)
    }

    /// Notes which counters are kept; whether they are others than before.
    pub(super) fn note_kept(&self, traffic: Traffic) -> bool {
        match &mut *lock(&self.account) {
            Some((_, kept)) => std::mem::replace(kept, traffic) != traffic,
            None => false,
        }
    }

    /// Begins a new life; the caller works on the sandbox.
    pub(super) fn renew(&self) {
        *lock(&self.life) = Shared::default();
    }

    /// Interrupts commands, transfers and connections.
    pub(super) fn interrupt(&self, why: Interrupt) {
        let life = lock(&self.life);
        // The first reason is the reason.
        let _ = life.why.set(why);
        life.end.cancel();
    }
}

/// All slots. A sandbox has one from its first use until it is destroyed.
#[derive(Default)]
pub(super) struct Slots {
    slots: Mutex<HashMap<SandboxId, Arc<Slot>>>,
}

impl Slots {
    pub(super) fn get(&self, id: &SandboxId) -> Arc<Slot> {
        let mut slots = lock(&self.slots);
        match slots.get(id) {
            Some(slot) => Arc::clone(slot),
            None => Arc::clone(slots.entry(id.clone()).or_default()),
        }
    }

    /// The slot of a sandbox that this engine has booted or is about to.
    pub(super) fn get_existing(&self, id: &SandboxId) -> Option<Arc<Slot>> {
        lock(&self.slots).get(id).cloned()
    }

    pub(super) fn all(&self) -> Vec<(SandboxId, Arc<Slot>)> {
        let slots = lock(&self.slots);
        slots.iter().map(|(id, slot)| (id.clone(), Arc::clone(slot))).collect()
    }

    /// Sandboxes that have been idle for longer than they may.
    pub(super) fn overdue(&self) -> Vec<SandboxId> {
        let slots = lock(&self.slots);
        let overdue = slots.iter().filter(|(_, slot)| slot.activity.is_overdue());
        overdue.map(|(id, _)| id.clone()).collect()
    }

    /// Forgets a destroyed sandbox.
    pub(super) fn remove(&self, id: &SandboxId) {
        lock(&self.slots).remove(id);
    }

    pub(super) fn interrupt_all(&self) {
        for slot in lock(&self.slots).values() {
            slot.interrupt(Interrupt::Ended);
        }
    }
}

/// Nothing panics while these locks are held, so a poisoned one is still whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lives_are_counted_and_end_together() {
        let slot = Slot::default();
        let (first, second) = (slot.life(), slot.life());
        assert_eq!(slot.activity.held(), 2);
        slot.interrupt(Interrupt::Paused);
        slot.interrupt(Interrupt::Ended);
        first.cancelled().await;
        assert_eq!(second.run_until_cancelled(std::future::pending::<()>()).await, None);
        assert!(second.lost().to_string().contains("was paused"));
        slot.renew();
        let third = slot.life();
        assert_eq!(third.run_until_cancelled(std::future::ready(7)).await, Some(7));
        drop((first, second));
        assert_eq!(slot.activity.held(), 1);
    }
}
