//! Watching what a client does, without seeing what it carries.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::{CallFacts, ErrorKind};
use crate::transport::request::Call;

/// Something a client did; given to the observer of
/// [`ClientBuilder::observe`](crate::ClientBuilder::observe).
///
/// It holds no body, no header and no query. The path names sandboxes and other resources by
/// id.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Event<'a> {
    /// The operation, such as `sandbox.exec`.
    pub operation: &'static str,
    /// HTTP method.
    pub method: &'static str,
    /// Path without the query.
    pub path: &'a str,
    /// Id of the sandbox or other resource the call is about.
    pub resource: Option<&'a str>,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Time since the call began.
    pub elapsed: Duration,
    /// What happened.
    pub kind: EventKind<'a>,
}

/// What happened in a call.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum EventKind<'a> {
    /// An attempt begins.
    Request,
    /// The server answered the attempt: with what was asked for, or with an error status. Of
    /// a stream or download only the beginning has come.
    Response {
        /// HTTP status.
        status: u16,
        /// The server's name for the request.
        request_id: Option<&'a str>,
        /// How long the attempt took.
        took: Duration,
    },
    /// The attempt ended without an answer.
    Failure {
        /// What kind of failure.
        error: ErrorKind,
        /// How long the attempt took.
        took: Duration,
    },
    /// The attempt failed and another will follow.
    Retry {
        /// What kind of failure.
        error: ErrorKind,
        /// The wait before the next attempt.
        wait: Duration,
    },
    /// The body of a stream or download ended.
    StreamEnd {
        /// Bytes of it that came.
        bytes: u64,
        /// What broke it off; `None` when it came to its end or was dropped by its reader.
        error: Option<ErrorKind>,
    },
}

type Hook = dyn Fn(&Event<'_>) + Send + Sync;

/// The caller's observers, in the order they were given.
#[derive(Clone, Default)]
pub(crate) struct Observer(Vec<Arc<Hook>>);

impl Observer {
    pub(crate) fn add(&mut self, hook: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.0.push(Arc::new(hook));
    }

    pub(crate) fn tell(&self, event: &Event<'_>) {
        #[cfg(feature = "tracing")]
        trace(event);
        for hook in &self.0 {
            hook(event);
        }
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Observer({})", self.0.len())
    }
}

impl<'a> Event<'a> {
    pub(crate) fn of(facts: &'a CallFacts, kind: EventKind<'a>) -> Self {
        Self {
            operation: facts.operation,
            method: facts.method.unwrap_or_default(),
            path: facts.path.as_deref().unwrap_or_default(),
            resource: facts.resource.as_deref(),
            attempt: facts.attempts,
            elapsed: facts.elapsed,
            kind,
        }
    }
}

/// One event per attempt, and what happens besides.
#[cfg(feature = "tracing")]
fn trace(event: &Event<'_>) {
    let Event { operation, path, attempt, .. } = event;
    match &event.kind {
        // Told with its end.
        EventKind::Request => {}
        EventKind::Response { status, request_id, took } => {
            tracing::debug!(operation, path, attempt, status, request_id, ?took, "answered");
        }
        EventKind::Failure { error, took } => {
            tracing::debug!(operation, path, attempt, %error, ?took, "no answer");
        }
        EventKind::Retry { error, wait } => {
            tracing::info!(operation, path, attempt, %error, ?wait, "trying again");
        }
        EventKind::StreamEnd { bytes, error } => {
            let error = error.map(tracing::field::display);
            tracing::debug!(operation, path, bytes, error, "stream ended");
        }
    }
}

/// Runs a call within its span.
#[cfg(feature = "tracing")]
pub(crate) fn in_span<F: Future>(call: &Call, work: F) -> impl Future<Output = F::Output> {
    use tracing::Instrument;
    let method = call.method.as_str();
    let (path, resource) = (call.url.path(), call.resource.as_deref());
    work.instrument(tracing::info_span!(
        "createos",
        operation = call.operation,
        method,
        path,
        resource
    ))
}

/// Runs a call within its span.
#[cfg(not(feature = "tracing"))]
pub(crate) fn in_span<F: Future>(_call: &Call, work: F) -> F {
    work
}
