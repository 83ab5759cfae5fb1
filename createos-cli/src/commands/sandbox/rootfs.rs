//! `createos sandbox rootfs`.

use createos_sdk::wire::RootfsCatalog;

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Table;

pub(super) async fn run(ctx: &Context) -> Result<Exit, Failure> {
    let catalog = ctx.plane()?.client.rootfs().await?;
    ctx.out.result(&catalog, || ctx.out.table(&table(&catalog)))?;
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
