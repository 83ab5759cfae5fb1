//! The settings as the system keeps them.

use std::io;

use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// What `stty` shows of standard input.
#[derive(Debug, Clone)]
pub(super) struct Settings(Termios);

impl Settings {
    pub(super) fn read() -> io::Result<Self> {
        Ok(Self(tcgetattr(rustix::stdio::stdin())?))
    }

    /// The same with every key and every byte passed on as it is.
    pub(super) fn raw(&self) -> Self {
        let mut raw = self.clone();
        raw.0.make_raw();
        raw
    }

    /// The same with every key passed on as it is.
    pub(super) fn keys(&self) -> Self {
        let mut keys = self.clone();
        keys.0.make_raw();
        keys.0.output_modes = self.0.output_modes;
        keys
    }

    /// At once: waiting for output that nobody takes would keep a process from ending.
    pub(super) fn apply(&self) -> io::Result<()> {
        Ok(tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.0)?)
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        let (a, b) = (&self.0, &other.0);
        (a.input_modes, a.output_modes, a.control_modes, a.local_modes)
            == (b.input_modes, b.output_modes, b.control_modes, b.local_modes)
    }
}
