//! Managed processes (api.md 5.1 to 5.4).

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{null_as_default, open_enum};
use crate::error::{Error, ErrorKind};
use crate::id::ProcessId;
use crate::secret::Secret;
use crate::time::Timestamp;

/// Body of a request to start a process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CreateProcess {
    /// Program: an absolute path or a name looked up in `PATH`. May be absent with a terminal,
    /// which then runs the default shell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<String>,
    /// Its arguments.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// Directory it starts in; absolute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// Variables added to the sandbox's.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub env: BTreeMap<String, Secret>,
    /// Gives it a terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pty: Option<PtySize>,
}

/// Size of a terminal in characters. 0 stands for a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PtySize {
    /// Lines.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rows: u16,
    /// Characters per line.
    #[serde(default, deserialize_with = "null_as_default")]
    pub cols: u16,
}

impl PtySize {
    /// A terminal of this size.
    pub fn new(rows: u16, cols: u16) -> Self {
        Self { rows, cols }
    }
}

open_enum! {
    /// What a process talks through.
    pub enum ProcessKind {
        /// Pipes.
        Process = "process",
        /// A terminal.
        Pty = "pty",
    }
}

open_enum! {
    /// How far a process is.
    pub enum ProcessState {
        /// It is being started.
        Starting = "starting",
        /// It runs.
        Running = "running",
        /// It was told to end.
        Terminating = "terminating",
        /// It has ended.
        Exited = "exited",
        /// It could not be started.
        Failed = "failed",
    }
}

open_enum! {
    /// A signal that may be sent to a process.
    pub enum Signal {
        /// The terminal is gone; for many servers: read the configuration again.
        Hangup = "SIGHUP",
        /// Ctrl-C.
        Interrupt = "SIGINT",
        /// Ctrl-\.
        Quit = "SIGQUIT",
        /// Ends it at once; it cannot be caught.
        Kill = "SIGKILL",
        /// Asks it to end.
        Terminate = "SIGTERM",
        /// For its own use.
        User1 = "SIGUSR1",
        /// For its own use.
        User2 = "SIGUSR2",
        /// The size of its terminal has changed.
        WindowChanged = "SIGWINCH",
    }
}

open_enum! {
    /// Where output was written to.
    pub enum OutputStream {
        /// Standard output.
        Stdout = "stdout",
        /// Standard error.
        Stderr = "stderr",
        /// The terminal.
        Pty = "pty",
    }
}

/// A managed process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessView {
    /// Its id on the API.
    pub process_id: ProcessId,
    /// What it talks through.
    pub kind: ProcessKind,
    /// Its number inside the sandbox.
    #[serde(default)]
    pub pid: i64,
    /// How far it is.
    pub state: ProcessState,
    /// Whether the started command has ended.
    #[serde(default)]
    pub leader_exited: bool,
    /// Whether it and everything it started has ended.
    #[serde(default)]
    pub tree_exited: bool,
    /// When it was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Exit code of the command; absent while it runs and after a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that killed the command, such as `SIGKILL`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// Its program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<String>,
    /// Its arguments.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// The directory it was started in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    /// What runs in the foreground of its terminal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub foreground: Option<ForegroundJob>,
    /// Which output is kept.
    #[serde(default, deserialize_with = "null_as_default")]
    pub output: OutputRange,
}

impl ProcessView {
    /// A process of which nothing but this is known.
    pub fn new(process_id: ProcessId, kind: ProcessKind, state: ProcessState) -> Self {
        Self {
            process_id,
            kind,
            pid: 0,
            state,
            leader_exited: false,
            tree_exited: false,
            created_at: None,
            finished_at: None,
            exit_code: None,
            signal: None,
            cmd: None,
            args: Vec::new(),
            cwd: None,
            foreground: None,
            output: OutputRange::default(),
        }
    }
}

/// A command in the foreground of a terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ForegroundJob {
    /// Its number inside the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i64>,
    /// Its program.
    pub cmd: String,
    /// Its arguments.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
}

impl ForegroundJob {
    /// A program without arguments.
    pub fn new(cmd: impl Into<String>) -> Self {
        Self { pid: None, cmd: cmd.into(), args: Vec::new() }
    }
}

/// The output of a process that the server still has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct OutputRange {
    /// Sequence number of the oldest event kept.
    #[serde(default)]
    pub oldest_seq: u64,
    /// Sequence number of the newest event.
    #[serde(default)]
    pub newest_seq: u64,
    /// Bytes kept.
    #[serde(default)]
    pub bytes: u64,
}

impl OutputRange {
    /// A range of events holding this many bytes.
    pub fn new(oldest_seq: u64, newest_seq: u64, bytes: u64) -> Self {
        Self { oldest_seq, newest_seq, bytes }
    }
}

/// Answer to a list of processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessList {
    /// Those that run and those that have ended and are still kept.
    #[serde(deserialize_with = "null_as_default")]
    pub processes: Vec<ProcessView>,
}

impl ProcessList {
    /// A list of these.
    pub fn new(processes: Vec<ProcessView>) -> Self {
        Self { processes }
    }
}

/// Body of a request that writes to the standard input of a process.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ProcessInput {
    /// The bytes, in base64.
    pub data_base64: String,
}

impl ProcessInput {
    /// These bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self { data_base64: STANDARD.encode(bytes) }
    }

    /// The bytes. Fails with [`ErrorKind::Protocol`] when the base64 is broken.
    pub fn bytes(&self) -> Result<Bytes, Error> {
        decode(&self.data_base64)
    }
}

// Input often is a password.
impl fmt::Debug for ProcessInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessInput").field("base64_len", &self.data_base64.len()).finish()
    }
}

fn decode(base64: &str) -> Result<Bytes, Error> {
    STANDARD.decode(base64).map(Bytes::from).map_err(|error| {
        Error::new(ErrorKind::Protocol, "data_base64 is not base64").with_source(error)
    })
}

/// Answer to input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InputAccepted {
    /// Number of this input; they grow in the order in which input is written.
    #[serde(default)]
    pub input_seq: u64,
}

impl InputAccepted {
    /// The input with this number was written.
    pub fn new(input_seq: u64) -> Self {
        Self { input_seq }
    }
}

/// Body of a request that sends a signal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SendSignal {
    /// The signal.
    pub signal: Signal,
}

impl SendSignal {
    /// Sends this signal.
    pub fn new(signal: Signal) -> Self {
        Self { signal }
    }
}

/// One line of the stream of a process (api.md 5.2).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum ProcessFrame {
    /// Output.
    Data {
        /// Its place; every event with a place has a greater one than those before it.
        seq: u64,
        /// Where it was written to.
        stream: OutputStream,
        /// The bytes, in base64.
        data_base64: String,
    },
    /// A sign of life.
    Heartbeat,
    /// The process has ended; the last line.
    Exit {
        /// Its place.
        #[serde(default)]
        seq: u64,
        /// Exit code; absent after a signal.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
        /// The signal that killed it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signal: Option<String>,
    },
    /// The stream cannot go on.
    Error {
        /// Why, such as [`OFFSET_EXPIRED`](Self::OFFSET_EXPIRED).
        error: String,
        /// Place of the oldest event that is kept.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        oldest_available_seq: Option<u64>,
    },
    /// Something this version does not know.
    #[serde(other)]
    Unknown,
}

impl ProcessFrame {
    /// The reason for output that is asked for but no longer kept.
    pub const OFFSET_EXPIRED: &str = "output_offset_expired";

    /// Output.
    pub fn data(seq: u64, stream: OutputStream, bytes: &[u8]) -> Self {
        Self::Data { seq, stream, data_base64: STANDARD.encode(bytes) }
    }

    /// The bytes of output; empty for everything else. Fails with [`ErrorKind::Protocol`] when
    /// the base64 is broken.
    pub fn bytes(&self) -> Result<Bytes, Error> {
        match self {
            Self::Data { data_base64, .. } => decode(data_base64),
            _ => Ok(Bytes::new()),
        }
    }
}

// Output may hold anything; its length is enough to debug with.
impl fmt::Debug for ProcessFrame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data { seq, stream, data_base64 } => f
                .debug_struct("Data")
                .field("seq", seq)
                .field("stream", stream)
                .field("base64_len", &data_base64.len())
                .finish(),
            Self::Heartbeat => f.write_str("Heartbeat"),
            Self::Exit { seq, exit_code, signal } => f
                .debug_struct("Exit")
                .field("seq", seq)
                .field("exit_code", exit_code)
                .field("signal", signal)
                .finish(),
            Self::Error { error, oldest_available_seq } => f
                .debug_struct("Error")
                .field("error", error)
                .field("oldest_available_seq", oldest_available_seq)
                .finish(),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{both_ways, tidies};
    use super::*;

    #[test]
    fn requests_of_the_contract() {
        let request: CreateProcess = both_ways(
            r#"{"cmd":"bash","args":["-lc","sleep 30"],"cwd":"/work","env":{"A":"hunter2"},
                "pty":{"rows":24,"cols":80}}"#,
        );
        assert!(!format!("{request:?}").contains("hunter2"));
        assert_eq!(request.pty, Some(PtySize::new(24, 80)));
        both_ways::<CreateProcess>(r#"{"cmd":"true"}"#);
        both_ways::<CreateProcess>("{}");
        let odd: CreateProcess =
            serde_json::from_str(r#"{"cmd":"x","args":null,"env":null,"pty":{"rows":null}}"#)
                .unwrap();
        assert_eq!((odd.args.len(), odd.pty), (0, Some(PtySize::new(0, 0))));
        assert_eq!(
            both_ways::<ProcessInput>(r#"{"data_base64":"bHMK"}"#),
            ProcessInput::new(b"ls\n")
        );
        both_ways::<SendSignal>(r#"{"signal":"SIGINT"}"#);
        assert_eq!(both_ways::<InputAccepted>(r#"{"input_seq":3}"#), InputAccepted::new(3));
    }

    #[test]
    fn the_view_of_the_contract_goes_both_ways() {
        let view: ProcessView = both_ways(
            r#"{"process_id":"prc-01k4m5a7","kind":"process","pid":412,"state":"running",
             "leader_exited":false,"tree_exited":false,"created_at":"2026-08-02T10:05:00Z","cmd":"bash",
             "args":["-lc","sleep 30"],"cwd":"/work","output":{"oldest_seq":0,"newest_seq":0,"bytes":0}}"#,
        );
        assert_eq!((view.pid, view.state), (412, ProcessState::Running));
        both_ways::<ProcessView>(
            r#"{"process_id":"p","kind":"pty","pid":1,"state":"exited","leader_exited":true,
             "tree_exited":true,"created_at":"2026-08-02T10:05:00Z",
             "finished_at":"2026-08-02T10:06:00Z","signal":"SIGKILL",
             "foreground":{"pid":7,"cmd":"vi","args":["x"]},
             "output":{"oldest_seq":41,"newest_seq":99,"bytes":1048576}}"#,
        );
        let odd: ProcessView = tidies(
            r#"{"process_id":"p","kind":"fiber","state":"frozen","args":null,"output":null,"x":1}"#,
            r#"{"process_id":"p","kind":"fiber","pid":0,"state":"frozen","leader_exited":false,
                "tree_exited":false,"output":{"oldest_seq":0,"newest_seq":0,"bytes":0}}"#,
        );
        assert_eq!(odd.state, ProcessState::Unknown("frozen".into()));
    }

    #[test]
    fn a_list_without_its_list_is_not_an_empty_one() {
        assert!(serde_json::from_str::<ProcessList>("{}").is_err());
        let list: ProcessList = serde_json::from_str(r#"{"processes":null}"#).unwrap();
        assert!(list.processes.is_empty());
    }

    #[test]
    fn frames_of_the_contract() {
        let data: ProcessFrame =
            both_ways(r#"{"type":"data","seq":2,"stream":"stdout","data_base64":"c3RlcCAyCg=="}"#);
        assert_eq!(data.bytes().unwrap(), "step 2\n");
        assert_eq!(data, ProcessFrame::data(2, OutputStream::Stdout, b"step 2\n"));
        for json in [
            r#"{"type":"heartbeat"}"#,
            r#"{"type":"exit","seq":3,"exit_code":0}"#,
            r#"{"type":"exit","seq":8,"signal":"SIGTERM"}"#,
            r#"{"type":"error","error":"output_offset_expired","oldest_available_seq":41}"#,
        ] {
            both_ways::<ProcessFrame>(json);
        }
        let new = serde_json::from_str::<ProcessFrame>(r#"{"type":"resized","rows":1}"#).unwrap();
        assert_eq!(new, ProcessFrame::Unknown);
        let bad = r#"{"type":"data","seq":1,"stream":"stdout","data_base64":"%"}"#;
        let bad: ProcessFrame = serde_json::from_str(bad).unwrap();
        assert_eq!(bad.bytes().unwrap_err().kind(), ErrorKind::Protocol);
        assert!(serde_json::from_str::<ProcessFrame>(r#"{"seq":1}"#).is_err());
    }
}
