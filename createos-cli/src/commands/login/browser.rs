//! With a browser on this machine.

use std::time::Duration;

use createos_sdk::oauth::{Provider, Tokens};

use super::refused;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Spinner;

/// How long a person may take.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

pub(super) async fn sign_in(provider: &Provider, ctx: &Context) -> Result<Tokens, Failure> {
    let sign_in = provider.browser().await.map_err(refused)?;
    let url = sign_in.url().to_owned();
    ctx.out.instruct(&format!(
        "Opening this address in your browser; if nothing happens, open it yourself:\n\n{url}\n"
    ));
    // A browser that takes its time must not keep the callback waiting.
    let opening = tokio::task::spawn_blocking(move || webbrowser::open(&url));
    let _waiting = Spinner::start(ctx.out.terminal(), "waiting for the browser".to_owned());
    let tell = async {
        if let Ok(Err(_)) = opening.await {
            ctx.out.instruct("No browser could be opened here.");
        }
        std::future::pending().await
    };
    tokio::select! {
        tokens = sign_in.wait(PATIENCE) => tokens.map_err(refused),
        never = tell => never,
    }
}
