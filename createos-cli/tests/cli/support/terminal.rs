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

    /// Starts it between two looks at the terminal's settings; see [`Self::restored`].
    pub(crate) fn around(command: &Command, columns: u16) -> Self {
        let mut shell = Command::new("sh");
        let script = r#"echo "<$(stty -g)>"; "$@"; echo "code=$? <$(stty -g)>""#;
        shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                shell.env(name, value);
            }
        }
        if let Some(dir) = command.get_current_dir() {
            shell.current_dir(dir);
        }
        Self::start(&shell, columns)
    }

    /// Waits for the end of a command that was started by [`Self::around`], whose settings
    /// must be as they were: what was printed since, and the exit code.
    pub(crate) fn restored(mut self, before: &str) -> (String, i32) {
        let said = self.expect("code=");
        let code = self.expect(" <").trim().parse().expect("a code");
        assert_eq!(self.expect(">"), before, "the terminal is not as it was after: {said}");
        (said, code)
    }

    /// What [`Self::around`] saw before the command.
    pub(crate) fn settings(&mut self) -> String {
        self.expect("<");
        self.expect(">")
    }

    /// Sends a signal to the command that was started by [`Self::around`].
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let status = self.session.process().status();
        let shell = self.shell().unwrap_or_else(|| panic!("{status:?}"));
        let children = format!("/proc/{shell}/task/{shell}/children");
        let children = std::fs::read_to_string(children).expect("its children");
        let child = children.split_whitespace().next().expect("a child").parse().expect("a number");
        let child = rustix::process::Pid::from_raw(child).expect("a process");
        rustix::process::kill_process(child, signal).expect("a signal");
    }

    /// The process that leads the session.
    fn shell(&self) -> Option<i32> {
        let master = self.session.process().get_file_handle().ok()?;
        let leader = rustix::termios::tcgetsid(&master).ok()?;
        Some(leader.as_raw_nonzero().get())
    }

    /// Gives it another size.
    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        let master = self.session.process().get_file_handle().expect("the other end");
        let size =
            rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(master, size).expect("a size");
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
