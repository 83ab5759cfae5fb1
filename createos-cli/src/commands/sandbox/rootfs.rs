//! `createos sandbox rootfs`.

use clap::Args;
use createos_sdk::wire::RootfsCatalog;

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Table, ids};

/// List the images a sandbox can start from
#[derive(Args)]
#[command(
    visible_alias = "images",
    before_help = "\
Examples:
  createos sandbox rootfs
  createos sandbox rootfs --output json"
)]
pub(super) struct RootfsArgs {
    /// Print one name per line and nothing else
    #[arg(short, long)]
    pub(super) quiet: bool,
}

pub(super) async fn run(args: RootfsArgs, ctx: &Context) -> Result<Exit, Failure> {
    let catalog = ctx.plane()?.client.rootfs().await?;
    if args.quiet {
        ctx.out.raw(&ids(catalog.rootfs.iter().map(String::as_str)))?;
        return Ok(Exit::Success);
    }
    ctx.out.result(&catalog, || ctx.out.table(&table(&catalog)))?;
    ctx.out.hint("your own images: createos sandbox template ls");
    Ok(Exit::Success)
}

/// Names alone when the server sends no details.
fn table(catalog: &RootfsCatalog) -> Table {
    let mut table = Table::new(&[("NAME", 0), ("DESCRIPTION", 0), ("STATUS", 0)]);
    let status = |name: &str| if name == catalog.default { "default" } else { "" };
    if catalog.entries.is_empty() {
        for name in &catalog.rootfs {
            table.row([name.clone(), String::new(), status(name).to_owned()]);
        }
    }
    for entry in &catalog.entries {
        let state = match (&entry.successor, entry.deprecated) {
            (Some(successor), true) => format!("deprecated → {successor}"),
            (None, true) => "deprecated".to_owned(),
            (_, false) => status(&entry.name).to_owned(),
        };
        table.row([entry.name.clone(), entry.description.clone().unwrap_or_default(), state]);
    }
    table
}
