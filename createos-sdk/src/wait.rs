//! What is waited for, and asking until it is there.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::wire::{SandboxStatus, SandboxView};

pub(crate) const FIRST_POLL: Duration = Duration::from_millis(250);
const SLOWEST_POLL: Duration = Duration::from_secs(2);
/// Bounds of what is kept of the budget for the last question.
const LAST_POLL: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(250)];

type Test = Arc<dyn Fn(Option<&SandboxView>) -> bool + Send + Sync>;

/// Something that can be waited for, such as with
/// [`Sandbox::wait_until`](crate::Sandbox::wait_until).
///
/// It looks at the last view, or at `None` when the server does not know the thing (any
/// more). A [`SandboxStatus`] is a condition, too.
///
/// ```no_run
/// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
/// use createos_sdk::Condition;
/// use createos_sdk::wire::SandboxStatus;
///
/// let reachable = Condition::new("reachable from outside", |view| {
///     view.is_some_and(|view| view.ingress_url_template.is_some())
/// });
/// let running = Condition::from(SandboxStatus::Running);
/// let view = sandbox.wait_until(running.and(reachable)).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Condition {
    text: String,
    holds: Test,
    /// Whether it cannot become true any more.
    lost: Test,
}

impl Condition {
    /// A condition of one's own. The name completes "it is not …" in errors.
    pub fn new(
        name: impl Into<String>,
        holds: impl Fn(Option<&SandboxView>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self::losable(name, holds, |_| false)
    }

    pub(crate) fn losable(
        name: impl Into<String>,
        holds: impl Fn(Option<&SandboxView>) -> bool + Send + Sync + 'static,
        lost: impl Fn(Option<&SandboxView>) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { text: name.into(), holds: Arc::new(holds), lost: Arc::new(lost) }
    }

    /// Both.
    pub fn and(self, other: impl Into<Self>) -> Self {
        let (a, b) = (self, other.into());
        let text = format!("({a} and {b})");
        let lost = (a.lost, b.lost);
        let either_lost = move |view: Option<&SandboxView>| (lost.0)(view) || (lost.1)(view);
        Self::losable(text, move |view| (a.holds)(view) && (b.holds)(view), either_lost)
    }

    /// One or the other, or both.
    pub fn or(self, other: impl Into<Self>) -> Self {
        let (a, b) = (self, other.into());
        let text = format!("({a} or {b})");
        let lost = (a.lost, b.lost);
        let both_lost = move |view: Option<&SandboxView>| (lost.0)(view) && (lost.1)(view);
        Self::losable(text, move |view| (a.holds)(view) || (b.holds)(view), both_lost)
    }

    /// The opposite.
    #[expect(clippy::should_implement_trait, reason = "it belongs beside `and` and `or`")]
    pub fn not(self) -> Self {
        Self::new(format!("not {self}"), move |view| !(self.holds)(view))
    }

    /// Whether it is true of this view.
    pub fn holds(&self, view: Option<&SandboxView>) -> bool {
        (self.holds)(view)
    }

    pub(crate) fn is_lost(&self, view: Option<&SandboxView>) -> bool {
        (self.lost)(view)
    }
}

impl From<SandboxStatus> for Condition {
    /// True in this state. `Destroyed` is also true of a sandbox nobody knows. It counts as
    /// lost in states from which the state does not follow (api.md 1.12).
    fn from(target: SandboxStatus) -> Self {
        use SandboxStatus::{Destroyed, Destroying, Error, Failed};
        let text = target.to_string();
        let wanted = target.clone();
        let holds = move |view: Option<&SandboxView>| match view {
            Some(view) => view.status == wanted,
            None => wanted == Destroyed,
        };
        let lost = move |view: Option<&SandboxView>| match (view.map(|view| &view.status), &target)
        {
            (None, _) => true,
            (Some(now), target) if now == target => false,
            (Some(now), Destroyed | Destroying) => matches!(now, Error | Failed),
            (Some(now), _) => matches!(now, Error | Failed | Destroying | Destroyed),
        };
        Self::losable(text, holds, lost)
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Condition({})", self.text)
    }
}

/// When to ask: often at first, then slower, and a last time just before the end.
#[derive(Debug)]
pub(crate) struct Polls {
    started: Instant,
    budget: Duration,
    pause: Duration,
    /// The slowest answer so far; the last question needs as long.
    slowest: Duration,
    asked: Instant,
    is_last: bool,
    pub(crate) count: u32,
}

impl Polls {
    pub(crate) fn new(budget: Duration) -> Self {
        Self::paced(FIRST_POLL, budget)
    }

    /// With this pause after the first question.
    pub(crate) fn paced(pause: Duration, budget: Duration) -> Self {
        let now = Instant::now();
        let (started, asked, slowest) = (now, now, Duration::ZERO);
        Self { started, budget, pause, slowest, asked, is_last: false, count: 0 }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    fn left(&self) -> Duration {
        self.budget.saturating_sub(self.elapsed())
    }

    /// The time that the question about to be asked may take.
    pub(crate) fn ask(&mut self) -> Duration {
        self.count += 1;
        self.asked = Instant::now();
        self.left().max(Duration::from_millis(1))
    }

    /// Waits until it is time for the next question. False when the budget is used up, to the
    /// millisecond.
    pub(crate) async fn next(&mut self) -> bool {
        self.slowest = self.slowest.max(self.asked.elapsed());
        if self.is_last || self.left().is_zero() {
            if let Some(end) = self.started.checked_add(self.budget) {
                sleep_until(end).await;
            }
            return false;
        }
        // Waiters that began together should not ask together.
        let jittered = self.pause.mul_f64(0.75 + fastrand::f64() / 2.0);
        let kept = self.slowest.saturating_mul(2).clamp(LAST_POLL[0], LAST_POLL[1]);
        let last_chance = self.left().saturating_sub(kept);
        self.is_last = jittered >= last_chance;
        sleep_until(Instant::now() + jittered.min(last_chance)).await;
        self.pause = self.pause.mul_f64(1.25).min(SLOWEST_POLL);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use SandboxStatus::{Creating, Destroyed, Error, Paused, Running};

    fn view(status: SandboxStatus) -> SandboxView {
        SandboxView::new("sb-1".parse().unwrap(), status)
    }

    fn is(status: SandboxStatus) -> Condition {
        status.into()
    }

    #[test]
    fn conditions_combine() {
        let settled = is(Running).or(Paused);
        assert!(settled.holds(Some(&view(Paused))) && !settled.holds(Some(&view(Creating))));
        assert_eq!(settled.to_string(), "(running or paused)");
        let named = Condition::new("named", |view: Option<&SandboxView>| {
            view.is_some_and(|view| view.name.is_some())
        });
        let both = is(Running).and(named.clone());
        assert!(!both.holds(Some(&view(Running))));
        let mut of_name = view(Running);
        of_name.name = Some("a".into());
        assert!(both.holds(Some(&of_name)));
        assert!(!both.clone().not().holds(Some(&of_name)) && named.not().holds(None));
    }

    #[test]
    fn what_cannot_follow_is_lost() {
        assert!(
            is(Running).is_lost(Some(&view(Error))) && !is(Running).is_lost(Some(&view(Paused)))
        );
        assert!(is(Running).is_lost(None) && is(Destroyed).holds(None));
        let either = is(Running).or(Destroyed);
        assert!(!either.is_lost(Some(&view(SandboxStatus::Destroying))));
        assert!(either.is_lost(Some(&view(Error))));
        assert!(is(Error).or(Running).holds(Some(&view(Error))));
        assert!(!is(Error).is_lost(Some(&view(Error))));
        assert!(is(Running).and(Paused).is_lost(Some(&view(Error))));
        assert!(!is(Running).not().is_lost(Some(&view(Running))));
    }

    #[tokio::test(start_paused = true)]
    async fn questions_slow_down_and_the_budget_is_kept_to_the_millisecond() {
        for budget in [0, 1, 5, 249, 1000, 10_000, 120_000].map(Duration::from_millis) {
            let started = Instant::now();
            let mut polls = Polls::new(budget);
            let mut gaps = Vec::new();
            loop {
                polls.ask();
                let asked = Instant::now();
                if !polls.next().await {
                    break;
                }
                gaps.push(asked.elapsed());
            }
            let over = started.elapsed().checked_sub(budget).unwrap();
            assert!(over <= Duration::from_millis(1), "{budget:?} {over:?}");
            assert!(gaps.iter().all(|gap| *gap <= SLOWEST_POLL.mul_f64(1.26)), "{gaps:?}");
            if budget.as_secs() == 120 {
                assert!(gaps[0] < Duration::from_millis(320), "{gaps:?}");
                assert!((50..120).contains(&gaps.len()), "{}", gaps.len());
            }
        }
    }
}
