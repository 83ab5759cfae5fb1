//! The way for a sandbox to ask something of the engine (api.md 5.11).

use std::io;
use std::time::Duration;

use createos_sdk::SandboxId;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::slot::Slot;
use super::{Core, CoreError};
use crate::retry::again;
use crate::runtime::RuntimeError;

/// The port of the sandbox's loopback on which the engine listens.
const PORT: u16 = 1029;

/// When to try again to listen there.
const AGAIN: [Duration; 19] = [Duration::from_millis(5); 19];

/// The longest reason that is kept, in characters.
const REASON: usize = 128;

/// A sandbox to be heard.
pub(crate) struct Guest {
    pub(crate) id: SandboxId,
    pub(crate) listener: TcpListener,
    /// Cancelled when this life of the sandbox ends.
    pub(crate) end: CancellationToken,
}

/// Sandboxes to be heard, as they start.
pub(crate) type Guests = mpsc::UnboundedReceiver<Guest>;

/// What a sandbox can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SelfSignal {
    Pause,
    Delete,
}

impl Core {
    /// Listens to a sandbox that has just been booted or restored; nothing else can listen
    /// there after this. A sandbox that cannot be heard is one that runs all the same.
    pub(super) async fn hear(&self, id: &SandboxId, slot: &Slot) {
        let end = slot.end_of_life();
        match self.listen(id).await {
            Ok(listener) => {
                // Nobody serves any more: the engine is shutting down.
                let _ = self.inner.guests.send(Guest { id: id.clone(), listener, end });
            }
            Err(error) => {
                tracing::warn!(sandbox = %id, %error, "the sandbox cannot signal the engine");
            }
        }
    }

    /// After a pause, the listener of the last life may take a moment to go.
    async fn listen(&self, id: &SandboxId) -> Result<TcpListener, RuntimeError> {
        let may_pass = |error: &RuntimeError| {
            matches!(error, RuntimeError::Io { source, .. }
                if source.kind() == io::ErrorKind::AddrInUse)
        };
        again(AGAIN, may_pass, || self.inner.runtime.listen(id, PORT)).await
    }

    /// Does what a sandbox asked for itself.
    pub(crate) async fn obey(
        &self,
        id: &SandboxId,
        signal: SelfSignal,
        reason: Option<&str>,
    ) -> Result<(), CoreError> {
        let reason = kept(reason.unwrap_or_default());
        tracing::info!(sandbox = %id, ?signal, ?reason, "a signal from inside");
        match signal {
            SelfSignal::Delete => self.destroy(id).await.map(drop),
            SelfSignal::Pause => self.pause(id).await.map(drop),
        }
    }
}

/// What is kept of a reason.
fn kept(reason: &str) -> String {
    reason.chars().take(REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_reasons_are_cut_between_characters() {
        assert_eq!(kept("night run"), "night run");
        assert_eq!(kept(&"ä".repeat(128)), "ä".repeat(128));
        assert_eq!(kept(&"ä".repeat(129)), "ä".repeat(128));
    }
}
