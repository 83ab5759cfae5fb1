//! Puts the terminal back as it was (cli.md 1.15).

/// Holds the terminal's settings while a question is drawn. Dropping it
/// restores them and shows the cursor, however the question ended.
pub(super) struct TerminalGuard {
    #[cfg(unix)]
    saved: Option<rustix::termios::Termios>,
}

impl TerminalGuard {
    pub(super) fn hold() -> Self {
        Self {
            #[cfg(unix)]
            saved: rustix::termios::tcgetattr(rustix::stdio::stdin()).ok(),
        }
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        #[cfg(unix)]
        if let Some(saved) = &self.saved {
            use rustix::termios::{OptionalActions, tcsetattr};
            // A terminal that is gone needs no restoring.
            let _ = tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, saved);
        }
        let _ = console::Term::stderr().show_cursor();
    }
}
