//! What a single call may do differently.

use std::fmt;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::secret::Secret;

/// Options of one call, given to any builder with `.with(…)`.
///
/// What is not set here comes from the client.
///
/// ```no_run
/// # async fn run(client: createos_sdk::Client) -> createos_sdk::Result<()> {
/// use std::time::Duration;
/// use createos_sdk::RequestOptions;
///
/// let patient = RequestOptions::new().deadline(Duration::from_secs(300));
/// let me = client.whoami().with(patient).await?;
/// # Ok(()) }
/// ```
#[derive(Clone, Default)]
#[must_use]
pub struct RequestOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) stall_timeout: Option<Duration>,
    pub(crate) deadline: Option<Duration>,
    pub(crate) retry: Option<RetryPolicy>,
    headers: Vec<(String, Secret)>,
}

impl RequestOptions {
    /// Options that change nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Longest time of one attempt, its answer included. For streams and downloads it ends
    /// when the answer begins; from there on the stall timeout watches.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Longest silence on a stream, an upload or a download. Any byte starts it anew.
    pub fn stall_timeout(mut self, limit: Duration) -> Self {
        self.stall_timeout = Some(limit);
        self
    }

    /// Longest time of the whole call: every attempt, the waits between them, and a stream
    /// to its end.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    /// When and how often to try again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = Some(policy);
        self
    }

    /// Adds a request header. Its value never shows in `Debug`.
    ///
    /// The call fails with [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument)
    /// before any traffic when the name or value cannot be a header, or when the header is
    /// one this client sets itself: credentials, cookies, and those that frame the message.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// These options where they are set, else `self`'s. Headers of both are sent.
    pub(crate) fn overlaid(mut self, over: Self) -> Self {
        self.timeout = over.timeout.or(self.timeout);
        self.stall_timeout = over.stall_timeout.or(self.stall_timeout);
        self.deadline = over.deadline.or(self.deadline);
        self.retry = over.retry.or(self.retry);
        self.headers.extend(over.headers);
        self
    }

    /// These options for the rest of a call that began at `started`: its deadline counts for
    /// everything the call does.
    pub(crate) fn left_since(&self, started: Instant) -> Self {
        let mut left = self.clone();
        if let Some(limit) = &mut left.deadline {
            *limit = limit.saturating_sub(started.elapsed()).max(Duration::from_millis(1));
        }
        left
    }

    pub(crate) fn check(&self) -> Result<()> {
        for (name, limit) in [
            ("timeout", self.timeout),
            ("stall_timeout", self.stall_timeout),
            ("deadline", self.deadline),
        ] {
            if limit == Some(Duration::ZERO) {
                return Err(Error::invalid_argument(name, "must be longer than zero"));
            }
        }
        self.retry.as_ref().map_or(Ok(()), RetryPolicy::check)
    }

    pub(crate) fn header_map(&self) -> Result<HeaderMap> {
        let mut map = HeaderMap::with_capacity(self.headers.len());
        for (name, value) in &self.headers {
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| {
                Error::invalid_argument("header", format!("{name:?} is not a header name"))
            })?;
            if is_ours(parsed.as_str()) {
                let why = format!("{parsed} is set by the client and cannot be given");
                return Err(Error::invalid_argument("header", why));
            }
            let mut value = HeaderValue::from_str(value.expose()).map_err(|_| {
                let why = format!("the value of {parsed} holds characters a header cannot");
                Error::invalid_argument("header", why)
            })?;
            value.set_sensitive(true);
            map.append(parsed, value);
        }
        Ok(map)
    }
}

/// Headers that decide who is asking or where the message ends. A second credential would
/// win over the configured one on the server (api.md 1.2).
fn is_ours(name: &str) -> bool {
    matches!(
        name,
        "x-api-key"
            | "x-access-token"
            | "x-auth-token"
            | "authorization"
            | "proxy-authorization"
            | "cookie"
            | "host"
            | "connection"
            | "upgrade"
            | "content-length"
            | "content-type"
            | "transfer-encoding"
            | "te"
            | "trailer"
            | "expect"
    ) || name.starts_with("sec-websocket-")
}

impl fmt::Debug for RequestOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("RequestOptions")
            .field("timeout", &self.timeout)
            .field("stall_timeout", &self.stall_timeout)
            .field("deadline", &self.deadline)
            .field("retry", &self.retry)
            .field("headers", &names)
            .finish()
    }
}

/// When and how often a call is tried again.
///
/// Only what cannot do harm is repeated (see the crate's tour); this type says how often.
/// The wait before a repeat is random between zero and `base_delay` doubled per attempt,
/// or what the server asks for in `Retry-After`; never longer than `max_delay`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct RetryPolicy {
    /// Attempts in total, the first included. Default 3.
    pub max_attempts: u32,
    /// Upper end of the first wait. Default 500 ms.
    pub base_delay: Duration,
    /// Upper end of every wait, `Retry-After` included. Default 30 s.
    pub max_delay: Duration,
}

impl RetryPolicy {
    /// Never tries again.
    pub fn none() -> Self {
        Self { max_attempts: 1, ..Self::default() }
    }

    /// Sets the number of attempts, the first included; at least 1.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts;
        self
    }

    /// Sets the upper end of the first wait.
    pub fn base_delay(mut self, delay: Duration) -> Self {
        self.base_delay = delay;
        self
    }

    /// Sets the upper end of every wait.
    pub fn max_delay(mut self, delay: Duration) -> Self {
        self.max_delay = delay;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        match self.max_attempts {
            0 => Err(Error::invalid_argument("retry", "max_attempts must be at least 1")),
            _ => Ok(()),
        }
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            base_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(30),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn later_options_win_field_by_field() {
        let first = RequestOptions::new().timeout(Duration::from_secs(1)).header("x-a", "1");
        let second = RequestOptions::new().deadline(Duration::from_secs(2)).header("x-b", "2");
        let both = first.overlaid(second);
        assert_eq!(both.timeout, Some(Duration::from_secs(1)));
        assert_eq!(both.deadline, Some(Duration::from_secs(2)));
        assert_eq!(both.header_map().unwrap().len(), 2);
    }

    #[test]
    fn header_injection_and_our_own_headers_are_refused() {
        for (name, value) in [
            ("x-a\r\nx-b", "1"),
            ("x-a", "1\r\nx-api-key: k"),
            ("", "1"),
            ("X-Api-Key", "k"),
            ("Authorization", "Bearer k"),
            ("Content-Length", "0"),
            ("Cookie", "a=b"),
            ("Sec-WebSocket-Key", "k"),
        ] {
            let error = RequestOptions::new().header(name, value).header_map().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{name:?}");
            assert!(error.message().starts_with("header"), "{error}");
        }
    }

    #[test]
    fn limits_of_zero_are_refused_by_name() {
        let error = RequestOptions::new().deadline(Duration::ZERO).check().unwrap_err();
        assert!(error.message().contains("deadline"));
        let none = RetryPolicy::default().max_attempts(0);
        assert!(RequestOptions::new().retry(none).check().is_err());
    }

    #[test]
    fn header_values_do_not_show_in_debug() {
        let options = RequestOptions::new().header("x-tenant", "hunter2");
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}
