//! The agent's end of a process tree: how its program is, and orders to its supervisor.

use crate::program::{NotStarted, Program, Standard};
use crate::protocol::Exit;
use crate::supervisor::{self, MESSAGE, Order, Report};
use crate::sys::{self, POLLIN, PollFd, Ready};
use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// The agent's own children. Whatever else becomes its child has lost its supervisor.
#[derive(Default)]
pub(crate) struct Children {
    own: HashMap<i32, Role>,
    /// Supervisors that were killed, until nothing is left of what they looked after.
    lost: Vec<i32>,
}

/// What a child is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Supervisor,
    /// Moves a file.
    Worker,
    /// Tells the engine what was written to the pipe.
    Signaller,
}

/// What the end of a child means.
pub(crate) enum Ended {
    /// The trees of these supervisors are over.
    Trees(Vec<i32>),
    Nothing,
}

impl Children {
    /// Forks; the parent's side is remembered.
    pub(crate) fn fork(&mut self, role: Role) -> io::Result<sys::Forked> {
        let forked = sys::fork_process()?;
        if let sys::Forked::Parent { pid } = forked {
            self.own.insert(pid, role);
        }
        Ok(forked)
    }

    pub(crate) fn has(&self, role: Role) -> bool {
        self.own.values().any(|own| *own == role)
    }

    /// Ends what is no supervisor; false until all of it is gone.
    pub(crate) fn end_workers(&self) -> bool {
        let mut are_gone = true;
        for (pid, _) in self.own.iter().filter(|(_, role)| **role != Role::Supervisor) {
            let _ = sys::send_signal(*pid, sys::SIGKILL);
            are_gone = false;
        }
        are_gone
    }

    /// Takes the end of any child.
    pub(crate) fn ended(&mut self, pid: i32, status: i32) -> Ended {
        if self.own.remove(&pid) != Some(Role::Supervisor) {
            return Ended::Nothing;
        }
        if sys::exit_status(status) == Ok(0) {
            return Ended::Trees(vec![pid]);
        }
        self.lost.push(pid);
        Ended::Nothing
    }

    /// Somebody inside has stopped a child. One of ours has to go on; when the whole
    /// sandbox stands still, so do we, and come here afterwards.
    pub(crate) fn stopped(&self, pid: i32) {
        if self.own.contains_key(&pid) {
            let _ = sys::send_signal(pid, sys::SIGCONT);
        }
    }

    /// Kills what has lost its supervisor. The supervisors whose trees are over by that:
    /// while one of an orphan's line is left, its end will bring us here again.
    pub(crate) fn sweep(&mut self) -> Ended {
        if self.lost.is_empty() {
            return Ended::Nothing;
        }
        let own = std::process::id().cast_signed();
        let orphans: Vec<i32> = supervisor::processes()
            .iter()
            .filter(|process| process.parent == own && !self.own.contains_key(&process.pid))
            .map(|process| process.pid)
            .collect();
        if orphans.is_empty() {
            return Ended::Trees(std::mem::take(&mut self.lost));
        }
        for pid in orphans {
            let _ = sys::send_signal(pid, sys::SIGKILL);
        }
        Ended::Nothing
    }

    /// Whether nothing runs but us, and supervisors who are about to see that nothing is left
    /// for them.
    pub(crate) fn are_idle(&self) -> bool {
        let processes = supervisor::processes();
        let own = std::process::id().cast_signed();
        let is_idle = |pid: i32| {
            matches!(self.own.get(&pid), Some(Role::Supervisor | Role::Signaller))
                && !processes.iter().any(|process| process.parent == pid)
        };
        // Where processes cannot be seen, not even we are there.
        processes.iter().any(|process| process.pid == own)
            && processes.iter().all(|process| process.pid == own || is_idle(process.pid))
    }
}

/// How the program of a tree is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leader {
    Starting,
    NotStarted(NotStarted),
    Running(i32),
    Ended(i32, Exit),
}

/// A program and everything it started. Dropping it leaves them alone.
pub(crate) struct Tree {
    supervisor: i32,
    /// `None` when the supervisor has ended.
    channel: Option<UnixStream>,
    leader: Leader,
    is_over: bool,
}

impl Tree {
    pub(crate) fn start(
        program: &Program,
        standard: Standard,
        children: &mut Children,
    ) -> io::Result<Self> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        match children.fork(Role::Supervisor)? {
            sys::Forked::Child => supervisor::supervise(program, standard, theirs),
            sys::Forked::Parent { pid } => Ok(Self {
                supervisor: pid,
                channel: Some(ours),
                leader: Leader::Starting,
                is_over: false,
            }),
        }
    }

    pub(crate) fn leader(&self) -> Leader {
        self.leader
    }

    /// Whether nothing of it is left.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over
    }

    pub(crate) fn interests(&self, poll: &mut Vec<PollFd>) {
        poll.extend(self.channel.iter().map(|channel| PollFd::new(channel, POLLIN)));
    }

    pub(crate) fn advance(&mut self, ready: &Ready) {
        if self.channel.as_ref().is_some_and(|channel| ready.has(channel)) {
            self.take_reports();
        }
    }

    fn take_reports(&mut self) {
        let Some(channel) = &mut self.channel else { return };
        let mut bytes = [0; MESSAGE];
        loop {
            match channel.read_exact(&mut bytes) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.channel = None;
                    return;
                }
            }
            self.leader = match (Report::parse(bytes), self.leader) {
                (Some(Report::Started(pid)), Leader::Starting) => Leader::Running(pid),
                (Some(Report::NotStarted(why)), Leader::Starting) => Leader::NotStarted(why),
                (Some(Report::Ended(status)), Leader::Running(pid)) => {
                    Leader::Ended(pid, exit_of(status))
                }
                (_, leader) => leader,
            };
        }
    }

    /// Whether this was its supervisor; then nothing of the tree is left.
    pub(crate) fn supervisor_ended(&mut self, pid: i32) -> bool {
        if pid != self.supervisor || self.is_over {
            return false;
        }
        self.take_reports();
        self.channel = None;
        self.is_over = true;
        // Killed with its supervisor, if not by it; a quick one is that before it is known
        // to run.
        self.leader = match self.leader {
            Leader::Starting => Leader::Ended(0, Exit::Signal(sys::SIGKILL)),
            Leader::Running(pid) => Leader::Ended(pid, Exit::Signal(sys::SIGKILL)),
            leader => leader,
        };
        true
    }

    /// Ends it: SIGTERM to all, and SIGKILL after the grace.
    pub(crate) fn end(&mut self, grace_ms: u32) {
        if self.leader == Leader::Starting && !self.is_over {
            // The supervisor takes no orders yet, and may wait for a disk that hangs.
            let _ = sys::send_signal(self.supervisor, sys::SIGKILL);
        }
        self.order(Order::End { grace_ms });
    }

    pub(crate) fn signal(&mut self, group: i32, signal: i32) {
        self.order(Order::Signal { group, signal });
    }

    fn order(&mut self, order: Order) {
        if let Some(channel) = &mut self.channel {
            let _ = channel.write_all(&order.to_bytes());
        }
    }
}

pub(crate) fn exit_of(status: i32) -> Exit {
    match sys::exit_status(status) {
        Ok(code) => Exit::Code(code),
        Err(signal) => Exit::Signal(signal),
    }
}
