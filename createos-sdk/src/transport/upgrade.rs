//! Going on with another protocol on the connection of a request (api.md 4.19 to 4.21).

use reqwest::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, UPGRADE};

use super::retry::{Failure, Phase};
use crate::error::{Error, ErrorKind, Result};

/// What to go on with.
#[derive(Debug, Clone)]
pub(crate) enum Upgrade {
    /// Bytes, both ways.
    Tcp,
}

impl Upgrade {
    fn token(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp-tunnel",
        }
    }

    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(self.token()));
        match self {
            // A server must not wait for a body.
            Self::Tcp => headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0")),
        };
    }

    /// Whether the server agreed to exactly this.
    fn check(&self, status: u16, headers: &HeaderMap) -> Result<()> {
        let refuse = |why: String| Err(Error::new(ErrorKind::Protocol, why));
        if status != 101 {
            return refuse(format!("status {status} instead of a change of protocol (101)"));
        }
        let names = |name, token: &str| {
            headers
                .get_all(name)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(|value| value.split(','))
                .any(|found| found.trim().eq_ignore_ascii_case(token))
        };
        if !names(UPGRADE, self.token()) || !names(CONNECTION, "upgrade") {
            return refuse(format!("the server did not change to {}", self.token()));
        }
        Ok(())
    }
}

/// The connection behind an answer that agrees to the change.
pub(super) async fn take(
    upgrade: Option<&Upgrade>,
    response: reqwest::Response,
) -> Result<reqwest::Upgraded, Failure> {
    let fail = |error, phase| Failure { error, phase };
    if let Some(upgrade) = upgrade {
        upgrade
            .check(response.status().as_u16(), response.headers())
            .map_err(|error| fail(error, Phase::Final))?;
    }
    response.upgrade().await.map_err(|error| {
        let message = "the connection broke while it changed protocols";
        let error = Error::new(ErrorKind::Connection, message).with_source(error.without_url());
        fail(error, Phase::Unanswered)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn agreement_is_a_status_and_two_headers() {
        let good = headers(&[("connection", "Upgrade"), ("upgrade", "tcp-tunnel")]);
        Upgrade::Tcp.check(101, &good).unwrap();
        let odd = [("connection", "keep-alive"), ("connection", "x, UPGRADE")];
        let odd = headers(&[odd[0], odd[1], ("upgrade", "TCP-Tunnel")]);
        Upgrade::Tcp.check(101, &odd).unwrap();
        for (status, pairs) in [
            (200, &[("connection", "Upgrade"), ("upgrade", "tcp-tunnel")][..]),
            (101, &[("connection", "Upgrade"), ("upgrade", "websocket")]),
            (101, &[("connection", "Upgrade")]),
            (101, &[("upgrade", "tcp-tunnel")]),
            (101, &[("connection", "close"), ("upgrade", "tcp-tunnel")]),
            (101, &[]),
        ] {
            let error = Upgrade::Tcp.check(status, &headers(pairs)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{status} {pairs:?}");
        }
    }
}
