//! `createos sandbox process list`.

use clap::Args;
use createos_sdk::wire::ProcessView;

use super::target::{Place, command};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Table, format};

/// Characters shown of a command.
const COMMAND: usize = 40;

/// List the processes of a sandbox, those that ended not long ago too
#[derive(Args)]
#[command(visible_aliases = ["ls", "ps"], before_help = "\
Examples:
  createos sandbox process list my-box
  createos sandbox process ls my-box --output json")]
pub(super) struct ListArgs {
    /// Name or id of the sandbox [default: ask on a terminal]
    sandbox: Option<String>,
}

pub(super) async fn run(args: ListArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some(place) = Place::find(ctx, args.sandbox.as_deref()).await? else {
        return Ok(Exit::Success);
    };
    let all = place.on_running(ctx, async || place.sandbox.processes().await).await?;
    let views: Vec<ProcessView> =
        all.iter().filter_map(|process| process.view()).map(|view| (*view).clone()).collect();
    ctx.out.result(&views, || match views.is_empty() {
        true => format!("No processes in {}.", place.found.label()).into(),
        false => ctx.out.table(&table(&views)),
    })?;
    if views.is_empty() {
        ctx.out.hint(&format!("start one: {} -- <command>", place.line("start")));
    }
    Ok(Exit::Success)
}

fn table(views: &[ProcessView]) -> Table {
    let mut table = Table::new(&[
        ("ID", 0),
        ("KIND", 110),
        ("PID", 80),
        ("STATE", 0),
        ("EXIT", 60),
        ("COMMAND", 0),
        ("OUTPUT", 100),
        ("CREATED", 120),
    ]);
    for view in views {
        table.row([
            view.process_id.to_string(),
            view.kind.to_string(),
            view.pid.to_string(),
            view.state.to_string(),
            exit(view),
            shortened(&command(view)),
            format::bytes(view.output.bytes),
            view.created_at.map(format::minute).unwrap_or_default(),
        ]);
    }
    table
}

/// The code or the signal; nothing while it runs.
pub(super) fn exit(view: &ProcessView) -> String {
    let code = view.exit_code.map(|code| code.to_string());
    view.signal.clone().filter(|name| !name.is_empty()).or(code).unwrap_or_default()
}

fn shortened(text: &str) -> String {
    match text.chars().count() > COMMAND {
        true => text.chars().take(COMMAND - 1).chain(['…']).collect(),
        false => text.to_owned(),
    }
}
