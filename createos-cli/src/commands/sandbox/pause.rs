//! `createos sandbox pause`.

use clap::Args;
use serde_json::json;

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::resolve::{self, Rules};
use crate::wait;

/// Store a sandbox and end its machine; `resume` brings it back
///
/// Name, id, disks, networks and environment variables stay. Waits until it is
/// paused.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox pause my-box
  createos sandbox pause my-box --output json")]
pub(super) struct PauseArgs {
    /// Name or id [default: ask on a terminal]
    sandbox: Option<String>,
}

pub(super) async fn run(args: PauseArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some(found) = resolve::sandbox(ctx, args.sandbox.as_deref(), Rules::CHANGE).await? else {
        return Ok(Exit::Success);
    };
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    let view = wait::pause(ctx, &sandbox, &found).await?;
    let document = output::document(&[("action", json!("paused"))], &*view)?;
    ctx.out.result(&document, || format!("{} is paused", found.label()))?;
    ctx.out.hint(&format!("bring it back: createos sandbox resume {}", found.handle()));
    Ok(Exit::Success)
}
