//! Connections that go on as plain bytes (api.md 4.19).

use axum::body::Body;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::Response;
use hyper::upgrade::{Upgraded, on};
use hyper_util::rt::TokioIo;

use super::{Answer, fail};

/// Agrees, and runs this on the bytes that follow.
pub(super) fn upgrade<F>(
    mut request: Request,
    talk: impl FnOnce(TokioIo<Upgraded>) -> F + Send + 'static,
) -> Answer
where
    F: Future<Output = std::io::Result<()>> + Send,
{
    if request.headers().get(header::UPGRADE).is_none_or(|token| token != "tcp-tunnel") {
        return fail(400, "an upgrade to tcp-tunnel is needed");
    }
    let upgrading = on(&mut request);
    tokio::spawn(async move {
        // Who goes away in between needs no answer.
        if let Ok(io) = upgrading.await {
            let _ = talk(TokioIo::new(io)).await;
        }
    });
    let answer = Response::builder()
        .status(StatusCode::SWITCHING_PROTOCOLS)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "tcp-tunnel")
        .body(Body::empty())
        .unwrap();
    Ok(answer)
}
