//! `createos sandbox network ls`.

use clap::Args;
use createos_sdk::wire::NetworkView;

use super::all;
use crate::commands::Exit;
use crate::commands::sandbox::choose::{self, NETWORK};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Table, format};

/// List your private networks
#[derive(Args)]
#[command(
    visible_alias = "list",
    before_help = "\
Examples:
  createos sandbox network ls
  createos sandbox network ls --output json
  createos sandbox network rm --force $(createos sandbox network ls -q)"
)]
pub(super) struct ListArgs {
    /// Print one id per line and nothing else
    #[arg(short, long)]
    pub(super) quiet: bool,
}

pub(super) async fn run(args: ListArgs, ctx: &Context) -> Result<Exit, Failure> {
    let rows = all(&ctx.plane()?.client).await?;
    choose::listed(ctx, NETWORK, args.quiet, &rows, |row| row.id.as_str(), table)
}

fn table(rows: &[NetworkView]) -> Table {
    let mut table = Table::new(&[("NAME", 0), ("ID", 60), ("SANDBOXES", 0), ("CREATED", 80)]);
    for row in rows {
        table.row([
            row.name.clone(),
            row.id.to_string(),
            row.member_count.unwrap_or_default().to_string(),
            row.created_at.map(format::minute).unwrap_or_default(),
        ]);
    }
    table
}
