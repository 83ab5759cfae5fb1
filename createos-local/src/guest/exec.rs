//! A running command: its pipes, its end, and killing it with all it started.

use crate::protocol::{CHUNK, Failure, Input, Reply};
use crate::sys::{self, POLLIN, POLLOUT, PollFd};
use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::slice::Iter;

const HOME: &str = "/root";

pub(crate) struct Exec {
    /// Leader of the command's session; also the session's id.
    pid: i32,
    stdin: Option<ChildStdin>,
    /// Input that the command has not read yet.
    pending: Vec<u8>,
    /// No more input follows: stdin closes once `pending` is written.
    input_ended: bool,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    status: Option<i32>,
}

impl Exec {
    pub(crate) fn start(argv: &[String], env: &[String]) -> Result<Self, Reply> {
        let (program, arguments) = argv.split_first().ok_or_else(|| Reply::Failed {
            kind: Failure::CommandNotFound,
            message: "no program given".to_owned(),
        })?;
        let mut command = Command::new(program);
        command
            .args(arguments)
            .env_clear()
            .envs(env.iter().filter_map(|entry| entry.split_once('=')))
            .current_dir(if Path::new(HOME).is_dir() { HOME } else { "/" })
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = sys::in_new_session(&mut command)
            .spawn()
            .map_err(|error| start_failure(program, &error))?;
        let exec = Self {
            pid: child.id().cast_signed(),
            stdin: child.stdin.take(),
            pending: Vec::new(),
            input_ended: false,
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            status: None,
        };
        exec.unblock_pipes().map_err(|error| {
            exec.kill();
            Reply::Failed { kind: Failure::Refused, message: error.to_string() }
        })?;
        Ok(exec)
    }

    fn unblock_pipes(&self) -> io::Result<()> {
        self.stdin.iter().try_for_each(sys::set_nonblocking)?;
        self.stdout.iter().try_for_each(sys::set_nonblocking)?;
        self.stderr.iter().try_for_each(sys::set_nonblocking)
    }

    pub(crate) fn interests(&self, room_for_output: bool, poll: &mut Vec<PollFd>) {
        if let Some(stdin) = &self.stdin
            && !self.pending.is_empty()
        {
            poll.push(PollFd::new(stdin, POLLOUT));
        }
        if room_for_output {
            poll.extend(self.stdout.iter().map(|pipe| PollFd::new(pipe, POLLIN)));
            poll.extend(self.stderr.iter().map(|pipe| PollFd::new(pipe, POLLIN)));
        }
    }

    /// Takes the answers to [`Self::interests`]. Every one leads to an attempt that
    /// cannot block, so which descriptor an answer belongs to is all that matters.
    pub(crate) fn advance(&mut self, ready: &mut Iter<'_, PollFd>, output: &mut Vec<u8>) {
        let is_ready =
            |ready: &mut Iter<'_, PollFd>, fd: Option<i32>| match ready.as_slice().first() {
                Some(answer) if Some(answer.fd()) == fd => {
                    ready.next();
                    answer.revents != 0
                }
                _ => false,
            };
        if is_ready(ready, self.stdin.as_ref().map(AsRawFd::as_raw_fd)) {
            self.write_pending();
        }
        if is_ready(ready, self.stdout.as_ref().map(AsRawFd::as_raw_fd)) {
            forward(&mut self.stdout, output, Reply::Stdout);
        }
        if is_ready(ready, self.stderr.as_ref().map(AsRawFd::as_raw_fd)) {
            forward(&mut self.stderr, output, Reply::Stderr);
        }
    }

    /// Whether another frame of input may be taken from the connection.
    pub(crate) fn wants_input(&self) -> bool {
        self.pending.len() < CHUNK
    }

    pub(crate) fn input(&mut self, kind: u8, payload: Vec<u8>) -> io::Result<()> {
        match Input::parse(kind, payload)? {
            Input::Data(bytes) if self.stdin.is_some() => self.pending.extend(bytes),
            // The command has closed its input; the rest is nobody's.
            Input::Data(_) => {}
            Input::End => self.input_ended = true,
        }
        self.write_pending();
        Ok(())
    }

    fn write_pending(&mut self) {
        let Some(stdin) = &mut self.stdin else { return };
        while !self.pending.is_empty() {
            match stdin.write(&self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.pending.clear();
                    self.stdin = None;
                    return;
                }
            }
        }
        if self.input_ended {
            self.stdin = None;
        }
    }

    /// Whether this was our command.
    pub(crate) fn child_ended(&mut self, pid: i32, status: i32) -> bool {
        let ours = pid == self.pid && self.status.is_none();
        if ours {
            self.status = Some(status);
        }
        ours
    }

    /// The last reply, once the command has ended and nobody holds its output open.
    pub(crate) fn outcome(&self) -> Option<Reply> {
        if self.stdout.is_some() || self.stderr.is_some() {
            return None;
        }
        self.status.map(|status| match sys::exit_status(status) {
            Ok(code) => Reply::Exited(code),
            Err(signal) => Reply::Signaled(signal),
        })
    }

    /// Kills the command and everything in its session.
    pub(crate) fn kill(&self) {
        // A process that forks while the list is read is found in the next round.
        for _ in 0..8 {
            let members = session_members(self.pid);
            for pid in &members {
                let _ = sys::send_signal(*pid, sys::SIGKILL);
            }
            if members.is_empty() {
                return;
            }
        }
    }
}

fn forward(pipe: &mut Option<impl Read>, output: &mut Vec<u8>, reply: fn(Vec<u8>) -> Reply) {
    let Some(reader) = pipe else { return };
    let mut chunk = vec![0; CHUNK];
    match reader.read(&mut chunk) {
        Ok(0) => *pipe = None,
        Ok(count) => {
            chunk.truncate(count);
            output.extend(reply(chunk).to_frame());
        }
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
        Err(_) => *pipe = None,
    }
}

fn start_failure(program: &str, error: &io::Error) -> Reply {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => Failure::CommandNotFound,
        io::ErrorKind::PermissionDenied
        | io::ErrorKind::IsADirectory
        | io::ErrorKind::ArgumentListTooLong => Failure::CommandNotRunnable,
        _ => Failure::Refused,
    };
    Reply::Failed { kind, message: format!("cannot start {program:?}: {error}") }
}

/// Living processes of a session, zombies left out.
fn session_members(session: i32) -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| is_live_member(&stat, session))
        })
        .collect()
}

/// Fields of `/proc/PID/stat` after the command name, which may hold anything but
/// ends at the last parenthesis: state, parent, group, session.
fn is_live_member(stat: &str, session: i32) -> bool {
    let Some((_, rest)) = stat.rsplit_once(')') else { return false };
    let mut fields = rest.split_ascii_whitespace();
    let alive = fields.next().is_some_and(|state| state != "Z" && state != "X");
    alive && fields.nth(2).and_then(|field| field.parse().ok()) == Some(session)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_is_read_behind_any_command_name() {
        assert!(is_live_member("12 (sh) S 1 12 12 0 -1", 12));
        assert!(is_live_member("12 (a) b) (c) R 1 9 7 0 -1", 7));
        assert!(!is_live_member("12 (sh) Z 1 12 12 0 -1", 12));
        assert!(!is_live_member("12 (sh) S 1 12 13 0 -1", 12));
        assert!(!is_live_member("garbage", 12));
        assert!(!is_live_member("12 (sh", 12));
    }
}
