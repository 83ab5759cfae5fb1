//! Sandboxes that do not outlive their use.

use std::future::IntoFuture;
use std::ops::Deref;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Sandbox;
use crate::background::{self, Running};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::pending::Pending;

/// How long a runtime that ends is kept for a teardown.
const HOLD: Duration = Duration::from_secs(30);

/// What becomes of a sandbox when its guard is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AtEnd {
    Destroy,
    Pause,
}

impl AtEnd {
    async fn carry_out(self, sandbox: &Sandbox) -> Result<()> {
        match self {
            Self::Destroy => sandbox.destroy().await.map(drop),
            Self::Pause => sandbox.pause().no_wait().await.map(drop),
        }
    }
}

/// A sandbox that is destroyed, or paused, when this guard is dropped.
///
/// Made with `.guarded()` on what creates a sandbox, or with [`Sandbox::guard`]. It can be
/// used like the [`Sandbox`] itself.
///
/// ```no_run
/// # async fn run(client: createos_sdk::Client) -> createos_sdk::Result<()> {
/// let sandbox = client.create_sandbox("s-1vcpu-1gb").guarded().await?;
/// sandbox.command("make").await?; // an error here destroys it …
/// sandbox.close().await?;         // … and so does this, which also says whether it worked
/// # Ok(()) }
/// ```
///
/// # What is promised
///
/// The guard acts on every way out: return, `?`, panic, a dropped or aborted task, a timeout
/// around it. The work is done by a thread of this crate, so dropping never blocks a runtime's
/// thread, and a runtime of any kind that is dropped waits up to 30 s for it. Dropped outside
/// of a runtime, the guard itself waits that long.
///
/// Nothing can be done when the process ends without unwinding (`exit`, `abort`, a signal) or
/// its runtime is told not to wait (`shutdown_background`, a short `shutdown_timeout`), and
/// when the server cannot be reached. Give such sandboxes an
/// [idle time](super::CreateSandbox::auto_pause_after), and know their names.
#[derive(Debug)]
#[must_use = "dropping the guard ends the sandbox at once"]
pub struct SandboxGuard {
    sandbox: Sandbox,
    at_end: AtEnd,
    armed: bool,
}

impl SandboxGuard {
    pub(super) fn new(sandbox: Sandbox) -> Self {
        Self::ending(sandbox, AtEnd::Destroy)
    }

    fn ending(sandbox: Sandbox, at_end: AtEnd) -> Self {
        Self { sandbox, at_end, armed: true }
    }

    /// Pauses the sandbox at the end instead of destroying it.
    pub fn pause_on_drop(mut self) -> Self {
        self.at_end = AtEnd::Pause;
        self
    }

    /// Gives up guarding: the sandbox stays.
    pub fn keep(mut self) -> Sandbox {
        self.armed = false;
        self.sandbox.clone()
    }

    /// Destroys the sandbox, or pauses it, and says whether that worked. Pausing goes on
    /// after the answer; see [`Sandbox::wait_until`].
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::destroy`], or of pausing. It is then tried once more in the
    /// background.
    pub async fn close(mut self) -> Result<()> {
        self.at_end.carry_out(&self.sandbox).await?;
        self.armed = false;
        Ok(())
    }
}

impl Deref for SandboxGuard {
    type Target = Sandbox;

    fn deref(&self) -> &Sandbox {
        &self.sandbox
    }
}

impl Drop for SandboxGuard {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let at_end = self.at_end;
        let sandbox = self.sandbox.in_background();
        let work = async move {
            // Nobody is left to be told; the client's observer has seen it.
            let _ = at_end.carry_out(&sandbox).await;
        };
        background::start(work).hold(HOLD);
    }
}

type Make = Box<dyn FnOnce(Client) -> Pending<Sandbox> + Send + Sync>;

/// Makes a sandbox under a [`SandboxGuard`].
///
/// The making runs apart from the caller: when this future is dropped half-way, the sandbox
/// that comes of it is still destroyed (or paused).
#[must_use = "nothing is sent until awaited"]
pub struct Guarded {
    client: Client,
    make: Make,
    at_end: AtEnd,
}

impl Guarded {
    /// `make` is given the client to use.
    pub(crate) fn new(
        client: Client,
        make: impl FnOnce(Client) -> Pending<Sandbox> + Send + Sync + 'static,
    ) -> Self {
        Self { client, make: Box::new(make), at_end: AtEnd::Destroy }
    }

    /// Pauses the sandbox at the end instead of destroying it.
    pub fn pause_on_drop(mut self) -> Self {
        self.at_end = AtEnd::Pause;
        self
    }

    async fn run(self) -> Result<SandboxGuard> {
        let Self { client, make, at_end } = self;
        let making = make(client.background());
        let (give, take) = oneshot::channel();
        let work = async move {
            let guarded = making.await.map(|made| {
                // From here on dropping it, wherever it is by then, ends it.
                SandboxGuard::ending(made.with_client(client), at_end)
            });
            if let Err(Ok(unwanted)) = give.send(guarded) {
                let _ = unwanted.close().await;
            }
        };
        let mut making = Making(Some(background::start(work)));
        let guarded = take.await.unwrap_or_else(|_| {
            let message = "the background thread ended while the sandbox was being made";
            Err(Error::new(ErrorKind::Io, message).with_acted(true))
        });
        making.0 = None;
        guarded
    }
}

impl IntoFuture for Guarded {
    type Output = Result<SandboxGuard>;
    type IntoFuture = Pending<SandboxGuard>;

    fn into_future(self) -> Pending<SandboxGuard> {
        Pending::new(self.run())
    }
}

impl std::fmt::Debug for Guarded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guarded").field("at_end", &self.at_end).finish_non_exhaustive()
    }
}

/// A sandbox being made. When nobody waits for it any more, the process still has to.
struct Making(Option<Running>);

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.hold(HOLD);
        }
    }
}

impl Sandbox {
    /// Destroys this sandbox when the guard is dropped. See [`SandboxGuard`].
    pub fn guard(&self) -> SandboxGuard {
        SandboxGuard::new(self.clone())
    }
}

impl super::CreateSandbox {
    /// Creates the sandbox under a guard that destroys it when dropped, also when this call
    /// itself is given up half-way.
    pub fn guarded(self) -> Guarded {
        Guarded::new(self.client.clone(), move |client| Self { client, ..self }.into_future())
    }
}
