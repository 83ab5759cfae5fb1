//! A port of this machine that leads into a sandbox.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use super::Tunnel;
use super::relay::{Moved, relay};
use crate::error::{Error, ErrorKind, Result};

/// The pause after this machine could not take a connection, which happens when it runs out of
/// something that others must first give back.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Something that happened to the connections of a [`TunnelListener`].
#[derive(Debug)]
#[non_exhaustive]
pub enum TunnelEvent {
    /// Somebody connected, and the port of the sandbox was reached.
    Opened {
        /// Who.
        peer: SocketAddr,
    },
    /// A connection came to its end in both directions.
    Closed {
        /// Whose.
        peer: SocketAddr,
        /// Bytes that went to the sandbox.
        sent: u64,
        /// Bytes that came from the sandbox.
        received: u64,
    },
    /// The port of the sandbox was not reached, or a connection broke. Others are not touched.
    Failed {
        /// Whose.
        peer: SocketAddr,
        /// Why.
        error: Error,
    },
    /// This machine could not take a connection. The listener tries on.
    AcceptFailed {
        /// Why.
        error: Error,
    },
}

/// A port of this machine that leads into a sandbox. Made with
/// [`Tunnel::listen`](super::Tunnel::listen).
///
/// Everyone who connects gets a connection of their own, and a failure of one is theirs alone:
/// the listener goes on until it is [shut down](Self::shutdown) or dropped. Dropping it cuts
/// the open connections.
#[must_use = "dropping the listener closes it"]
pub struct TunnelListener {
    address: SocketAddr,
    live: Arc<AtomicUsize>,
    stop: oneshot::Sender<()>,
    task: Task,
}

/// A task that ends with its handle.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl TunnelListener {
    pub(super) fn start(tunnel: Tunnel, listener: TcpListener, address: SocketAddr) -> Self {
        let live = Arc::new(AtomicUsize::new(0));
        let (stop, stopped) = oneshot::channel();
        let serving = serve(Arc::new(tunnel), listener, live.clone(), stopped);
        Self { address, live, stop, task: Task(tokio::spawn(serving)) }
    }

    /// The address it listens on, with the port that was chosen.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    /// Takes no more connections and waits for the open ones to end, no longer than `grace`;
    /// then cuts the rest. Gives how many were cut. Giving the wait up cuts them all.
    pub async fn shutdown(self, grace: Duration) -> usize {
        let Self { live, stop, mut task, .. } = self;
        // A task that has ended needs no word.
        let _ = stop.send(());
        match timeout(grace, &mut task.0).await {
            Ok(_) => 0,
            Err(_) => live.load(Ordering::Relaxed),
        }
    }
}

impl fmt::Debug for TunnelListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TunnelListener")
            .field("local_addr", &self.address)
            .field("connections", &self.connections())
            .finish()
    }
}

/// One of the open connections, as long as it lives.
struct Live(Arc<AtomicUsize>);

impl Live {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn serve(
    tunnel: Arc<Tunnel>,
    listener: TcpListener,
    live: Arc<AtomicUsize>,
    mut stop: oneshot::Receiver<()>,
) {
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            _ = &mut stop => break,
            Some(_) = open.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let live = Live::new(&live);
                    let tunnel = tunnel.clone();
                    open.spawn(async move { connection(&tunnel, stream, peer, live).await });
                }
                Err(error) => {
                    let error = broken("a connection could not be taken", error);
                    tunnel.tell(TunnelEvent::AcceptFailed { error });
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
    drop(listener);
    while open.join_next().await.is_some() {}
}

async fn connection(tunnel: &Tunnel, stream: TcpStream, peer: SocketAddr, live: Live) {
    let moved = Moved::default();
    let event = match forward(tunnel, stream, peer, &moved).await {
        Ok(()) => TunnelEvent::Closed {
            peer,
            sent: moved.there.into_inner(),
            received: moved.back.into_inner(),
        },
        Err(error) => TunnelEvent::Failed { peer, error },
    };
    drop(live);
    tunnel.tell(event);
}

async fn forward(
    tunnel: &Tunnel,
    stream: TcpStream,
    peer: SocketAddr,
    moved: &Moved,
) -> Result<()> {
    // Small messages must not wait for each other; without the option they are only slower.
    let _ = stream.set_nodelay(true);
    let guest = tunnel.open().await?;
    tunnel.tell(TunnelEvent::Opened { peer });
    relay(stream, guest, moved).await.map_err(|error| broken("the connection broke", error))
}

fn broken(what: &str, error: io::Error) -> Error {
    Error::new(ErrorKind::Connection, format!("{what}: {error}"))
        .with_source(error)
        .in_operation("sandbox.tunnel")
}
