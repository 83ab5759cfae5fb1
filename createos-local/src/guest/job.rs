//! A running program and what it talks through: pipes or a terminal.

use crate::program::{Program, Standard};
use crate::protocol::{CHUNK, Channel, Exit, Failure, Foreground, Reply, Size};
use crate::sys::{self, POLLIN, POLLOUT, PollFd, Ready};
use crate::tree::{Children, Leader, Tree};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;

/// What ends the input of a terminal: Ctrl-D.
const END_OF_INPUT: u8 = 4;
/// Most of a foreground job's arguments that is told.
const MAX_JOB: u64 = 4096;

pub(crate) struct Job {
    pub(crate) tree: Tree,
    program: Program,
    pub(crate) input: Feed,
    outputs: Vec<(Channel, File)>,
    terminal: Option<Terminal>,
}

struct Terminal {
    ours: OwnedFd,
    /// Kept until the program has its own: a terminal that nobody has open reads as
    /// hung up.
    theirs: Option<OwnedFd>,
}

impl Job {
    /// Forks its supervisor; whether the program starts is told later by [`Tree::leader`].
    pub(crate) fn start(
        program: Program,
        terminal: Option<Size>,
        children: &mut Children,
    ) -> Result<Self, Reply> {
        let started = match terminal {
            Some(size) => Self::in_terminal(program, size, children),
            None => Self::with_pipes(program, children),
        };
        started.map_err(|error| Reply::Failed {
            kind: Failure::Refused,
            message: format!("the sandbox cannot start another process: {error}"),
        })
    }

    fn with_pipes(program: Program, children: &mut Children) -> io::Result<Self> {
        let (stdin, feed) = sys::pipe()?;
        let (from_stdout, stdout) = sys::pipe()?;
        let (from_stderr, stderr) = sys::pipe()?;
        for ours in [&feed, &from_stdout, &from_stderr] {
            sys::set_nonblocking(ours)?;
        }
        let tree = Tree::start(&program, Standard::Pipes([stdin, stdout, stderr]), children)?;
        let outputs = vec![
            (Channel::Stdout, File::from(from_stdout)),
            (Channel::Stderr, File::from(from_stderr)),
        ];
        Ok(Self { tree, program, input: Feed::new(feed.into()), outputs, terminal: None })
    }

    fn in_terminal(program: Program, size: Size, children: &mut Children) -> io::Result<Self> {
        let (ours, theirs) = sys::open_terminal()?;
        sys::set_window_size(&ours, size.rows, size.cols)?;
        let (feed, output) = (ours.try_clone()?, ours.try_clone()?);
        let tree = Tree::start(&program, Standard::Terminal(theirs.try_clone()?), children)?;
        Ok(Self {
            tree,
            program,
            input: Feed::new(feed.into()),
            outputs: vec![(Channel::Terminal, output.into())],
            terminal: Some(Terminal { ours, theirs: Some(theirs) }),
        })
    }

    pub(crate) fn interests(&self, room_for_output: bool, poll: &mut Vec<PollFd>) {
        self.tree.interests(poll);
        self.input.interests(poll);
        if room_for_output {
            poll.extend(self.outputs.iter().map(|(_, output)| PollFd::new(output, POLLIN)));
        }
    }

    /// Moves input and output on, without waiting for anything.
    pub(crate) fn advance(
        &mut self,
        ready: &Ready,
        room_for_output: bool,
        mut take: impl FnMut(Channel, &[u8]),
    ) {
        self.tree.advance(ready);
        if let Some(terminal) = &mut self.terminal
            && self.tree.leader() != Leader::Starting
        {
            terminal.theirs = None;
        }
        if self.input.to.as_ref().is_some_and(|to| ready.has(to)) {
            self.input.write();
        }
        if !room_for_output {
            return;
        }
        let nothing_follows = self.is_silent();
        self.outputs.retain_mut(|(channel, output)| {
            if !nothing_follows && !ready.has(output) {
                return true;
            }
            let mut chunk = [0; CHUNK];
            match output.read(&mut chunk) {
                Ok(0) => false,
                Ok(count) => {
                    take(*channel, &chunk[..count]);
                    true
                }
                Err(error) if is_passing(&error) => !nothing_follows,
                // A terminal tells its end by an error.
                Err(_) => false,
            }
        });
    }

    /// Whether output that is not there already can not come: nothing of the tree is
    /// left, or the terminal has lost the session that it belonged to.
    fn is_silent(&self) -> bool {
        let leader_ended = matches!(self.tree.leader(), Leader::Ended(..) | Leader::NotStarted(_));
        self.tree.is_over() || (self.terminal.is_some() && leader_ended)
    }

    /// Whether [`Self::advance`] has to be called again soon though nothing is ready.
    pub(crate) fn is_draining(&self) -> bool {
        self.is_silent() && !self.outputs.is_empty()
    }

    /// How it went, once the program has ended and nobody holds its output open.
    pub(crate) fn outcome(&self) -> Option<Result<Exit, Reply>> {
        match self.tree.leader() {
            Leader::NotStarted(why) => Some(Err(self.program.failure(why))),
            Leader::Ended(_, exit) if self.outputs.is_empty() => Some(Ok(exit)),
            _ => None,
        }
    }

    pub(crate) fn program(&self) -> &Program {
        &self.program
    }

    pub(crate) fn has_terminal(&self) -> bool {
        self.terminal.is_some()
    }

    /// Nothing more is typed: a pipe is closed, a terminal gets Ctrl-D.
    pub(crate) fn end_input(&mut self) {
        if self.has_terminal() {
            self.input.push(&[END_OF_INPUT]);
        } else {
            self.input.end();
        }
    }

    /// False where there is no terminal.
    pub(crate) fn resize(&self, size: Size) -> bool {
        let Some(terminal) = &self.terminal else { return false };
        sys::set_window_size(&terminal.ours, size.rows, size.cols).is_ok()
    }

    /// Sends a signal to the program's group, or to the foreground of its terminal.
    pub(crate) fn signal(&mut self, signal: i32) {
        let (Leader::Running(leader) | Leader::Ended(leader, _)) = self.tree.leader() else {
            return;
        };
        let foreground =
            self.terminal.as_ref().and_then(|terminal| sys::foreground_group(&terminal.ours));
        self.tree.signal(foreground.unwrap_or(leader), signal);
    }

    /// The job in the foreground of its terminal, where that is not the program itself.
    pub(crate) fn foreground(&self) -> Option<Foreground> {
        let Leader::Running(leader) = self.tree.leader() else { return None };
        let pid = sys::foreground_group(&self.terminal.as_ref()?.ours)?;
        if pid == leader {
            return None;
        }
        let mut line = Vec::new();
        let file = File::open(format!("{pid}/cmdline")).ok()?;
        file.take(MAX_JOB).read_to_end(&mut line).ok()?;
        let mut argv: Vec<String> = line
            .split(|byte| *byte == 0)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        // Every word ends with a zero.
        argv.pop();
        if argv.is_empty() {
            argv.push(fs::read_to_string(format!("{pid}/comm")).ok()?.trim_end().to_owned());
        }
        Some(Foreground { pid, argv })
    }
}

/// Bytes on their way into a pipe or a terminal.
pub(crate) struct Feed {
    /// `None` once it is closed, from whichever side.
    to: Option<File>,
    pending: Vec<u8>,
    /// No more follows: it closes once `pending` is written.
    ends: bool,
}

impl Feed {
    fn new(to: File) -> Self {
        Self { to: Some(to), pending: Vec::new(), ends: false }
    }

    /// Bytes that were not read yet.
    pub(crate) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Whether more would reach anybody.
    pub(crate) fn is_open(&self) -> bool {
        self.to.is_some() && !self.ends
    }

    /// Bytes for a reader that has gone are nobody's.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.is_open() {
            self.pending.extend_from_slice(bytes);
            self.write();
        }
    }

    pub(crate) fn end(&mut self) {
        self.ends = true;
        self.write();
    }

    pub(crate) fn close(&mut self) {
        self.pending = Vec::new();
        self.to = None;
    }

    fn interests(&self, poll: &mut Vec<PollFd>) {
        if !self.pending.is_empty() {
            poll.extend(self.to.iter().map(|to| PollFd::new(to, POLLOUT)));
        }
    }

    fn write(&mut self) {
        let Some(to) = &mut self.to else { return };
        let mut written = 0;
        while written < self.pending.len() {
            match to.write(&self.pending[written..]) {
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => return self.close(),
            }
        }
        self.pending.drain(..written);
        if self.ends && self.pending.is_empty() {
            self.close();
        }
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}
