//! One connection of the engine: reads its request, then runs it.

use crate::exec::Exec;
use crate::protocol::{Failure, HEADER, MAX_PAYLOAD, Reply, Request, VERSION, parse_header};
use crate::sys::{POLLIN, POLLOUT, PollFd};
use crate::{files, rest, sys};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::slice::Iter;

/// Output waiting for a slow reader; above it, nothing more is taken from the command.
const OUTPUT_LIMIT: usize = 256 << 10;
/// Most bytes taken from the engine ahead of their use: a whole frame always fits.
const INPUT_LIMIT: usize = MAX_PAYLOAD + HEADER;

pub(crate) struct Connection {
    socket: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    work: Work,
}

enum Work {
    /// The first frame has not arrived in full.
    Asking,
    Running(Exec),
    /// Nothing more to do than to send what is left.
    Finishing,
    Over,
}

impl Connection {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { socket, input: Vec::new(), output: Vec::new(), work: Work::Asking }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.work, Work::Over)
    }

    /// Adds what to wait for; [`Self::advance`] takes the answers in this order.
    pub(crate) fn interests(&self, poll: &mut Vec<PollFd>) {
        let mut events = 0;
        if self.input.len() < INPUT_LIMIT {
            events |= POLLIN;
        }
        if !self.output.is_empty() {
            events |= POLLOUT;
        }
        poll.push(PollFd::new(&self.socket, events));
        if let Work::Running(exec) = &self.work {
            exec.interests(self.output.len() < OUTPUT_LIMIT, poll);
        }
    }

    pub(crate) fn advance(&mut self, ready: &mut Iter<'_, PollFd>) {
        let socket = ready.next().copied();
        if let Work::Running(exec) = &mut self.work {
            exec.advance(ready, &mut self.output);
        }
        let alive = socket.is_none_or(|socket| !socket.is_readable() || self.receive().is_ok());
        if !alive || self.step().is_err() || self.send().is_err() {
            self.give_up();
        }
    }

    pub(crate) fn child_ended(&mut self, pid: i32, status: i32) {
        let Work::Running(exec) = &mut self.work else { return };
        if !exec.child_ended(pid, status) {
            return;
        }
        if self.step().is_err() || self.send().is_err() {
            self.give_up();
        }
    }

    /// The engine has gone, or speaks nonsense: whatever runs for it ends.
    fn give_up(&mut self) {
        if let Work::Running(exec) = &self.work {
            exec.kill();
        }
        self.work = Work::Over;
    }

    fn receive(&mut self) -> io::Result<()> {
        let mut chunk = [0; 64 << 10];
        match self.socket.read(&mut chunk) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.input.extend_from_slice(&chunk[..count]);
                Ok(())
            }
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn send(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.socket.write(&self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if is_passing(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        if matches!(self.work, Work::Finishing) {
            self.work = Work::Over;
        }
        Ok(())
    }

    /// Uses the frames that have arrived in full, and notices an end.
    fn step(&mut self) -> io::Result<()> {
        while let Some((kind, payload)) = self.next_frame()? {
            match &mut self.work {
                Work::Asking => self.begin(Request::parse(kind, &payload)?)?,
                Work::Running(exec) => exec.input(kind, payload)?,
                Work::Finishing | Work::Over => return Ok(()),
            }
        }
        if let Work::Running(exec) = &self.work
            && let Some(reply) = exec.outcome()
        {
            self.finish(&reply);
        }
        Ok(())
    }

    fn next_frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        if let Work::Running(exec) = &self.work
            && !exec.wants_input()
        {
            return Ok(None);
        }
        let Some(header) = self.input.first_chunk::<HEADER>() else { return Ok(None) };
        let (length, kind) = parse_header(*header)?;
        if self.input.len() < HEADER + length {
            return Ok(None);
        }
        let payload = self.input[HEADER..HEADER + length].to_vec();
        self.input.drain(..HEADER + length);
        Ok(Some((kind, payload)))
    }

    fn begin(&mut self, request: Request) -> io::Result<()> {
        match request {
            Request::Ping => self.finish(&Reply::Pong { version: VERSION }),
            Request::Look => self.finish(&Reply::AtRest(rest::is_at_rest())),
            Request::Exec { argv, env } => match Exec::start(&argv, &env) {
                Ok(exec) => {
                    self.output.extend(Reply::Ready.to_frame());
                    self.work = Work::Running(exec);
                }
                Err(failure) => self.finish(&failure),
            },
            Request::ReadFile { path } => self.hand_over(|socket| files::read(socket, &path)),
            Request::WriteFile { path } => self.hand_over(|socket| files::write(socket, &path)),
        }
        Ok(())
    }

    /// Lets a forked worker do blocking work with the socket.
    fn hand_over(&mut self, work: impl FnOnce(UnixStream) -> io::Result<()>) {
        match self.socket.try_clone().and_then(|socket| Ok((socket, sys::fork_process()?))) {
            Ok((socket, sys::Forked::Child)) => {
                let done = sys::close_all_but(&socket)
                    .and_then(|()| socket.set_nonblocking(false))
                    .and_then(|()| work(socket));
                sys::exit_now(i32::from(done.is_err()));
            }
            // Dropping our descriptors leaves the worker as the only end.
            Ok((_, sys::Forked::Parent { .. })) => self.work = Work::Over,
            Err(error) => self.finish(&Reply::Failed {
                kind: Failure::Refused,
                message: format!("the sandbox cannot start another process: {error}"),
            }),
        }
    }

    fn finish(&mut self, reply: &Reply) {
        self.output.extend(reply.to_frame());
        self.work = Work::Finishing;
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
