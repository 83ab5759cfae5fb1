//! Waiting for a port.

use std::future::IntoFuture;
use std::ops::ControlFlow;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout_at};

use super::{Tunnel, TunnelStream};
use crate::error::Result;
use crate::options::{RequestOptions, RetryPolicy};
use crate::pending::Pending;
use crate::poll::Poll;

const BUDGET: Duration = Duration::from_secs(120);
/// Programs listen some tens of milliseconds after their start.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Bounds of how long a new connection is watched.
const WATCH: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];

/// Waits until something listens on a port of a sandbox. Made with
/// [`Tunnel::wait_until_open`].
///
/// It opens a connection at once, then every 50 ms, slowing down to every 2 s, and a last time
/// shortly before the budget ends, until one stays open. A server that opens connections to a
/// closed port only to close them again (api.md 4.19) is seen through: a connection counts when
/// it brings a byte, or stays open for twice the time that opening it took, 50 ms to 1 s. The
/// server inside sees connections that end without a word.
///
/// ```no_run
/// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
/// let database = sandbox.spawn("postgres").guarded().await?;
/// sandbox.tunnel(5432).wait_until_open().await?;
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// `InvalidArgument`: port 0. `Conflict`: the sandbox is not running. `NotFound`: there is no
/// such sandbox. `Timeout`: nothing listened within the [`budget`](Self::budget); the message
/// says what was seen last. Waiting changes nothing, so it is safe to repeat.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct WaitUntilOpen {
    tunnel: Tunnel,
    budget: Duration,
}

impl WaitUntilOpen {
    pub(super) fn new(tunnel: Tunnel) -> Self {
        Self { tunnel, budget: BUDGET }
    }

    /// Longest time to wait. Default 120 s.
    pub fn budget(mut self, limit: Duration) -> Self {
        self.budget = limit;
        self
    }

    /// Sets options of each question. A deadline shortens the budget; the retry policy does
    /// not count, because asking again is what this does.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.tunnel = self.tunnel.with(options);
        self
    }

    async fn run(self) -> Result<()> {
        let poll = Poll {
            operation: "sandbox.tunnel.wait",
            resource: self.tunnel.sandbox.id().to_string(),
            awaited: "open",
            budget: self.budget,
            options: self.tunnel.options.clone().retry(RetryPolicy::none()),
        };
        poll.until_from(FIRST_PAUSE, |options| async {
            let asked = Instant::now();
            let end = options.deadline.and_then(|left| asked.checked_add(left));
            let stream = self.tunnel.clone().with(options).open().await?;
            let watch = (asked.elapsed() * 2).clamp(WATCH[0], WATCH[1]);
            Ok(look_at(stream, Instant::now() + watch, end).await)
        })
        .await
    }
}

/// Watches a new connection until `enough`, and no longer than to `end`.
async fn look_at(
    mut stream: TunnelStream,
    enough: Instant,
    end: Option<Instant>,
) -> ControlFlow<(), String> {
    let until = end.map_or(enough, |end| end.min(enough));
    let seen = match timeout_at(until, stream.read(&mut [0])).await {
        Ok(Ok(1..)) => return ControlFlow::Break(()),
        Ok(_) => "the connection was closed at once",
        Err(_) if until == enough => return ControlFlow::Break(()),
        Err(_) => "a connection was opened too late to be sure of it",
    };
    ControlFlow::Continue(seen.to_owned())
}

impl IntoFuture for WaitUntilOpen {
    type Output = Result<()>;
    type IntoFuture = Pending<()>;

    fn into_future(self) -> Pending<()> {
        Pending::new(self.run())
    }
}
