//! What the account uses and has used (api.md 5.10).

use std::time::{Duration, SystemTime};

use super::{Core, CoreError};
use crate::store::{Counts, InUse, Used};

/// How long runs are remembered.
pub(super) const REMEMBERED: Duration = Duration::from_secs(90 * 24 * 3600);
/// The most parts that a time can be looked at in.
const MAX_PARTS: u64 = 1000;

/// What is in use now, and what was used in the time that is remembered.
pub(crate) struct AccountUsage {
    pub(crate) counts: Counts,
    pub(crate) now: InUse,
    pub(crate) used: Used,
}

/// A time, looked at in parts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) from: SystemTime,
    pub(crate) step: Duration,
    pub(crate) parts: u32,
}

impl Window {
    /// From one moment to another, in steps; the last part may reach beyond.
    pub(crate) fn new(from: SystemTime, to: SystemTime, step: Duration) -> Result<Self, CoreError> {
        let length = to.duration_since(from).unwrap_or_default();
        if length.is_zero() {
            return Err(CoreError::field("from", "must be before `to`"));
        }
        if step < Duration::from_secs(1) {
            return Err(CoreError::field("step", "must be at least 1 second"));
        }
        let parts = length.as_micros().div_ceil(step.as_micros());
        match u32::try_from(parts).ok().filter(|parts| u64::from(*parts) <= MAX_PARTS) {
            Some(parts) => Ok(Self { from, step, parts }),
            None => {
                let text = format!("makes more than {MAX_PARTS} parts of this time");
                Err(CoreError::field("step", text))
            }
        }
    }
}

impl Core {
    pub(crate) async fn account_usage(&self) -> Result<AccountUsage, CoreError> {
        let store = &self.inner.store;
        let (counts, now) = (store.counts().await?, store.in_use().await?);
        let from = SystemTime::now().checked_sub(REMEMBERED).unwrap_or(SystemTime::UNIX_EPOCH);
        // A part that begins now counts as well.
        let whole = micros(REMEMBERED + Duration::from_secs(1));
        let used = store.used(from, whole, 1).await?;
        Ok(AccountUsage { counts, now, used: used.first().copied().unwrap_or_default() })
    }

    pub(crate) async fn used(&self, window: Window) -> Result<Vec<Used>, CoreError> {
        Ok(self.inner.store.used(window.from, micros(window.step), window.parts).await?)
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
