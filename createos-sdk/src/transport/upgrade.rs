//! Going on with another protocol on the connection of a request (api.md 4.19 to 4.21).

use reqwest::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION,
    UPGRADE,
};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::retry::{Failure, Phase};
use crate::error::{Error, ErrorKind, Result};

/// What to go on with.
#[derive(Debug, Clone)]
pub(crate) enum Upgrade {
    /// Bytes, both ways.
    Tcp,
    /// A WebSocket.
    WebSocket {
        /// What the server proves with that it understood.
        key: String,
    },
}

impl Upgrade {
    fn token(&self) -> &'static str {
        match self {
            Self::Tcp => "tcp-tunnel",
            Self::WebSocket { .. } => "websocket",
        }
    }

    pub(super) fn add_headers(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static(self.token()));
        match self {
            // A server must not wait for a body.
            Self::Tcp => {
                headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            }
            Self::WebSocket { key } => {
                headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
                // Base64 is always a header.
                headers.extend(HeaderValue::from_str(key).ok().map(|key| (SEC_WEBSOCKET_KEY, key)));
            }
        }
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
        if let Self::WebSocket { key } = self {
            let proof = headers.get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
            if proof != Some(derive_accept_key(key.as_bytes()).as_bytes()) {
                return refuse("the server did not prove that it speaks WebSocket".to_owned());
            }
            let unasked = [SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_PROTOCOL];
            if unasked.iter().any(|name| headers.contains_key(name)) {
                return refuse("the server chose an extension nobody asked for".to_owned());
            }
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

    #[test]
    fn a_web_socket_is_proved_by_the_key() {
        let socket = Upgrade::WebSocket { key: "dGhlIHNhbXBsZSBub25jZQ==".to_owned() };
        let mut asked = HeaderMap::new();
        socket.add_headers(&mut asked);
        assert_eq!(asked[SEC_WEBSOCKET_KEY], "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(
            (&asked[SEC_WEBSOCKET_VERSION], &asked[UPGRADE]),
            (&"13".parse().unwrap(), &"websocket".parse().unwrap())
        );
        let common = [("connection", "Upgrade"), ("upgrade", "websocket")];
        let with = |more: &[(&'static str, &str)]| headers(&[&common[..], more].concat());
        let proof = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        socket.check(101, &with(&[proof])).unwrap();
        for more in [
            &[][..],
            &[("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOO=")],
            &[proof, ("sec-websocket-extensions", "permessage-deflate")],
            &[proof, ("sec-websocket-protocol", "tty")],
        ] {
            let error = socket.check(101, &with(more)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{more:?}");
        }
    }
}
