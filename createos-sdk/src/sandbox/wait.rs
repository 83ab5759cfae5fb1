//! Waiting for a state.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use super::Sandbox;
use crate::error::{CallFacts, Error, ErrorKind, Result};
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::wait::{Condition, Polls};
use crate::wire::{SandboxStatus, SandboxView};

const BUDGET: Duration = Duration::from_secs(120);

/// Waits for a state or another [`Condition`]. Made with [`Sandbox::wait_until`].
///
/// Gives the view that met it; `None` when it was met by the server no longer knowing the
/// sandbox, as `destroyed` is.
///
/// It asks at once, then every 250 ms, slowing down to every 2 s, and a last time shortly
/// before the budget ends, which is kept to the millisecond. A passing failure of a question does not
/// end the wait.
///
/// # Errors
///
/// `Timeout`: the budget ran out; [`last_status`](Error::last_status) tells how far it came.
/// `UnexpectedState`: it is in a state from which the awaited one does not follow. `NotFound`:
/// the server does not know it, and that was not waited for. Otherwise what the last question failed with.
#[derive(Debug)]
#[must_use = "nothing is sent until awaited"]
pub struct WaitUntil {
    sandbox: Sandbox,
    condition: Condition,
    budget: Duration,
    options: RequestOptions,
}

impl WaitUntil {
    pub(super) fn new(sandbox: Sandbox, condition: Condition) -> Self {
        Self { sandbox, condition, budget: BUDGET, options: RequestOptions::new() }
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
        let budget = self.options.deadline.map_or(self.budget, |limit| limit.min(self.budget));
        let mut polls = Polls::new(budget);
        let mut last = None;
        loop {
            let asking = self.options.clone().deadline(polls.ask());
            let view = match self.sandbox.refresh().with(asking).await {
                Ok(view) => Some(view),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    if self.condition.holds(None) {
                        return Ok(None);
                    }
                    return Err(error.with_last_status(last));
                }
                Err(error) if error.is_retryable() => None,
                Err(error) => return Err(error.with_last_status(last)),
            };
            if let Some(view) = view {
                if self.condition.holds(Some(&view)) {
                    return Ok(Some(view));
                }
                if self.is_lost(&view) {
                    return Err(self.lost(&view, &polls));
                }
                last = Some(view.status.clone());
            }
            if !polls.next().await {
                return Err(self.timed_out(&polls, last));
            }
        }
    }

    fn is_lost(&self, view: &SandboxView) -> bool {
        // From a final state only disappearing follows.
        let ended = view.status.is_terminal() && !self.condition.holds(None);
        ended || self.condition.is_lost(Some(view))
    }

    fn lost(&self, view: &SandboxView, polls: &Polls) -> Error {
        let message = format!("it is {}, and will not become {}", view.status, self.condition);
        Error::new(ErrorKind::UnexpectedState, message)
            .in_call(&self.facts(polls))
            .with_last_status(Some(view.status.clone()))
    }

    fn timed_out(&self, polls: &Polls, last: Option<SandboxStatus>) -> Error {
        let state = last.as_ref().map_or("not known", SandboxStatus::as_str);
        let budget = self.budget;
        let message = format!("not {} after {budget:?}; last state: {state}", self.condition);
        Error::new(ErrorKind::Timeout, message).in_call(&self.facts(polls)).with_last_status(last)
    }

    fn facts(&self, polls: &Polls) -> CallFacts {
        CallFacts {
            operation: "sandbox.wait",
            resource: Some(self.sandbox.id().to_string()),
            repeatable: true,
            attempts: polls.count,
            elapsed: polls.elapsed(),
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
