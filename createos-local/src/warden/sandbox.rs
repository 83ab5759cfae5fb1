//! A sandbox as the warden sees it: a process, its control group, a state.

use crate::cgroup::Group;
use crate::protocol::Report;
use crate::sys;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

pub(crate) struct Sandbox {
    pub(crate) id: String,
    /// PID 1 of the sandbox, as this namespace sees it.
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) group: Group,
    pub(crate) state: State,
}

pub(crate) enum State {
    /// The launcher works. Its pipe closes when the agent takes over, or holds
    /// the reason why it did not.
    Launching {
        ticket: u64,
        status: File,
        /// Held until then: the launcher sees it end if the warden dies under it.
        _alive: OwnedFd,
    },
    Running,
    /// Killed on request; answered when it is gone.
    Stopping {
        tickets: Vec<u64>,
    },
    /// The launch failed and was reported; only the process is left to reap.
    Failed,
}

impl Sandbox {
    pub(crate) fn launch_status(&self) -> Option<&File> {
        match &self.state {
            State::Launching { status, .. } => Some(status),
            _ => None,
        }
    }

    /// The outcome of a launch that has come to its end; nothing while it goes on.
    pub(crate) fn advance_launch(&mut self) -> Option<Report> {
        let State::Launching { ticket, status, .. } = &mut self.state else { return None };
        let ticket = *ticket;
        let mut message = vec![0; 4096];
        match status.read(&mut message) {
            Ok(0) => {
                self.state = State::Running;
                Some(Report::Booted { ticket, pid: self.pid })
            }
            Ok(length) => {
                let message = String::from_utf8_lossy(&message[..length]).into_owned();
                self.kill();
                self.state = State::Failed;
                Some(Report::Failed { ticket, message })
            }
            // Nothing yet: the pipe does not block.
            Err(_) => None,
        }
    }

    /// Kills the sandbox. Whoever waits for its launch gets the report returned.
    pub(crate) fn stop(&mut self, ticket: u64) -> Option<Report> {
        self.kill();
        if let State::Stopping { tickets } = &mut self.state {
            tickets.push(ticket);
            return None;
        }
        let stopping = State::Stopping { tickets: vec![ticket] };
        match std::mem::replace(&mut self.state, stopping) {
            State::Launching { ticket, .. } => {
                let message = "the sandbox was stopped while it was booting".to_owned();
                Some(Report::Failed { ticket, message })
            }
            _ => None,
        }
    }

    pub(crate) fn kill(&self) {
        self.group.kill();
        // PID 1 takes its whole namespace along, groups or not.
        let _ = sys::send_signal(self.pid, sys::SIGKILL);
    }

    /// Why it ended, in words.
    pub(crate) fn end_reason(&self, status: i32) -> String {
        match sys::exit_status(status) {
            Err(sys::SIGKILL) if self.group.was_out_of_memory() => {
                "it ran out of memory".to_owned()
            }
            Err(signal) => format!("its first process was killed by signal {signal}"),
            Ok(code) => format!("its first process ended with code {code}"),
        }
    }
}
