//! What every client of a web server here does alike.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use reqwest::Response;
use url::{Host, Url};

/// Why an answer was not read to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum BodyError {
    /// Nothing came for so many seconds.
    Stalled(u64),
    /// It has more bytes than this.
    TooLong(usize),
    /// The connection broke.
    Lost(String),
}

/// The next piece of an answer; nothing at its end.
pub(crate) async fn piece(
    response: &mut Response,
    quiet: Duration,
) -> Result<Option<Bytes>, BodyError> {
    match tokio::time::timeout(quiet, response.chunk()).await {
        Err(_) => Err(BodyError::Stalled(quiet.as_secs())),
        Ok(piece) => piece.map_err(|error| BodyError::Lost(cause(error))),
    }
}

/// The whole answer, if it is not longer than this.
pub(crate) async fn body(
    mut response: Response,
    most: usize,
    quiet: Duration,
) -> Result<Bytes, BodyError> {
    let expected = response.content_length().unwrap_or(0).min(most as u64);
    let mut body = BytesMut::with_capacity(usize::try_from(expected).unwrap_or(0));
    while let Some(piece) = piece(&mut response, quiet).await? {
        if piece.len() > most - body.len() {
            return Err(BodyError::TooLong(most));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

/// What an error of a connection comes from. Its address would show what is in its query.
pub(crate) fn cause(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text = cause.to_string();
        source = cause.source();
    }
    text
}

/// Whether an address is of this machine alone.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}
