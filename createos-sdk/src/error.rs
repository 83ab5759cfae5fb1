//! The one error type.
//!
//! An [`Error`] says what failed in words a person can act on, and answers the three
//! questions a program has: what kind is it, is trying again safe, and could the server
//! have done the work although we did not see the answer.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use crate::wire::SandboxStatus;

/// What every fallible call of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Source = Box<dyn StdError + Send + Sync + 'static>;

/// What went wrong, coarse enough to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An argument cannot be right. Refused here before any traffic, or by the server
    /// with 400, 413 or 422. Change the argument.
    InvalidArgument,
    /// No credential was configured (nothing was sent), or the server refused it with 401.
    NotAuthenticated,
    /// The credential is known but may not do this (403): plan, quota, administrator route.
    PermissionDenied,
    /// The account is out of credit (402).
    PaymentRequired,
    /// No such thing, or it belongs to somebody else (404).
    NotFound,
    /// The sandbox is in the wrong state, or a name is taken (409).
    Conflict,
    /// Too many requests (429). [`Error::retry_after`] holds the server's hint.
    RateLimited,
    /// No capacity, or the service is not ready (503).
    Unavailable,
    /// The server failed (other 5xx). A create may still have happened: see
    /// [`Error::may_have_acted`].
    Server,
    /// A time limit ran out: of an attempt, of the whole call, of a silent stream, of a wait.
    Timeout,
    /// The connection could not be made or broke before an answer came.
    Connection,
    /// A stream or transfer ended without its proper end. Part of the data may be missing
    /// and a command may still be running.
    StreamLost,
    /// A command ran and ended with a code other than zero, or could not be started.
    CommandFailed,
    /// A sandbox reached a state from which the awaited one does not follow.
    UnexpectedState,
    /// The server answered something that is not this protocol.
    Protocol,
    /// The server does not offer this (501, 405).
    Unsupported,
    /// A local file or stream could not be read or written.
    Io,
    /// The client's configuration is not usable. Nothing was sent.
    Config,
}

impl ErrorKind {
    fn words(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid argument",
            Self::NotAuthenticated => "not authenticated",
            Self::PermissionDenied => "permission denied",
            Self::PaymentRequired => "out of credit",
            Self::NotFound => "not found",
            Self::Conflict => "conflict",
            Self::RateLimited => "rate limited",
            Self::Unavailable => "service unavailable",
            Self::Server => "server error",
            Self::Timeout => "timed out",
            Self::Connection => "connection failed",
            Self::StreamLost => "stream lost",
            Self::CommandFailed => "command failed",
            Self::UnexpectedState => "unexpected state",
            Self::Protocol => "unexpected answer",
            Self::Unsupported => "not supported",
            Self::Io => "i/o error",
            Self::Config => "configuration error",
        }
    }

    /// The meaning of an HTTP status (api.md 1.10).
    pub(crate) fn of_status(status: u16) -> Self {
        match status {
            400 | 413 | 414 | 422 => Self::InvalidArgument,
            401 => Self::NotAuthenticated,
            402 => Self::PaymentRequired,
            403 => Self::PermissionDenied,
            404 | 410 => Self::NotFound,
            405 | 501 => Self::Unsupported,
            408 | 504 => Self::Timeout,
            409 => Self::Conflict,
            429 => Self::RateLimited,
            503 => Self::Unavailable,
            500..=599 => Self::Server,
            400..=499 => Self::InvalidArgument,
            _ => Self::Protocol,
        }
    }

    fn is_transient(self) -> bool {
        matches!(
            self,
            Self::RateLimited
                | Self::Unavailable
                | Self::Server
                | Self::Timeout
                | Self::Connection
                | Self::StreamLost
        )
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// Everything that can go wrong, with the facts needed to act on it.
///
/// `Display` is one line for a person. `Debug` shows every field. Neither holds
/// credentials, headers, query strings or bodies.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    operation: Option<&'static str>,
    method: Option<&'static str>,
    path: Option<String>,
    resource: Option<String>,
    status: Option<u16>,
    request_id: Option<String>,
    code: Option<String>,
    attempts: u32,
    elapsed: Duration,
    retry_after: Option<Duration>,
    acted: bool,
    repeatable: bool,
    last_status: Option<SandboxStatus>,
    source: Option<Source>,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            message: message.into(),
            operation: None,
            method: None,
            path: None,
            resource: None,
            status: None,
            request_id: None,
            code: None,
            attempts: 0,
            elapsed: Duration::ZERO,
            retry_after: None,
            acted: false,
            repeatable: false,
            last_status: None,
            source: None,
        }))
    }

    pub(crate) fn invalid_argument(field: &str, why: impl fmt::Display) -> Self {
        let why = why.to_string();
        // A reason that already begins with the field needs no second mention of it.
        let message = if why.starts_with(field) { why } else { format!("{field}: {why}") };
        Self::new(ErrorKind::InvalidArgument, message)
    }

    pub(crate) fn with_source(mut self, source: impl Into<Source>) -> Self {
        self.0.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The operation that failed, such as `sandbox.exec`; absent when the error came from
    /// making a value (an id, a configuration).
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// HTTP method of the request, when one was made.
    pub fn method(&self) -> Option<&str> {
        self.0.method
    }

    /// Path of the request without its query, when one was made.
    pub fn path(&self) -> Option<&str> {
        self.0.path.as_deref()
    }

    /// Id of the sandbox, disk, network or template the call was about.
    pub fn resource(&self) -> Option<&str> {
        self.0.resource.as_deref()
    }

    /// HTTP status of the answer, when there was one.
    pub fn status(&self) -> Option<u16> {
        self.0.status
    }

    /// The server's name for the request (`X-Request-Id`), to quote when asking for help.
    pub fn request_id(&self) -> Option<&str> {
        self.0.request_id.as_deref()
    }

    /// What went wrong, without operation and ids: the server's own words, unchanged, when
    /// there are any. May hold any character; `Display` shows it on one line.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The server's machine-readable code: `data.code`, or the top-level number as text.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }

    /// Attempts made, 0 when nothing was sent.
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// Time from the start of the call to its failure, waits between attempts included.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed
    }

    /// How long the server asked to wait before the next try (`Retry-After`), uncapped.
    pub fn retry_after(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// Whether making the same call again is safe and has a chance.
    ///
    /// True for passing troubles (connection, lost stream, time limit, 429, 5xx) when the call is
    /// idempotent or cannot have reached the server. For the others look at
    /// [`may_have_acted`](Self::may_have_acted) and check before repeating.
    pub fn is_retryable(&self) -> bool {
        let kind = self.0.kind;
        kind.is_transient() && (self.0.repeatable || !self.0.acted)
    }

    /// Whether the server may have done what was asked although the call failed.
    ///
    /// False when nothing was sent, when the server refused (4xx), and for calls that only
    /// read. True when a change was sent and then the connection broke, a time limit ran
    /// out, or the server failed: after a create, look the sandbox up by name before
    /// creating it again (api.md 9.24).
    pub fn may_have_acted(&self) -> bool {
        self.0.acted
    }

    /// The last state seen, when waiting for a state failed.
    pub fn last_status(&self) -> Option<&SandboxStatus> {
        self.0.last_status.as_ref()
    }
}

/// What the transport knows about a call; stamped on every error that leaves it.
#[derive(Debug, Clone, Default)]
pub(crate) struct CallFacts {
    pub(crate) operation: &'static str,
    pub(crate) method: Option<&'static str>,
    pub(crate) path: Option<String>,
    pub(crate) resource: Option<String>,
    /// Repeating the call changes nothing more.
    pub(crate) repeatable: bool,
    pub(crate) attempts: u32,
    pub(crate) elapsed: Duration,
}

impl Error {
    pub(crate) fn in_call(mut self, facts: &CallFacts) -> Self {
        let inner = &mut *self.0;
        inner.operation = Some(facts.operation);
        inner.method = facts.method;
        inner.path = facts.path.clone();
        inner.resource = facts.resource.clone();
        inner.repeatable = facts.repeatable;
        inner.attempts = facts.attempts;
        inner.elapsed = facts.elapsed;
        self
    }

    pub(crate) fn in_operation(mut self, operation: &'static str) -> Self {
        self.0.operation.get_or_insert(operation);
        self
    }

    pub(crate) fn with_resource(mut self, id: &impl ToString) -> Self {
        self.0.resource = Some(id.to_string());
        self
    }

    pub(crate) fn with_status(mut self, status: u16) -> Self {
        self.0.status = Some(status);
        self
    }

    pub(crate) fn with_request_id(mut self, id: Option<String>) -> Self {
        self.0.request_id = id;
        self
    }

    pub(crate) fn with_code(mut self, code: Option<String>) -> Self {
        self.0.code = code;
        self
    }

    pub(crate) fn with_retry_after(mut self, after: Option<Duration>) -> Self {
        self.0.retry_after = after;
        self
    }

    pub(crate) fn with_acted(mut self, acted: bool) -> Self {
        self.0.acted = acted;
        self
    }

    /// What was asked for is done, and doing it again would do it twice.
    pub(crate) fn not_repeatable(mut self) -> Self {
        self.0.acted = true;
        self.0.repeatable = false;
        self
    }

    pub(crate) fn with_last_status(mut self, status: Option<SandboxStatus>) -> Self {
        self.0.last_status = status;
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        if let Some(operation) = inner.operation {
            write!(f, "{operation}: ")?;
        }
        write!(f, "{}", inner.kind)?;
        if !inner.message.is_empty() {
            f.write_str(": ")?;
            write_one_line(f, &inner.message)?;
        }
        let mut notes = Vec::new();
        notes.extend(inner.resource.as_ref().map(|id| id.to_string()));
        notes.extend(inner.status.map(|status| format!("HTTP {status}")));
        notes.extend(inner.request_id.as_ref().map(|id| format!("request id {id}")));
        if inner.attempts > 1 {
            notes.push(format!("{} attempts", inner.attempts));
        }
        if !notes.is_empty() {
            f.write_str(" (")?;
            write_one_line(f, &notes.join(", "))?;
            f.write_str(")")?;
        }
        Ok(())
    }
}

/// Server text goes to terminals: line breaks and escape sequences become blanks.
fn write_one_line(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    for part in text.trim().split(char::is_control).enumerate() {
        match part {
            (0, words) => f.write_str(words)?,
            (_, words) => write!(f, " {words}")?,
        }
    }
    Ok(())
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.0;
        let mut out = f.debug_struct("Error");
        out.field("kind", &inner.kind).field("message", &inner.message);
        macro_rules! known {
            ($($field:ident),*) => {$(
                if let Some(value) = &inner.$field {
                    out.field(stringify!($field), value);
                }
            )*};
        }
        known!(operation, method, path, resource, status, request_id, code);
        out.field("attempts", &inner.attempts)
            .field("elapsed", &inner.elapsed)
            .field("may_have_acted", &inner.acted)
            .field("retryable", &self.is_retryable());
        known!(retry_after, last_status, source);
        out.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_is_one_line_with_what_is_needed_to_act() {
        let facts = CallFacts {
            operation: "sandbox.exec",
            resource: Some("sb-1".into()),
            attempts: 3,
            ..CallFacts::default()
        };
        let error = Error::new(ErrorKind::Unavailable, "no host\nwith \u{1b}[31mcapacity")
            .in_call(&facts)
            .with_status(503)
            .with_request_id(Some("r-9".into()));
        assert_eq!(
            error.to_string(),
            "sandbox.exec: service unavailable: no host with  [31mcapacity \
             (sb-1, HTTP 503, request id r-9, 3 attempts)"
        );
        assert_eq!(error.message(), "no host\nwith \u{1b}[31mcapacity");
    }

    #[test]
    fn retry_is_offered_only_where_it_is_harmless() {
        let error = |kind, acted, repeatable| {
            let facts = CallFacts { repeatable, ..CallFacts::default() };
            Error::new(kind, "").with_acted(acted).in_call(&facts)
        };
        assert!(error(ErrorKind::Connection, false, false).is_retryable());
        assert!(!error(ErrorKind::Connection, true, false).is_retryable());
        assert!(error(ErrorKind::Server, true, true).is_retryable());
        assert!(!error(ErrorKind::Conflict, false, true).is_retryable());
        assert!(error(ErrorKind::StreamLost, false, true).is_retryable(), "a download");
        assert!(!error(ErrorKind::StreamLost, true, false).is_retryable(), "a command");
    }

    #[test]
    fn every_status_has_its_kind() {
        use ErrorKind::*;
        for (status, kind) in [
            (400, InvalidArgument),
            (401, NotAuthenticated),
            (402, PaymentRequired),
            (403, PermissionDenied),
            (404, NotFound),
            (405, Unsupported),
            (408, Timeout),
            (409, Conflict),
            (413, InvalidArgument),
            (418, InvalidArgument),
            (422, InvalidArgument),
            (429, RateLimited),
            (500, Server),
            (501, Unsupported),
            (502, Server),
            (503, Unavailable),
            (504, Timeout),
            (302, Protocol),
        ] {
            assert_eq!(ErrorKind::of_status(status), kind, "{status}");
        }
    }

    #[test]
    fn result_stays_small() {
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }
}
