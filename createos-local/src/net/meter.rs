//! What a sandbox has sent and received, and how much it may send (api.md 4.15).

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use tokio::sync::Notify;

/// Outbound bytes a sandbox may send (api.md 9.18).
pub(crate) const QUOTA_BYTES: i64 = 5_368_709_120;
/// No limit (api.md 4.15).
pub(crate) const UNMETERED: i64 = -1;

/// Counters as they are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traffic {
    pub(crate) quota: i64,
    pub(crate) sent: u64,
    pub(crate) received: u64,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { quota: QUOTA_BYTES, sent: 0, received: 0 }
    }
}

impl Traffic {
    /// After an addition to the quota; the sum stays countable.
    pub(crate) fn recharged(self, bytes: i64) -> Self {
        let quota = match self.quota {
            UNMETERED => UNMETERED,
            quota => quota.saturating_add(bytes),
        };
        Self { quota, ..self }
    }
}

/// The running counters of one sandbox.
#[derive(Debug)]
pub(crate) struct Meter {
    quota: AtomicI64,
    sent: AtomicU64,
    received: AtomicU64,
    recharged: Notify,
}

impl Meter {
    pub(crate) fn new(traffic: Traffic) -> Self {
        Self {
            quota: AtomicI64::new(traffic.quota),
            sent: AtomicU64::new(traffic.sent),
            received: AtomicU64::new(traffic.received),
            recharged: Notify::new(),
        }
    }

    pub(crate) fn read(&self) -> Traffic {
        Traffic {
            quota: self.quota.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            received: self.received.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn count_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Waits until something may be sent, and counts so much of it as may be.
    pub(crate) async fn send(&self, bytes: usize) -> usize {
        let bytes = bytes as u64;
        loop {
            self.room().await;
            let quota = self.quota.load(Ordering::Relaxed);
            let may = |sent: u64| match quota {
                0.. => bytes.min(quota.unsigned_abs().saturating_sub(sent)),
                _ => bytes,
            };
            let counted = self.sent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |sent| {
                (may(sent) > 0).then(|| sent.saturating_add(may(sent)))
            });
            // Otherwise others have used it up meanwhile.
            if let Ok(before) = counted {
                return usize::try_from(may(before)).unwrap_or(usize::MAX);
            }
        }
    }

    /// Whether nothing may be sent any more.
    pub(crate) fn is_capped(&self) -> bool {
        let Traffic { quota, sent, .. } = self.read();
        quota >= 0 && sent >= quota.unsigned_abs()
    }

    /// Sets another quota and lets go on what waits for one.
    pub(crate) fn set_quota(&self, quota: i64) {
        self.quota.store(quota, Ordering::Relaxed);
        self.recharged.notify_waiters();
    }

    /// Returns when something may be sent.
    pub(crate) async fn room(&self) {
        loop {
            let recharged = self.recharged.notified();
            if !self.is_capped() {
                return;
            }
            recharged.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_quota_is_used_up_and_recharged() {
        let meter = Meter::new(Traffic { quota: 100, sent: 40, received: 0 });
        meter.count_received(1000);
        assert!(!meter.is_capped());
        meter.room().await;
        meter.count_sent(70);
        assert!(meter.is_capped());
        assert_eq!(meter.read(), Traffic { quota: 100, sent: 110, received: 1000 });
        let moment = std::time::Duration::from_secs(60);
        tokio::time::timeout(moment, meter.room()).await.unwrap_err();
        let waits = meter.room();
        tokio::pin!(waits);
        assert!(futures::poll!(&mut waits).is_pending());
        meter.set_quota(meter.read().recharged(11).quota);
        waits.await;
        // No byte more than there is room for, and then what came with a recharge.
        assert_eq!(meter.send(50).await, 1);
        meter.set_quota(130);
        assert_eq!((meter.send(10).await, meter.send(50).await), (10, 9));
        tokio::time::timeout(moment, meter.send(1)).await.unwrap_err();
        assert_eq!(meter.read().sent, 130);
        let unmetered = Traffic { quota: UNMETERED, sent: u64::MAX, received: 0 };
        assert_eq!(Meter::new(unmetered).send(7).await, 7);
        assert!(!Meter::new(unmetered).is_capped());
        assert_eq!(unmetered.recharged(5), unmetered);
        assert_eq!(Traffic { quota: 7, ..unmetered }.recharged(i64::MAX).quota, i64::MAX);
    }
}
