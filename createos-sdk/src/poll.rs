//! Asking again and again until something is there.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::error::{CallFacts, Error, ErrorKind, Result};
use crate::options::RequestOptions;
use crate::wait::{FIRST_POLL, Polls};

/// What is waited for, and how long.
#[derive(Debug, Clone)]
pub(crate) struct Poll {
    pub(crate) operation: &'static str,
    pub(crate) resource: String,
    /// What is awaited, as in "not mounted after 120s".
    pub(crate) awaited: &'static str,
    pub(crate) budget: Duration,
    /// Options of each question. A deadline shortens the budget.
    pub(crate) options: RequestOptions,
}

/// What was learned last. A question that failed does not wipe out the answer before it.
#[derive(Default)]
struct Last {
    seen: Option<String>,
    failure: Option<Error>,
}

impl fmt::Display for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.seen, &self.failure) {
            (Some(seen), Some(failure)) => write!(f, "{seen}, then {}", failure.message()),
            (Some(seen), None) => f.write_str(seen),
            (None, Some(failure)) => f.write_str(failure.message()),
            (None, None) => f.write_str("nothing"),
        }
    }
}

impl Poll {
    /// Asks until `ask` breaks with an answer. `Continue` says what was seen instead; passing
    /// failures do not end the wait, others do. The budget is never exceeded, and a last
    /// question is asked shortly before it ends.
    pub(crate) async fn until<T, F>(&self, ask: impl FnMut(RequestOptions) -> F) -> Result<T>
    where
        F: Future<Output = Result<ControlFlow<T, String>>>,
    {
        self.until_from(FIRST_POLL, ask).await
    }

    /// Like [`until`](Self::until), with another pause after the first question.
    pub(crate) async fn until_from<T, F>(
        &self,
        first: Duration,
        mut ask: impl FnMut(RequestOptions) -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<ControlFlow<T, String>>>,
    {
        let budget = self.options.deadline.map_or(self.budget, |limit| limit.min(self.budget));
        let mut polls = Polls::paced(first, budget);
        let mut last = Last::default();
        loop {
            let options = self.options.clone().deadline(polls.ask());
            match ask(options).await {
                Ok(ControlFlow::Break(found)) => return Ok(found),
                Ok(ControlFlow::Continue(seen)) => last = Last { seen: Some(seen), failure: None },
                Err(error) if error.is_retryable() => last.failure = Some(error),
                Err(error) => return Err(error),
            }
            if !polls.next().await {
                let message = format!("not {} after {budget:?}; last: {last}", self.awaited);
                let facts = self.facts(polls.count, polls.elapsed());
                return Err(Error::new(ErrorKind::Timeout, message).in_call(&facts));
            }
        }
    }

    /// Tries until it is not refused with a conflict. A refusal that lasts is what it ends with.
    pub(crate) async fn past_conflict<F>(
        &self,
        mut attempt: impl FnMut(RequestOptions) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        let refusal = Mutex::new(None);
        let ended = self
            .until(|options| {
                let attempt = attempt(options);
                let refusal = &refusal;
                async move {
                    match attempt.await {
                        Err(error) if error.kind() == ErrorKind::Conflict => {
                            let message = error.message().to_owned();
                            *refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                            Ok(ControlFlow::Continue(message))
                        }
                        done => done.map(ControlFlow::Break),
                    }
                }
            })
            .await;
        match (ended, refusal.into_inner().unwrap_or_else(PoisonError::into_inner)) {
            (Err(error), Some(refused)) if error.kind() == ErrorKind::Timeout => Err(refused),
            // An attempt whose answer did not come may have worked.
            (Err(error), None) if error.kind() == ErrorKind::Timeout => Err(error.with_acted(true)),
            (ended, _) => ended,
        }
    }

    /// An error that ends the wait because what is awaited cannot come.
    pub(crate) fn hopeless(&self, message: String) -> Error {
        let facts = self.facts(1, Duration::ZERO);
        Error::new(ErrorKind::UnexpectedState, message).in_call(&facts)
    }

    fn facts(&self, attempts: u32, elapsed: Duration) -> CallFacts {
        CallFacts {
            operation: self.operation,
            resource: Some(self.resource.clone()),
            repeatable: true,
            attempts,
            elapsed,
            ..CallFacts::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use tokio::time::Instant;

    fn poll(budget: Duration) -> Poll {
        Poll {
            operation: "test.wait",
            resource: "x-1".into(),
            awaited: "there",
            budget,
            options: RequestOptions::new(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn it_asks_until_the_answer_and_forgives_passing_failures() {
        let asked = Cell::new(0);
        let found = poll(Duration::from_secs(120))
            .until(|_| {
                asked.set(asked.get() + 1);
                let answer = match asked.get() {
                    1 => Err(Error::new(ErrorKind::Unavailable, "busy")),
                    2 => Ok(ControlFlow::Continue("pending".to_owned())),
                    _ => Ok(ControlFlow::Break(7)),
                };
                async { answer }
            })
            .await;
        assert_eq!((found.unwrap(), asked.get()), (7, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_kept_and_what_was_seen_told() {
        let started = Instant::now();
        let nothing = |_| async { Ok(ControlFlow::<(), _>::Continue("pending".to_owned())) };
        let error = poll(Duration::from_secs(10)).until(nothing).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.message(), "not there after 10s; last: pending");
        assert_eq!((error.operation(), error.resource()), (Some("test.wait"), Some("x-1")));
        assert_eq!(started.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_tried_again_and_one_that_lasts_is_told() {
        let tried = Cell::new(0);
        let refused = |until| {
            let tried = &tried;
            move |_| {
                tried.set(tried.get() + 1);
                let over = tried.get() >= until;
                async move { if over { Ok(()) } else { Err(Error::new(ErrorKind::Conflict, "in use")) } }
            }
        };
        poll(Duration::from_secs(10)).past_conflict(refused(4)).await.unwrap();
        assert_eq!(tried.get(), 4);
        let started = Instant::now();
        let error = poll(Duration::from_secs(10)).past_conflict(refused(u32::MAX)).await;
        assert_eq!(error.unwrap_err().message(), "in use");
        assert_eq!(started.elapsed(), Duration::from_secs(10));

        let unanswered = |_| async { Err(Error::new(ErrorKind::Connection, "no answer")) };
        let error = poll(Duration::from_secs(10)).past_conflict(unanswered).await.unwrap_err();
        assert_eq!((error.kind(), error.may_have_acted()), (ErrorKind::Timeout, true));
        let forbidden = |_| async { Err(Error::new(ErrorKind::PermissionDenied, "")) };
        let error = poll(Duration::from_secs(10)).past_conflict(forbidden).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lasting_failure_ends_it_at_once() {
        let refused =
            |_| async { Err::<ControlFlow<(), String>, _>(Error::new(ErrorKind::NotFound, "")) };
        let error = poll(Duration::from_secs(10)).until(refused).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }
}
