//! With a code that is typed on any device.

use createos_sdk::oauth::{Provider, Tokens};

use super::refused;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Spinner;
use crate::value::duration;

pub(super) async fn sign_in(provider: &Provider, ctx: &Context) -> Result<Tokens, Failure> {
    let sign_in = provider.device().await.map_err(refused)?;
    let mut text = format!(
        "Open this address on any device:  {}\nand type this code:               {}\n",
        sign_in.verification_uri(),
        sign_in.user_code()
    );
    if let Some(link) = sign_in.verification_uri_complete() {
        text.push_str(&format!("or open it with the code in it:   {link}\n"));
    }
    let life = duration::show(sign_in.lifetime());
    ctx.out.instruct(&format!("{text}\nThe code is good for {life}. Ctrl+C gives up."));
    let _waiting = Spinner::start(ctx.out.terminal(), "waiting for you".to_owned());
    sign_in.wait().await.map_err(refused)
}
