//! What a command writes, while it writes it.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::{Stream, StreamExt};

use super::output::{ExitStatus, Output};
use super::quick::Reader;
use crate::error::{Error, ErrorKind, Result};
use crate::transport::incoming::Incoming;
use crate::transport::ndjson::Lines;
use crate::wire::ExecFrame;

/// Something a running command did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExecEvent {
    /// It wrote to standard output.
    Stdout(Bytes),
    /// It wrote to standard error.
    Stderr(Bytes),
    /// It could not be started or followed; the reason. An [`Exit`](Self::Exit) follows.
    Error(String),
    /// It ended. Nothing follows.
    Exit(ExitStatus),
}

/// The events of a running command: a [`Stream`] that ends after [`ExecEvent::Exit`].
///
/// A stream that breaks off before that is an error of kind
/// [`StreamLost`](ErrorKind::StreamLost): output may be missing and the command may still
/// run. Silence for the stall timeout, without even a heartbeat, is a
/// [`Timeout`](ErrorKind::Timeout). Dropping the stream kills the command.
///
/// ```no_run
/// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
/// use createos_sdk::ExecEvent;
/// use futures::TryStreamExt;
///
/// let mut events = sandbox.command("make").arg("test").stream().await?;
/// while let Some(event) = events.try_next().await? {
///     match event {
///         ExecEvent::Stdout(bytes) | ExecEvent::Stderr(bytes) => { /* show them */ }
///         ExecEvent::Exit(status) => println!("{status}"),
///         _ => {}
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
#[must_use = "dropping the stream kills the command"]
pub struct ExecStream {
    /// `None` when the command had ended before this was made.
    incoming: Option<Incoming>,
    lines: Lines,
    quick: Reader,
    /// Of the last frame, when it held several.
    events: VecDeque<ExecEvent>,
    agent_error: Option<String>,
    state: State,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Reading,
    /// The body ended before the command did.
    Ended,
    Done,
}

impl ExecStream {
    pub(super) fn new(incoming: Incoming) -> Self {
        Self {
            incoming: Some(incoming),
            lines: Lines::default(),
            quick: Reader::default(),
            events: VecDeque::new(),
            agent_error: None,
            state: State::Reading,
        }
    }

    /// The events of a command that has ended.
    pub(super) fn ended(output: Output) -> Self {
        let filled = |bytes: &Bytes| !bytes.is_empty();
        let mut events = VecDeque::new();
        events.extend(Some(output.stdout).filter(filled).map(ExecEvent::Stdout));
        events.extend(Some(output.stderr).filter(filled).map(ExecEvent::Stderr));
        events.extend(output.error.clone().map(ExecEvent::Error));
        events.push_back(ExecEvent::Exit(output.status));
        Self {
            incoming: None,
            lines: Lines::default(),
            quick: Reader::default(),
            events,
            agent_error: output.error,
            state: State::Reading,
        }
    }

    /// Reads to the end, throwing the output away.
    ///
    /// # Errors
    ///
    /// Those of the stream, and [`ErrorKind::CommandFailed`] when the command could not be
    /// started or followed.
    pub async fn wait(mut self) -> Result<ExitStatus> {
        let mut exit = None;
        while let Some(event) = self.next().await {
            if let ExecEvent::Exit(status) = event? {
                exit = Some(status);
            }
        }
        match (exit, self.agent_error.take()) {
            (Some(status), None) => Ok(status),
            (Some(_), Some(why)) => Err(self.error(ErrorKind::CommandFailed, why)),
            (None, _) => Err(self.lost()),
        }
    }

    fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.explain(Error::new(kind, message))
    }

    fn explain(&self, error: Error) -> Error {
        match &self.incoming {
            Some(incoming) => incoming.error(error),
            None => error.with_acted(true).in_operation("sandbox.exec"),
        }
    }

    pub(super) fn lost(&self) -> Error {
        let mut message = "ended without an exit code; the command may still run".to_owned();
        if let Some(why) = &self.agent_error {
            message = format!("{message} ({why})");
        }
        self.error(ErrorKind::StreamLost, message)
    }

    /// Reads one line into events.
    fn take_line(&mut self, line: &Bytes) -> Result<()> {
        if let Some(event) = self.quick.event(line, line) {
            self.events.push_back(event);
            return Ok(());
        }
        let mut frame: ExecFrame = serde_json::from_slice(line).map_err(|error| {
            let message = format!("a frame of the stream cannot be read: {error}");
            self.explain(Error::new(ErrorKind::Protocol, message).with_source(error))
        })?;
        let stdout = frame.take_stdout().map_err(|error| self.explain(error))?;
        let stderr = frame.take_stderr().map_err(|error| self.explain(error))?;
        let filled = |bytes: &Bytes| !bytes.is_empty();
        self.events.extend(stdout.filter(filled).map(ExecEvent::Stdout));
        self.events.extend(stderr.filter(filled).map(ExecEvent::Stderr));
        if let Some(why) = frame.error {
            self.agent_error = Some(why.clone());
            self.events.push_back(ExecEvent::Error(why));
        }
        self.events.extend(frame.exit_code.map(|code| ExecEvent::Exit(ExitStatus::new(code))));
        Ok(())
    }

    /// Moves on to the next line.
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let line = match &mut self.incoming {
            Some(incoming) => ready!(incoming.poll_line(&mut self.lines, cx))?,
            None => None,
        };
        match line {
            Some(line) => return Poll::Ready(self.take_line(&line)),
            None => self.state = State::Ended,
        }
        Poll::Ready(Ok(()))
    }
}

impl Stream for ExecStream {
    type Item = Result<ExecEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            if this.events.is_empty() && this.state == State::Reading {
                let event = this.lines.read_line(|chunk, line| this.quick.event(chunk, line));
                if let Some(event) = event {
                    return Poll::Ready(Some(Ok(event)));
                }
            }
            if let Some(event) = this.events.pop_front() {
                if matches!(event, ExecEvent::Exit(_)) {
                    this.state = State::Done;
                    this.events.clear();
                }
                return Poll::Ready(Some(Ok(event)));
            }
            let failed = match this.state {
                State::Done => {
                    return match &mut this.incoming {
                        Some(incoming) => incoming.poll_finish(cx).map(|()| None),
                        None => Poll::Ready(None),
                    };
                }
                State::Ended => this.lost(),
                State::Reading => match ready!(this.poll_line(cx)) {
                    Ok(()) => continue,
                    Err(error) => error,
                },
            };
            this.state = State::Done;
            return Poll::Ready(Some(Err(failed)));
        }
    }
}
