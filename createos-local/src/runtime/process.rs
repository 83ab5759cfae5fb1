//! Managed processes and terminals: what the core asks of a machine for them.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use createos_sdk::wire::{OutputStream, PtySize};
use createos_sdk::{ProcessId, SandboxId};
use futures::Sink;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

use super::{ExitReason, Place, RuntimeError};

/// The most input that one call may carry, in bytes.
pub(crate) const MAX_INPUT: usize = crate::guest_protocol::MAX_INPUT;
/// The longest program name and arguments together, in bytes.
pub(crate) const MAX_COMMAND: usize = crate::guest_protocol::MAX_COMMAND;

/// A process to start.
#[derive(Debug, Clone)]
pub(crate) struct ProcessSpec {
    pub(crate) id: ProcessId,
    /// Program and arguments; empty for the login shell.
    pub(crate) argv: Vec<String>,
    /// Declared variables; the runtime adds PATH, HOME and the like below them.
    pub(crate) env: BTreeMap<String, String>,
    /// Absolute; the home directory unless given.
    pub(crate) directory: Option<String>,
    /// Given, it gets a terminal of this size.
    pub(crate) terminal: Option<PtySize>,
    /// `user`, `user:group`, by name or number; root unless given.
    pub(crate) user: Option<String>,
}

/// How a managed process is.
#[derive(Debug, Clone)]
pub(crate) struct ProcessStatus {
    pub(crate) id: ProcessId,
    pub(crate) has_terminal: bool,
    pub(crate) pid: i32,
    /// How the command ended.
    pub(crate) exit: Option<ExitReason>,
    /// Nothing of what it started is left either.
    pub(crate) tree_ended: bool,
    pub(crate) terminating: bool,
    /// Milliseconds since 1970.
    pub(crate) created: u64,
    pub(crate) finished: Option<u64>,
    pub(crate) argv: Vec<String>,
    pub(crate) directory: Option<String>,
    /// Number, program and arguments of the job in the foreground of its terminal.
    pub(crate) foreground: Option<(i32, Vec<String>)>,
    pub(crate) output: Kept,
}

/// The output of a process that is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Place of the oldest byte.
    pub(crate) oldest: u64,
    /// Place of the newest byte, or of the end.
    pub(crate) newest: u64,
    pub(crate) bytes: u64,
}

/// When to answer with a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    Now,
    LeaderEnded,
    TreeEnded,
    /// Ends the tree first: SIGTERM, and SIGKILL after the grace.
    Terminated {
        grace: Duration,
    },
}

/// What can be done to a process at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Control {
    CloseInput,
    Resize(PtySize),
    /// To its process group, or to the foreground of its terminal.
    Signal(i32),
}

/// What a process tells its followers, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProcessEvent {
    Output {
        place: u64,
        stream: OutputStream,
        bytes: Bytes,
    },
    /// The command has ended and its output is complete. Nothing follows.
    Exited {
        place: u64,
        reason: ExitReason,
    },
    /// What comes next is no longer kept. Nothing follows.
    Expired {
        oldest: u64,
    },
}

/// Dropping it leaves the process alone.
pub(crate) type ProcessEvents = BoxStream<'static, Result<ProcessEvent, RuntimeError>>;

/// What goes into a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Typed {
    Bytes(Bytes),
    /// Starts the shell, the first time.
    Resize(PtySize),
    /// Nothing more will be typed.
    End,
}

/// A login shell in a terminal. Dropping either part ends it with everything it started.
pub(crate) struct Terminal {
    pub(crate) input: Pin<Box<dyn Sink<Typed, Error = RuntimeError> + Send>>,
    /// Ends when the shell does.
    pub(crate) output: BoxStream<'static, Result<Bytes, RuntimeError>>,
}

/// The part of a runtime that is about managed processes and terminals.
pub(crate) trait Processes: Send + Sync {
    /// Starts a process that outlives whoever asks.
    fn spawn<'a>(
        &'a self,
        id: &'a SandboxId,
        spec: ProcessSpec,
    ) -> BoxFuture<'a, Result<ProcessStatus, RuntimeError>>;

    /// Those that run, and those that have ended and are still kept.
    fn processes<'a>(
        &'a self,
        id: &'a SandboxId,
    ) -> BoxFuture<'a, Result<Vec<ProcessStatus>, RuntimeError>>;

    /// How a process is, now or later. A wait has no limit; dropping it ends it.
    fn status<'a>(
        &'a self,
        id: &'a SandboxId,
        process: &'a ProcessId,
        when: When,
    ) -> BoxFuture<'a, Result<ProcessStatus, RuntimeError>>;

    fn control<'a>(
        &'a self,
        id: &'a SandboxId,
        process: &'a ProcessId,
        control: Control,
    ) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Writes to its standard input, all or nothing, and returns the input's number.
    /// `RuntimeError::Full` when there is no room for it within `patience`.
    fn feed<'a>(
        &'a self,
        id: &'a SandboxId,
        process: &'a ProcessId,
        bytes: Bytes,
        patience: Duration,
    ) -> BoxFuture<'a, Result<u64, RuntimeError>>;

    /// Its output behind a place, then as it comes. 0 is before the oldest that is kept.
    fn follow<'a>(
        &'a self,
        id: &'a SandboxId,
        process: &'a ProcessId,
        after: u64,
    ) -> BoxFuture<'a, Result<ProcessEvents, RuntimeError>>;

    /// Opens a terminal; its shell starts when its size is known.
    fn terminal<'a>(
        &'a self,
        id: &'a SandboxId,
        env: BTreeMap<String, String>,
        place: Place,
    ) -> BoxFuture<'a, Result<Terminal, RuntimeError>>;
}
