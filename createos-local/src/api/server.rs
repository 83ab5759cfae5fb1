//! The HTTP/1.1 server: accepts, bounds and ends connections.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::linger::Lingering;
use super::path::normalize;
use super::{Front, router};

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

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    stop: CancellationToken,
    accepting: JoinSet<()>,
}

impl Server {
    /// Serves the API on these listeners.
    pub(crate) fn start(listeners: impl IntoIterator<Item = TcpListener>, front: Front) -> Self {
        let stop = CancellationToken::new();
        let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let router = router(front);
        let mut accepting = JoinSet::new();
        for listener in listeners {
            let (router, stop, slots) = (router.clone(), stop.clone(), Arc::clone(&slots));
            accepting.spawn(accept_all(listener, router, stop, slots));
        }
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
    router: Router,
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
                let (router, stop) = (router.clone(), stop.clone());
                connections.spawn(async move {
                    serve(stream, router, stop).await;
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

async fn serve(stream: TcpStream, router: Router, stop: CancellationToken) {
    // Frames of a stream are small and must not wait for each other's acknowledgement.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| answer(router.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(READ_BUFFER)
        .serve_connection(TokioIo::new(Lingering::new(stream)), service);
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

async fn answer(router: Router, request: Request<Incoming>) -> Result<Response, Infallible> {
    let mut request = request.map(Body::new);
    normalize(&mut request);
    router.oneshot(request).await
}
