//! What the engine holds in memory for each sandbox: an order for lifecycle work, and a way
//! to interrupt what runs inside.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use createos_sdk::SandboxId;
use tokio_util::sync::CancellationToken;

/// One sandbox's lock and interrupt.
#[derive(Default)]
pub(super) struct Slot {
    /// Held by whoever boots, stops or removes the sandbox.
    pub(super) work: Arc<tokio::sync::Mutex<()>>,
    life: Mutex<CancellationToken>,
}

impl Slot {
    /// Cancelled when this life of the sandbox ends. Take it before looking at the state:
    /// an end that comes in between is then seen in one of the two.
    pub(super) fn life(&self) -> CancellationToken {
        lock(&self.life).clone()
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
