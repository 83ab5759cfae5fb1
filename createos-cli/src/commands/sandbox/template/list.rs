//! `createos sandbox template ls`.

use clap::Args;
use createos_sdk::wire::TemplateView;

use super::all;
use crate::commands::Exit;
use crate::commands::sandbox::choose::{self, TEMPLATE};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Table, format};

/// List your templates, newest first
#[derive(Args)]
#[command(
    visible_alias = "list",
    before_help = "\
Examples:
  createos sandbox template ls
  createos sandbox template ls --output json
  createos sandbox template ls -q"
)]
pub(super) struct ListArgs {
    /// Print one id per line and nothing else
    #[arg(short, long)]
    pub(super) quiet: bool,
}

pub(super) async fn run(args: ListArgs, ctx: &Context) -> Result<Exit, Failure> {
    let rows = all(&ctx.plane()?.client).await?;
    choose::listed(ctx, TEMPLATE, args.quiet, &rows, |row| row.id.as_str(), table)
}

fn table(rows: &[TemplateView]) -> Table {
    let mut table =
        Table::new(&[("NAME", 0), ("ID", 70), ("STATUS", 0), ("SIZE", 0), ("CREATED", 90)]);
    for row in rows {
        table.row([
            row.name.clone(),
            row.id.to_string(),
            row.status.to_string(),
            super::size(row),
            row.created_at.map(format::minute).unwrap_or_default(),
        ]);
    }
    table
}
