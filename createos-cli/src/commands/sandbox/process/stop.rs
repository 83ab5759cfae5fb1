//! `createos sandbox process stop`.

use std::time::Duration;

use clap::Args;

use super::list::exit;
use super::target::ProcessRef;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::prompt;
use crate::value::duration;

/// End a process and everything it started: SIGTERM, then SIGKILL
#[derive(Args)]
#[command(visible_aliases = ["kill", "rm"], before_help = "\
Examples:
  createos sandbox process stop my-box proc_01k...
  createos sandbox process stop my-box proc_01k... --grace 10s --force")]
pub(super) struct StopArgs {
    #[command(flatten)]
    target: ProcessRef,

    /// Time between SIGTERM and SIGKILL [default: 1s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    grace: Option<Duration>,

    /// Do not ask on a terminal [aliases: --yes, -y]
    #[arg(short = 'y', long, alias = "yes")]
    force: bool,
}

pub(super) async fn run(args: StopArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some((place, process)) = args.target.find(ctx).await? else { return Ok(Exit::Success) };
    if !args.force && ctx.interactive() {
        let question = format!("end {} in {}?", process.id(), place.found.label());
        if !prompt::confirm(question, false).await? {
            ctx.out.note("nothing was changed");
            return Ok(Exit::Success);
        }
    }
    let grace = args.grace.unwrap_or(Duration::from_secs(1));
    let view = place.on_running(ctx, async || process.terminate().grace(grace).await).await?;
    ctx.out.result(&*view, || match exit(&view).as_str() {
        "" => format!("{} has ended", process.id()),
        how => format!("{} has ended: {how}", process.id()),
    })?;
    Ok(Exit::Success)
}
