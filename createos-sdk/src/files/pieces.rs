//! Content that is written by a blocking thread while it is sent.

use std::io::{self, Write};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use tokio::sync::{mpsc, oneshot};

/// How much is handed on at a time, and how many of those wait.
const PIECE: usize = 256 << 10;
const WAITING: usize = 2;

/// Starts `write` on a thread of its own when the stream is asked for its first piece. What
/// `write` returns is there once all of it was taken; its error is the last item of the stream.
pub(crate) fn written<T: Send + 'static>(
    write: impl FnOnce(Pieces) -> io::Result<T> + Send + 'static,
) -> (impl Stream<Item = io::Result<Bytes>> + Send + 'static, oneshot::Receiver<T>) {
    let (give, take) = mpsc::channel(WAITING);
    let (done, result) = oneshot::channel();
    let stream = stream::once(async move {
        tokio::task::spawn_blocking(move || {
            let out = Pieces { give: give.clone(), buffer: BytesMut::new() };
            match write(out) {
                Ok(result) => drop(done.send(result)),
                Err(error) => drop(give.blocking_send(Err(error))),
            }
        });
        stream::unfold(take, |mut take| async move { Some((take.recv().await?, take)) })
    });
    (stream.flatten(), result)
}

/// Collects what is written into pieces. When nobody takes them any more, writing fails.
pub(crate) struct Pieces {
    give: mpsc::Sender<io::Result<Bytes>>,
    buffer: BytesMut,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = self.buffer.split().freeze();
        if piece.is_empty() {
            return Ok(());
        }
        self.give.blocking_send(Ok(piece)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}
