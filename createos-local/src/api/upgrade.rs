//! Connections that stop being HTTP (api.md 4.19).

use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONNECTION, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, Request, StatusCode, Version};
use axum::response::Response;
use bytes::Bytes;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use rustix::net::sockopt;

use super::answer::Fail;
use super::linger::Lingering;
use crate::relay::Side;

/// A silent client is asked whether it is still there, and given up after some minutes.
const IDLE: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(15);
const PROBES: u32 = 8;

/// A client's connection, ours once the 101 is on its way.
pub(super) struct Takeover(OnUpgrade);

impl Takeover {
    pub(super) fn of<B>(request: &mut Request<B>) -> Self {
        Self(hyper::upgrade::on(request))
    }

    /// The connection, once it is free. An error: the client is gone.
    pub(super) async fn finish(self) -> io::Result<Side> {
        let upgraded = self.0.await.map_err(io::Error::other)?;
        let (io, early) = unwrap::<Lingering>(upgraded)?;
        let stream = io.into_inner();
        // Where this is not to be had, it is done without.
        let _ = sockopt::set_tcp_keepidle(&stream, IDLE)
            .and_then(|()| sockopt::set_tcp_keepintvl(&stream, PROBE))
            .and_then(|()| sockopt::set_tcp_keepcnt(&stream, PROBES))
            .and_then(|()| sockopt::set_socket_keepalive(&stream, true));
        Ok(Side { stream, early })
    }
}

/// What HTTP ran on, and what it has read too much.
pub(super) fn unwrap<T: 'static>(upgraded: Upgraded) -> io::Result<(T, Bytes)>
where
    TokioIo<T>: hyper::rt::Read + hyper::rt::Write + Unpin,
{
    let parts = upgraded.downcast::<TokioIo<T>>();
    let parts = parts.map_err(|_| io::Error::other("a connection of another kind"))?;
    Ok((parts.io.into_inner(), parts.read_buf))
}

/// Whether a request asks to go on in this protocol.
pub(super) fn asks_for(version: Version, headers: &HeaderMap, protocol: &str) -> bool {
    version == Version::HTTP_11
        && has_token(headers.get_all(CONNECTION), "upgrade")
        && has_token(headers.get_all(UPGRADE), protocol)
}

fn has_token<'a>(values: impl IntoIterator<Item = &'a HeaderValue>, wanted: &str) -> bool {
    values
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|token| token.trim().eq_ignore_ascii_case(wanted))
}

/// The refusal of a request that does not ask for it.
pub(super) fn needed(protocol: &'static str) -> (HeaderMap, Fail) {
    let message = format!(
        "this is a connection of its own: send `Connection: Upgrade` and `Upgrade: {protocol}` \
         over HTTP/1.1"
    );
    let headers = HeaderMap::from_iter([(UPGRADE, HeaderValue::from_static(protocol))]);
    (headers, Fail::new(StatusCode::UPGRADE_REQUIRED, message))
}

/// The 101.
pub(super) fn switching(protocol: &'static str) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    response
}
