//! What the build of a template writes.

use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use reqwest::Method;

use super::Template;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::Operation;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::time::Timestamp;
use crate::transport::incoming::Incoming;
use crate::transport::ndjson::{Lines, MAX_LINE};
use crate::transport::request::Call;
use crate::transport::send;
use crate::wire::{BuildFrame, TemplateStatus};

/// A build can be silent for long, and its log has no heartbeat.
const STALL: Duration = Duration::from_secs(600);

/// The log of a build. Made with [`Template::logs`].
///
/// Awaiting it gives what was written so far; bytes that are not UTF-8 are replaced by the
/// replacement character. [`follow`](Self::follow) gives it line by line while it is written.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct TemplateLogs {
    pub(super) template: Template,
    attempt: Option<u64>,
    pub(super) options: RequestOptions,
}

impl TemplateLogs {
    pub(super) fn new(template: Template) -> Self {
        Self { template, attempt: None, options: RequestOptions::new() }
    }

    /// The log of this attempt, from 1. Default: the server's choice, usually the last.
    pub fn attempt(mut self, number: u64) -> Self {
        self.attempt = Some(number);
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    /// The log while it is written, from its beginning to the end of the build. Silence is an
    /// error after 10 minutes, unless the options say otherwise.
    pub fn follow(self) -> Pending<LogStream> {
        Pending::new(async move {
            let mut call = self.call("template.follow_logs", true);
            call.accept = "application/x-ndjson";
            call.options.stall_timeout.get_or_insert(STALL);
            let incoming = send::open(self.template.0.client().inner(), &call).await?;
            Ok(LogStream { incoming, lines: Lines::default(), state: State::Reading })
        })
    }

    fn call(&self, operation: &'static str, follow: bool) -> Call {
        let mut call = self.template.0.call(operation, Method::GET, &["logs"]);
        if follow {
            call = call.query("follow", "true");
        }
        if let Some(attempt) = self.attempt {
            call = call.query("attempt", &attempt.to_string());
        }
        Call { options: self.options.clone(), ..call }
    }
}

impl IntoFuture for TemplateLogs {
    type Output = Result<String>;
    type IntoFuture = Pending<String>;

    fn into_future(self) -> Pending<String> {
        let call = Call { accept: "text/plain", ..self.call("template.logs", false) };
        Operation::new(self.template.0.client().clone(), call, |reply| {
            Ok(String::from_utf8_lossy(&reply.body).into_owned())
        })
        .into_future()
    }
}

/// Something a build did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BuildEvent {
    /// It wrote a line.
    Line(BuildLine),
    /// It ended like this. Nothing follows.
    End(TemplateStatus),
}

/// A line of the log of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct BuildLine {
    /// The line, without a line break at its end. May hold any other character.
    pub text: String,
    /// When it was written.
    pub at: Option<Timestamp>,
    /// How grave it is, such as `info`.
    pub level: Option<String>,
    /// Which attempt of the build wrote it.
    pub attempt: Option<u64>,
}

/// The events of a build: a [`Stream`] that ends after [`BuildEvent::End`].
///
/// A stream that breaks off before that is an error of kind
/// [`StreamLost`](ErrorKind::StreamLost): the build goes on, and
/// [`Template::wait_until_ready`] tells how it ends; [`TemplateLogs::watch`] connects again by
/// itself. A line that is no JSON is a line of the log. Dropping the stream does nothing to the
/// build.
#[derive(Debug)]
#[must_use = "a stream does nothing until polled"]
pub struct LogStream {
    incoming: Incoming,
    lines: Lines,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Reading,
    /// The end was seen; what is left is the end of the body.
    Ended,
    Failed,
}

impl LogStream {
    fn error(&self, kind: ErrorKind, message: impl Into<String>) -> Error {
        self.incoming.error(Error::new(kind, message))
    }

    fn lost(&self) -> Error {
        self.error(ErrorKind::StreamLost, "ended before the build did")
    }

    /// What a line says; `None` for one that says nothing we know.
    fn read(&self, line: &[u8]) -> Result<Option<BuildEvent>> {
        // Something between us and the server, or an old one: it is shown as it is.
        if !is_json(line) {
            let text = String::from_utf8_lossy(line).trim_end_matches(['\r', '\n']).to_owned();
            let line = BuildLine { text, at: None, level: None, attempt: None };
            return Ok(Some(BuildEvent::Line(line)));
        }
        let frame: BuildFrame = serde_json::from_slice(line).map_err(|error| {
            let message = format!("a line of the log cannot be read: {error}");
            self.incoming.error(Error::new(ErrorKind::Protocol, message).with_source(error))
        })?;
        if frame.is_final {
            let status = frame.status.ok_or_else(|| {
                self.error(ErrorKind::Protocol, "the end of the log does not say how it ended")
            })?;
            return Ok(Some(BuildEvent::End(status)));
        }
        Ok(frame.line.map(|line| {
            let text = line.strip_suffix('\n').unwrap_or(&line);
            BuildEvent::Line(BuildLine {
                text: text.strip_suffix('\r').unwrap_or(text).to_owned(),
                at: frame.ts,
                level: frame.level,
                attempt: frame.attempt,
            })
        }))
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<BuildEvent>> {
        loop {
            let line = self.lines.next_line().map_err(|_too_long| {
                let limit = MAX_LINE >> 20;
                let message = format!("a line of the log is longer than {limit} MiB");
                self.error(ErrorKind::Protocol, message)
            })?;
            let line = match line {
                Some(line) => line,
                None => match ready!(self.incoming.poll_next_unpin(cx)) {
                    Some(chunk) => {
                        self.lines.push(chunk?);
                        continue;
                    }
                    None => return Poll::Ready(self.last()),
                },
            };
            if let Some(event) = self.read(&line)? {
                return Poll::Ready(Ok(event));
            }
        }
    }

    /// The event of a last line without a line break.
    fn last(&mut self) -> Result<BuildEvent> {
        let whole = |line: &Bytes| is_json(line);
        // Half a line is not a malformed line: the rest was lost.
        let event = match self.lines.finish().filter(whole) {
            Some(line) => self.read(&line)?,
            None => None,
        };
        event.ok_or_else(|| self.lost())
    }
}

fn is_json(line: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(line).is_ok()
}

impl Stream for LogStream {
    type Item = Result<BuildEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        match this.state {
            State::Failed => return Poll::Ready(None),
            State::Ended => return this.incoming.poll_finish(cx).map(|()| None),
            State::Reading => {}
        }
        let event = ready!(this.poll_event(cx));
        match &event {
            Ok(BuildEvent::Line(_)) => {}
            Ok(BuildEvent::End(_)) => this.state = State::Ended,
            Err(_) => this.state = State::Failed,
        }
        Poll::Ready(Some(event))
    }
}
