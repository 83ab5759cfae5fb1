//! The warden: the one process of the engine that uses privilege.
//!
//! It has a single thread, its own mount namespace, and one socket to the engine,
//! at descriptor 0. It boots and ends sandboxes and reports what becomes of them.
//! When the engine goes, however it goes, the socket ends; the warden then ends
//! every sandbox and itself, so that nothing outlives the engine.

mod cgroup;
#[path = "../codec.rs"]
mod codec;
mod failure;
mod inside;
mod launcher;
mod layers;
mod probe;
mod protocol;
mod sandbox;
#[path = "../sys/mod.rs"]
mod sys;

use failure::{Context, Result};
use protocol::{Boot, Command, Facts, MAX_PACKET, Report};
use sandbox::{Sandbox, State};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use sys::{POLLIN, PollFd};

fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(first), second) = (arguments.next(), arguments.next()) else {
        eprintln!("usage: createos-warden DATA_DIRECTORY | createos-warden probe DIRECTORY");
        std::process::exit(2);
    };
    if let Some(directory) = second {
        return probe::run(Path::new(&directory));
    }
    let socket = sys::inherited(0);
    let outcome = Warden::start(&socket, PathBuf::from(first)).and_then(|mut warden| {
        let served = warden.serve();
        warden.end_everything();
        served
    });
    if let Err(error) = outcome {
        eprintln!("createos-warden: {error}");
        std::process::exit(1);
    }
}

struct Warden<'a> {
    socket: &'a OwnedFd,
    signals: OwnedFd,
    host: launcher::Host,
    sandboxes: Vec<Sandbox>,
}

impl<'a> Warden<'a> {
    /// Waits for the configuration, prepares the machine and reports what it found.
    fn start(socket: &'a OwnedFd, data_dir: PathBuf) -> Result<Self> {
        std::env::set_current_dir(&data_dir).context("enter the data directory")?;
        let signals = sys::signal_descriptor(&[sys::SIGCHLD]).context("watch child processes")?;

        let mut buffer = vec![0; MAX_PACKET];
        let length = sys::receive_packet(socket, &mut buffer)
            .context("receive the configuration")?
            .ok_or("the engine went away")?;
        let Command::Configure(configure) = Command::parse(&buffer[..length])? else {
            return Err("the first command must configure".into());
        };
        let mut facts = Facts::default();
        let host = launcher::Host::prepare(data_dir, configure, &mut facts);
        let host = match host {
            Ok(host) => host,
            Err(error) => {
                send(socket, &Report::Failed { ticket: 0, message: error.to_string() }, None);
                return Err(error);
            }
        };
        send(socket, &Report::Configured(facts), None);
        Ok(Self { socket, signals, host, sandboxes: Vec::new() })
    }

    fn serve(&mut self) -> Result<()> {
        let mut buffer = vec![0; MAX_PACKET];
        loop {
            let mut poll =
                vec![PollFd::new(self.socket, POLLIN), PollFd::new(&self.signals, POLLIN)];
            let statuses = self.sandboxes.iter().filter_map(Sandbox::launch_status);
            poll.extend(statuses.map(|pipe| PollFd::new(pipe, POLLIN)));
            sys::poll_fds(&mut poll, None).context("wait for work")?;

            self.advance_launches();
            if poll[1].is_readable() {
                sys::drain_signals(&self.signals);
                self.reap();
            }
            if poll[0].is_readable() {
                match sys::receive_packet(self.socket, &mut buffer).context("receive a command")? {
                    Some(length) => self.obey(Command::parse(&buffer[..length])?),
                    None => return Ok(()),
                }
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            // A second configuration would change the ground under living sandboxes.
            Command::Configure(_) => {}
            Command::Boot(boot) => self.boot(boot),
            Command::Stop { ticket, id } => {
                match self.sandboxes.iter_mut().find(|sandbox| sandbox.id == id) {
                    Some(sandbox) => {
                        if let Some(report) = sandbox.stop(ticket) {
                            self.report(&report);
                        }
                    }
                    None => self.report(&Report::Stopped { ticket }),
                }
            }
        }
    }

    fn boot(&mut self, boot: Boot) {
        let ticket = boot.ticket;
        let exists = self.sandboxes.iter().any(|sandbox| sandbox.id == boot.id);
        let launched = if exists {
            Err("the sandbox is already running".into())
        } else {
            self.host.launch(boot)
        };
        match launched {
            Ok(sandbox) => self.sandboxes.push(sandbox),
            Err(error) => {
                self.report(&Report::Failed { ticket, message: error.to_string() });
            }
        }
    }

    /// Looks at every launch under way: each status pipe ends with the launcher's exec.
    fn advance_launches(&mut self) {
        for sandbox in &mut self.sandboxes {
            if let Some(report) = sandbox.advance_launch() {
                let booted = matches!(report, Report::Booted { .. });
                send(self.socket, &report, booted.then(|| sandbox.pidfd.as_fd()));
            }
        }
    }

    fn reap(&mut self) {
        // A launcher that failed has written why before it ended.
        self.advance_launches();
        while let Some((pid, status)) = sys::reap_one() {
            let Some(index) = self.sandboxes.iter().position(|sandbox| sandbox.pid == pid) else {
                continue;
            };
            let sandbox = self.sandboxes.swap_remove(index);
            let reason = sandbox.end_reason(status);
            sandbox.group.remove();
            match sandbox.state {
                State::Stopping { tickets } => {
                    for ticket in tickets {
                        self.report(&Report::Stopped { ticket });
                    }
                }
                State::Running => {
                    self.report(&Report::Ended { id: sandbox.id, reason });
                }
                State::Launching { ticket, .. } => {
                    let message = format!("the launcher ended: {reason}");
                    self.report(&Report::Failed { ticket, message });
                }
                State::Failed => {}
            }
        }
    }

    fn report(&self, report: &Report) {
        send(self.socket, report, None);
    }

    fn end_everything(&mut self) {
        for sandbox in &mut self.sandboxes {
            sandbox.kill();
        }
        for sandbox in self.sandboxes.drain(..) {
            let _ = sys::wait_for(sandbox.pid);
            sandbox.group.remove();
        }
        self.host.groups.remove_all();
    }
}

/// An engine that is gone cannot be told; the next receive notices.
fn send(socket: &OwnedFd, report: &Report, fd: Option<BorrowedFd<'_>>) {
    let _ = sys::send_packet(socket, &report.to_packet(), fd);
}
