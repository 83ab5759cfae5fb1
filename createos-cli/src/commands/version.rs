//! `createos version`: needs neither network nor sign-in.

use serde_json::json;

use super::Exit;
use crate::context::Context;
use crate::failure::Failure;

pub(super) fn run(ctx: &Context) -> Result<Exit, Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let commit = env!("CREATEOS_BUILD_COMMIT");
    let target = env!("CREATEOS_BUILD_TARGET");
    let document = json!({ "version": version, "commit": commit, "target": target });
    ctx.out
        .result(&document, || format!("createos {version}\ncommit {commit}\ntarget {target}"))?;
    Ok(Exit::Success)
}
