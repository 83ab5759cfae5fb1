//! Ctrl+C, SIGTERM and a terminal that goes away end a command cleanly (cli.md 1.15).

use std::io;
use std::time::Duration;

use crate::terminal;

/// Exit code of a command that Ctrl+C ended.
const INTERRUPTED: u8 = 130;
/// Exit code of a command that SIGTERM ended.
#[cfg(unix)]
const TERMINATED: u8 = 143;
/// Exit code of a command whose terminal went away.
#[cfg(unix)]
const HUNG_UP: u8 = 129;

/// Programs that start us may pass on the Ctrl+C that we have received already.
const ECHO: Duration = Duration::from_millis(200);

/// Listens from when it is made, so that no signal is missed.
pub(crate) struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hang_up: tokio::signal::unix::Signal,
}

impl Signals {
    pub(crate) fn listen() -> io::Result<Self> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            Ok(Self {
                interrupt: signal(SignalKind::interrupt())?,
                terminate: signal(SignalKind::terminate())?,
                hang_up: signal(SignalKind::hangup())?,
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
            _ = self.hang_up.recv() => HUNG_UP,
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

/// Called when a signal has come and cleanup begins: the next one ends the process
/// at once, with the terminal restored.
///
/// It is heard on a thread of its own, because cleanup may keep every other one busy.
pub(crate) fn insist() {
    let listen = async {
        // Only what comes after this is heard.
        tokio::time::sleep(ECHO).await;
        let Ok(mut signals) = Signals::listen() else { return };
        let exit = signals.exit_code().await;
        terminal::restore();
        std::process::exit(exit.into());
    };
    let thread = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map(|runtime| runtime.block_on(listen))
    });
    // Without a thread the cleanup goes on, and SIGKILL remains.
    drop(thread);
}
