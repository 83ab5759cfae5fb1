//! Copying between two connections, each direction on its own.

use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};

/// What an idle connection holds for each direction.
const SMALLEST: usize = 16 << 10;
/// What a busy one grows to: with less, system calls take more time than copying.
const LARGEST: usize = 256 << 10;

/// Bytes moved so far.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) there: AtomicU64,
    pub(super) back: AtomicU64,
}

/// Copies both ways until both have ended. The end of one direction is passed on and leaves the
/// other open. Who no longer takes bytes may still send some, so a failed write ends one
/// direction; a connection that cannot be read is dead, and ends both.
pub(super) async fn relay<A, B>(here: A, guest: B, moved: &Moved) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (here_read, here_write) = split(here);
    let (guest_read, guest_write) = split(guest);
    let there = one_way(here_read, guest_write, &moved.there);
    let back = one_way(guest_read, here_write, &moved.back);
    let (there, back) = tokio::try_join!(there, back)?;
    there.and(back)
}

/// Which side of a pipe failed.
#[derive(Debug)]
pub(super) enum Broken {
    Here(io::Error),
    Guest(io::Error),
}

/// Copies both ways until the guest has ended its side and all of it is written. The end of
/// the reader is passed on to the guest.
pub(super) async fn pipe<R, W, G>(reader: R, writer: W, guest: G) -> Result<(), Broken>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    G: AsyncRead + AsyncWrite,
{
    let moved = Moved::default();
    let (guest_read, guest_write) = split(guest);
    let there = async {
        // A guest that takes no more may still have something to say.
        one_way(reader, guest_write, &moved.there).await.map_err(Broken::Here)?.ok();
        pending().await
    };
    let back = async {
        let copied = one_way(guest_read, writer, &moved.back).await.map_err(Broken::Guest)?;
        copied.map_err(Broken::Here)
    };
    tokio::select! {
        there = there => there,
        back = back => back,
    }
}

/// The outer error is one of reading, the inner one of writing.
async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    moved: &AtomicU64,
) -> io::Result<io::Result<()>> {
    let mut buffer = vec![0; SMALLEST];
    loop {
        let count = from.read(&mut buffer).await?;
        let Some(piece) = buffer.get(..count).filter(|piece| !piece.is_empty()) else { break };
        let written = async {
            to.write_all(piece).await?;
            to.flush().await
        };
        if let Err(error) = written.await {
            return Ok(Err(error));
        }
        moved.fetch_add(count as u64, Ordering::Relaxed);
        if count == buffer.len() && count < LARGEST {
            buffer = vec![0; 2 * count];
        }
    }
    // The other side may be gone already, which is no loss: everything was written.
    let _ = to.shutdown().await;
    Ok(Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    #[tokio::test]
    async fn the_end_of_one_direction_leaves_the_other_open() {
        let (mut local, near) = duplex(16);
        let (mut guest, far) = duplex(16);
        let moved = Moved::default();
        let copying = relay(near, far, &moved);
        let talking = async {
            local.write_all(b"question").await.unwrap();
            local.shutdown().await.unwrap();
            let mut heard = Vec::new();
            guest.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"question");
            let answering = async {
                guest.write_all(&[7; 1000]).await.unwrap();
                guest.shutdown().await.unwrap();
            };
            let mut answer = Vec::new();
            let (_, read) = tokio::join!(answering, local.read_to_end(&mut answer));
            assert_eq!((read.unwrap(), answer), (1000, vec![7; 1000]));
        };
        let (copied, ()) = tokio::join!(copying, talking);
        copied.unwrap();
        assert_eq!(moved.there.into_inner(), 8);
        assert_eq!(moved.back.into_inner(), 1000);
    }

    #[tokio::test]
    async fn a_pipe_ends_with_the_guest_and_not_with_its_reader() {
        let (mut guest, far) = duplex(1 << 10);
        let mut heard = Vec::new();
        let answering = async {
            let mut question = Vec::new();
            guest.read_to_end(&mut question).await.unwrap();
            assert_eq!(question, b"question");
            guest.write_all(b"answer").await.unwrap();
            drop(guest);
        };
        let (piped, ()) = tokio::join!(pipe(&b"question"[..], &mut heard, far), answering);
        piped.unwrap();
        assert_eq!(heard, b"answer");

        let (guest, far) = duplex(16);
        let (open, _held) = duplex(16);
        drop(guest);
        pipe(open, tokio::io::sink(), far).await.unwrap();
    }

    #[tokio::test]
    async fn a_pipe_says_which_side_broke() {
        let (mut guest, far) = duplex(16);
        let (closed, writer) = duplex(16);
        drop(closed);
        guest.write_all(b"nobody hears").await.unwrap();
        let (open, _held) = duplex(16);
        let broken = pipe(open, writer, far).await.unwrap_err();
        assert!(matches!(broken, Broken::Here(_)), "{broken:?}");
    }

    #[tokio::test]
    async fn who_stopped_reading_may_still_send() {
        let (local, near) = duplex(16);
        let (mut guest, far) = duplex(1 << 20);
        let moved = Moved::default();
        drop(local);
        guest.write_all(b"nobody hears this").await.unwrap();
        drop(guest);
        assert!(relay(near, far, &moved).await.is_err());
    }

    #[tokio::test]
    async fn much_arrives_as_it_was_sent() {
        let (local, near) = duplex(1 << 20);
        let (mut guest, far) = duplex(100_000);
        let moved = Moved::default();
        let sent: Vec<u8> = (0..3_000_000).map(|at| (at % 251) as u8).collect();
        let talking = async {
            let (mut local_read, mut local_write) = split(local);
            let sending = async {
                local_write.write_all(&sent).await.unwrap();
                local_write.shutdown().await.unwrap();
            };
            let echoing = async {
                let (mut read, mut write) = split(&mut guest);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            };
            let mut heard = Vec::new();
            let (_, _, read) = tokio::join!(sending, echoing, local_read.read_to_end(&mut heard));
            assert!(read.unwrap() == sent.len() && heard == sent);
        };
        let (copied, ()) = tokio::join!(relay(near, far, &moved), talking);
        copied.unwrap();
        assert_eq!((moved.there.into_inner(), moved.back.into_inner()), (3_000_000, 3_000_000));
    }
}
