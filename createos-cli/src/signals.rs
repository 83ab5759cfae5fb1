//! Ctrl+C and SIGTERM end a command cleanly (cli.md 1.15).

use std::io;

/// Exit code of a command that Ctrl+C ended.
const INTERRUPTED: u8 = 130;
/// Exit code of a command that SIGTERM ended.
#[cfg(unix)]
const TERMINATED: u8 = 143;

/// Listens from when it is made, so that no signal is missed.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
            })
        }
        #[cfg(not(unix))]
        Ok(Self {})
    }

    /// Waits for a signal; the exit code it asks for.
    #[cfg(unix)]
    pub(crate) async fn exit_code(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPTED,
            _ = self.terminate.recv() => TERMINATED,
        }
    }

    /// Waits for a signal; the exit code it asks for.
    #[cfg(not(unix))]
    pub(crate) async fn exit_code(&mut self) -> u8 {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
        INTERRUPTED
    }
}
