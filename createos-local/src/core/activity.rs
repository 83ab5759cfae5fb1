//! What keeps a sandbox awake (api.md 6.3): everything that goes on in it holds a guard, and
//! when the last one goes, its idle time begins.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// The activity of one sandbox. Clones share it.
#[derive(Clone)]
pub(super) struct Activity(Arc<Inner>);

struct Inner {
    record: Mutex<Record>,
    /// Told when the last guard goes.
    quiet: Notify,
}

struct Record {
    held: usize,
    idle_since: Instant,
    /// How long it may be idle.
    limit: Option<Duration>,
}

/// Something goes on for as long as this lives.
pub(super) struct Awake(Activity);

impl Default for Activity {
    fn default() -> Self {
        let record = Record { held: 0, idle_since: Instant::now(), limit: None };
        Self(Arc::new(Inner { record: Mutex::new(record), quiet: Notify::new() }))
    }
}

impl Activity {
    fn record(&self) -> MutexGuard<'_, Record> {
        // Nothing panics while it is held, so a poisoned one is still whole.
        self.0.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn hold(&self) -> Awake {
        self.record().held += 1;
        Awake(self.clone())
    }

    /// Sets how long it may be idle, and begins to count anew.
    pub(super) fn restart(&self, limit: Option<Duration>) {
        let mut record = self.record();
        record.limit = limit;
        record.idle_since = Instant::now();
    }

    /// How many things go on.
    pub(super) fn held(&self) -> usize {
        self.record().held
    }

    /// Whether it has been idle for longer than it may.
    pub(super) fn is_overdue(&self) -> bool {
        let record = self.record();
        record.held == 0 && record.limit.is_some_and(|limit| record.idle_since.elapsed() >= limit)
    }

    /// Waits until nothing goes on, but not longer than this.
    pub(super) async fn quiet_within(&self, time: Duration) {
        let quiet = async {
            loop {
                let told = self.0.quiet.notified();
                if self.held() == 0 {
                    return;
                }
                told.await;
            }
        };
        let _ = tokio::time::timeout(time, quiet).await;
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        let mut record = self.0.record();
        record.held -= 1;
        if record.held == 0 {
            record.idle_since = Instant::now();
            drop(record);
            self.0.0.quiet.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn idle_time_begins_when_the_last_guard_goes() {
        let activity = Activity::default();
        tokio::time::advance(LIMIT * 2).await;
        assert!(!activity.is_overdue(), "without a limit it never is");
        activity.restart(Some(LIMIT));
        tokio::time::advance(LIMIT - Duration::from_millis(1)).await;
        assert!(!activity.is_overdue());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(activity.is_overdue());

        let (first, second) = (activity.hold(), activity.hold());
        tokio::time::advance(LIMIT * 2).await;
        assert!(!activity.is_overdue(), "something goes on");
        drop(first);
        tokio::time::advance(LIMIT * 2).await;
        assert!(!activity.is_overdue(), "something still goes on");
        drop(second);
        assert!(!activity.is_overdue(), "the time begins only now");
        tokio::time::advance(LIMIT).await;
        assert!(activity.is_overdue());
        activity.restart(None);
        assert!(!activity.is_overdue());
    }

    #[tokio::test(start_paused = true)]
    async fn quiet_is_waited_for_but_not_for_ever() {
        let activity = Activity::default();
        activity.quiet_within(LIMIT).await;
        let guard = activity.hold();
        let began = Instant::now();
        activity.quiet_within(LIMIT).await;
        assert_eq!(began.elapsed(), LIMIT);
        let end = async {
            tokio::time::sleep(LIMIT / 2).await;
            drop(guard);
        };
        let began = Instant::now();
        tokio::join!(activity.quiet_within(LIMIT), end);
        assert_eq!(began.elapsed(), LIMIT / 2);
    }
}
