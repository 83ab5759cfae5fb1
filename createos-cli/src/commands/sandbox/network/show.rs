//! `createos sandbox network show`.

use clap::Args;
use createos_sdk::wire::{NetworkMember, NetworkView};

use super::named;
use crate::commands::Exit;
use crate::commands::sandbox::choose::NETWORK;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Table, Text, format, printable};

/// Show a private network and who is on it
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox network show my-net
  createos sandbox network show my-net --output json")]
pub(super) struct ShowArgs {
    /// Name or id [default: ask on a terminal]
    network: Option<String>,
}

pub(super) async fn run(args: ShowArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some(network) = super::chosen(ctx, args.network.as_deref()).await? else {
        return Ok(Exit::Success);
    };
    let found = ctx.plane()?.client.get_network(&network).await;
    let found = found.map_err(|error| NETWORK.explain(&network, error))?;
    let view = found.view();
    let view = view.as_deref().ok_or_else(|| Failure::local("the server describes no network"))?;
    ctx.out.result(view, || text(ctx, view))?;
    if view.members.is_empty() {
        ctx.out
            .hint(&format!("put one on it: createos sandbox network attach <sandbox> {network}"));
    }
    Ok(Exit::Success)
}

fn text(ctx: &Context, view: &NetworkView) -> Text {
    let created = view.created_at.map(format::second);
    let rows = [
        ("created", created.unwrap_or_else(|| "-".to_owned())),
        ("sandboxes", view.members.len().to_string()),
    ];
    let head = printable(&format::details(&named(view).label(), &rows));
    if view.members.is_empty() {
        return Text::styled(head);
    }
    let members = ctx.out.table(&table(view)).indented(2);
    Text::styled(format!("{head}\n{members}"))
}

fn table(view: &NetworkView) -> Table {
    let columns =
        [("SANDBOX", 100), ("NAME", 0), ("STATUS", 0), ("IP", 0), ("NAME ON NETWORK", 76)];
    let mut table = Table::new(&columns);
    for member in &view.members {
        table.row([
            member.sandbox_id.to_string(),
            member.name.clone().unwrap_or_default(),
            member.status.to_string(),
            member.ip.clone().unwrap_or_default(),
            name_on(view, member),
        ]);
    }
    table
}

/// The form that is right whatever other networks the asking sandbox is on (api.md 6.6).
fn name_on(view: &NetworkView, member: &NetworkMember) -> String {
    match member.name.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => format!("{name}.{}.fc.local", view.name),
        None => format!("{}.fc.local", member.sandbox_id),
    }
}
