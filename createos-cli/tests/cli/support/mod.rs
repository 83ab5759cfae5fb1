//! What the tests share: a home with a real engine, a scripted plane, a terminal.

pub(crate) mod home;
pub(crate) mod plane;
pub(crate) mod terminal;

use std::process::{Child, Output};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How a command ended, as text.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Answer {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).expect("text"),
            stderr: String::from_utf8(output.stderr).expect("text"),
        }
    }

    /// The one document on standard output.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: one JSON document in {self:?}"))
    }

    /// The error in the envelope on standard output.
    pub(crate) fn error(&self) -> Value {
        self.json()["error"].clone()
    }
}

/// Waits at most 20 seconds for something to become so.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "not so after 20 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Sends a signal to a command.
pub(crate) fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).expect("a signal");
}
