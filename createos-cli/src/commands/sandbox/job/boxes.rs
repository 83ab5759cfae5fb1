//! Sandboxes that have to go in every outcome: success, failure, Ctrl+C, SIGTERM.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use createos_sdk::{Error, RequestOptions, Sandbox, SandboxId};
use futures::future;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::context::Context;
use crate::failure::Failure;
use crate::signals::{self, Signals};

/// Longest time that ending them may take.
const LEAVING: Duration = Duration::from_secs(30);

/// The sandboxes that were made and are not ended yet.
#[derive(Default)]
pub(in crate::commands::sandbox) struct Boxes {
    made: Arc<Mutex<Vec<Sandbox>>>,
    /// Those that may still be made although nobody waits for them any more.
    making: Mutex<Vec<JoinHandle<()>>>,
}

/// A sandbox that could not be destroyed.
pub(in crate::commands::sandbox) struct Left {
    id: SandboxId,
    why: String,
}

impl Left {
    /// What it means.
    pub(in crate::commands::sandbox) fn text(&self) -> String {
        format!("{} could not be destroyed and still costs money: {}", self.id, self.why)
    }

    /// Says it, and what to do.
    pub(in crate::commands::sandbox) fn warn(&self, ctx: &Context) {
        ctx.out.warn(&format!("{}\n  createos sandbox rm {} --force", self.text(), self.id));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Boxes {
    /// Makes one. It is made to its end, and known, when the caller is dropped meanwhile.
    pub(in crate::commands::sandbox) async fn make(
        &self,
        making: impl IntoFuture<Output = createos_sdk::Result<Sandbox>, IntoFuture: Send + 'static>,
    ) -> Result<Sandbox, Error> {
        let (give, take) = oneshot::channel();
        let (known, making) = (self.made.clone(), making.into_future());
        let task = tokio::spawn(async move {
            let made = making.await;
            if let Ok(sandbox) = &made {
                lock(&known).push(sandbox.clone());
            }
            // Nobody waits any more; it is known all the same.
            let _ = give.send(made);
        });
        lock(&self.making).push(task);
        match take.await {
            Ok(made) => made,
            // The task ends with an answer, and the runtime outlives us.
            Err(_) => std::future::pending().await,
        }
    }

    /// Lets one live on.
    pub(in crate::commands::sandbox) fn keep(&self, sandbox: &Sandbox) {
        lock(&self.made).retain(|made| made.id() != sandbox.id());
    }

    /// Destroys one.
    pub(in crate::commands::sandbox) async fn end(&self, sandbox: &Sandbox) -> Result<(), Left> {
        let ended = destroy(sandbox, Instant::now() + LEAVING).await;
        // Tried once; what is left is told, and not tried again.
        self.keep(sandbox);
        ended
    }

    /// Destroys all that are there; those that stay.
    async fn end_all(&self) -> Vec<Left> {
        let until = Instant::now() + LEAVING;
        let making = std::mem::take(&mut *lock(&self.making));
        // One that is still being made then pauses by itself.
        let _ = timeout_at(until, future::join_all(making)).await;
        let made = std::mem::take(&mut *lock(&self.made));
        let ended = future::join_all(made.iter().map(|sandbox| destroy(sandbox, until))).await;
        ended.into_iter().filter_map(Result::err).collect()
    }
}

async fn destroy(sandbox: &Sandbox, until: Instant) -> Result<(), Left> {
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_secs(1));
    let destroyed = sandbox.destroy().with(RequestOptions::new().deadline(left)).await;
    destroyed.map(drop).map_err(|error| Left {
        id: sandbox.id().clone(),
        why: Failure::from(error).message().to_owned(),
    })
}

/// Runs `work` until it ends or a signal comes; then destroys what is left of the boxes. Gives
/// what came of both. A second signal ends this program at once.
pub(in crate::commands::sandbox) async fn guarded<T>(
    ctx: &Context,
    boxes: &Boxes,
    work: impl Future<Output = Result<T, Failure>>,
) -> (Result<T, Failure>, Vec<Left>) {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(error) => return (Err(Failure::io("cannot start", &error)), Vec::new()),
    };
    let mut signalled = false;
    let mut ended = tokio::select! {
        ended = work => ended,
        exit = signals.exit_code() => {
            signals::insist();
            signalled = true;
            ctx.out.note("interrupted; the sandbox is being destroyed");
            Err(Failure::interrupted(exit))
        }
    };
    let mut ending = std::pin::pin!(boxes.end_all());
    loop {
        tokio::select! {
            left = &mut ending => return (ended, left),
            exit = signals.exit_code(), if !signalled => {
                signals::insist();
                signalled = true;
                ended = Err(Failure::interrupted(exit));
            }
        }
    }
}
