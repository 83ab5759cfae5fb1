//! A sandbox as the warden sees it: a process, its control group, a state.

use crate::cable::Cable;
use crate::cgroup::Group;
use crate::criu::Run;
use crate::failure::Result;
use crate::freeze::{Freeze, Progress};
use crate::launcher::Host;
use crate::protocol::{Boot, Memory, Report};
use crate::sys;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

/// What a launcher writes right before it becomes the agent. Only then is the end of
/// its pipe good news: the pipe of one that is killed ends as well.
pub(crate) const READY: u8 = 0;

pub(crate) struct Sandbox {
    pub(crate) id: String,
    /// Ticket of the boot that made it.
    pub(crate) boot: u64,
    pub(crate) ip: [u8; 4],
    pub(crate) memory_bytes: u64,
    pub(crate) nesting: bool,
    /// PID 1 of the sandbox, as this namespace sees it; CRIU while that brings it back.
    pub(crate) pid: i32,
    pub(crate) pidfd: OwnedFd,
    pub(crate) group: Group,
    /// Its range of ids.
    pub(crate) range: usize,
    /// The directories it is layered from.
    pub(crate) directory: String,
    pub(crate) layers: Vec<String>,
    /// Whether its disk will not be needed any more.
    pub(crate) discard: bool,
    pub(crate) state: State,
    /// From it to private networks.
    pub(crate) cables: Vec<Cable>,
    /// While it stands still, or is about to.
    pub(crate) freeze: Option<Freeze>,
}

pub(crate) enum State {
    Launching(Launch),
    Running,
    Saving(Saving),
    /// In the image; what is left of it is on its way out.
    Saved {
        ticket: u64,
    },
    Restoring {
        run: Run,
        boot: Box<Boot>,
        memory: Memory,
    },
    /// Ended while it was being saved.
    Lost {
        ticket: u64,
        message: String,
    },
    /// Killed on request; answered when it is gone.
    Stopping {
        tickets: Vec<u64>,
    },
    /// The launch failed; reported when the process is gone, so that a new boot finds
    /// the place free.
    Failed {
        message: String,
    },
}

/// CRIU at work on a running sandbox.
pub(crate) struct Saving {
    pub(crate) ticket: u64,
    pub(crate) run: Run,
    /// The wait status of PID 1, once that has ended.
    pub(crate) ended: Option<i32>,
}

/// What the end of a process means for its sandbox.
pub(crate) enum After {
    /// It goes on; there may be something to tell.
    Stays(Option<Report>),
    /// It is gone, with this wait status.
    Gone(i32),
}

/// A launcher at work.
pub(crate) struct Launch {
    /// Holds what the launcher tells; gone once it has told everything.
    pub(crate) status: Option<File>,
    pub(crate) told: Vec<u8>,
    /// Held until then: the launcher sees it end if the warden dies under it.
    pub(crate) _alive: OwnedFd,
}

impl Sandbox {
    pub(crate) fn is_running(&self) -> bool {
        matches!(self.state, State::Running)
    }

    pub(crate) fn uses(&self, directory: &str) -> bool {
        self.directory == directory || self.layers.iter().any(|layer| layer == directory)
    }

    pub(crate) fn launch_status(&self) -> Option<&File> {
        match &self.state {
            State::Launching(launch) => launch.status.as_ref(),
            _ => None,
        }
    }

    /// Looks at a launch; the report, when it has succeeded.
    pub(crate) fn advance_launch(&mut self) -> Option<Report> {
        let State::Launching(launch) = &mut self.state else { return None };
        let mut chunk = [0; 4096];
        loop {
            match launch.status.as_mut()?.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => launch.told.extend_from_slice(&chunk[..length]),
                // Nothing more yet: the pipe does not block.
                Err(_) => return None,
            }
        }
        launch.status = None;
        match launch.told.strip_prefix(&[READY]).unwrap_or(&launch.told) {
            // Killed before it could say anything: its end will tell why.
            [] if launch.told.is_empty() => None,
            [] => {
                self.state = State::Running;
                Some(Report::Booted { ticket: self.boot, pid: self.pid })
            }
            message => {
                let message = String::from_utf8_lossy(message).into_owned();
                self.kill();
                self.state = State::Failed { message };
                None
            }
        }
    }

    /// Begins to make it stand still, and looks how far that comes at once.
    pub(crate) fn freeze(&mut self, ticket: u64) -> Option<Report> {
        match (&self.state, &self.freeze) {
            (State::Running, None) => {
                self.freeze = Some(Freeze::begin(&self.group, self.pid, ticket));
                self.advance_freeze()
            }
            (State::Running, Some(freeze)) if freeze.ticket().is_none() => {
                Some(Report::Frozen { ticket })
            }
            _ => {
                let message = "the sandbox is not running, or about to stand still".to_owned();
                Some(Report::Failed { ticket, message })
            }
        }
    }

    /// Whether its place will be free without anybody's doing.
    pub(crate) fn is_leaving(&self) -> bool {
        !matches!(
            self.state,
            State::Launching(_) | State::Running | State::Saving(_) | State::Restoring { .. }
        )
    }

    /// The run of CRIU that it waits for.
    pub(crate) fn run(&self) -> Option<&Run> {
        match &self.state {
            State::Saving(saving) => Some(&saving.run),
            State::Restoring { run, .. } => Some(run),
            _ => None,
        }
    }

    pub(crate) fn run_mut(&mut self) -> Option<&mut Run> {
        match &mut self.state {
            State::Saving(saving) => Some(&mut saving.run),
            State::Restoring { run, .. } => Some(run),
            _ => None,
        }
    }

    pub(crate) fn owns(&self, pid: i32) -> bool {
        self.pid == pid || self.run().is_some_and(|run| run.pid == pid)
    }

    /// One of its processes that are children of this one has ended.
    pub(crate) fn process_ended(&mut self, pid: i32, status: i32, host: &Host) -> After {
        match std::mem::replace(&mut self.state, State::Running) {
            State::Saving(saving) if saving.run.pid == pid => self.save_ended(saving, status),
            State::Saving(saving) => {
                self.state = State::Saving(Saving { ended: Some(status), ..saving });
                After::Stays(None)
            }
            State::Restoring { mut run, boot, memory } => {
                let restored = run.outcome(status).and_then(|()| host.restored(&boot, &memory));
                host.remove_view(&memory);
                self.restore_ended(restored, status)
            }
            state => {
                self.state = state;
                After::Gone(status)
            }
        }
    }

    /// Looks at a freeze; the report, when it is over.
    pub(crate) fn advance_freeze(&mut self) -> Option<Report> {
        let Progress::Over(ticket, outcome) = self.freeze.as_mut()?.advance() else { return None };
        Some(match outcome {
            Ok(()) => Report::Frozen { ticket },
            Err(error) => {
                let thawed = self.freeze.take().map_or(Ok(()), |freeze| freeze.thaw());
                let also = thawed.err().map_or(String::new(), |error| format!("; {error}"));
                Report::Failed { ticket, message: format!("{error}{also}") }
            }
        })
    }

    pub(crate) fn is_freezing(&self) -> bool {
        self.freeze.as_ref().is_some_and(|freeze| freeze.ticket().is_some())
    }

    pub(crate) fn thaw(&mut self, ticket: u64) -> Report {
        let thawed = self.freeze.as_ref().map_or(Ok(()), Freeze::thaw);
        match thawed {
            Ok(()) => {
                self.freeze = None;
                Report::Thawed { ticket }
            }
            Err(error) => Report::Failed { ticket, message: error.to_string() },
        }
    }

    fn save_ended(&mut self, saving: Saving, status: i32) -> After {
        let Saving { ticket, mut run, ended } = saving;
        match (run.outcome(status), ended) {
            (Ok(()), ended) => {
                self.state = State::Saved { ticket };
                self.group.kill();
                ended.map_or(After::Stays(None), After::Gone)
            }
            (Err(error), None) if sys::exit_status(status).is_err() => {
                // CRIU was killed at it. What state that left the processes in is unknown.
                self.state = State::Lost { ticket, message: error.to_string() };
                self.kill();
                After::Stays(None)
            }
            (Err(error), None) => {
                After::Stays(Some(Report::Failed { ticket, message: error.to_string() }))
            }
            (Err(error), Some(status)) => {
                self.state = State::Lost { ticket, message: error.to_string() };
                After::Gone(status)
            }
        }
    }

    fn restore_ended(&mut self, restored: Result<(i32, OwnedFd)>, status: i32) -> After {
        match restored {
            Ok((pid, pidfd)) => {
                (self.pid, self.pidfd) = (pid, pidfd);
                After::Stays(Some(Report::Booted { ticket: self.boot, pid }))
            }
            Err(error) => {
                self.group.kill();
                self.state = State::Failed { message: error.to_string() };
                After::Gone(status)
            }
        }
    }

    /// Kills the sandbox. Whoever waits for its launch gets the report returned.
    pub(crate) fn stop(&mut self, ticket: Option<u64>) -> Option<Report> {
        self.kill();
        if let State::Stopping { tickets } = &mut self.state {
            tickets.extend(ticket);
            return None;
        }
        let stopping = State::Stopping { tickets: ticket.into_iter().collect() };
        match std::mem::replace(&mut self.state, stopping) {
            State::Launching(_) | State::Failed { .. } => {
                let message = "the sandbox was stopped while it was booting".to_owned();
                Some(Report::Failed { ticket: self.boot, message })
            }
            State::Restoring { .. } => {
                let message = "the sandbox was stopped while it was coming back".to_owned();
                Some(Report::Failed { ticket: self.boot, message })
            }
            State::Saving(Saving { ticket, run, ended }) => {
                run.kill();
                if ended.is_some() {
                    // Nothing but CRIU is left to wait for.
                    self.pid = run.pid;
                }
                let message = "the sandbox was stopped while it was being saved".to_owned();
                Some(Report::Failed { ticket, message })
            }
            State::Saved { ticket } => {
                if let State::Stopping { tickets } = &mut self.state {
                    tickets.push(ticket);
                }
                None
            }
            State::Running | State::Stopping { .. } | State::Lost { .. } => None,
        }
    }

    pub(crate) fn kill(&self) {
        self.group.kill();
        // PID 1 takes its whole namespace along, groups or not.
        let _ = sys::send_signal(self.pid, sys::SIGKILL);
    }

    /// What to report now that its process is gone.
    pub(crate) fn last_reports(&self, status: i32) -> Vec<Report> {
        let reason = self.end_reason(status);
        let unfrozen = self.freeze.as_ref().and_then(Freeze::ticket).map(|ticket| {
            let message = format!("the sandbox ended while it was to stand still: {reason}");
            Report::Failed { ticket, message }
        });
        let mut reports = match &self.state {
            State::Stopping { tickets } => {
                tickets.iter().map(|ticket| Report::Done { ticket: *ticket }).collect()
            }
            State::Running => vec![Report::Ended { id: self.id.clone(), pid: self.pid, reason }],
            State::Saved { ticket } => vec![Report::Done { ticket: *ticket }],
            State::Lost { ticket, message } => {
                let failed = Report::Failed { ticket: *ticket, message: message.clone() };
                vec![failed, Report::Ended { id: self.id.clone(), pid: self.pid, reason }]
            }
            // They end otherwise.
            State::Saving(_) | State::Restoring { .. } => Vec::new(),
            State::Launching(_) => {
                let message = format!("the sandbox ended while it was booting: {reason}");
                vec![Report::Failed { ticket: self.boot, message }]
            }
            State::Failed { message } => {
                vec![Report::Failed { ticket: self.boot, message: message.clone() }]
            }
        };
        reports.extend(unfrozen);
        reports
    }

    fn end_reason(&self, status: i32) -> String {
        match sys::exit_status(status) {
            Err(sys::SIGKILL) if self.group.was_out_of_memory() => {
                "its first process was killed; memory had run out inside".to_owned()
            }
            Err(signal) => format!("its first process was killed by signal {signal}"),
            Ok(code) => format!("its first process ended with code {code}"),
        }
    }
}
