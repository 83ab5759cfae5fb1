//! `createos logout`: forgets the stored sign-in.

use serde_json::json;

use super::Exit;
use crate::context::{self, Context};
use crate::failure::Failure;
use crate::store::credentials::Store;

pub(super) async fn run(ctx: &Context) -> Result<Exit, Failure> {
    if let Some((name, _)) = context::key_from_environment() {
        ctx.out.warn(&format!(
            "{name} is set and still signs commands in; to stop that: unset {name}"
        ));
    }
    if !Store::open(&ctx.paths)?.clear().await? {
        return Err(Failure::local("not signed in"));
    }
    ctx.out.result(&json!({ "action": "signed_out" }), || "Signed out.".to_owned())?;
    Ok(Exit::Success)
}
