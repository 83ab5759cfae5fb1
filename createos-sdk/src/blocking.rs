//! The same calls for programs without a runtime.
//!
//! Every builder of this crate is waited for with [`Wait::wait`], every stream is walked
//! through with [`Iterate::iterate`]. Connections are looked after by a thread of this crate.
//!
//! ```no_run
//! # fn run() -> createos_sdk::Result<()> {
//! use createos_sdk::blocking::{Iterate, Wait};
//! use createos_sdk::{Client, ExecEvent};
//!
//! let client = Client::from_env()?;
//! let sandbox = client.create_sandbox("s-1vcpu-1gb").guarded().wait()?;
//! println!("{}", sandbox.command("uname").output().wait()?.stdout_lossy());
//! for event in sandbox.command("make").stream().wait()?.iterate() {
//!     if let ExecEvent::Stdout(bytes) = event? {
//!         print!("{}", String::from_utf8_lossy(&bytes));
//!     }
//! }
//! sandbox.close().wait()?;
//! # Ok(()) }
//! ```
//!
//! What is otherwise an `AsyncRead` or `AsyncWrite` (tunnels, terminals, the input of a
//! process, downloads) becomes a [`Read`] and [`Write`] with [`Bridge::bridge`]; a `Read`
//! becomes an upload with [`upload`].
//!
//! ```no_run
//! # fn run(sandbox: createos_sdk::Sandbox) -> Result<(), Box<dyn std::error::Error>> {
//! use createos_sdk::blocking::{self, Bridge, Wait};
//! use std::io::{Read, Write};
//!
//! let mut redis = sandbox.tunnel(6379).connect().wait()?.bridge();
//! redis.write_all(b"PING\r\n")?;
//! let mut answer = [0; 7];
//! redis.read_exact(&mut answer)?;
//!
//! let input = blocking::upload(std::io::stdin());
//! sandbox.files().write("/work/input", input).wait()?;
//! # Ok(()) }
//! ```
//!
//! # Panics
//!
//! Everything here panics on a thread that drives an async runtime, which it would bring to a
//! halt: use `.await` there, or `tokio::task::spawn_blocking`.

use std::io::{self, Read, Write};
use std::sync::LazyLock;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::mpsc;

use crate::Upload;

/// Bytes that [`upload`] takes from its reader at a time.
const PIECE: usize = 256 << 10;

/// Started at first use. One thread serves all connections; the work of a call is done by the
/// thread that waits for it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let built = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("createos-blocking")
        .enable_all()
        .build();
    // Without a thread nothing can be done, as with `std::thread::spawn`.
    built.expect("the system has no thread left for createos-sdk")
});

/// Waiting for what would otherwise be awaited.
pub trait Wait: IntoFuture + Sized {
    /// Does it, and gives what `.await` would give.
    ///
    /// # Panics
    ///
    /// On a thread that drives an async runtime.
    fn wait(self) -> Self::Output {
        RUNTIME.block_on(self.into_future())
    }
}

impl<F: IntoFuture> Wait for F {}

/// Walking through what is otherwise a stream.
pub trait Iterate: Stream + Unpin + Sized {
    /// The items of the stream. Each step waits for the next one.
    fn iterate(self) -> Iter<Self> {
        Iter(self)
    }
}

impl<S: Stream + Unpin> Iterate for S {}

/// The items of a stream. Made with [`Iterate::iterate`].
#[derive(Debug)]
#[must_use = "iterators do nothing until they are used"]
pub struct Iter<S>(S);

impl<S: Stream + Unpin> Iterator for Iter<S> {
    type Item = S::Item;

    fn next(&mut self) -> Option<S::Item> {
        RUNTIME.block_on(self.0.next())
    }
}

/// Reading and writing what is otherwise read and written asynchronously.
pub trait Bridge: Unpin + Sized {
    /// This, as a [`Read`] where it can be read and a [`Write`] where it can be written.
    fn bridge(self) -> Bridged<Self> {
        Bridged(self)
    }
}

impl<T: Unpin> Bridge for T {}

/// A blocking reader and writer. Made with [`Bridge::bridge`]. Dropping it is dropping what
/// is inside.
#[derive(Debug)]
pub struct Bridged<T>(T);

impl<T: AsyncWrite + Unpin> Bridged<T> {
    /// Says that nothing more will be written; what is read is not touched by that.
    ///
    /// # Errors
    ///
    /// What was written before and could not be delivered.
    ///
    /// # Panics
    ///
    /// On a thread that drives an async runtime.
    pub fn shutdown(&mut self) -> io::Result<()> {
        RUNTIME.block_on(self.0.shutdown())
    }
}

impl<T> Bridged<T> {
    /// What is inside.
    pub fn get_ref(&self) -> &T {
        &self.0
    }

    /// What is inside, to be used asynchronously again.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: AsyncRead + Unpin> Read for Bridged<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        RUNTIME.block_on(self.0.read(buffer))
    }
}

impl<T: AsyncWrite + Unpin> Write for Bridged<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        RUNTIME.block_on(self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        RUNTIME.block_on(self.0.flush())
    }
}

/// The content of an upload, read from here to the reader's end, in constant memory. Like
/// every upload from a reader it is sent once.
///
/// The reader is read on a thread of its own. An upload that is given up leaves that thread
/// waiting for the reader's next bytes, which are then thrown away.
pub fn upload(reader: impl Read + Send + 'static) -> Upload {
    let begun = None::<mpsc::Receiver<Piece>>;
    Upload::stream(stream::try_unfold((Some(reader), begun), |(mut reader, begun)| async move {
        let mut pieces = match (begun, reader.take()) {
            (Some(pieces), _) => pieces,
            (None, Some(reader)) => start(reader),
            (None, None) => return Ok(None),
        };
        match pieces.recv().await {
            Some(Piece::Bytes(bytes)) => Ok(Some((bytes, (None, Some(pieces))))),
            Some(Piece::End) => Ok(None),
            Some(Piece::Failed(error)) => Err(error),
            None => Err(io::Error::other("the reader panicked")),
        }
    }))
}

enum Piece {
    Bytes(Bytes),
    /// Said, not implied: a reader that panics must not pass for one that is at its end.
    End,
    Failed(io::Error),
}

fn start(mut reader: impl Read + Send + 'static) -> mpsc::Receiver<Piece> {
    let (sender, pieces) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; PIECE];
        loop {
            let piece = match reader.read(&mut buffer) {
                Ok(0) => Piece::End,
                Ok(length) => Piece::Bytes(Bytes::copy_from_slice(&buffer[..length])),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => Piece::Failed(error),
            };
            let is_last = !matches!(piece, Piece::Bytes(_));
            if sender.blocking_send(piece).is_err() || is_last {
                return;
            }
        }
    });
    pieces
}
