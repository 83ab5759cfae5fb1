//! `createos sandbox process close-stdin`.

use clap::Args;
use serde_json::json;

use super::target::ProcessRef;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;

/// End the standard input of a process
///
/// A terminal has no end to give; send it Ctrl-D instead:
/// process input … --text $'\x04'
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox process close-stdin my-box proc_01k...")]
pub(super) struct CloseStdinArgs {
    #[command(flatten)]
    target: ProcessRef,
}

pub(super) async fn run(args: CloseStdinArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some((place, process)) = args.target.find(ctx).await? else { return Ok(Exit::Success) };
    place.on_running(ctx, async || process.close_stdin().await).await?;
    let document = json!({
        "action": "stdin_closed",
        "sandbox_id": place.found.id.as_str(),
        "process_id": process.id().as_str(),
    });
    ctx.out.result(&document, || format!("ended the standard input of {}", process.id()))?;
    Ok(Exit::Success)
}
