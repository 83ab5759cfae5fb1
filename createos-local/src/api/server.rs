//! The HTTP/1.1 server: accepts, bounds and ends connections.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use futures::FutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::ingress::{self, Target};
use super::linger::Lingering;
use super::path::normalize;
use super::{Front, router, self_signal};
use crate::core::{Core, Guests};

/// A client has this long for each request head; an idle connection is closed after it.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Bounds the request head, and is the size of one read of a body.
const READ_BUFFER: usize = 128 << 10;
/// Connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;
/// Requests under way have this long at shutdown.
const GRACE: Duration = Duration::from_secs(5);
/// Pause after an accept that failed for lack of something, such as file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address at which a client has reached the server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrival(pub(super) Option<SocketAddr>);

/// What is served: the API, and ports of sandboxes.
#[derive(Clone)]
struct Site {
    core: Core,
    router: Router,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    stop: CancellationToken,
    accepting: JoinSet<()>,
}

impl Server {
    /// Serves the API and the sandboxes' ports on these listeners, and what sandboxes ask.
    pub(crate) fn start(
        listeners: impl IntoIterator<Item = TcpListener>,
        front: Front,
        guests: Guests,
    ) -> Self {
        let stop = CancellationToken::new();
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let site = Site { core: front.core().clone(), router: router(front) };
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let (site, stop, slots) = (site.clone(), stop.clone(), Arc::clone(&slots));
            accepting.spawn(accept_all(listener, site, stop, slots));
        }
        let hearing = self_signal::serve_all(site.core, guests);
        accepting.spawn(stop.clone().run_until_cancelled_owned(hearing).map(drop));
        Self { stop, accepting }
    }

    /// Accepts nothing more, lets requests under way finish for a moment, then cuts them off.
    pub(crate) async fn shutdown(mut self) {
        self.stop.cancel();
        while self.accepting.join_next().await.is_some() {}
    }
}

async fn accept_all(
    listener: TcpListener,
    site: Site,
    stop: CancellationToken,
    slots: Arc<Semaphore>,
) {
    let mut connections = JoinSet::new();
    let accept = async || {
        let slot = Arc::clone(&slots).acquire_owned().await;
        listener.accept().await.map(|(stream, _)| (stream, slot))
    };
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept() => accepted,
        };
        match accepted {
            Ok((stream, slot)) => {
                let (site, stop) = (site.clone(), stop.clone());
                connections.spawn(async move {
                    serve(stream, site, stop).await;
                    drop(slot);
                });
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, finished).await.is_err() {
        tracing::warn!("some requests were cut off at shutdown");
    }
    connections.shutdown().await;
}

/// Errors that concern one client that is already gone.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
    )
}

async fn serve(stream: TcpStream, site: Site, stop: CancellationToken) {
    let visitor = stream.peer_addr().ok();
    let arrival = Arrival(stream.local_addr().ok());
    // Frames of a stream are small and must not wait for each other's acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(site.clone(), visitor, arrival, request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(READ_BUFFER)
        // As every document writes them; there are clients that look for exactly that.
        .title_case_headers(true)
        .serve_connection(TokioIo::new(Lingering::new(stream)), service)
        .with_upgrades();
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(
    site: Site,
    visitor: Option<SocketAddr>,
    arrival: Arrival,
    request: Request<Incoming>,
) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    if let Some(target) = Target::of_request(&request) {
        return Ok(ingress::serve(&site.core, target, visitor, request).await);
    }
    normalize(&mut request);
    request.extensions_mut().insert(arrival);
    site.router.oneshot(request).await
}
