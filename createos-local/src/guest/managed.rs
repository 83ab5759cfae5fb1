//! Managed processes: they outlive their connections, and so does what they wrote.

use crate::job::Job;
use crate::program::Program;
use crate::protocol::{
    Call, Channel, Exit, Failure, MAX_COMMAND, MAX_INPUT, Place, Reply, Size, Spawn, Status,
};
use crate::ring::{Expired, Ring};
use crate::sys::{PollFd, Ready};
use crate::tree::{Children, Leader};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Processes in the table, with those that have ended and are still kept: each may hold
/// a [`Ring`].
const MAX_PROCESSES: usize = 64;
/// Most output in one reply.
const PIECE: usize = 48 << 10;

pub(crate) type Shared = Rc<RefCell<Process>>;

/// All managed processes, oldest first.
#[derive(Default)]
pub(crate) struct Table {
    processes: Vec<Shared>,
}

pub(crate) struct Process {
    id: String,
    argv: Vec<String>,
    directory: Option<String>,
    job: Job,
    ring: Ring,
    /// Numbers of the inputs.
    inputs: u64,
    terminating: bool,
    created: u64,
    finished: Option<u64>,
}

/// What a follower gets next.
pub(crate) enum Next {
    Reply(Reply),
    /// This one is the last.
    Last(Reply),
    NothingYet,
}

impl Table {
    /// Forks it; [`Process::started`] tells later whether it runs.
    pub(crate) fn spawn(&mut self, spawn: Spawn, children: &mut Children) -> Result<Shared, Reply> {
        if self.find(&spawn.id).is_ok() {
            return Err(refused(Failure::WrongState, "there is a process of this id"));
        }
        if spawn.argv.iter().map(String::len).sum::<usize>() > MAX_COMMAND {
            return Err(refused(Failure::CommandNotRunnable, "the arguments are too long"));
        }
        self.make_room()?;
        let failed = |error: std::io::Error| refused(Failure::Refused, &error.to_string());
        let ring = Ring::new().map_err(failed)?;
        let Spawn { id, argv, env, directory, terminal, user } = spawn;
        let place = Place { directory: directory.clone(), user };
        let program = Program { argv: argv.clone(), env, place };
        let process = Process {
            id,
            argv,
            directory,
            job: Job::start(program, terminal, children)?,
            ring,
            inputs: 0,
            terminating: false,
            created: now(),
            finished: None,
        };
        let process = Rc::new(RefCell::new(process));
        self.processes.push(Rc::clone(&process));
        Ok(process)
    }

    fn make_room(&mut self) -> Result<(), Reply> {
        if self.processes.len() < MAX_PROCESSES {
            return Ok(());
        }
        let finished = |process: &Shared| process.borrow().finished.is_some();
        match self.processes.iter().position(finished) {
            Some(oldest) => drop(self.processes.remove(oldest)),
            None => {
                let message =
                    format!("{MAX_PROCESSES} managed processes run, the most there may be");
                return Err(refused(Failure::Refused, &message));
            }
        }
        Ok(())
    }

    pub(crate) fn find(&self, id: &str) -> Result<Shared, Reply> {
        let found = self.processes.iter().find(|process| process.borrow().id == id);
        found.cloned().ok_or_else(|| refused(Failure::NoSuchProcess, "no such process"))
    }

    /// Forgets a process that did not start.
    pub(crate) fn forget(&mut self, process: &Shared) {
        self.processes.retain(|kept| !Rc::ptr_eq(kept, process));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.processes.is_empty()
    }

    /// Says how those are that have started; the last reply is their number.
    pub(crate) fn list(&self, output: &mut Vec<u8>) -> Reply {
        let mut count = 0;
        for process in &self.processes {
            let process = process.borrow();
            if process.has_started() {
                output.extend(Reply::Process(process.status()).to_frame());
                count += 1;
            }
        }
        Reply::Done(count)
    }

    pub(crate) fn interests(&self, poll: &mut Vec<PollFd>) {
        for process in &self.processes {
            // Output is always taken: a process must not wait for those who read it.
            process.borrow().job.interests(true, poll);
        }
    }

    pub(crate) fn advance(&mut self, ready: &Ready) {
        for process in &self.processes {
            process.borrow_mut().advance(ready);
        }
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.processes.iter().any(|process| process.borrow().job.is_draining())
    }

    pub(crate) fn supervisor_ended(&mut self, pid: i32) {
        for process in &self.processes {
            let process = &mut *process.borrow_mut();
            if process.job.tree.supervisor_ended(pid) {
                process.job.input.close();
                process.finished = Some(now());
            }
        }
    }
}

impl Process {
    fn advance(&mut self, ready: &Ready) {
        let Self { job, ring, .. } = self;
        job.advance(ready, true, |channel, bytes| ring.push(channel, bytes));
    }

    fn has_started(&self) -> bool {
        !matches!(self.job.tree.leader(), Leader::Starting | Leader::NotStarted(_))
    }

    /// How starting it went, once that is known.
    pub(crate) fn started(&self) -> Option<Result<Box<Status>, Reply>> {
        match self.job.tree.leader() {
            Leader::Starting => None,
            Leader::NotStarted(why) => Some(Err(self.job.program().failure(why))),
            Leader::Running(_) | Leader::Ended(..) => Some(Ok(self.status())),
        }
    }

    pub(crate) fn leader_ended(&self) -> bool {
        matches!(self.job.tree.leader(), Leader::Ended(..))
    }

    pub(crate) fn tree_ended(&self) -> bool {
        self.job.tree.is_over()
    }

    pub(crate) fn status(&self) -> Box<Status> {
        let (pid, exit) = match self.job.tree.leader() {
            Leader::Running(pid) => (pid, None),
            Leader::Ended(pid, exit) => (pid, Some(exit)),
            Leader::Starting | Leader::NotStarted(_) => (0, None),
        };
        Box::new(Status {
            id: self.id.clone(),
            has_terminal: self.job.has_terminal(),
            pid,
            exit,
            tree_ended: self.tree_ended(),
            terminating: self.terminating && !self.tree_ended(),
            created: self.created,
            finished: self.finished,
            argv: self.argv.clone(),
            directory: self.directory.clone(),
            foreground: self.job.foreground(),
            oldest: self.ring.oldest(),
            newest: self.ring.newest() + u64::from(self.end().is_some()),
            kept: self.ring.kept(),
        })
    }

    /// How it ended, once its output is complete.
    fn end(&self) -> Option<Exit> {
        self.job.outcome()?.ok()
    }

    /// What a follower who has had everything up to `place` gets.
    pub(crate) fn after(&self, place: &mut u64) -> Next {
        match self.ring.after(*place, PIECE) {
            Ok(Some(piece)) => {
                *place = piece.place;
                let (channel, bytes): (Channel, _) = (piece.channel, piece.bytes);
                Next::Reply(Reply::Output { place: piece.place, channel, bytes })
            }
            Ok(None) => match self.end() {
                Some(exit) => Next::Last(Reply::Ended { place: self.ring.newest() + 1, exit }),
                None => Next::NothingYet,
            },
            Err(Expired(oldest)) => Next::Last(Reply::Expired { oldest }),
        }
    }

    /// Takes input, once there is room for the whole of it.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<Reply> {
        if let Some(refusal) = self.refuse_input() {
            return Some(refusal);
        }
        if bytes.len() > MAX_INPUT {
            return Some(refused(Failure::Refused, "the input is too long"));
        }
        // A longer one may follow a shorter one that was not read yet.
        if self.job.input.len() + bytes.len() > 2 * MAX_INPUT {
            return None;
        }
        self.inputs += 1;
        self.job.input.push(bytes);
        Some(Reply::Taken(self.inputs))
    }

    fn refuse_input(&self) -> Option<Reply> {
        let wrong = |why| Some(refused(Failure::WrongState, why));
        if self.leader_ended() {
            return wrong("the process has ended");
        }
        if !self.job.input.is_open() {
            return wrong("the standard input of the process is closed");
        }
        None
    }

    pub(crate) fn close_input(&mut self) -> Reply {
        if self.job.has_terminal() {
            let why = "a terminal has no end of input to close; send it the byte 4 (Ctrl-D)";
            return refused(Failure::WrongState, why);
        }
        if self.leader_ended() {
            return refused(Failure::WrongState, "the process has ended");
        }
        self.job.end_input();
        Reply::Ready
    }

    pub(crate) fn resize(&mut self, size: Size) -> Reply {
        let why = match () {
            () if !self.job.has_terminal() => "the process has no terminal",
            () if self.leader_ended() => "the process has ended",
            () if self.job.resize(size) => return Reply::Ready,
            () => "the terminal cannot be resized",
        };
        refused(Failure::WrongState, why)
    }

    pub(crate) fn signal(&mut self, signal: i32) -> Reply {
        if self.tree_ended() {
            return refused(Failure::WrongState, "the process has ended");
        }
        self.job.signal(signal);
        Reply::Ready
    }

    pub(crate) fn terminate(&mut self, grace_ms: u32) {
        if !self.tree_ended() {
            self.terminating = true;
            self.job.tree.end(grace_ms);
        }
    }

    /// Answers a call that needs no waiting.
    pub(crate) fn answer(&mut self, call: &Call) -> Option<Reply> {
        match call {
            Call::Look => Some(Reply::Process(self.status())),
            Call::CloseInput => Some(self.close_input()),
            Call::Resize(size) => Some(self.resize(*size)),
            Call::Signal(signal) => Some(self.signal(*signal)),
            _ => None,
        }
    }
}

pub(crate) fn refused(kind: Failure, message: &str) -> Reply {
    Reply::Failed { kind, message: message.to_owned() }
}

/// What a feed that was withdrawn gets: nothing of it was taken.
pub(crate) fn not_read() -> Reply {
    refused(Failure::Full, "the process does not read its input; nothing of this was written")
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
