//! One sandbox's way out, for one life of it.

use std::sync::Arc;

use createos_sdk::SandboxId;
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::{Account, Names, tcp, udp};
use crate::runtime::Outlet;

/// What all sandboxes share on their way out.
#[derive(Debug)]
pub(crate) struct Outside {
    pub(crate) names: Names,
    /// Ports of this machine on which the engine itself listens.
    pub(crate) api: Vec<u16>,
    /// Room for connections of all of them together.
    pub(crate) room: Arc<Semaphore>,
    /// Connections of one at once.
    pub(crate) most: usize,
}

/// What every task of an uplink has.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) id: SandboxId,
    pub(super) account: Arc<Account>,
    pub(super) outside: Arc<Outside>,
    pub(super) end: CancellationToken,
    /// Held by every task for as long as it runs.
    busy: mpsc::Sender<()>,
    /// Questions about names that are being answered.
    pub(super) questions: Arc<Semaphore>,
}

impl Shared {
    /// Runs something until it is done or this life ends.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let (end, busy) = (self.end.clone(), self.busy.clone());
        tokio::spawn(async move {
            end.run_until_cancelled_owned(work).await;
            drop(busy);
        });
    }
}

/// A connected sandbox.
pub(crate) struct Uplink {
    end: CancellationToken,
    /// Ends with the last task.
    idle: mpsc::Receiver<()>,
}

/// Questions that one sandbox may have open.
const QUESTIONS: usize = 64;

impl Uplink {
    /// Takes over what leaves a sandbox, until `end` or [`Uplink::close`].
    pub(crate) fn open(
        id: SandboxId,
        outlet: Outlet,
        account: Arc<Account>,
        outside: Arc<Outside>,
        end: CancellationToken,
    ) -> std::io::Result<Self> {
        let (busy, idle) = mpsc::channel(1);
        let questions = Arc::new(Semaphore::new(QUESTIONS));
        let shared = Shared { id, account, outside, end: end.clone(), busy, questions };
        let Outlet { connections, datagrams, answers } = outlet;
        let datagrams = udp::Datagrams::new(datagrams, answers)?;
        shared.spawn(tcp::serve(shared.clone(), connections));
        shared.spawn(udp::serve(shared.clone(), datagrams));
        Ok(Self { end, idle })
    }

    /// Returns when nothing of it is left: every socket inside is closed.
    pub(crate) async fn close(mut self) {
        self.end.cancel();
        self.idle.recv().await;
    }
}

impl Drop for Uplink {
    fn drop(&mut self) {
        self.end.cancel();
    }
}
