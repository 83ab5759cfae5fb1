//! The desktop of a sandbox (api.md 5.5): screens, and what a person does at one.
//!
//! What runs is started by `session.sh` inside; the engine looks and acts over connections
//! of its own to the X servers. Both live with the guest: times and sizes are bounded.

mod act;
mod look;
mod screens;
mod session;
mod viewer;

use std::sync::Mutex;
use std::time::Duration;

use createos_sdk::SandboxId;
use tokio::time::{Instant, timeout};

use super::live::Live;
use super::{Core, CoreError, State};
use crate::runtime::{DESKTOP_ROOTFS, RuntimeError};
use crate::store::Sandbox;
use crate::x11::{Display, XError};

pub(crate) use act::Deed;
pub(crate) use look::View;
pub(crate) use screens::{OpenScreen, ScreenId};
pub(crate) use session::try_desktop;

/// How long an X server may take to be there for one who calls.
const GREETING: Duration = Duration::from_secs(5);
/// How long it may take for what it is asked.
const PATIENCE: Duration = Duration::from_secs(20);

/// The desktop of a sandbox that was running a moment ago.
pub(crate) struct Desktop {
    live: Live,
}

/// What the engine remembers of a desktop, for as long as it knows the sandbox.
#[derive(Debug, Default)]
pub(in crate::core) struct Memory {
    /// One at a time adds and removes screens.
    screens: tokio::sync::Mutex<()>,
    last_start: Mutex<Option<Instant>>,
    pictures: Mutex<look::Pace>,
}

impl Core {
    /// The desktop of a running sandbox whose image has one.
    pub(crate) async fn desktop(&self, id: &SandboxId) -> Result<Desktop, CoreError> {
        let sandbox = self.get(id).await?;
        if sandbox.state != State::Destroyed && !has_desktop(&sandbox) {
            return Err(CoreError::NotAvailable {
                field: "rootfs",
                message: format!(
                    "{} has no desktop; create a sandbox with the root filesystem {DESKTOP_ROOTFS}",
                    sandbox.spec.rootfs
                ),
            });
        }
        Ok(Desktop { live: self.live(id).await? })
    }
}

fn has_desktop(sandbox: &Sandbox) -> bool {
    sandbox.spec.rootfs == DESKTOP_ROOTFS
}

impl Desktop {
    /// Connects to the X server of a screen.
    async fn display(&self, screen: ScreenId) -> Result<Display, CoreError> {
        let opening = async {
            let path = screen.socket();
            let stream = self.live.runtime().connect_unix(self.live.id(), &path).await;
            Ok::<_, RuntimeError>(Display::open(stream?).await)
        };
        let opening = self.live.life.run_until_cancelled(timeout(GREETING, opening));
        match opening.await.ok_or_else(|| self.live.life.lost())? {
            Ok(Ok(Ok(display))) => Ok(display),
            Ok(Ok(Err(error))) => Err(unavailable(error)),
            Ok(Err(
                RuntimeError::NoSuchFile(_) | RuntimeError::PortClosed | RuntimeError::BadPath(_),
            )) => Err(self.absent(screen).await),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(CoreError::Desktop("its X server does not answer".to_owned())),
        }
    }

    /// Waits for the X server, unless the sandbox ends before, and not for ever.
    async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, XError>>,
    ) -> Result<T, CoreError> {
        let done = timeout(PATIENCE, self.until_end(work)).await;
        done.unwrap_or_else(|_| {
            Err(CoreError::Desktop("its X server does not answer any more".to_owned()))
        })
    }

    async fn until_end<T>(
        &self,
        work: impl Future<Output = Result<T, XError>>,
    ) -> Result<T, CoreError> {
        let done = self.live.life.run_until_cancelled(work).await;
        done.ok_or_else(|| self.live.life.lost())?.map_err(unavailable)
    }
}

fn unavailable(error: XError) -> CoreError {
    match error {
        XError::NoWindow => CoreError::NoSuch { field: "window_id", message: error.to_string() },
        error => CoreError::Desktop(error.to_string()),
    }
}

/// Nothing panics while these locks are held, so a poisoned one is still whole.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
