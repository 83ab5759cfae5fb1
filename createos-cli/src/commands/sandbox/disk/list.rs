//! `createos sandbox disk ls`.

use clap::Args;
use createos_sdk::wire::DiskView;

use super::all;
use crate::commands::Exit;
use crate::commands::sandbox::choose::{self, DISK};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Table, format};

/// List your disks
#[derive(Args)]
#[command(
    visible_alias = "list",
    before_help = "\
Examples:
  createos sandbox disk ls
  createos sandbox disk ls --output json
  createos sandbox disk ls -q"
)]
pub(super) struct ListArgs {
    /// Print one id per line and nothing else
    #[arg(short, long)]
    pub(super) quiet: bool,
}

pub(super) async fn run(args: ListArgs, ctx: &Context) -> Result<Exit, Failure> {
    let rows = all(&ctx.plane()?.client).await?;
    choose::listed(ctx, DISK, args.quiet, &rows, |row| row.id.as_str(), table)
}

fn table(rows: &[DiskView]) -> Table {
    let mut table =
        Table::new(&[("NAME", 0), ("ID", 70), ("KIND", 90), ("BUCKET", 0), ("CREATED", 100)]);
    for row in rows {
        table.row([
            row.name.clone(),
            row.id.to_string(),
            row.kind.to_string(),
            row.config.bucket.clone(),
            row.created_at.map(format::minute).unwrap_or_default(),
        ]);
    }
    table
}
