//! Handlers that go on with another protocol once their answer is out (api.md 4.20, 4.21).

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Version};
use axum::response::Response;
use bytes::Bytes;
use hyper::upgrade::OnUpgrade;

use super::answer::Fail;
use super::linger::Lingering;
use super::upgrade;

/// What a client would go on with, if anything. Only routes that ask for it look at it:
/// elsewhere the wish is ignored.
pub(super) struct Upgrade {
    on: Option<OnUpgrade>,
    version: Version,
    pub(super) headers: HeaderMap,
}

impl<S: Sync> FromRequestParts<S> for Upgrade {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let on = parts.extensions.remove::<OnUpgrade>();
        Ok(Self { on, version: parts.version, headers: parts.headers.clone() })
    }
}

impl Upgrade {
    /// The connection to come, if the client asks for this protocol.
    pub(super) fn to(self, protocol: &'static str) -> Result<Switch, Fail> {
        let wanted = upgrade::asks_for(self.version, &self.headers, protocol);
        match self.on {
            Some(on) if wanted => Ok(Switch { on, protocol }),
            _ => Err(upgrade::needed(protocol).1),
        }
    }
}

/// An upgrade that was agreed on.
pub(super) struct Switch {
    on: OnUpgrade,
    protocol: &'static str,
}

impl Switch {
    /// The answer that begins it; on its heels, `serve` gets the connection and what of the
    /// new protocol has arrived already.
    pub(super) fn begin<F: Future<Output = ()> + Send>(
        self,
        serve: impl FnOnce(Lingering, Bytes) -> F + Send + 'static,
    ) -> Response {
        let on = self.on;
        tokio::spawn(async move {
            let upgraded = on.await.map_err(std::io::Error::other);
            match upgraded.and_then(upgrade::unwrap::<Lingering>) {
                Ok((connection, early)) => serve(connection, early).await,
                Err(error) => tracing::debug!(%error, "a connection broke as it was upgraded"),
            }
        });
        upgrade::switching(self.protocol)
    }
}
