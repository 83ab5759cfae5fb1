//! Running a command (api.md 4.11).
//!
//! JSON text cannot carry output that is not UTF-8. Where that happens our engine sends the
//! repaired text in `stdout` and `stderr` as everybody expects, and beside it the exact
//! bytes in `stdout_base64` and `stderr_base64`. Other clients ignore those fields; ours
//! prefers them.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::bytes::{join, split};
use super::null_as_default;
use crate::error::{Error, ErrorKind};
use crate::secret::Secret;

/// Body of an exec request.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExecRequest {
    /// Program: an absolute path or a name looked up in `PATH`. No shell is involved.
    pub cmd: String,
    /// Its arguments.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Its whole standard input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Values for variables declared at create.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub env: BTreeMap<String, Secret>,
    /// Whether the answer is a stream of frames.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub stream: bool,
}

impl ExecRequest {
    /// Runs a program without arguments.
    pub fn new(cmd: impl Into<String>) -> Self {
        Self { cmd: cmd.into(), args: Vec::new(), stdin: None, env: BTreeMap::new(), stream: false }
    }
}

// Standard input often carries a secret: its length is enough to debug with.
impl fmt::Debug for ExecRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExecRequest")
            .field("cmd", &self.cmd)
            .field("args", &self.args)
            .field("stdin_len", &self.stdin.as_ref().map(String::len))
            .field("env", &self.env)
            .field("stream", &self.stream)
            .finish()
    }
}

/// Answer to a buffered exec.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExecAnswer {
    /// What the command did.
    pub result: ExecResult,
    /// Run time in milliseconds.
    #[serde(default)]
    pub exec_ms: f64,
}

impl ExecAnswer {
    /// A result and how long it took.
    pub fn new(result: ExecResult, exec_ms: f64) -> Self {
        Self { result, exec_ms }
    }
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExecResult {
    /// Standard output as text, repaired where it is not UTF-8.
    #[serde(default, deserialize_with = "null_as_default")]
    pub stdout: String,
    /// The exact standard output, only where the text had to be repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// Standard error as text, repaired where it is not UTF-8.
    #[serde(default, deserialize_with = "null_as_default")]
    pub stderr: String,
    /// The exact standard error, only where the text had to be repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
    /// Exit code; 128 plus the number for a signal.
    pub exit_code: i32,
    /// Why the command could not be started; absent when it ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl ExecResult {
    /// The result of a command that ran.
    pub fn new(stdout: &[u8], stderr: &[u8], exit_code: i32) -> Self {
        let (stdout, stdout_base64) = split(stdout);
        let (stderr, stderr_base64) = split(stderr);
        Self { stdout, stdout_base64, stderr, stderr_base64, exit_code, error: None }
    }

    /// The result of a command that could not be started.
    pub fn not_started(error: impl Into<String>, exit_code: i32) -> Self {
        Self { error: Some(error.into()), ..Self::new(b"", b"", exit_code) }
    }

    /// The exact standard output.
    ///
    /// Fails with [`ErrorKind::Protocol`] when the base64 is broken.
    pub fn take_stdout(&mut self) -> Result<Bytes, Error> {
        exact("stdout", std::mem::take(&mut self.stdout), self.stdout_base64.take())
    }

    /// The exact standard error.
    ///
    /// Fails with [`ErrorKind::Protocol`] when the base64 is broken.
    pub fn take_stderr(&mut self) -> Result<Bytes, Error> {
        exact("stderr", std::mem::take(&mut self.stderr), self.stderr_base64.take())
    }
}

fn exact(field: &str, text: String, base64: Option<String>) -> Result<Bytes, Error> {
    join(text, base64).map_err(|error| {
        Error::new(ErrorKind::Protocol, format!("{field}_base64 is not base64")).with_source(error)
    })
}

/// One line of a streamed exec. Usually one field is set; more than one is legal, in the
/// order heartbeat, stdout, stderr, error, exit code.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ExecFrame {
    /// A sign of life, every 5 seconds.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub hb: bool,
    /// Standard output as text, repaired where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout: Option<String>,
    /// The exact standard output, only where the text had to be repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdout_base64: Option<String>,
    /// Standard error as text, repaired where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<String>,
    /// The exact standard error, only where the text had to be repaired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr_base64: Option<String>,
    /// The agent could not start or follow the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// The command has ended; the last frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
}

impl ExecFrame {
    /// A sign of life.
    pub fn heartbeat() -> Self {
        Self { hb: true, ..Self::default() }
    }

    /// A chunk of standard output.
    pub fn stdout(chunk: &[u8]) -> Self {
        let (text, base64) = split(chunk);
        Self { stdout: Some(text), stdout_base64: base64, ..Self::default() }
    }

    /// A chunk of standard error.
    pub fn stderr(chunk: &[u8]) -> Self {
        let (text, base64) = split(chunk);
        Self { stderr: Some(text), stderr_base64: base64, ..Self::default() }
    }

    /// The command could not be started or followed.
    pub fn error(message: impl Into<String>) -> Self {
        Self { error: Some(message.into()), ..Self::default() }
    }

    /// The end of the command.
    pub fn exit(code: i32) -> Self {
        Self { exit_code: Some(code), ..Self::default() }
    }

    /// The exact bytes of this frame's standard output, if it carries any.
    ///
    /// Fails with [`ErrorKind::Protocol`] when the base64 is broken.
    pub fn take_stdout(&mut self) -> Result<Option<Bytes>, Error> {
        take("stdout", self.stdout.take(), self.stdout_base64.take())
    }

    /// The exact bytes of this frame's standard error, if it carries any.
    ///
    /// Fails with [`ErrorKind::Protocol`] when the base64 is broken.
    pub fn take_stderr(&mut self) -> Result<Option<Bytes>, Error> {
        take("stderr", self.stderr.take(), self.stderr_base64.take())
    }
}

fn take(field: &str, text: Option<String>, base64: Option<String>) -> Result<Option<Bytes>, Error> {
    if text.is_none() && base64.is_none() {
        return Ok(None);
    }
    exact(field, text.unwrap_or_default(), base64).map(Some)
}

#[cfg(test)]
mod tests {
    use super::super::golden::{both_ways, tidies};
    use super::*;

    #[test]
    fn requests_of_the_contract() {
        let request: ExecRequest = both_ways(r#"{"cmd":"uname"}"#);
        assert_eq!(request, ExecRequest::new("uname"));
        both_ways::<ExecRequest>(
            r#"{"cmd":"bash","args":["-lc","x"],"stdin":"in","env":{"A":"1"},"stream":true}"#,
        );
        tidies::<ExecRequest>(
            r#"{"cmd":"env","args":null,"env":null,"stdin":null,"stream":false,"cwd":"/"}"#,
            r#"{"cmd":"env"}"#,
        );
    }

    #[test]
    fn stdin_and_env_do_not_show_in_debug() {
        let mut request = ExecRequest::new("login");
        request.stdin = Some("hunter2".into());
        request.env.insert("PW".into(), "hunter2".into());
        let debug = format!("{request:?}");
        assert!(!debug.contains("hunter2") && debug.contains("login"), "{debug}");
    }

    #[test]
    fn answers_of_the_contract() {
        let mut answer: ExecAnswer = both_ways(
            r#"{"result":{"stdout":"3.12.4\n","stderr":"","exit_code":0},"exec_ms":41.7}"#,
        );
        assert_eq!(answer.result.take_stdout().unwrap(), "3.12.4\n");
        let failed: ExecAnswer = both_ways(
            r#"{"result":{"stdout":"","stderr":"","exit_code":127,"error":"no such file"},
                "exec_ms":0.4}"#,
        );
        assert_eq!(failed.result, ExecResult::not_started("no such file", 127));
    }

    #[test]
    fn bytes_that_are_not_text_arrive_exactly() {
        let all: Vec<u8> = (0..=255).collect();
        let sent = serde_json::to_string(&ExecResult::new(&all, b"plain", 0)).unwrap();
        let mut read: ExecResult = serde_json::from_str(&sent).unwrap();
        assert!(read.stdout.contains('\u{fffd}') && read.stderr_base64.is_none());
        assert_eq!(read.take_stdout().unwrap(), all);
        assert_eq!(read.take_stderr().unwrap(), "plain");

        let sent = serde_json::to_string(&ExecFrame::stderr(&all)).unwrap();
        let mut read: ExecFrame = serde_json::from_str(&sent).unwrap();
        assert_eq!(read.take_stdout().unwrap(), None);
        assert_eq!(read.take_stderr().unwrap().unwrap(), all);
    }

    #[test]
    fn broken_base64_is_an_error_and_not_lossy_text() {
        let mut frame: ExecFrame =
            serde_json::from_str(r#"{"stdout":"?","stdout_base64":"%%"}"#).unwrap();
        assert_eq!(frame.take_stdout().unwrap_err().kind(), ErrorKind::Protocol);
    }

    #[test]
    fn frames_of_the_contract() {
        for (json, frame) in [
            (r#"{"hb":true}"#, ExecFrame::heartbeat()),
            (r#"{"stdout":"step 1\n"}"#, ExecFrame::stdout(b"step 1\n")),
            (r#"{"stderr":"warning: x\n"}"#, ExecFrame::stderr(b"warning: x\n")),
            (r#"{"error":"lost"}"#, ExecFrame::error("lost")),
            (r#"{"exit_code":0}"#, ExecFrame::exit(0)),
        ] {
            assert_eq!(both_ways::<ExecFrame>(json), frame);
        }
    }
}
