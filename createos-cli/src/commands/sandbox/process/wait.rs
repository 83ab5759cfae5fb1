//! `createos sandbox process wait`.

use std::time::Duration;

use clap::Args;
use createos_sdk::ErrorKind;

use super::follow::Follow;
use super::target::ProcessRef;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::value::duration;

/// Wait until a process has ended
///
/// The exit code is 0 once it has, however it ended; its own is in the result.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox process wait my-box proc_01k...
  createos sandbox process wait my-box proc_01k... --all --timeout 10m")]
pub(super) struct WaitArgs {
    #[command(flatten)]
    target: ProcessRef,

    /// Wait for everything that it started too
    #[arg(long)]
    all: bool,

    /// Give up after this time [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
}

pub(super) async fn run(args: WaitArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some((place, process)) = args.target.find(ctx).await? else { return Ok(Exit::Success) };
    // A passing failure of a question does not end the wait, so ask once whether there is one.
    place.on_running(ctx, async || process.refresh().await).await?;
    let mut waiting = process.wait();
    if args.all {
        waiting = waiting.tree();
    }
    if let Some(limit) = args.timeout {
        waiting = waiting.limit(limit);
    }
    let ended = waiting.await.map_err(|error| match (error.kind(), args.timeout) {
        (ErrorKind::Timeout, Some(limit)) => {
            Follow::new(ctx, &place, &process).still_running(limit)
        }
        _ => place.explain(error),
    })?;
    let view = process.refresh().await.map_err(|error| place.explain(error))?;
    ctx.out.result(&*view, || format!("{} has ended: {ended}", process.id()))?;
    Ok(Exit::Success)
}
