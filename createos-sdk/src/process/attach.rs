//! Following the output of a managed process, across broken connections.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use reqwest::Method;
use tokio::time::{Instant, Sleep, sleep};

use super::{Process, ProcessExit, quick};
use crate::error::{CallFacts, Error, ErrorKind, Result};
use crate::options::{RequestOptions, RetryPolicy};
use crate::pending::Pending;
use crate::transport::incoming::Incoming;
use crate::transport::ndjson::Lines;
use crate::transport::request::Call;
use crate::transport::{ends_at, send};
use crate::wire::{OutputStream, ProcessFrame};

const OPERATION: &str = "process.attach";
const RECONNECTS: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Connections in a row that end properly without a word, after which the server is asked
/// whether the process still runs.
const SILENT_ENDS: u32 = 2;

/// Something a managed process did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProcessEvent {
    /// It wrote something.
    Output {
        /// Its place. Places grow; [`Attach::after`] continues behind one.
        seq: u64,
        /// Where it wrote to.
        stream: OutputStream,
        /// What it wrote.
        bytes: Bytes,
    },
    /// Output is missing here: the server keeps only so much and dropped it before it was read.
    Gap {
        /// Place of the last event before the gap.
        after: u64,
        /// Place of the first event behind it, which follows.
        next: u64,
    },
    /// It ended. Nothing follows.
    Exit(ProcessExit),
}

/// Follows the output of a managed process. Made with [`Process::attach`]; awaiting it connects
/// and gives a [`ProcessStream`].
///
/// # Errors
///
/// `NotFound`: no such process. `Conflict`: the sandbox is not running.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct Attach {
    process: Process,
    after: u64,
    reconnects: u32,
    options: RequestOptions,
}

impl Attach {
    pub(super) fn new(process: Process) -> Self {
        Self { process, after: 0, reconnects: RECONNECTS, options: RequestOptions::new() }
    }

    /// Begins behind the event with this place. Default: with the oldest that is kept, which
    /// after much output is not the first.
    pub fn after(mut self, seq: u64) -> Self {
        self.after = seq;
        self
    }

    /// How often in a row to connect again without a sign of life before the stream is given
    /// up; 0 is never. Default 8, with growing pauses of up to 5 s.
    pub fn reconnects(mut self, times: u32) -> Self {
        self.reconnects = times;
        self
    }

    /// Sets options of this call. The stall timeout ends a silent connection, which is then made
    /// again; the deadline ends the stream.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<ProcessStream> {
        let client = self.process.sandbox().client().inner();
        let deadline = ends_at(self.options.deadline.or(client.deadline));
        let mut stream = ProcessStream {
            last: self.after,
            reconnects: self.reconnects,
            deadline,
            process: self.process,
            options: self.options,
            source: Source::Done(None),
            lines: Lines::default(),
            gap: false,
            held: None,
            failures: 0,
            heard: false,
            silent_ends: 0,
            exit: None,
        };
        let opening = stream.opening();
        let incoming = match opening.await {
            Err(error) if is_expired(&error) => {
                stream.gap = true;
                let opening = stream.opening();
                opening.await?
            }
            opened => opened?,
        };
        stream.source = Source::Open(incoming);
        Ok(stream)
    }
}

impl IntoFuture for Attach {
    type Output = Result<ProcessStream>;
    type IntoFuture = Pending<ProcessStream>;

    fn into_future(self) -> Pending<ProcessStream> {
        Pending::new(self.run())
    }
}

/// The output of a managed process: a [`Stream`] that ends after [`ProcessEvent::Exit`].
///
/// A connection that breaks or stays silent for the stall timeout is made again from the last
/// event that was given out, so nothing is given twice and nothing is left out; where the
/// server no longer has what comes next, a [`ProcessEvent::Gap`] says so. A server that ends
/// the stream without an exit is asked for it. Heartbeats are signs of life.
///
/// The stream fails when connecting again does ([`Attach::reconnects`]), or the server refuses;
/// [`last_seq`](Self::last_seq) is where another may continue. Dropping it leaves the process
/// alone.
#[must_use = "streams do nothing unless polled"]
pub struct ProcessStream {
    process: Process,
    options: RequestOptions,
    deadline: Option<Instant>,
    source: Source,
    lines: Lines,
    /// Place of the last event that was read.
    last: u64,
    /// Output before the next event is gone.
    gap: bool,
    /// The event behind a gap.
    held: Option<ProcessEvent>,
    reconnects: u32,
    failures: u32,
    /// The connection has brought something.
    heard: bool,
    silent_ends: u32,
    /// How the process ended, when the server had to be asked.
    exit: Option<ProcessExit>,
}

enum Source {
    Open(Incoming),
    Pausing(Pin<Box<Sleep>>),
    Opening(Pending<Incoming>),
    Asking(Pending<ProcessExit>),
    Done(Option<Incoming>),
}

/// Output that is asked for is no longer kept (api.md 5.2).
fn is_expired(error: &Error) -> bool {
    let says = |text: &str| {
        text.contains(ProcessFrame::OFFSET_EXPIRED) || text.contains("output offset expired")
    };
    says(error.message()) || error.code().is_some_and(says)
}

impl ProcessStream {
    /// Place of the last event; [`Attach::after`] continues behind it.
    pub fn last_seq(&self) -> u64 {
        self.last
    }

    fn opening(&self) -> Pending<Incoming> {
        // Behind a gap everything that is kept is wanted. Its beginning moves on while one
        // asks for it, so it is not named.
        let after = if self.gap { 0 } else { self.last };
        let call = self.process.call(OPERATION, Method::GET, &["connect"]);
        let call = call.query("after", &after.to_string());
        let mut options = self.options.clone();
        if let Some(deadline) = self.deadline {
            let left = deadline.saturating_duration_since(Instant::now());
            // A deadline of nothing is refused as an argument.
            options.deadline = Some(left.max(Duration::from_millis(1)));
        }
        let call = Call { accept: "application/x-ndjson", options, ..call };
        let client = self.process.sandbox().client().clone();
        Pending::new(async move { send::open(client.inner(), &call).await })
    }

    /// Connects again after a pause, or fails with what went wrong when that was tried enough.
    fn again(&mut self, failure: Option<Error>) -> Result<()> {
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            return Err(failure.unwrap_or_else(|| {
                self.error(ErrorKind::Timeout, "the deadline of the call passed")
            }));
        }
        if let Some(error) = failure {
            if self.failures >= self.reconnects {
                return Err(error);
            }
            self.failures += 1;
        }
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.saturating_sub(1).min(10));
        let pause = doubled.min(LONGEST_PAUSE).mul_f64(0.5 + fastrand::f64() / 2.0);
        self.source = Source::Pausing(Box::pin(sleep(pause)));
        Ok(())
    }

    fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        Error::new(kind, message).in_call(&self.facts())
    }

    fn facts(&self) -> CallFacts {
        CallFacts {
            operation: OPERATION,
            method: Some("GET"),
            resource: Some(self.process.sandbox().id().to_string()),
            repeatable: true,
            ..CallFacts::default()
        }
    }

    /// Takes a line in; gives the event that it is, if it is a new one.
    fn take_line(&mut self, line: &[u8]) -> Result<Option<ProcessEvent>> {
        if let Some((seq, stream, bytes)) = quick::data(line) {
            self.alive();
            return Ok(self.output(seq, stream, bytes));
        }
        let frame: ProcessFrame = serde_json::from_slice(line).map_err(|error| {
            let message = format!("a frame of the stream cannot be read: {error}");
            self.error(ErrorKind::Protocol, message).with_source(error)
        })?;
        self.alive();
        let bytes = frame.bytes().map_err(|error| error.in_call(&self.facts()))?;
        match frame {
            ProcessFrame::Data { seq, stream, .. } => Ok(self.output(seq, stream, bytes)),
            ProcessFrame::Exit { seq, exit_code, signal } => {
                let event = ProcessEvent::Exit(ProcessExit::new(exit_code, signal));
                Ok(Some(self.behind_gap(seq.max(self.last), event)))
            }
            ProcessFrame::Error { error, .. } => {
                let error = self.error(ErrorKind::Server, error);
                if !is_expired(&error) {
                    return Err(error);
                }
                self.expired(error).map(|()| None)
            }
            ProcessFrame::Heartbeat => {
                self.failures = 0;
                Ok(None)
            }
            ProcessFrame::Unknown => Ok(None),
        }
    }

    /// The connection has brought something.
    fn alive(&mut self) {
        self.heard = true;
        self.silent_ends = 0;
    }

    fn output(&mut self, seq: u64, stream: OutputStream, bytes: Bytes) -> Option<ProcessEvent> {
        if seq <= self.last {
            // Given out before the connection broke.
            return None;
        }
        self.failures = 0;
        Some(self.behind_gap(seq, ProcessEvent::Output { seq, stream, bytes }))
    }

    /// What comes next is gone: goes on with the oldest that is kept.
    fn expired(&mut self, error: Error) -> Result<()> {
        if self.gap {
            // Even the oldest is gone, so it is asked for again as after a failure.
            return self.again(Some(error));
        }
        self.gap = true;
        self.source = Source::Opening(self.opening());
        Ok(())
    }

    /// The event itself, or the gap before it.
    fn behind_gap(&mut self, seq: u64, event: ProcessEvent) -> ProcessEvent {
        let after = std::mem::replace(&mut self.last, seq);
        if !std::mem::take(&mut self.gap) {
            return event;
        }
        self.held = Some(event);
        ProcessEvent::Gap { after, next: seq }
    }

    /// The connection came to its end without an exit.
    fn ended(&mut self) -> Result<Option<ProcessEvent>> {
        if let Some(exit) = self.exit.take() {
            return Ok(Some(ProcessEvent::Exit(exit)));
        }
        self.silent_ends += u32::from(!self.heard);
        if self.silent_ends < SILENT_ENDS {
            return self.again(None).map(|()| None);
        }
        let mut waiting = self.process.wait().tree().with(self.options.clone());
        if let Some(deadline) = self.deadline {
            waiting = waiting.limit(deadline.saturating_duration_since(Instant::now()));
        }
        self.source = Source::Asking(waiting.into_future());
        Ok(None)
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<ProcessEvent>>> {
        let outcome = match &mut self.source {
            Source::Open(incoming) => match ready!(incoming.poll_line(&mut self.lines, cx)) {
                Ok(Some(line)) => self.take_line(&line),
                Ok(None) => self.ended(),
                Err(error) if error.is_retryable() => self.again(Some(error)).map(|()| None),
                Err(error) => Err(error),
            },
            Source::Pausing(pause) => {
                ready!(pause.as_mut().poll(cx));
                self.options = self.options.clone().retry(RetryPolicy::none());
                self.source = Source::Opening(self.opening());
                Ok(None)
            }
            Source::Opening(opening) => match ready!(Pin::new(opening).poll(cx)) {
                Ok(incoming) => {
                    self.lines = Lines::default();
                    self.heard = false;
                    self.source = Source::Open(incoming);
                    Ok(None)
                }
                Err(error) if is_expired(&error) => self.expired(error).map(|()| None),
                Err(error) if error.is_retryable() => self.again(Some(error)).map(|()| None),
                Err(error) => Err(error),
            },
            Source::Asking(asking) => match ready!(Pin::new(asking).poll(cx)) {
                Ok(exit) => {
                    // It has ended; what it wrote since is still to be read.
                    self.exit = Some(exit);
                    self.source = Source::Opening(self.opening());
                    Ok(None)
                }
                Err(error) => Err(error),
            },
            Source::Done(_) => Ok(None),
        };
        Poll::Ready(outcome)
    }

    fn finish(&mut self) {
        let source = std::mem::replace(&mut self.source, Source::Done(None));
        if let Source::Open(incoming) = source {
            self.source = Source::Done(Some(incoming));
        }
    }
}

impl Stream for ProcessStream {
    type Item = Result<ProcessEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            let event = match this.held.take() {
                Some(held) => Ok(Some(held)),
                None => {
                    if let Source::Done(last) = &mut this.source {
                        let Some(incoming) = last else { return Poll::Ready(None) };
                        return incoming.poll_finish(cx).map(|()| None);
                    }
                    ready!(this.poll_event(cx))
                }
            };
            match event {
                Ok(None) => {}
                Ok(Some(event)) => {
                    if matches!(event, ProcessEvent::Exit(_)) {
                        this.finish();
                    }
                    return Poll::Ready(Some(Ok(event)));
                }
                Err(error) => {
                    this.source = Source::Done(None);
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl fmt::Debug for ProcessStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessStream")
            .field("process", self.process.id())
            .field("last_seq", &self.last)
            .field("failures", &self.failures)
            .finish_non_exhaustive()
    }
}
