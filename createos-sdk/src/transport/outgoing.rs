//! An upload on its way out: counted, bounded, and watched for silence.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use tokio::time::Instant;

use crate::error::{Error, ErrorKind, Result};
use crate::files::{ByteStream, MAX_FILE_BYTES, Progress, ProgressFn, Upload};

/// Knows when an upload last moved, and why it stopped when that was our side's fault.
#[derive(Debug, Clone)]
pub(crate) struct SendClock(Arc<ClockState>);

#[derive(Debug)]
struct ClockState {
    started: Instant,
    moved_after_ms: AtomicU64,
    failure: Mutex<Option<Error>>,
}

impl SendClock {
    fn new() -> Self {
        Self(Arc::new(ClockState {
            started: Instant::now(),
            moved_after_ms: AtomicU64::new(0),
            failure: Mutex::new(None),
        }))
    }

    /// When the connection last took a piece.
    pub(crate) fn last_moved(&self) -> Instant {
        let after = self.0.moved_after_ms.load(Ordering::Relaxed);
        self.0.started + Duration::from_millis(after)
    }

    /// The local reason that broke the upload, once.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        self.0.failure.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn moved(&self) {
        let after = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.moved_after_ms.store(after, Ordering::Relaxed);
    }

    fn fail(&self, error: Error) {
        *self.0.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// The body of one upload attempt.
pub(crate) struct Outgoing {
    source: ByteStream,
    len: Option<u64>,
    sent: u64,
    clock: SendClock,
    progress: Option<ProgressFn>,
}

impl Outgoing {
    /// Opens the source anew. Refuses what is known to be too large before anything is sent.
    pub(crate) async fn open(upload: &Upload, progress: Option<ProgressFn>) -> Result<Self> {
        let (source, len) = upload.open().await?;
        if let Some(len) = len.filter(|len| *len > MAX_FILE_BYTES) {
            return Err(too_large(format!("{len} bytes")));
        }
        Ok(Self { source, len, sent: 0, clock: SendClock::new(), progress })
    }

    pub(crate) fn len(&self) -> Option<u64> {
        self.len
    }

    pub(crate) fn clock(&self) -> SendClock {
        self.clock.clone()
    }

    /// Counts a piece; an error must stop the upload, or the server would store a file that
    /// is not the source.
    fn count(&mut self, piece: &Bytes) -> Result<()> {
        self.sent += piece.len() as u64;
        match self.len {
            Some(len) if self.sent > len => Err(Error::invalid_argument(
                "upload",
                format!("the source holds more than its announced {len} bytes"),
            )),
            _ if self.sent > MAX_FILE_BYTES => Err(too_large("the source".to_owned())),
            _ => Ok(()),
        }
    }

    fn check_end(&self) -> Result<()> {
        match self.len {
            Some(len) if self.sent < len => Err(Error::new(
                ErrorKind::Io,
                format!("the source ended after {} of {len} bytes", self.sent),
            )),
            _ => Ok(()),
        }
    }

    fn abort(&self, error: Error) -> Poll<Option<io::Result<Bytes>>> {
        let reason = io::Error::other(error.to_string());
        self.clock.fail(error);
        Poll::Ready(Some(Err(reason)))
    }
}

fn too_large(what: String) -> Error {
    let limit = MAX_FILE_BYTES >> 20;
    Error::invalid_argument("upload", format!("{what} exceeds the limit of {limit} MiB per file"))
}

impl Stream for Outgoing {
    type Item = io::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        match this.source.as_mut().poll_next(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(piece))) => {
                this.clock.moved();
                if let Err(error) = this.count(&piece) {
                    return this.abort(error);
                }
                if let Some(progress) = &this.progress {
                    progress.report(Progress { bytes: this.sent, total: this.len });
                }
                Poll::Ready(Some(Ok(piece)))
            }
            Poll::Ready(Some(Err(error))) => {
                let message = format!("the source of the upload cannot be read: {error}");
                this.abort(Error::new(ErrorKind::Io, message).with_source(error))
            }
            Poll::Ready(None) => {
                this.clock.moved();
                match this.check_end() {
                    Ok(()) => Poll::Ready(None),
                    Err(error) => this.abort(error),
                }
            }
        }
    }
}
