//! What does not outlive its use.

use std::fmt;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::background::{self, Running};
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::pending::Pending;

pub(crate) use self::sealed::Ends;

/// How long a runtime that ends is kept for what guards still have to do.
const HOLD: Duration = Duration::from_secs(30);
/// How long a guard believes that those who use its resource are about to leave. Less than
/// [`HOLD`], with room for the calls.
pub(crate) const LEAVING: Duration = Duration::from_secs(15);

/// What a [`Guard`] can end: [`Sandbox`](crate::Sandbox), [`Network`](crate::Network),
/// [`Disk`](crate::Disk), [`Template`](crate::Template) and [`Process`](crate::Process), and
/// nothing outside of this crate.
pub trait Guardable: Ends {}

impl<T: Ends> Guardable for T {}

mod sealed {
    use super::{Client, Pending};

    /// Something on a server that is there until it is ended.
    pub trait Ends: Clone + Send + Sync + 'static {
        /// The client it is reached through.
        fn client(&self) -> &Client;

        /// The same thing reached through another client.
        fn with_client(&self, client: Client) -> Self;

        /// Ends it. That it is gone already is no error.
        fn end(&self) -> Pending<()>;
    }
}

/// One way to end a `T`.
type End<T> = fn(&T) -> Pending<()>;

/// Something that is ended when this guard is dropped: a sandbox is destroyed, or paused; a
/// network, disk or template is removed; a process is terminated.
///
/// Made with `.guarded()` on what creates it, or with `.guard()` on its handle. It can be used
/// like the handle itself.
///
/// ```no_run
/// # async fn run(client: createos_sdk::Client) -> createos_sdk::Result<()> {
/// let network = client.create_network("mesh").guarded().await?;
/// let sandbox = client.create_sandbox("s-1vcpu-1gb").network(network.id().clone());
/// let sandbox = sandbox.guarded().await?;
/// sandbox.command("make").await?; // an error here ends both …
/// sandbox.close().await?;         // … and so does this, which also says whether it worked
/// network.close().await?;
/// # Ok(()) }
/// ```
///
/// # What is promised
///
/// The guard acts on every way out: return, `?`, panic, a dropped or aborted task, a timeout
/// around it. The work is done by a thread of this crate, so dropping never blocks a runtime's
/// thread, and a runtime of any kind that is dropped waits up to 30 s for it. Dropped outside
/// of a runtime, the guard itself waits that long.
///
/// The order does not matter: a network that still has members, and a disk that is still
/// attached, are tried again for 15 s, in which the sandboxes that are being destroyed leave.
///
/// Nothing can be done when the process ends without unwinding (`exit`, `abort`, a signal) or
/// its runtime is told not to wait (`shutdown_background`, a short `shutdown_timeout`), and
/// when the server cannot be reached. Give such sandboxes an
/// [idle time](crate::CreateSandbox::auto_pause_after), and know their names.
#[must_use = "dropping the guard ends what it guards at once"]
pub struct Guard<T: Guardable> {
    guarded: T,
    end: End<T>,
    armed: bool,
}

impl<T: Guardable> Guard<T> {
    pub(crate) fn new(guarded: T) -> Self {
        Self { guarded, end: T::end, armed: true }
    }

    /// Ends it in another way.
    pub(crate) fn ending(mut self, end: End<T>) -> Self {
        self.end = end;
        self
    }

    /// Gives up guarding: it stays.
    pub fn keep(mut self) -> T {
        self.armed = false;
        self.guarded.clone()
    }

    /// Ends it, and says whether that worked. That it is gone already is no error.
    ///
    /// Pausing a sandbox goes on after the answer; see
    /// [`Sandbox::wait_until`](crate::Sandbox::wait_until).
    ///
    /// # Errors
    ///
    /// Those of [`Sandbox::destroy`](crate::Sandbox::destroy) or `pause`,
    /// [`Network::delete`](crate::Network::delete), [`Disk::delete`](crate::Disk::delete),
    /// [`Template::delete`](crate::Template::delete) and
    /// [`Process::terminate`](crate::Process::terminate). `Conflict` of a network or disk comes
    /// after 15 s: a sandbox that uses it stays. It is then, and when this future is dropped,
    /// tried once more in the background.
    pub async fn close(mut self) -> Result<()> {
        (self.end)(&self.guarded).await?;
        self.armed = false;
        Ok(())
    }
}

impl<T: Guardable> Deref for Guard<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.guarded
    }
}

impl<T: Guardable> Drop for Guard<T> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let end = self.end;
        let guarded = self.guarded.with_client(self.guarded.client().background());
        let work = async move {
            // Nobody is left to be told; the client's observer has seen it.
            let _ = end(&guarded).await;
        };
        background::start(work).hold(HOLD);
    }
}

impl<T: Guardable + fmt::Debug> fmt::Debug for Guard<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guard").field(&self.guarded).finish()
    }
}

type Make<T> = Box<dyn FnOnce(Client) -> Pending<T> + Send + Sync>;

/// Makes something under a [`Guard`]. Made with `.guarded()` on what creates it; a future.
///
/// The making runs apart from the caller: when this future is dropped half-way, what comes of
/// it is still ended. The errors are those of making it without a guard.
#[must_use = "nothing is sent until awaited"]
pub struct Guarded<T: Guardable> {
    /// Until it is begun.
    asked: Option<(Client, Make<T>)>,
    end: End<T>,
    making: Pending<Guard<T>>,
}

impl<T: Guardable> Guarded<T> {
    /// `make` is given the client to use.
    pub(crate) fn new(
        client: Client,
        make: impl FnOnce(Client) -> Pending<T> + Send + Sync + 'static,
    ) -> Self {
        let making = Pending::new(std::future::pending());
        Self { asked: Some((client, Box::new(make))), end: T::end, making }
    }

    /// Ends it in another way; to be said before the first poll.
    pub(crate) fn ending(mut self, end: End<T>) -> Self {
        self.end = end;
        self
    }
}

async fn make_apart<T: Guardable>(client: Client, make: Make<T>, end: End<T>) -> Result<Guard<T>> {
    let making = make(client.background());
    let (give, take) = oneshot::channel();
    let work = async move {
        // From here on dropping the guard, wherever it is by then, ends what was made.
        let guarded = making.await.map(|made| Guard::new(made.with_client(client)).ending(end));
        if let Err(Ok(unwanted)) = give.send(guarded) {
            let _ = unwanted.close().await;
        }
    };
    let mut making = Making(Some(background::start(work)));
    let guarded = take.await.unwrap_or_else(|_| {
        let message = "the background thread ended while something was being made";
        Err(Error::new(ErrorKind::Io, message).with_acted(true))
    });
    making.0 = None;
    guarded
}

impl<T: Guardable> Future for Guarded<T> {
    type Output = Result<Guard<T>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Some((client, make)) = self.asked.take() {
            self.making = Pending::new(make_apart(client, make, self.end));
        }
        Pin::new(&mut self.making).poll(cx)
    }
}

impl<T: Guardable> fmt::Debug for Guarded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").field("begun", &self.asked.is_none()).finish_non_exhaustive()
    }
}

/// Something being made. When nobody waits for it any more, the process still has to.
struct Making(Option<Running>);

impl Drop for Making {
    fn drop(&mut self) {
        if let Some(running) = self.0.take() {
            running.hold(HOLD);
        }
    }
}

/// Takes what is gone already for ended.
pub(crate) fn or_gone(ended: Result<()>) -> Result<()> {
    match ended {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        ended => ended,
    }
}
