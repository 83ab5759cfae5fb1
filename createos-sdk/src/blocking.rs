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
//! # Panics
//!
//! Everything here panics on a thread that drives an async runtime, which it would bring to a
//! halt: use `.await` there, or `tokio::task::spawn_blocking`.

use std::sync::LazyLock;

use futures::{Stream, StreamExt};
use tokio::runtime::{Builder, Runtime};

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
