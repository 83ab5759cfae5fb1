//! Carries bytes between two TCP connections, each way until its own end.

use std::io;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use rustix::net::Shutdown;
use rustix::net::sockopt;
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Enough for everything but bulk transfers.
const SMALL: usize = 64 << 10;
/// For transfers that fill small buffers: every change between this process and the two
/// others costs, so each must move much.
const LARGE: usize = 2 << 20;
/// Large buffers in use at once; whoever finds none makes do with a small one.
const MAX_LARGE: usize = 32;
/// Large buffers kept for the next transfer.
const KEPT: usize = 4;

/// One of two connections to be joined.
pub(crate) struct Side {
    pub(crate) stream: TcpStream,
    /// What was read from it already, and must go first.
    pub(crate) early: Bytes,
}

impl From<TcpStream> for Side {
    fn from(stream: TcpStream) -> Self {
        Self { stream, early: Bytes::new() }
    }
}

/// Asked for every piece that is carried, before it goes on.
pub(crate) trait Toll: Sync {
    /// How many of these bytes may go now: at least one.
    fn pass(&self, bytes: &[u8]) -> impl Future<Output = usize> + Send;
}

/// Nothing to pay.
struct Free;

impl Toll for Free {
    async fn pass(&self, bytes: &[u8]) -> usize {
        bytes.len()
    }
}

/// Returns when both directions have ended. The end of one is passed on and leaves the other
/// open. On an error, or dropped before its end, neither side was told; see [`reset`].
pub(crate) async fn relay(a: &Side, b: &Side) -> io::Result<()> {
    let there = async {
        write_all(&b.stream, &a.early).await?;
        pump(&a.stream, &b.stream, &Free).await
    };
    let back = async {
        write_all(&a.stream, &b.early).await?;
        pump(&b.stream, &a.stream, &Free).await
    };
    tokio::try_join!(there, back).map(drop)
}

/// Closes a connection so that its peer does not take what it has for the whole.
pub(crate) fn reset(stream: TcpStream) {
    // A connection that is already gone needs no more telling.
    let _ = sockopt::set_socket_linger(&stream, Some(std::time::Duration::ZERO));
    drop(stream);
}

/// Waits for something to come. Somebody who ended one direction and then went away would
/// otherwise be kept until the other side says something.
pub(crate) async fn readable(from: &TcpStream, to: &TcpStream) -> io::Result<()> {
    tokio::select! {
        ready = from.readable() => ready,
        _ = to.ready(Interest::ERROR) => Err(io::ErrorKind::ConnectionReset.into()),
    }
}

/// Carries one direction to its end, which is passed on.
pub(crate) async fn pump(from: &TcpStream, to: &TcpStream, toll: &impl Toll) -> io::Result<()> {
    loop {
        readable(from, to).await?;
        // Only while something comes: thousands of idle connections need no memory.
        let mut buffer = Buffer::small();
        loop {
            buffer.bytes.clear();
            match from.try_read_buf(&mut buffer.bytes) {
                Ok(0) => return Ok(rustix::net::shutdown(to, Shutdown::Write)?),
                Ok(_) => send(to, &buffer.bytes, toll).await?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            if buffer.bytes.len() == SMALL {
                buffer.grow();
            }
            tokio::task::consume_budget().await;
        }
    }
}

/// Sends all of it, as the toll lets it go.
pub(crate) async fn send(to: &TcpStream, mut bytes: &[u8], toll: &impl Toll) -> io::Result<()> {
    while !bytes.is_empty() {
        let (now, later) = bytes.split_at(toll.pass(bytes).await);
        write_all(to, now).await?;
        bytes = later;
    }
    Ok(())
}

async fn write_all(to: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match to.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => to.writable().await?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The large buffers of this process.
struct Large {
    free: Vec<Vec<u8>>,
    used: usize,
}

static LARGE_BUFFERS: Mutex<Large> = Mutex::new(Large { free: Vec::new(), used: 0 });

struct Buffer {
    bytes: Vec<u8>,
    is_large: bool,
}

impl Buffer {
    fn small() -> Self {
        Self { bytes: Vec::with_capacity(SMALL), is_large: false }
    }

    /// Becomes a large one, if there is one. What it holds is lost.
    fn grow(&mut self) {
        let mut large = LARGE_BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_large && large.used < MAX_LARGE {
            large.used += 1;
            self.is_large = true;
            self.bytes = large.free.pop().unwrap_or_else(|| Vec::with_capacity(LARGE));
        }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.is_large {
            let mut large = LARGE_BUFFERS.lock().unwrap_or_else(PoisonError::into_inner);
            large.used -= 1;
            if large.free.len() < KEPT {
                large.free.push(std::mem::take(&mut self.bytes));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    async fn pair() -> (TcpStream, Side) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (near, listener.accept().await.unwrap().0.into())
    }

    #[tokio::test]
    async fn each_direction_ends_by_itself_and_nothing_is_lost() {
        let ((mut client, mut a), (mut server, b)) = (pair().await, pair().await);
        a.early = Bytes::from("first the early ");
        let carried = tokio::spawn(async move { relay(&a, &b).await });
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        server.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"first the early question");
        // More than every buffer on the way, long after the other direction has ended.
        let answer: Vec<u8> = (0..20_000_000u32).map(|n| n as u8 ^ (n >> 8) as u8).collect();
        let expected = answer.clone();
        let sender = tokio::spawn(async move { server.write_all(&answer).await });
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert!(heard == expected);
        sender.await.unwrap().unwrap();
        carried.await.unwrap().unwrap();
        assert_eq!(LARGE_BUFFERS.lock().unwrap().used, 0);
    }

    #[tokio::test]
    async fn somebody_who_ends_and_then_goes_away_is_not_waited_for() {
        let ((mut client, a), (mut server, b)) = (pair().await, pair().await);
        let carried = tokio::spawn(async move { relay(&a, &b).await });
        client.shutdown().await.unwrap();
        assert_eq!(server.read_to_end(&mut Vec::new()).await.unwrap(), 0);
        reset(client);
        carried.await.unwrap().unwrap_err();
    }

    #[tokio::test]
    async fn a_reset_is_no_end() {
        let ((mut client, a), (server, b)) = (pair().await, pair().await);
        let carried = tokio::spawn(async move {
            let outcome = relay(&a, &b).await;
            reset(a.stream);
            outcome
        });
        reset(server);
        assert!(carried.await.unwrap().is_err());
        let mut heard = Vec::new();
        let error = client.read_to_end(&mut heard).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
