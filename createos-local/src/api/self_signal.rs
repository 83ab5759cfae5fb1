//! What sandboxes ask of the engine, on a listener inside each of them (api.md 5.11).
//!
//! Everybody inside may ask, and may be hostile: connections are few, short and small.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::header::{ALLOW, ORIGIN};
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::json;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

use super::answer::{Fail, success};
use super::query::Query;
use crate::core::{Core, Guest, Guests, SelfSignal, shown};

/// Connections of one sandbox at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 8;
/// The whole of a connection.
const LIMIT: Duration = Duration::from_secs(5);
/// The least that a connection takes of the few: a guest that makes nothing but connections
/// keeps the engine no busier than this allows.
const LEAST: Duration = Duration::from_millis(5);
/// Bounds a request head. It is the least that hyper takes.
const BUFFER: usize = 8 << 10;
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves sandboxes, each for as long as it lives.
pub(super) async fn serve_all(core: Core, mut guests: Guests) {
    while let Some(guest) = guests.recv().await {
        tokio::spawn(serve(core.clone(), guest));
    }
}

async fn serve(core: Core, guest: Guest) {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let Guest { id, listener, end } = guest;
    let accept = async || {
        let slot = Arc::clone(&slots).acquire_owned().await;
        listener.accept().await.map(|(stream, _)| (stream, slot))
    };
    while let Some(accepted) = end.run_until_cancelled(accept()).await {
        let Ok((stream, slot)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let (core, id, end) = (core.clone(), id.clone(), end.clone());
        tokio::spawn(async move {
            let least = tokio::time::sleep(LEAST);
            // Once it is answered: what it asks for is the end of whoever asks.
            if let Some(Some(asked)) = end.run_until_cancelled(answer(stream)).await {
                let reason = asked.reason.as_deref();
                if let Err(error) = core.obey(&id, asked.signal, reason).await {
                    tracing::warn!(sandbox = %id, %error, "a signal from inside came to nothing");
                }
            }
            least.await;
            drop(slot);
        });
    }
}

/// What a sandbox asked for.
struct Asked {
    signal: SelfSignal,
    reason: Option<String>,
}

/// Answers one request and returns what it asked for.
async fn answer(stream: TcpStream) -> Option<Asked> {
    let asked = Mutex::new(None);
    let service = service_fn(async |request| {
        let response = match read(&request) {
            Ok(signal) => {
                *asked.lock().unwrap_or_else(PoisonError::into_inner) = Some(signal);
                success(StatusCode::ACCEPTED, json!({ "ok": true }))
            }
            Err(fail) => refused(fail),
        };
        Ok::<_, Infallible>(response)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(LIMIT)
        .max_buf_size(BUFFER)
        .keep_alive(false)
        .title_case_headers(true)
        .serve_connection(TokioIo::new(stream), service);
    // A client that does not wait for its answer has asked all the same.
    let _ = tokio::time::timeout(LIMIT, connection).await;
    asked.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn read<B>(request: &Request<B>) -> Result<Asked, Fail> {
    let signal = match request.uri().path() {
        "/self/pause" => SelfSignal::Pause,
        "/self/delete" => SelfSignal::Delete,
        path => {
            let message = format!("no such route: {}", shown(path));
            return Err(Fail::new(StatusCode::NOT_FOUND, message));
        }
    };
    if request.method() != Method::POST {
        return Err(Fail::new(StatusCode::METHOD_NOT_ALLOWED, "send a POST"));
    }
    if request.headers().contains_key(ORIGIN) {
        // A page that a browser inside shows is not the sandbox's own will.
        return Err(Fail::new(StatusCode::FORBIDDEN, "not for pages in a browser"));
    }
    let query = Query::parse(request.uri().query().unwrap_or_default());
    Ok(Asked { signal, reason: query.get("reason").map(str::to_owned) })
}

fn refused(fail: Fail) -> Response {
    let mut response = fail.into_response();
    if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    }
    response
}
