//! The command on a real pseudo-terminal.

use std::process::Command;

use rexpect::process::WaitStatus;
use rexpect::session::PtySession;

/// Longest wait for something to appear.
const PATIENCE_MS: u64 = 20_000;

/// A command on a terminal of its own.
pub(crate) struct Terminal {
    session: PtySession,
}

impl Terminal {
    /// Starts it on a terminal of 24 rows and this many columns.
    pub(crate) fn start(command: &Command, columns: u16) -> Self {
        // The size has to be there before the command looks at it.
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"stty rows 24 cols "$0" && exec "$@""#, &columns.to_string()]);
        shell.arg(command.get_program()).args(command.get_args()).env_clear();
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                shell.env(name, value);
            }
        }
        if let Some(dir) = command.get_current_dir() {
            shell.current_dir(dir);
        }
        shell.env("TERM", "xterm");
        let session = rexpect::session::spawn_command(shell, Some(PATIENCE_MS));
        Self { session: session.expect("a terminal") }
    }

    /// Waits for this text; what came before it.
    pub(crate) fn expect(&mut self, text: &str) -> String {
        match self.session.exp_string(text) {
            Ok(before) => before,
            Err(error) => panic!("no {text:?} on the terminal: {error}"),
        }
    }

    /// Types this. `\r` is Enter, `\x1b` Esc, `\x03` Ctrl+C.
    pub(crate) fn send(&mut self, keys: &str) {
        self.session.send(keys).expect("typed");
        self.session.flush().expect("sent");
    }

    /// Waits for the end: what was still printed, and the exit code.
    pub(crate) fn end(mut self) -> (String, Option<i32>) {
        let said = self.session.exp_eof().unwrap_or_else(|error| panic!("no end: {error}"));
        let code = match self.session.process().wait().expect("a status") {
            WaitStatus::Exited(_, code) => Some(code),
            _ => None,
        };
        (said, code)
    }
}
