//! What a connection is about: a command, a shell, or a managed process.

use crate::World;
use crate::job::Job;
use crate::managed::{Next, Shared};
use crate::program::Program;
use crate::protocol::{CHUNK, Call, Channel, Exit, Input, Place, Reply};
use crate::sys::{PollFd, Ready};
use crate::tree::{Children, Leader};
use std::io;

/// Output waiting for a slow reader; above it, nothing more is taken from a command.
const OUTPUT_LIMIT: usize = 256 << 10;

pub(crate) enum Work {
    /// The first frame has not arrived in full.
    Asking,
    Exec(Exec),
    Shell(Shell),
    /// Waits until it is known whether the process runs.
    Spawning(Shared),
    Following {
        process: Shared,
        place: u64,
    },
    /// Waits for room.
    Feeding {
        process: Shared,
        bytes: Vec<u8>,
    },
    Awaiting {
        process: Shared,
        tree: bool,
    },
    /// Waits until no other connection is left.
    Detaching,
    /// Nothing more to do than to send what is left.
    Finishing,
    Over,
}

/// A command with pipes; it ends with its connection.
pub(crate) struct Exec {
    job: Job,
    is_announced: bool,
}

/// A login shell in a terminal; it ends with its connection.
pub(crate) enum Shell {
    /// For its size.
    Waiting {
        env: Vec<String>,
        place: Place,
    },
    Running(Job),
}

impl Work {
    pub(crate) fn exec(
        argv: Vec<String>,
        env: Vec<String>,
        place: Place,
        children: &mut Children,
    ) -> Result<Self, Reply> {
        let program = Program { argv, env, place };
        let job = Job::start(program, None, children)?;
        Ok(Self::Exec(Exec { job, is_announced: false }))
    }

    pub(crate) fn shell(env: Vec<String>, place: Place, output: &mut Vec<u8>) -> Self {
        output.extend(Reply::Ready.to_frame());
        Self::Shell(Shell::Waiting { env, place })
    }

    /// Begins what is to be done with a process; an error is the answer, be it good or bad.
    pub(crate) fn call(process: Shared, call: Call, output: &mut Vec<u8>) -> Result<Self, Reply> {
        let answer = process.borrow_mut().answer(&call);
        if let Some(reply) = answer {
            return Err(reply);
        }
        // What follows may take its time; that it has begun is told at once.
        output.extend(Reply::Ready.to_frame());
        Ok(match call {
            Call::Follow { after } => Self::Following { process, place: after },
            Call::Feed(bytes) => Self::Feeding { process, bytes },
            Call::Await { tree } => Self::Awaiting { process, tree },
            Call::Terminate { grace_ms } => {
                process.borrow_mut().terminate(grace_ms);
                Self::Awaiting { process, tree: true }
            }
            Call::Look | Call::CloseInput | Call::Resize(_) | Call::Signal(_) => Self::Finishing,
        })
    }

    fn job(&mut self) -> Option<&mut Job> {
        match self {
            Self::Exec(Exec { job, .. }) | Self::Shell(Shell::Running(job)) => Some(job),
            _ => None,
        }
    }

    pub(crate) fn interests(&self, output: &[u8], poll: &mut Vec<PollFd>) {
        if let Self::Exec(Exec { job, .. }) | Self::Shell(Shell::Running(job)) = self {
            job.interests(output.len() < OUTPUT_LIMIT, poll);
        }
    }

    pub(crate) fn advance(&mut self, ready: &Ready, output: &mut Vec<u8>) {
        let room = output.len() < OUTPUT_LIMIT;
        match self {
            Self::Exec(Exec { job, is_announced }) => {
                job.advance(ready, room, |channel, bytes| {
                    // A quick program speaks before its supervisor says that it runs.
                    announce(is_announced, output);
                    let reply = match channel {
                        Channel::Stderr => Reply::Stderr(bytes.to_vec()),
                        Channel::Stdout | Channel::Terminal => Reply::Stdout(bytes.to_vec()),
                    };
                    output.extend(reply.to_frame());
                });
            }
            Self::Shell(Shell::Running(job)) => job.advance(ready, room, |_, bytes| {
                output.extend(Reply::Data(bytes.to_vec()).to_frame());
            }),
            _ => {}
        }
    }

    /// Whether there is more to do though nothing is ready.
    pub(crate) fn is_draining(&self, output: &[u8]) -> bool {
        match self {
            Self::Exec(Exec { job, .. }) | Self::Shell(Shell::Running(job)) => {
                output.len() < OUTPUT_LIMIT && job.is_draining()
            }
            _ => false,
        }
    }

    pub(crate) fn supervisor_ended(&mut self, pid: i32) {
        if let Some(job) = self.job() {
            job.tree.supervisor_ended(pid);
        }
    }

    /// Whether another frame may be taken from the connection.
    pub(crate) fn wants_input(&self) -> bool {
        match self {
            Self::Exec(Exec { job, .. }) | Self::Shell(Shell::Running(job)) => {
                job.input.len() < CHUNK
            }
            _ => true,
        }
    }

    /// Takes a frame that is not the first.
    pub(crate) fn input(
        &mut self,
        kind: u8,
        payload: Vec<u8>,
        world: &mut World,
    ) -> io::Result<Option<Reply>> {
        let input = Input::parse(kind, payload)?;
        if let (Self::Shell(shell @ Shell::Waiting { .. }), Input::Resize(size)) =
            (&mut *self, &input)
        {
            let Shell::Waiting { env, place } = shell else { return Ok(None) };
            let (env, place) = (std::mem::take(env), std::mem::take(place));
            let program = Program { argv: Vec::new(), env, place };
            return Ok(match Job::start(program, Some(*size), &mut world.children) {
                Ok(job) => {
                    *shell = Shell::Running(job);
                    None
                }
                Err(refusal) => Some(refusal),
            });
        }
        if let Self::Feeding { .. } = self {
            return Ok(Some(crate::managed::not_read()));
        }
        let Some(job) = self.job() else { return Ok(None) };
        match input {
            Input::Data(bytes) => job.input.push(&bytes),
            Input::End => job.end_input(),
            Input::Resize(size) => drop(job.resize(size)),
        }
        Ok(None)
    }

    /// Says what there is to say, and the last reply when all is done.
    pub(crate) fn step(&mut self, world: &mut World, output: &mut Vec<u8>) -> Option<Reply> {
        match self {
            Self::Exec(exec) => exec.step(output),
            Self::Shell(Shell::Running(job)) => match job.outcome()? {
                Ok(exit) => Some(exited(exit)),
                Err(failure) => Some(failure),
            },
            Self::Spawning(process) => {
                let started = process.borrow().started()?;
                match started {
                    Ok(status) => Some(Reply::Process(status)),
                    Err(failure) => {
                        world.processes.forget(process);
                        Some(failure)
                    }
                }
            }
            Self::Following { process, place } => {
                while output.len() < OUTPUT_LIMIT {
                    match process.borrow().after(place) {
                        Next::Reply(reply) => output.extend(reply.to_frame()),
                        Next::Last(reply) => return Some(reply),
                        Next::NothingYet => break,
                    }
                }
                None
            }
            Self::Feeding { process, bytes } => process.borrow_mut().feed(bytes),
            Self::Awaiting { process, tree } => {
                let process = process.borrow();
                let ended = if *tree { process.tree_ended() } else { process.leader_ended() };
                ended.then(|| Reply::Process(process.status()))
            }
            Self::Asking | Self::Shell(_) | Self::Detaching | Self::Finishing | Self::Over => None,
        }
    }

    /// All that was asked for has been done.
    pub(crate) fn finish(&mut self) {
        if let Self::Shell(Shell::Running(job)) = self {
            // What the shell has left running goes with the session.
            job.tree.end(0);
        }
        *self = Self::Finishing;
    }

    /// Whoever asked has gone.
    pub(crate) fn abandon(&mut self, world: &mut World) {
        if let Some(job) = self.job() {
            job.tree.end(0);
        }
        if let Self::Spawning(process) = self {
            process.borrow_mut().terminate(0);
            world.processes.forget(process);
        }
        *self = Self::Over;
    }
}

impl Exec {
    fn step(&mut self, output: &mut Vec<u8>) -> Option<Reply> {
        let started = matches!(self.job.tree.leader(), Leader::Running(_) | Leader::Ended(..));
        if started {
            announce(&mut self.is_announced, output);
        }
        match self.job.outcome()? {
            Ok(exit) => Some(exited(exit)),
            Err(failure) => Some(failure),
        }
    }
}

fn announce(is_announced: &mut bool, output: &mut Vec<u8>) {
    if !std::mem::replace(is_announced, true) {
        output.extend(Reply::Ready.to_frame());
    }
}

fn exited(exit: Exit) -> Reply {
    match exit {
        Exit::Code(code) => Reply::Exited(code),
        Exit::Signal(signal) => Reply::Signaled(signal),
    }
}
