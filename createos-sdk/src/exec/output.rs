//! What a command left behind.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt;
use tokio::time::Instant;

use super::bounded::Bounded;
use super::stream::{ExecEvent, ExecStream};
use crate::error::{Error, ErrorKind, Result};
use crate::excerpt::{Gap, marked};
use crate::wire::ExecAnswer;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ExitStatus(i32);

impl ExitStatus {
    pub(crate) fn new(code: i32) -> Self {
        Self(code)
    }

    /// Whether the code is 0.
    pub fn success(self) -> bool {
        self.0 == 0
    }

    /// The exit code. A command killed by a signal has 128 plus its number; one that could
    /// not be started has 126 or 127, as in a shell.
    pub fn code(self) -> i32 {
        self.0
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "exit code {}", self.0)
    }
}

/// What a finished command wrote, byte for byte: everything, unless it was limited.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// What it wrote to standard output.
    pub stdout: Bytes,
    /// What it wrote to standard error.
    pub stderr: Bytes,
    /// Where bytes of `stdout` are missing: only after [`Command::limit_output`](super::Command::limit_output).
    pub stdout_gap: Option<Gap>,
    /// Where bytes of `stderr` are missing.
    pub stderr_gap: Option<Gap>,
    /// How long it ran, as the server measured it; with limited output, as seen from here.
    pub exec_time: Duration,
    /// Why it could not be started; `None` when it ran.
    pub error: Option<String>,
}

impl Output {
    pub(crate) fn read(answer: ExecAnswer) -> Result<Self> {
        let mut result = answer.result;
        Ok(Self {
            status: ExitStatus::new(result.exit_code),
            stdout: result.take_stdout()?,
            stderr: result.take_stderr()?,
            stdout_gap: None,
            stderr_gap: None,
            exec_time: Duration::try_from_secs_f64(answer.exec_ms / 1000.0).unwrap_or_default(),
            error: result.error.filter(|text| !text.is_empty()),
        })
    }

    /// Follows a command to its end, and keeps the first `head` and last `tail` bytes of each
    /// stream.
    pub(super) async fn collect(mut stream: ExecStream, head: usize, tail: usize) -> Result<Self> {
        let started = Instant::now();
        let mut stdout = Bounded::new(head, tail);
        let mut stderr = Bounded::new(head, tail);
        let mut error = None;
        let mut exit = None;
        while let Some(event) = stream.try_next().await? {
            match event {
                ExecEvent::Stdout(bytes) => stdout.push(&bytes),
                ExecEvent::Stderr(bytes) => stderr.push(&bytes),
                ExecEvent::Error(why) => error = Some(why),
                ExecEvent::Exit(status) => exit = Some(status),
            }
        }
        let status = exit.ok_or_else(|| stream.lost())?;
        let (stdout, stdout_gap) = stdout.finish();
        let (stderr, stderr_gap) = stderr.finish();
        let exec_time = started.elapsed();
        Ok(Self { status, stdout, stderr, stdout_gap, stderr_gap, exec_time, error })
    }

    /// Standard output as text. Fails with [`ErrorKind::Protocol`] when it is not UTF-8.
    pub fn stdout_str(&self) -> Result<&str> {
        as_text("standard output", &self.stdout)
    }

    /// Standard output as text, with `U+FFFD` for what is not UTF-8.
    pub fn stdout_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// Standard output as text in which marks stand where something was left out or is not
    /// text, as [`Excerpt::marked`](crate::Excerpt::marked) has them.
    ///
    /// ```no_run
    /// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
    /// let out = sandbox.command("make").limit_output(8 << 10, 64 << 10).await?;
    /// let for_the_model = format!("{}\n{}{}", out.status, out.stdout_marked(), out.stderr_marked());
    /// # Ok(()) }
    /// ```
    pub fn stdout_marked(&self) -> Cow<'_, str> {
        marked(&self.stdout, self.stdout_gap)
    }

    /// Standard error as text. Fails with [`ErrorKind::Protocol`] when it is not UTF-8.
    pub fn stderr_str(&self) -> Result<&str> {
        as_text("standard error", &self.stderr)
    }

    /// Standard error as text, with `U+FFFD` for what is not UTF-8.
    pub fn stderr_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }

    /// Standard error as text with marks, like [`stdout_marked`](Self::stdout_marked).
    pub fn stderr_marked(&self) -> Cow<'_, str> {
        marked(&self.stderr, self.stderr_gap)
    }

    /// This output if the command was started and ended with 0, else an error of kind
    /// [`CommandFailed`](ErrorKind::CommandFailed) that shows the last line it wrote to
    /// standard error.
    ///
    /// ```no_run
    /// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
    /// let out = sandbox.command("cargo").arg("build").await?.ensure_success()?;
    /// # Ok(()) }
    /// ```
    pub fn ensure_success(self) -> Result<Self> {
        self.ensure_success_of("sandbox.exec")
    }

    pub(crate) fn ensure_success_of(self, operation: &'static str) -> Result<Self> {
        let message = match &self.error {
            Some(why) => format!("could not be started: {why}"),
            None if self.status.success() => return Ok(self),
            None => match last_line(&self.stderr) {
                Some(line) => format!("{}: {line}", self.status),
                None => self.status.to_string(),
            },
        };
        let acted = self.error.is_none();
        Err(Error::new(ErrorKind::CommandFailed, message).with_acted(acted).in_operation(operation))
    }
}

fn as_text<'a>(what: &str, bytes: &'a [u8]) -> Result<&'a str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let message = format!("{what} is not UTF-8 at byte {}", error.valid_up_to());
        Error::new(ErrorKind::Protocol, message).with_source(error)
    })
}

/// The last line that is not blank, at most 200 characters of it.
fn last_line(bytes: &[u8]) -> Option<String> {
    let tail = &bytes[bytes.len().saturating_sub(1000)..];
    let text = String::from_utf8_lossy(tail);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().take(200).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ExecResult;

    fn output(stdout: &[u8], stderr: &[u8], code: i32) -> Output {
        Output::read(ExecAnswer::new(ExecResult::new(stdout, stderr, code), 1.5)).unwrap()
    }

    #[test]
    fn text_is_exact_or_says_so() {
        let good = output("ä\n".as_bytes(), b"", 0);
        assert_eq!(good.stdout_str().unwrap(), "ä\n");
        assert_eq!(good.exec_time, Duration::from_micros(1500));
        let bad = output(b"a\xffb", b"\xff", 0);
        assert_eq!(bad.stdout, &b"a\xffb"[..]);
        assert_eq!(bad.stdout_str().unwrap_err().kind(), ErrorKind::Protocol);
        assert_eq!(bad.stdout_lossy(), "a\u{fffd}b");
        assert!(bad.stderr_str().is_err());
    }

    #[test]
    fn success_is_code_zero_of_a_command_that_ran() {
        assert!(output(b"", b"warning", 0).ensure_success().is_ok());
        let failed = output(b"", b"one\ntwo: bad\n\n", 2).ensure_success().unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::CommandFailed);
        assert_eq!(failed.message(), "exit code 2: two: bad");
        assert_eq!(output(b"", b"", 1).ensure_success().unwrap_err().message(), "exit code 1");
        let result = ExecResult::not_started("no such file", 127);
        let missing = Output::read(ExecAnswer::new(result, 0.0)).unwrap();
        let error = missing.ensure_success().unwrap_err();
        assert!(error.message().contains("no such file") && !error.may_have_acted());
    }

    #[test]
    fn nonsense_run_times_are_zero() {
        let answer = ExecAnswer::new(ExecResult::new(b"", b"", 0), -1.0);
        assert_eq!(Output::read(answer).unwrap().exec_time, Duration::ZERO);
    }
}
