//! `createos sandbox process resize`.

use clap::Args;
use serde_json::json;

use super::target::ProcessRef;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::terminal;

/// Set the size of a process's terminal
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox process resize my-box proc_01k...
  createos sandbox process resize my-box proc_01k... --rows 40 --cols 120")]
pub(super) struct ResizeArgs {
    #[command(flatten)]
    target: ProcessRef,

    /// Rows [default: those of this terminal]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    rows: Option<u16>,

    /// Columns [default: those of this terminal]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    cols: Option<u16>,
}

pub(super) async fn run(args: ResizeArgs, ctx: &Context) -> Result<Exit, Failure> {
    let complete = args.rows.is_some() && args.cols.is_some();
    if !complete && !ctx.out.terminal().stdin {
        return Err(Failure::usage("which size? there is no terminal to take it from")
            .hint("give both: --rows 40 --cols 120"));
    }
    let Some((place, process)) = args.target.find(ctx).await? else { return Ok(Exit::Success) };
    let (rows, cols) = terminal::size();
    let (rows, cols) = (args.rows.unwrap_or(rows), args.cols.unwrap_or(cols));
    place.on_running(ctx, async || process.resize(rows, cols).await).await?;
    let document = json!({
        "action": "resized",
        "sandbox_id": place.found.id.as_str(),
        "process_id": process.id().as_str(),
        "rows": rows,
        "cols": cols,
    });
    ctx.out.result(&document, || {
        format!("the terminal of {} has {rows} rows of {cols}", process.id())
    })?;
    Ok(Exit::Success)
}
