//! The supervisor: a process between the agent and one program, to which everything
//! the program starts falls when its parent ends. So the tree is known exactly, also
//! what has left its session or was orphaned on purpose, and can be ended as a whole.
//!
//! It is a fork of the agent and answers to it alone. It ends, with code 0, when
//! nothing of the tree is left, and never before: whoever kills it loses the tree, for
//! the agent then kills what has become its own.

use crate::program::{self, NotStarted, Program, Standard};
use crate::sys::{self, POLLIN, PollFd, Reaped};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// How often a tree that is being killed is looked at.
const KILL_PAUSE: Duration = Duration::from_millis(5);
/// A tree that grows faster than it can be stopped is killed as far as it is known.
const STOP_ROUNDS: usize = 100;

/// What the agent tells a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// End the tree: SIGTERM, and SIGKILL after so many milliseconds.
    End { grace_ms: u32 },
    /// Send a signal to a process group, if it is of this tree.
    Signal { group: i32, signal: i32 },
}

/// What a supervisor tells the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    /// The program runs; its number.
    Started(i32),
    NotStarted(NotStarted),
    /// The program has ended; its raw wait status.
    Ended(i32),
}

/// Both kinds of message are a byte and two integers.
pub(crate) const MESSAGE: usize = 9;

fn message(kind: u8, a: i32, b: i32) -> [u8; MESSAGE] {
    let mut message = [0; MESSAGE];
    message[0] = kind;
    message[1..5].copy_from_slice(&a.to_le_bytes());
    message[5..].copy_from_slice(&b.to_le_bytes());
    message
}

fn split(message: [u8; MESSAGE]) -> (u8, i32, i32) {
    let [kind, a, b, c, d, e, f, g, h] = message;
    (kind, i32::from_le_bytes([a, b, c, d]), i32::from_le_bytes([e, f, g, h]))
}

impl Order {
    pub(crate) fn to_bytes(self) -> [u8; MESSAGE] {
        match self {
            Self::End { grace_ms } => message(0, grace_ms.cast_signed(), 0),
            Self::Signal { group, signal } => message(1, group, signal),
        }
    }

    fn parse(bytes: [u8; MESSAGE]) -> Option<Self> {
        match split(bytes) {
            (0, grace, _) => Some(Self::End { grace_ms: grace.cast_unsigned() }),
            (1, group, signal) => Some(Self::Signal { group, signal }),
            _ => None,
        }
    }
}

impl Report {
    fn to_bytes(self) -> [u8; MESSAGE] {
        match self {
            Self::Started(pid) => message(0, pid, 0),
            Self::NotStarted(NotStarted::Directory(errno)) => message(1, errno, 0),
            Self::NotStarted(NotStarted::Program(errno)) => message(2, errno, 0),
            Self::NotStarted(NotStarted::User(errno)) => message(4, errno, 0),
            Self::Ended(status) => message(3, status, 0),
        }
    }

    pub(crate) fn parse(bytes: [u8; MESSAGE]) -> Option<Self> {
        match split(bytes) {
            (0, pid, _) => Some(Self::Started(pid)),
            (1, errno, _) => Some(Self::NotStarted(NotStarted::Directory(errno))),
            (2, errno, _) => Some(Self::NotStarted(NotStarted::Program(errno))),
            (3, status, _) => Some(Self::Ended(status)),
            (4, errno, _) => Some(Self::NotStarted(NotStarted::User(errno))),
            _ => None,
        }
    }
}

/// The whole life of a supervisor, in a fresh child of the agent.
pub(crate) fn supervise(program: &Program, standard: Standard, mut channel: UnixStream) -> ! {
    match prepare(&standard, &channel) {
        Ok(signals) => Supervisor::start(program, standard, channel, signals).serve(),
        Err(error) => {
            let why = NotStarted::Program(program::errno(&error));
            let _ = channel.write_all(&Report::NotStarted(why).to_bytes());
        }
    }
    sys::exit_now(0);
}

fn prepare(standard: &Standard, channel: &UnixStream) -> io::Result<OwnedFd> {
    // Only SIGKILL and SIGSTOP are left to whoever wants to disturb.
    sys::block_signals()?;
    sys::adopt_orphans()?;
    let mut kept = standard.descriptors();
    kept.push(channel);
    sys::close_all_but(&kept)?;
    channel.set_nonblocking(true)?;
    sys::signal_descriptor(&[sys::SIGCHLD])
}

struct Supervisor {
    /// `None` once the agent has let go of the tree.
    channel: Option<UnixStream>,
    signals: OwnedFd,
    leader: Option<i32>,
    /// When what is left of the tree is killed.
    kill_at: Option<Instant>,
}

impl Supervisor {
    fn start(program: &Program, standard: Standard, channel: UnixStream, signals: OwnedFd) -> Self {
        let mut supervisor = Self { channel: Some(channel), signals, leader: None, kill_at: None };
        match program.start(standard) {
            Ok(pid) => {
                supervisor.leader = Some(pid);
                supervisor.report(Report::Started(pid));
            }
            Err(why) => supervisor.report(Report::NotStarted(why)),
        }
        supervisor
    }

    fn report(&mut self, report: Report) {
        if let Some(channel) = &mut self.channel {
            // There is always room for the few reports of a life.
            let _ = channel.write_all(&report.to_bytes());
        }
    }

    fn serve(mut self) {
        while self.reap() {
            if self.kill_at.is_some_and(|at| at <= Instant::now()) {
                kill_tree();
                self.kill_at = Some(Instant::now() + KILL_PAUSE);
            }
            self.wait();
        }
    }

    /// Takes the children that have ended; false when none is left.
    fn reap(&mut self) -> bool {
        loop {
            match sys::reap() {
                Reaped::Ended { pid, status } if Some(pid) == self.leader => {
                    self.leader = None;
                    self.report(Report::Ended(status));
                }
                Reaped::Ended { .. } | Reaped::Stopped { .. } => {}
                Reaped::Living => return true,
                Reaped::NoChildren => return false,
            }
        }
    }

    fn wait(&mut self) {
        let timeout = self.kill_at.map(|at| {
            let left = at.saturating_duration_since(Instant::now());
            // Rounded up, or the last millisecond would be spent spinning.
            u32::try_from(left.as_millis() + 1).unwrap_or(u32::MAX)
        });
        let mut poll = vec![PollFd::new(&self.signals, POLLIN)];
        poll.extend(self.channel.iter().map(|channel| PollFd::new(channel, POLLIN)));
        if sys::poll_fds(&mut poll, timeout).is_err() {
            std::thread::sleep(KILL_PAUSE);
        }
        sys::drain_signals(&self.signals);
        if poll.get(1).is_some_and(PollFd::is_readable) {
            self.take_order();
        }
    }

    fn take_order(&mut self) {
        let Some(channel) = &mut self.channel else { return };
        let mut bytes = [0; MESSAGE];
        match channel.read_exact(&mut bytes) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => {
                self.channel = None;
                return;
            }
        }
        match Order::parse(bytes) {
            Some(Order::End { grace_ms }) => self.end(Duration::from_millis(grace_ms.into())),
            Some(Order::Signal { group, signal }) => send_to_own(group, signal),
            None => {}
        }
    }

    fn end(&mut self, grace: Duration) {
        let deadline = Instant::now() + grace;
        if self.kill_at.is_some_and(|earlier| earlier <= deadline) {
            return;
        }
        self.kill_at = Some(deadline);
        if grace > Duration::ZERO {
            for process in descendants() {
                let _ = sys::send_signal(process.pid, sys::SIGTERM);
                // A stopped process learns of it only when it goes on.
                let _ = sys::send_signal(process.pid, sys::SIGCONT);
            }
        }
    }
}

/// Sends a signal to a process group of the tree.
fn send_to_own(group: i32, signal: i32) {
    if descendants().iter().any(|process| process.group == group) {
        let _ = sys::send_signal(-group, signal);
    }
}

/// Stops everything first, so that nothing can multiply while it is being killed.
fn kill_tree() {
    let mut stopped = HashSet::new();
    for _ in 0..STOP_ROUNDS {
        let fresh: Vec<i32> = descendants()
            .iter()
            .map(|process| process.pid)
            .filter(|pid| stopped.insert(*pid))
            .collect();
        if fresh.is_empty() {
            break;
        }
        for pid in fresh {
            let _ = sys::send_signal(pid, sys::SIGSTOP);
        }
    }
    for pid in stopped {
        let _ = sys::send_signal(pid, sys::SIGKILL);
    }
}

/// A process, possibly a zombie: one whose first thread alone has ended looks the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) parent: i32,
    pub(crate) group: i32,
}

/// Everything below this process.
fn descendants() -> Vec<Process> {
    below(std::process::id().cast_signed(), processes())
}

fn below(root: i32, all: Vec<Process>) -> Vec<Process> {
    let mut children: HashMap<i32, Vec<Process>> = HashMap::new();
    for process in all {
        children.entry(process.parent).or_default().push(process);
    }
    let mut found: Vec<Process> = children.remove(&root).unwrap_or_default();
    let mut next = 0;
    while let Some(process) = found.get(next) {
        next += 1;
        if let Some(more) = children.remove(&process.pid) {
            found.extend(more);
        }
    }
    found
}

/// All processes. The agent and its supervisors stand in `/proc`.
pub(crate) fn processes() -> Vec<Process> {
    let Ok(entries) = fs::read_dir(".") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| parse_stat(pid, &fs::read_to_string(format!("{pid}/stat")).ok()?))
        .collect()
}

/// Fields of `/proc/PID/stat` after the command name, which may hold anything but
/// ends at the last parenthesis: state, parent, group.
fn parse_stat(pid: i32, stat: &str) -> Option<Process> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    fields.next()?;
    Some(Process { pid, parent: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_read_behind_any_command_name() {
        let process = |parent, group| Some(Process { pid: 12, parent, group });
        assert_eq!(parse_stat(12, "12 (sh) S 1 12 12 0 -1"), process(1, 12));
        assert_eq!(parse_stat(12, "12 (a) b) (c) R 3 9 7 0 -1"), process(3, 9));
        for bad in ["garbage", "12 (sh", "12 (sh) S x 1", "12 (sh) S 1", "12 (sh)"] {
            assert_eq!(parse_stat(12, bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tree_is_all_below_its_root() {
        let process = |(pid, parent)| Process { pid, parent, group: pid };
        let all = [(5, 4), (2, 1), (3, 1), (4, 2), (6, 3), (7, 9), (2, 2)].map(process).to_vec();
        let mut found: Vec<i32> = below(2, all).iter().map(|process| process.pid).collect();
        found.sort_unstable();
        assert_eq!(found, [2, 4, 5]);
    }

    #[test]
    fn messages_round_trip_and_garbage_is_none() {
        for order in [Order::End { grace_ms: u32::MAX }, Order::Signal { group: 7, signal: 15 }] {
            assert_eq!(Order::parse(order.to_bytes()), Some(order));
        }
        for report in [
            Report::Started(i32::MAX),
            Report::NotStarted(NotStarted::Directory(2)),
            Report::NotStarted(NotStarted::Program(13)),
            Report::NotStarted(NotStarted::User(2)),
            Report::Ended(0x8b),
        ] {
            assert_eq!(Report::parse(report.to_bytes()), Some(report));
        }
        assert_eq!(Order::parse([9; MESSAGE]), None);
        assert_eq!(Report::parse([9; MESSAGE]), None);
    }
}
