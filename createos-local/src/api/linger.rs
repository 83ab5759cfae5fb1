//! Closing a connection so that the last answer arrives.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

/// How long, and how much, a client may still send after the answer.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 1 << 30;

/// A TCP connection whose shutdown reads off what the client is still sending.
///
/// Closing a socket with unread input makes the kernel send a reset, which destroys the answer
/// on its way: the client of a refused upload would see a broken connection, not the 413.
pub(super) struct Lingering {
    stream: TcpStream,
    end: Option<End>,
}

struct End {
    deadline: Pin<Box<Sleep>>,
    left: usize,
}

impl Lingering {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, end: None }
    }

    /// The connection itself, which from now on closes as any other.
    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Lingering {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Lingering {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut scratch = [0; 16 << 10];
        loop {
            let Some(end) = &mut this.end else {
                ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
                let deadline = Box::pin(tokio::time::sleep(LINGER));
                this.end = Some(End { deadline, left: LINGER_BYTES });
                continue;
            };
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = match Pin::new(&mut this.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) => buffer.filled().len(),
                Poll::Ready(Err(_)) => 0,
                // Nothing was sent too much: nothing to wait for.
                Poll::Pending if end.left == LINGER_BYTES => 0,
                Poll::Pending => {
                    ready!(end.deadline.as_mut().poll(context));
                    0
                }
            };
            end.left = end.left.saturating_sub(read);
            if read == 0 || end.left == 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

/// How long a service may take to close a connection that it was asked to close.
const DEFER: Duration = Duration::from_secs(1);

/// A TCP connection to a service, whose shutdown lets the service close first.
///
/// Whoever closes first keeps the pair of ports for a minute. Were it always this side, a
/// minute's visits would use up the ports that connections can start from.
pub(super) struct Deferring {
    stream: TcpStream,
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Deferring {
    pub(super) fn new(stream: TcpStream) -> Self {
        Self { stream, deadline: None }
    }

    /// The connection itself, which from now on closes as any other.
    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }
}

impl AsyncRead for Deferring {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Deferring {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let mut scratch = [0; 1];
        let mut buffer = ReadBuf::new(&mut scratch);
        // The end, an error, or more than was agreed: all of them are reasons to close.
        if Pin::new(&mut this.stream).poll_read(context, &mut buffer).is_pending() {
            let sleep = || Box::pin(tokio::time::sleep(DEFER));
            ready!(this.deadline.get_or_insert_with(sleep).as_mut().poll(context));
        }
        Pin::new(&mut this.stream).poll_shutdown(context)
    }
}
