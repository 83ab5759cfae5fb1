//! The standard input of a managed process.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio::io::AsyncWrite;

use super::Process;
use crate::error::{Error, ErrorKind, Result};
use crate::pending::Pending;

/// Bytes sent in one request.
const PIECE: usize = 64 << 10;

/// A writer into the standard input of a managed process. Made with [`Process::stdin`].
///
/// Writes are taken into a small buffer and sent in order, one request at a time; what is
/// written meanwhile goes into the next. A write therefore may report the failure of one before
/// it. Flushing waits until the server has taken everything; shutting down flushes and then
/// closes the process's input. Dropping it gives up what was not flushed, and leaves the input
/// open.
///
/// The [`io::Error`] holds the [`Error`] as its source. Nothing is sent twice.
pub struct ProcessStdin {
    process: Process,
    waiting: BytesMut,
    sending: Option<Pending<u64>>,
    closing: Option<Pending<()>>,
    closed: bool,
}

impl ProcessStdin {
    pub(super) fn new(process: Process) -> Self {
        Self { process, waiting: BytesMut::new(), sending: None, closing: None, closed: false }
    }

    /// Sends until nothing waits, or the server is to be waited for.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            if let Some(sending) = &mut self.sending {
                let sent = ready!(Pin::new(sending).poll(cx));
                self.sending = None;
                if let Err(error) = sent {
                    // What waits must not be written after a hole.
                    self.waiting.clear();
                    self.closed = true;
                    return Poll::Ready(Err(io_error(error)));
                }
            }
            if self.waiting.is_empty() {
                return Poll::Ready(Ok(()));
            }
            let piece = self.waiting.split();
            self.sending = Some(self.process.input(piece).into_future());
        }
    }

    fn check_open(&self) -> io::Result<()> {
        if self.closed || self.closing.is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

fn io_error(error: Error) -> io::Error {
    let kind = match error.kind() {
        ErrorKind::Conflict | ErrorKind::NotFound => io::ErrorKind::BrokenPipe,
        ErrorKind::Timeout => io::ErrorKind::TimedOut,
        ErrorKind::InvalidArgument => io::ErrorKind::InvalidInput,
        ErrorKind::PermissionDenied | ErrorKind::NotAuthenticated => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

impl AsyncWrite for ProcessStdin {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_open()?;
        if let Poll::Ready(Err(error)) = self.poll_send(cx) {
            return Poll::Ready(Err(error));
        }
        let taken = buf.len().min(PIECE - self.waiting.len());
        if taken == 0 && !buf.is_empty() {
            return Poll::Pending;
        }
        self.waiting.extend_from_slice(&buf[..taken]);
        // Begins to send, so that a writer who only writes makes progress; a failure is told
        // by whatever is called next.
        if self.sending.is_none()
            && let Poll::Ready(Err(error)) = self.poll_send(cx)
        {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_send(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.closed {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_send(cx))?;
        let close = || this.process.close_stdin().into_future();
        let closing = this.closing.get_or_insert_with(close);
        let outcome: Result<()> = ready!(Pin::new(closing).poll(cx));
        this.closing = None;
        this.closed = true;
        Poll::Ready(outcome.map_err(io_error))
    }
}

impl fmt::Debug for ProcessStdin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessStdin")
            .field("process", self.process.id())
            .field("waiting", &self.waiting.len())
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}
