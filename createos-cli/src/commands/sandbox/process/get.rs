//! `createos sandbox process get`.

use clap::Args;
use createos_sdk::wire::ProcessView;

use super::list::exit;
use super::target::{ProcessRef, command};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::format;

/// Show one process
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox process get my-box proc_01k...
  createos sandbox process get my-box proc_01k... --output json")]
pub(super) struct GetArgs {
    #[command(flatten)]
    target: ProcessRef,
}

pub(super) async fn run(args: GetArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some((place, process)) = args.target.find(ctx).await? else { return Ok(Exit::Success) };
    let view = place.on_running(ctx, async || process.refresh().await).await?;
    ctx.out.result(&*view, || details(&view))?;
    Ok(Exit::Success)
}

/// What is known about a process, for people.
pub(super) fn details(view: &ProcessView) -> String {
    let mut rows = vec![
        ("state", view.state.to_string()),
        ("command", command(view)),
        ("kind", view.kind.to_string()),
        ("pid", view.pid.to_string()),
    ];
    let front = view.foreground.as_ref().map(|job| job.cmd.clone());
    let optional = [
        ("exit", Some(exit(view)).filter(|exit| !exit.is_empty())),
        ("directory", view.cwd.clone()),
        ("in front", front),
        ("created", view.created_at.map(format::second)),
        ("finished", view.finished_at.map(format::second)),
    ];
    rows.extend(optional.into_iter().filter_map(|(label, value)| Some((label, value?))));
    let output = &view.output;
    let range = format!(
        "{}, places {} to {}",
        format::bytes(output.bytes),
        output.oldest_seq,
        output.newest_seq
    );
    rows.push(("output", range));
    format::details(view.process_id.as_str(), &rows)
}
