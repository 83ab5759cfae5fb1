//! What the engine holds in memory for each sandbox: an order for lifecycle work, and a way
//! to interrupt what runs inside.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use createos_sdk::SandboxId;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Visitors that one sandbox may have at once.
pub(super) const MAX_VISITS: usize = 1000;

/// One sandbox's lock and interrupt.
pub(super) struct Slot {
    /// Held by whoever boots, stops or removes the sandbox.
    pub(super) work: Arc<tokio::sync::Mutex<()>>,
    life: Mutex<CancellationToken>,
    /// Lives that are held.
    held: Arc<AtomicUsize>,
    /// Room for visitors. They need no key, so they could be any number.
    pub(super) visits: Arc<Semaphore>,
    ingress: Mutex<CancellationToken>,
}

impl Default for Slot {
    fn default() -> Self {
        Self {
            work: Arc::default(),
            life: Mutex::default(),
            held: Arc::default(),
            visits: Arc::new(Semaphore::new(MAX_VISITS)),
            ingress: Mutex::default(),
        }
    }
}

/// Held by everything that goes on in a sandbox: a command, a transfer, a connection.
pub(super) struct Life {
    token: CancellationToken,
    held: Arc<AtomicUsize>,
}

impl Life {
    /// Completes when this life of the sandbox ends.
    pub(super) async fn cancelled(&self) {
        self.token.cancelled().await;
    }

    /// Does the work, unless this life ends before: then `None`.
    pub(super) async fn run_until_cancelled<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.token.run_until_cancelled(work).await
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Slot {
    /// Takes part in this life of the sandbox. Take it before looking at the state: an end
    /// that comes in between is then seen in one of the two.
    pub(super) fn life(&self) -> Life {
        self.held.fetch_add(1, Ordering::Relaxed);
        Life { token: lock(&self.life).clone(), held: Arc::clone(&self.held) }
    }

    /// How many things go on in the sandbox.
    #[cfg(test)]
    fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Cancelled when this life of the sandbox ends; for what is no activity of its own.
    pub(super) fn end_of_life(&self) -> CancellationToken {
        lock(&self.life).clone()
    }

    /// Cancelled when ingress is turned off. Take it before looking whether it is on.
    pub(super) fn end_of_ingress(&self) -> CancellationToken {
        lock(&self.ingress).clone()
    }

    /// Ends every visit; later ones last until the next call.
    pub(super) fn show_visitors_out(&self) {
        std::mem::take(&mut *lock(&self.ingress)).cancel();
    }

    /// Begins a new life; the caller holds `work`.
    pub(super) fn renew(&self) {
        *lock(&self.life) = CancellationToken::new();
    }

    /// Interrupts commands and transfers.
    pub(super) fn interrupt(&self) {
        lock(&self.life).cancel();
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

    /// Forgets a destroyed sandbox.
    pub(super) fn remove(&self, id: &SandboxId) {
        lock(&self.slots).remove(id);
    }

    pub(super) fn interrupt_all(&self) {
        for slot in lock(&self.slots).values() {
            slot.interrupt();
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
        assert_eq!(slot.held(), 2);
        slot.interrupt();
        first.cancelled().await;
        assert_eq!(second.run_until_cancelled(std::future::pending::<()>()).await, None);
        slot.renew();
        let third = slot.life();
        assert_eq!(third.run_until_cancelled(std::future::ready(7)).await, Some(7));
        drop((first, second));
        assert_eq!(slot.held(), 1);
    }
}
