//! One connection of the engine: reads its request, then runs it.

use crate::protocol::{Failure, HEADER, MAX_PAYLOAD, Reply, Request, VERSION, parse_header};
use crate::sys::{POLLIN, POLLOUT, PollFd, Ready};
use crate::tree::{Children, Role};
use crate::work::Work;
use crate::{World, files, rest, sys};
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;

/// Most bytes taken from the engine ahead of their use: a whole frame always fits.
const INPUT_LIMIT: usize = MAX_PAYLOAD + HEADER;

pub(crate) struct Connection {
    socket: UnixStream,
    input: Vec<u8>,
    output: Vec<u8>,
    work: Work,
}

impl Connection {
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { socket, input: Vec::new(), output: Vec::new(), work: Work::Asking }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.work, Work::Over)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.work.is_draining(&self.output)
    }

    /// Adds what to wait for.
    pub(crate) fn interests(&self, poll: &mut Vec<PollFd>) {
        let mut events = 0;
        if self.input.len() < INPUT_LIMIT {
            events |= POLLIN;
        }
        if !self.output.is_empty() {
            events |= POLLOUT;
        }
        poll.push(PollFd::new(&self.socket, events));
        self.work.interests(&self.output, poll);
    }

    pub(crate) fn advance(&mut self, ready: &Ready, world: &mut World) {
        self.work.advance(ready, &mut self.output);
        let alive = !ready.is_readable(&self.socket) || self.receive().is_ok();
        if !alive || self.go_on(world).is_err() {
            // The engine has gone, or speaks nonsense: whatever runs for it ends.
            self.work.abandon(world);
        }
    }

    pub(crate) fn is_detaching(&self) -> bool {
        matches!(self.work, Work::Detaching)
    }

    /// Ends what goes on here, unless it asked for that itself: then it is answered, once
    /// everything else `is_clear`.
    pub(crate) fn detach(&mut self, is_clear: bool, world: &mut World) {
        if !self.is_detaching() {
            self.work.abandon(world);
        } else if is_clear {
            self.finish(&Reply::Ready);
            if self.send().is_err() {
                self.work.abandon(world);
            }
        }
    }

    pub(crate) fn supervisor_ended(&mut self, pid: i32) {
        self.work.supervisor_ended(pid);
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

    /// Uses the frames that have arrived in full, and sends as much as there is to say.
    fn go_on(&mut self, world: &mut World) -> io::Result<()> {
        while let Some((kind, payload)) = self.next_frame()? {
            match &mut self.work {
                Work::Asking => self.begin(Request::parse(kind, &payload)?, world),
                Work::Finishing | Work::Over => break,
                work => {
                    if let Some(refusal) = work.input(kind, payload, world)? {
                        self.finish(&refusal);
                    }
                }
            }
        }
        loop {
            if let Some(reply) = self.work.step(world, &mut self.output) {
                self.finish(&reply);
            }
            if self.output.is_empty() {
                return Ok(());
            }
            self.send()?;
            // Where all of it could be sent, there may be more to say; otherwise there will be
            // a call when the rest can be sent.
            if !self.output.is_empty() {
                return Ok(());
            }
        }
    }

    fn send(&mut self) -> io::Result<()> {
        let mut sent = 0;
        while sent < self.output.len() {
            match self.socket.write(&self.output[sent..]) {
                Ok(count) => sent += count,
                Err(error) if is_passing(&error) => break,
                Err(error) => return Err(error),
            }
        }
        self.output.drain(..sent);
        if self.output.is_empty() && matches!(self.work, Work::Finishing) {
            self.work = Work::Over;
        }
        Ok(())
    }

    fn next_frame(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        if !self.work.wants_input() {
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

    fn begin(&mut self, request: Request, world: &mut World) {
        let World { children, processes, .. } = world;
        let begun = match request {
            Request::Ping => Err(Reply::Pong { version: VERSION }),
            Request::Look => Err(Reply::AtRest(processes.is_empty() && rest::is_at_rest(children))),
            Request::ReadFile { path } => {
                return self.hand_over(children, |socket| files::read(socket, &path));
            }
            Request::WriteFile { path } => {
                return self.hand_over(children, |socket| files::write(socket, &path));
            }
            Request::Exec { argv, env, place } => Work::exec(argv, env, place, children),
            Request::Shell { env, place } => Ok(Work::shell(env, place, &mut self.output)),
            Request::Spawn(spawn) => processes.spawn(spawn, children).map(Work::Spawning),
            Request::Detach => Ok(Work::Detaching),
            Request::ListProcesses => Err(processes.list(&mut self.output)),
            Request::Process { id, call } => {
                world.is_changed = true;
                processes.find(&id).and_then(|it| Work::call(it, call, &mut self.output))
            }
        };
        match begun {
            Ok(work) => self.work = work,
            Err(reply) => self.finish(&reply),
        }
    }

    /// Lets a forked worker do blocking work with the socket.
    fn hand_over(
        &mut self,
        children: &mut Children,
        work: impl FnOnce(UnixStream) -> io::Result<()>,
    ) {
        match self.socket.try_clone().and_then(|socket| Ok((socket, children.fork(Role::Worker)?)))
        {
            Ok((socket, sys::Forked::Child)) => {
                let done = sys::close_all_but(&[&socket])
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
        self.work.finish();
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
