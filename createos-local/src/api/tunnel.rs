//! Raw TCP into a sandbox (api.md 4.19).

use std::num::NonZeroU16;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};

use super::Front;
use super::answer::Fail;
use super::path::{Id, Port};
use super::upgrade::{self, Takeover};
use crate::core::{Connection, CoreError};

const PROTOCOL: &str = "tcp-tunnel";

pub(super) async fn open(
    State(front): State<Front>,
    Id(id): Id,
    Port(port): Port,
    mut request: Request,
) -> Result<Response, Fail> {
    let live = match front.core().live(&id).await {
        Err(error @ CoreError::NoSandbox) => return Err(error.into()),
        live => live,
    };
    let port = parse(&port).ok_or_else(|| Fail::field("port", "must be from 1 to 65535"))?;
    let live = live?;
    if !upgrade::asks_for(request.version(), request.headers(), PROTOCOL) {
        return Ok(upgrade::needed(PROTOCOL).into_response());
    }
    let Connection { stream, hold } = live.tunnel(port).await?;
    let takeover = Takeover::of(&mut request);
    tokio::spawn(async move {
        // Without a client there is nothing to carry.
        if let Ok(outer) = takeover.finish().await {
            hold.carry(outer, stream.into()).await;
        }
    });
    Ok(upgrade::switching(PROTOCOL))
}

/// Digits, and nothing that is no port.
fn parse(text: &str) -> Option<NonZeroU16> {
    text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()))
}
