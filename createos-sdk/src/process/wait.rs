//! Waiting for a managed process, and ending it.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use tokio::time::{Instant, sleep};

use super::{Process, ProcessExit, leader_ended, tree_ended};
use crate::error::{CallFacts, Error, ErrorKind, Result};
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::transport::request::{Call, Pace};
use crate::transport::{envelope, send};
use crate::wire::ProcessView;

const WAIT: &str = "process.wait";
/// Longest time the server is asked to hold one question back.
const LONGEST_POLL: Duration = Duration::from_secs(50);
/// A server that does not hold a question back is not asked again sooner.
const FASTEST_POLL: Duration = Duration::from_millis(500);
/// Kept of the limit for the way back of the last answer.
const WAY_BACK: Duration = Duration::from_millis(250);
/// Failures in a row after which waiting is given up.
const FAILURES: u32 = 5;

/// Waits until a managed process has ended. Made with [`Process::wait`]; awaiting it gives the
/// [`ProcessExit`] of the command.
///
/// The server is asked in long polls, each shorter than the request timeout, for as long as it
/// takes. A passing failure of a question does not end the wait.
///
/// # Errors
///
/// `Timeout`: the [limit](Self::limit) ran out. Otherwise what the last question failed with.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct WaitProcess {
    process: Process,
    tree: bool,
    limit: Option<Duration>,
    options: RequestOptions,
}

impl WaitProcess {
    pub(super) fn new(process: Process) -> Self {
        Self { process, tree: false, limit: None, options: RequestOptions::new() }
    }

    /// Waits for everything it started too.
    pub fn tree(mut self) -> Self {
        self.tree = true;
        self
    }

    /// Longest time to wait. Default none.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// Sets options of each question. A deadline shortens the limit.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    /// How long the server is asked to hold a question back.
    fn poll_time(&self, left: Option<Duration>) -> Duration {
        let client = self.process.sandbox().client().inner();
        let attempt = self.options.timeout.unwrap_or(client.timeout);
        let held = LONGEST_POLL.min(attempt.mul_f64(0.75));
        left.map_or(held, |left| held.min(left.saturating_sub(WAY_BACK)))
    }

    async fn ask(&self, left: Option<Duration>) -> Result<Arc<ProcessView>> {
        let held = self.poll_time(left).as_millis().to_string();
        let scope = if self.tree { "tree" } else { "leader" };
        let call = self.process.call(WAIT, Method::GET, &["wait"]);
        let mut options = self.options.clone();
        options.deadline = left.or(options.deadline);
        let call = Call { options, ..call.query("scope", scope).query("timeout_ms", &held) };
        let client = self.process.sandbox().client().inner();
        let view: ProcessView = send::send(client, &call, |reply| envelope::data(&reply)).await?;
        let view = Arc::new(view);
        self.process.saw(view.clone());
        Ok(view)
    }

    pub(super) async fn run(self) -> Result<ProcessExit> {
        let started = Instant::now();
        let client = self.process.sandbox().client().inner();
        let deadline = self.options.deadline.or(client.deadline);
        let limit = [self.limit, deadline].into_iter().flatten().min();
        let left = || limit.map(|limit| limit.saturating_sub(started.elapsed()));
        let mut failures = 0;
        let mut asked = 0;
        loop {
            // A deadline of nothing is refused as an argument.
            let asking = left().map(|left| left.max(Duration::from_millis(1)));
            let began = Instant::now();
            asked += 1;
            match self.ask(asking).await {
                Ok(view) if self.is_over(&view) => return Ok(ProcessExit::of(&view)),
                Ok(_) => failures = 0,
                // The server, or a gateway before it, held the question back for too long.
                Err(error) if matches!(error.status(), Some(408 | 504)) => {}
                Err(error) if error.is_retryable() && failures < FAILURES => failures += 1,
                Err(error) if left().is_none_or(|left| !left.is_zero()) => return Err(error),
                Err(_) => {}
            }
            let pause = FASTEST_POLL.saturating_sub(began.elapsed());
            let Some(left) = left() else {
                sleep(pause).await;
                continue;
            };
            if left.is_zero() {
                return Err(self.timed_out(started, asked));
            }
            sleep(pause.min(left)).await;
        }
    }

    fn is_over(&self, view: &ProcessView) -> bool {
        if self.tree { tree_ended(view) } else { leader_ended(view) }
    }

    fn timed_out(&self, started: Instant, asked: u32) -> Error {
        let facts = CallFacts {
            operation: WAIT,
            resource: Some(self.process.sandbox().id().to_string()),
            repeatable: true,
            attempts: asked,
            elapsed: started.elapsed(),
            ..CallFacts::default()
        };
        let view = self.process.view();
        let state = view.as_ref().map_or("not known", |view| view.state.as_str());
        let message = format!("process {} has not ended; last state: {state}", self.process.id());
        Error::new(ErrorKind::Timeout, message).in_call(&facts)
    }
}

impl IntoFuture for WaitProcess {
    type Output = Result<ProcessExit>;
    type IntoFuture = Pending<ProcessExit>;

    fn into_future(self) -> Pending<ProcessExit> {
        Pending::new(self.run())
    }
}

/// Ends a managed process and everything it started: `SIGTERM`, and `SIGKILL` after the grace
/// (api.md 5.1). Made with [`Process::terminate`]; awaiting it gives the final view, once all
/// have ended. One that has ended already stays as it is.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct TerminateProcess {
    process: Process,
    grace: Duration,
    options: RequestOptions,
}

impl TerminateProcess {
    pub(super) fn new(process: Process) -> Self {
        Self { process, grace: Duration::from_secs(1), options: RequestOptions::new() }
    }

    /// Time between asking and killing, in whole milliseconds; zero kills at once. Default 1 s.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<Arc<ProcessView>> {
        let grace = self.grace.as_millis().to_string();
        let call = self.process.call("process.terminate", Method::DELETE, &[]);
        let client = self.process.sandbox().client().inner();
        // The answer comes after the end, so the grace does not count.
        let pace = Pace::AtLeast(self.grace.saturating_add(client.timeout));
        let call = Call { pace, options: self.options, ..call.query("grace_ms", &grace) };
        let view: ProcessView = send::send(client, &call, |reply| envelope::data(&reply)).await?;
        let view = Arc::new(view);
        self.process.saw(view.clone());
        Ok(view)
    }
}

impl IntoFuture for TerminateProcess {
    type Output = Result<Arc<ProcessView>>;
    type IntoFuture = Pending<Arc<ProcessView>>;

    fn into_future(self) -> Self::IntoFuture {
        Pending::new(self.run())
    }
}
