//! From a call to an answer: building requests, sending and repeating them, reading what
//! comes back.

pub(crate) mod envelope;
pub(crate) mod incoming;
pub(crate) mod ndjson;
pub(crate) mod outgoing;
pub(crate) mod request;
pub(crate) mod retry;
pub(crate) mod send;
pub(crate) mod text;
pub(crate) mod upgrade;

use std::time::Duration;

use tokio::time::Instant;

/// The moment a limit ends; `None` when it lies beyond what a clock can show, which is as
/// good as never.
pub(crate) fn ends_at(limit: Option<Duration>) -> Option<Instant> {
    limit.and_then(|limit| Instant::now().checked_add(limit))
}
