//! `createos sandbox devices list`.

use createos_sdk::DeviceId;
use createos_sdk::wire::DeviceView;

use super::{DEVICE, all};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Table;
use crate::store::device::Store;

pub(super) async fn run(ctx: &Context) -> Result<Exit, Failure> {
    let rows = all(&ctx.plane()?.client).await?;
    // A file that cannot be read must not hide the list.
    let own = Store::open(&ctx.paths).and_then(|store| store.load()).ok().flatten();
    let own = own.map(|identity| identity.id);
    ctx.out.result(&rows, || match rows.is_empty() {
        true => "No devices.".into(),
        false => ctx.out.table(&table(&rows, own.as_ref())),
    })?;
    if rows.is_empty() {
        ctx.out.hint(&format!("register this machine: {}", DEVICE.create));
    }
    Ok(Exit::Success)
}

fn table(rows: &[DeviceView], own: Option<&DeviceId>) -> Table {
    let mut table = Table::new(&[("NAME", 0), ("IP", 0), ("OS", 80), ("ID", 60), ("", 0)]);
    for row in rows {
        let mark = if own == Some(&row.id) { "this machine" } else { "" };
        table.row([
            row.name.clone(),
            row.client_ip.clone(),
            row.os.clone().unwrap_or_default(),
            row.id.to_string(),
            mark.to_owned(),
        ]);
    }
    table
}
