//! `createos sandbox resume`.

use clap::Args;
use createos_sdk::wire::SandboxStatus;
use serde_json::json;

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::resolve::{self, Rules};
use crate::wait;

/// Bring a paused sandbox back
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox resume my-box")]
pub(super) struct ResumeArgs {
    /// Name or id [default: ask on a terminal]
    sandbox: Option<String>,
}

pub(super) async fn run(args: ResumeArgs, ctx: &Context) -> Result<Exit, Failure> {
    let rules = Rules::ACT.offering(&[SandboxStatus::Paused]);
    let Some(found) = resolve::sandbox(ctx, args.sandbox.as_deref(), rules).await? else {
        return Ok(Exit::Success);
    };
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    let view = wait::resume(ctx, &sandbox, &found).await?;
    let document = output::document(&[("action", json!("resumed"))], &*view)?;
    ctx.out.result(&document, || format!("{} is running", found.label()))?;
    Ok(Exit::Success)
}
