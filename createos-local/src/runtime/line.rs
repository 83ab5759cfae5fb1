//! The way of devices to a private network.

use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

/// A line to the router of a private network: each read takes an IPv4 packet that a member has
/// sent to a device, each write is one from a device. Neither waits. Dropping it ends it.
pub(crate) struct Line {
    // Closed before that is told: fields go in this order.
    device: OwnedFd,
    is_dead: Box<dyn Fn() -> bool + Send + Sync>,
    _end: End,
}

struct End(Box<dyn Fn() + Send + Sync>);

impl Drop for End {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl Line {
    /// `is_dead` says whether the network has ended; `closed` is called when the line is.
    pub(crate) fn new(
        device: OwnedFd,
        is_dead: impl Fn() -> bool + Send + Sync + 'static,
        closed: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        Self { device, is_dead: Box::new(is_dead), _end: End(Box::new(closed)) }
    }

    /// Whether nobody is at the other end any more: it must be made again.
    pub(crate) fn is_dead(&self) -> bool {
        (self.is_dead)()
    }
}

impl AsFd for Line {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

impl AsRawFd for Line {
    fn as_raw_fd(&self) -> RawFd {
        self.device.as_raw_fd()
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("device", &self.device).finish_non_exhaustive()
    }
}
