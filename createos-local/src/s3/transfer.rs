//! Bodies that come and go: bounded, and given up when nothing moves.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::S3Error;

/// How much of an upload is handed over at once.
const PIECE: usize = 64 << 10;

/// When something last moved.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    began: Instant,
    /// Milliseconds after that.
    last: Arc<AtomicU64>,
}

impl Progress {
    pub(super) fn start() -> Self {
        Self { began: Instant::now(), last: Arc::default() }
    }

    fn mark(&self) {
        let passed = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(passed, Ordering::Relaxed);
    }

    /// Does the work, unless nothing moves for this long.
    pub(super) async fn watch<T>(
        &self,
        quiet: Duration,
        work: impl Future<Output = T>,
    ) -> Result<T, S3Error> {
        let mut work = std::pin::pin!(work);
        loop {
            let last = self.began + Duration::from_millis(self.last.load(Ordering::Relaxed));
            let deadline = tokio::time::Instant::from_std(last + quiet);
            match tokio::time::timeout_at(deadline, &mut work).await {
                Ok(done) => return Ok(done),
                Err(_)
                    if self.began + Duration::from_millis(self.last.load(Ordering::Relaxed))
                        > last => {}
                Err(_) => return Err(S3Error::Stalled(quiet.as_secs())),
            }
        }
    }
}

/// A body whose progress can be watched.
pub(super) struct Upload {
    rest: Bytes,
    progress: Progress,
}

impl Upload {
    pub(super) fn new(bytes: Bytes, progress: Progress) -> Self {
        Self { rest: bytes, progress }
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        self.progress.mark();
        let piece = PIECE.min(self.rest.len());
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(piece)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.rest.len() as u64)
    }
}
