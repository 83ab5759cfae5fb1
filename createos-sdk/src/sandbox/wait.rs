//! Waiting for a state.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Sandbox;
use crate::error::{CallFacts, Error, ErrorKind, Result};
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::wire::{SandboxStatus, SandboxView};

const BUDGET: Duration = Duration::from_secs(120);
const FIRST_POLL: Duration = Duration::from_millis(250);
/// Kept of the budget for the last question.
const LAST_POLL: Duration = Duration::from_millis(250);
const SLOWEST_POLL: Duration = Duration::from_secs(2);

/// Waits for a state. Made with [`Sandbox::wait_until`].
///
/// Gives the view in which the state was seen; `None` when waiting for `destroyed` ended
/// because the server no longer knows the sandbox.
///
/// It asks at once, then every 250 ms, slowing down to every 2 s, and a last time shortly
/// before the budget ends, which is never exceeded. A passing failure of a question does not
/// end the wait.
///
/// # Errors
///
/// `Timeout`: the budget ran out; [`last_status`](Error::last_status) tells how far it came.
/// `UnexpectedState`: it is in a state from which the awaited one does not follow. Otherwise
/// what the last question failed with.
#[derive(Debug)]
#[must_use = "nothing is sent until awaited"]
pub struct WaitUntil {
    sandbox: Sandbox,
    target: SandboxStatus,
    budget: Duration,
    options: RequestOptions,
}

impl WaitUntil {
    pub(super) fn new(sandbox: Sandbox, target: SandboxStatus) -> Self {
        Self { sandbox, target, budget: BUDGET, options: RequestOptions::new() }
    }

    /// Longest time to wait. Default 120 s.
    pub fn budget(mut self, limit: Duration) -> Self {
        self.budget = limit;
        self
    }

    /// Sets options of each question. A deadline shortens the budget.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<Option<Arc<SandboxView>>> {
        let started = Instant::now();
        let budget = self.options.deadline.map_or(self.budget, |limit| limit.min(self.budget));
        let left = || budget.saturating_sub(started.elapsed());
        let mut pause = FIRST_POLL;
        let mut polls = 0;
        let mut last = None;
        let mut is_last_poll = false;
        loop {
            polls += 1;
            let asking = self.options.clone().deadline(left().max(Duration::from_millis(1)));
            match self.sandbox.refresh().with(asking).await {
                Ok(view) if view.status == self.target => return Ok(Some(view)),
                Ok(view) if self.is_lost(&view.status) => return Err(self.lost(view, polls)),
                Ok(view) => last = Some(view.status.clone()),
                Err(error) if self.is_gone(&error) => return Ok(None),
                Err(error) if error.is_retryable() => {}
                Err(error) => return Err(error.with_last_status(last)),
            }
            if is_last_poll || left().is_zero() {
                return Err(self.timed_out(started, polls, last));
            }
            // Waiters that began together should not ask together.
            let jittered = pause.mul_f64(0.75 + fastrand::f64() / 2.0);
            // A sleep to the very end would leave no time to see what came of it.
            let last_chance = left().saturating_sub(LAST_POLL);
            is_last_poll = jittered >= last_chance;
            sleep(jittered.min(last_chance)).await;
            pause = pause.mul_f64(1.25).min(SLOWEST_POLL);
        }
    }

    /// Whether the awaited state cannot follow this one (api.md 1.12).
    fn is_lost(&self, now: &SandboxStatus) -> bool {
        use SandboxStatus::{Destroyed, Destroying, Error, Failed};
        match self.target {
            Destroyed | Destroying => matches!(now, Error | Failed),
            _ => matches!(now, Error | Failed | Destroying | Destroyed),
        }
    }

    fn is_gone(&self, error: &Error) -> bool {
        self.target == SandboxStatus::Destroyed && error.kind() == ErrorKind::NotFound
    }

    fn lost(&self, view: Arc<SandboxView>, polls: u32) -> Error {
        let message = format!("it is {}, and will not become {}", view.status, self.target);
        Error::new(ErrorKind::UnexpectedState, message)
            .in_call(&self.facts(polls))
            .with_last_status(Some(view.status.clone()))
    }

    fn timed_out(&self, started: Instant, polls: u32, last: Option<SandboxStatus>) -> Error {
        let state = last.as_ref().map_or("not known", SandboxStatus::as_str);
        let budget = self.budget;
        let message = format!("not {} after {budget:?}; last state: {state}", self.target);
        let facts = CallFacts { elapsed: started.elapsed(), ..self.facts(polls) };
        Error::new(ErrorKind::Timeout, message).in_call(&facts).with_last_status(last)
    }

    fn facts(&self, polls: u32) -> CallFacts {
        CallFacts {
            operation: "sandbox.wait",
            resource: Some(self.sandbox.id().to_string()),
            repeatable: true,
            attempts: polls,
            ..CallFacts::default()
        }
    }
}

impl IntoFuture for WaitUntil {
    type Output = Result<Option<Arc<SandboxView>>>;
    type IntoFuture = Pending<Option<Arc<SandboxView>>>;

    fn into_future(self) -> Self::IntoFuture {
        Pending::new(self.run())
    }
}
