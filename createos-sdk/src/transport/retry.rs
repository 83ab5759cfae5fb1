//! Whether, when and how often to try again.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

use super::request::Effect;
use crate::error::Error;
use crate::options::RetryPolicy;

/// How far a failed attempt got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing was sent, and trying again cannot change that: an unreadable file.
    Local,
    /// Nothing reached the server: no name, no connection, no TLS session.
    NotSent,
    /// The request may have arrived; no complete answer came back.
    Unanswered,
    /// The server answered with this status.
    Status(u16),
    /// Trying again cannot change it: a file that broke off, an answer beyond all bounds.
    Final,
}

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) phase: Phase,
}

/// The decision table. What may have acted is repeated only when repeating is harmless; 429
/// says that nothing was done.
pub(crate) fn may_repeat(effect: Effect, phase: Phase) -> bool {
    let harmless = effect != Effect::Acts;
    match phase {
        Phase::NotSent | Phase::Status(429) => true,
        Phase::Unanswered | Phase::Status(408 | 500 | 502 | 503 | 504) => harmless,
        Phase::Status(_) | Phase::Final | Phase::Local => false,
    }
}

/// Whether the server may have done the work of an attempt that ended like this.
pub(crate) fn may_have_acted(effect: Effect, phase: Phase) -> bool {
    let possible = match phase {
        Phase::NotSent | Phase::Local => false,
        Phase::Unanswered | Phase::Final => true,
        // Refusals, and the two statuses that say the route does not exist at all.
        Phase::Status(status) => status == 408 || status < 400 || (status >= 500 && status != 501),
    };
    possible && effect != Effect::Reads
}

/// The wait before attempt number `attempt + 1`; `random` is in 0..1.
pub(crate) fn delay(
    policy: &RetryPolicy,
    attempt: u32,
    retry_after: Option<Duration>,
    random: f64,
) -> Duration {
    match retry_after {
        Some(asked) => asked.min(policy.max_delay),
        None => {
            let doubled = policy.base_delay.saturating_mul(1 << (attempt - 1).min(20));
            doubled.min(policy.max_delay).mul_f64(random)
        }
    }
}

/// Reads `Retry-After`: seconds or an HTTP date. A date in the past is zero.
pub(crate) fn parse_retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// What all calls of a client may spend on repeats. While the server is down it runs dry and
/// calls fail at once instead of multiplying the load; successes refill it.
#[derive(Debug)]
pub(crate) struct Quota(AtomicU32);

impl Quota {
    const CAPACITY: u32 = 500;
    const REPEAT: u32 = 5;

    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(Self::CAPACITY))
    }

    fn take(&self) -> bool {
        let take = |left: u32| left.checked_sub(Self::REPEAT);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }

    /// A first attempt that worked earns a little, a repeat that worked its price.
    fn refill(&self, attempts: u32) {
        let earned = if attempts > 1 { Self::REPEAT } else { 1 };
        let add = |left: u32| Some((left + earned).min(Self::CAPACITY));
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
    }
}

/// The terms under which one call is repeated.
pub(crate) struct Terms<'a> {
    pub(crate) policy: RetryPolicy,
    pub(crate) effect: Effect,
    pub(crate) replayable: bool,
    pub(crate) deadline: Option<Instant>,
    pub(crate) quota: &'a Quota,
    /// Told before every wait: the attempt that failed, why, and how long the wait is.
    pub(crate) on_repeat: &'a (dyn Fn(u32, &Error, Duration) + Send + Sync),
}

/// A call that failed for good.
pub(crate) struct GaveUp {
    pub(crate) error: Error,
    pub(crate) attempts: u32,
}

/// Makes attempts, numbered from 1, until one works or the terms say stop. Returns the number of attempts with
/// the result.
pub(crate) async fn run<T, F>(
    terms: &Terms<'_>,
    mut attempt: impl FnMut(u32) -> F,
) -> Result<(T, u32), GaveUp>
where
    F: Future<Output = Result<T, Failure>>,
{
    let mut acted = false;
    let mut attempts = 0;
    loop {
        attempts += 1;
        let failure = match attempt(attempts).await {
            Ok(value) => {
                terms.quota.refill(attempts);
                return Ok((value, attempts));
            }
            Err(failure) => failure,
        };
        acted |= failure.error.may_have_acted() || may_have_acted(terms.effect, failure.phase);
        match next_wait(terms, attempts, &failure) {
            Some(wait) => {
                (terms.on_repeat)(attempts, &failure.error, wait);
                sleep(wait).await;
            }
            None => {
                return Err(GaveUp { error: failure.error.with_acted(acted), attempts });
            }
        }
    }
}

/// The wait before the next attempt, or `None` to give up.
fn next_wait(terms: &Terms<'_>, attempts: u32, failure: &Failure) -> Option<Duration> {
    let again = terms.replayable
        && attempts < terms.policy.max_attempts
        && may_repeat(terms.effect, failure.phase);
    if !again {
        return None;
    }
    let wait = delay(&terms.policy, attempts, failure.error.retry_after(), fastrand::f64());
    let in_time = match terms.deadline {
        Some(deadline) => Instant::now().checked_add(wait).is_some_and(|then| then < deadline),
        None => true,
    };
    (in_time && terms.quota.take()).then_some(wait)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use std::cell::Cell;

    const EFFECTS: [Effect; 3] = [Effect::Reads, Effect::Idempotent, Effect::Acts];

    #[test]
    fn the_decision_table() {
        use Phase::*;
        for effect in EFFECTS {
            let harmless = effect != Effect::Acts;
            for (phase, repeat) in [
                (NotSent, true),
                (Status(429), true),
                (Unanswered, harmless),
                (Status(408), harmless),
                (Status(500), harmless),
                (Status(502), harmless),
                (Status(503), harmless),
                (Status(504), harmless),
                (Status(501), false),
                (Status(400), false),
                (Status(402), false),
                (Status(404), false),
                (Status(409), false),
                (Status(302), false),
                (Final, false),
                (Local, false),
            ] {
                assert_eq!(may_repeat(effect, phase), repeat, "{effect:?} {phase:?}");
            }
        }
    }

    #[test]
    fn who_may_have_acted() {
        use Phase::*;
        for phase in
            [Local, NotSent, Status(400), Status(404), Status(409), Status(429), Status(501)]
        {
            assert!(!may_have_acted(Effect::Acts, phase), "{phase:?}");
        }
        for phase in [Unanswered, Status(500), Status(503), Status(504), Status(408), Status(200)] {
            assert!(may_have_acted(Effect::Acts, phase), "{phase:?}");
            assert!(may_have_acted(Effect::Idempotent, phase), "{phase:?}");
            assert!(!may_have_acted(Effect::Reads, phase), "{phase:?}");
        }
    }

    #[test]
    fn waits_grow_are_jittered_and_capped() {
        let policy = RetryPolicy::default();
        let ms = |attempt, random| delay(&policy, attempt, None, random).as_millis();
        assert_eq!([ms(1, 1.0), ms(2, 1.0), ms(3, 1.0)], [500, 1000, 2000]);
        assert_eq!([ms(1, 0.0), ms(2, 0.5), ms(30, 0.5)], [0, 500, 15_000]);
        assert_eq!(ms(u32::MAX, 1.0), 30_000);
        let asked = |seconds| delay(&policy, 1, Some(Duration::from_secs(seconds)), 0.1).as_secs();
        assert_eq!([asked(0), asked(7), asked(3600)], [0, 7, 30]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 02 Aug 2026 10:00:00 GMT").unwrap();
        let seconds = |text| parse_retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!(seconds(" 12 "), Some(12));
        assert_eq!(seconds("Sun, 02 Aug 2026 10:01:30 GMT"), Some(90));
        assert_eq!(seconds("Sun, 02 Aug 2026 09:00:00 GMT"), Some(0));
        for text in ["", "-1", "1.5", "soon"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    fn failure(kind: ErrorKind, phase: Phase) -> Failure {
        Failure { error: Error::new(kind, ""), phase }
    }

    fn terms(effect: Effect, quota: &Quota) -> Terms<'_> {
        Terms {
            policy: RetryPolicy::default(),
            effect,
            replayable: true,
            deadline: None,
            quota,
            on_repeat: &|_, _, _| {},
        }
    }

    async fn count(terms: &Terms<'_>, phases: &[Phase]) -> (Result<u32, Error>, usize) {
        let made = Cell::new(0);
        let outcome = run(terms, |_| {
            let number = made.get();
            made.set(number + 1);
            let result = match phases.get(number) {
                Some(phase) => Err(failure(ErrorKind::Unavailable, *phase)),
                None => Ok(()),
            };
            async move { result }
        })
        .await;
        (outcome.map(|done| done.1).map_err(|gave_up| gave_up.error), made.get())
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_are_counted_and_limited() {
        let quota = Quota::new();
        let reads = terms(Effect::Reads, &quota);
        let (outcome, made) = count(&reads, &[Phase::Status(503), Phase::Unanswered]).await;
        assert_eq!((outcome.unwrap(), made), (3, 3));
        let (outcome, made) = count(&reads, &[Phase::Status(503); 9]).await;
        assert!(outcome.is_err());
        assert_eq!(made, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_post_is_not_repeated_once_it_may_have_arrived() {
        let quota = Quota::new();
        let acts = terms(Effect::Acts, &quota);
        for phase in [Phase::Unanswered, Phase::Status(503)] {
            let (outcome, made) = count(&acts, &[phase; 9]).await;
            assert!(outcome.unwrap_err().may_have_acted(), "{phase:?}");
            assert_eq!(made, 1, "{phase:?}");
        }
        let (outcome, made) = count(&acts, &[Phase::NotSent, Phase::Status(429)]).await;
        assert_eq!((outcome.unwrap(), made), (3, 3));
    }

    #[tokio::test(start_paused = true)]
    async fn an_earlier_doubt_is_not_forgotten() {
        let quota = Quota::new();
        let idempotent = terms(Effect::Idempotent, &quota);
        let (outcome, _) = count(&idempotent, &[Phase::Unanswered, Phase::Status(404)]).await;
        assert!(outcome.unwrap_err().may_have_acted());
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_gone_is_not_sent_again() {
        let quota = Quota::new();
        let once = Terms { replayable: false, ..terms(Effect::Idempotent, &quota) };
        assert_eq!(count(&once, &[Phase::NotSent; 9]).await.1, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_deadline_ends_the_repeats_before_it_passes() {
        let quota = Quota::new();
        let started = Instant::now();
        let deadline = Some(started + Duration::from_secs(20));
        let policy = RetryPolicy::default().max_attempts(100);
        let terms = Terms { deadline, policy, ..terms(Effect::Reads, &quota) };
        let made = Cell::new(0);
        let outcome = run(&terms, |_| {
            made.set(made.get() + 1);
            let error = Error::new(ErrorKind::Unavailable, "")
                .with_retry_after(Some(Duration::from_secs(6)));
            async { Err::<(), _>(Failure { error, phase: Phase::Status(503) }) }
        })
        .await;
        assert!(outcome.is_err());
        assert_eq!(made.get(), 4, "at 0, 6, 12 and 18 s");
        assert_eq!(started.elapsed(), Duration::from_secs(18));
    }

    #[tokio::test(start_paused = true)]
    async fn a_dry_quota_ends_repeats_for_every_call_until_successes_refill_it() {
        let quota = Quota::new();
        let reads = terms(Effect::Reads, &quota);
        let mut made = 0;
        for _ in 0..100 {
            made += count(&reads, &[Phase::Status(503); 9]).await.1;
        }
        assert_eq!(made, 100 + 100, "100 first attempts and as many repeats as the quota pays");
        for _ in 0..5 {
            count(&reads, &[]).await.0.unwrap();
        }
        assert_eq!(count(&reads, &[Phase::Status(503); 9]).await.1, 2);
    }
}
