//! `createos sandbox devices remove`.

use clap::Args;
use createos_sdk::wire::DeviceView;
use serde_json::json;

use super::{DEVICE, all, named};
use crate::commands::Exit;
use crate::commands::sandbox::choose;
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::prompt;
use crate::store::device::Store;

/// Delete a device, with its session and its place on networks
#[derive(Args)]
#[command(
    visible_alias = "rm",
    before_help = "\
Examples:
  createos sandbox devices remove old-laptop
  createos sandbox devices remove dev-01k… --force"
)]
pub(super) struct RemoveArgs {
    /// Name or id [default: ask on a terminal]
    device: Option<String>,

    /// Do not ask [aliases: --yes, -y]
    #[arg(short = 'y', long, alias = "yes")]
    force: bool,
}

pub(super) async fn run(args: RemoveArgs, ctx: &Context) -> Result<Exit, Failure> {
    let word = args.device.as_deref().map(str::trim).filter(|word| !word.is_empty());
    if !ctx.interactive() {
        let word = word.ok_or_else(|| DEVICE.which())?;
        if !args.force {
            return Err(Failure::usage(
                "deleting needs a confirmation, and nobody can be asked here",
            )
            .hint(format!("{} {word} --force", DEVICE.remove)));
        }
    }
    let client = &ctx.plane()?.client;
    let rows = all(client).await?;
    let view = match word {
        Some(word) => find(&rows, word)?,
        None => {
            let picked = choose::one(ctx, DEVICE, rows.iter().map(named).collect()).await?;
            let Some(picked) = picked else { return Ok(Exit::Success) };
            find(&rows, &picked.id)?
        }
    };
    let label = named(view).label();
    if !args.force && !prompt::confirm(format!("delete the device {label}?"), false).await? {
        ctx.out.note("nothing was deleted");
        return Ok(Exit::Success);
    }
    let deleted = client.device(view.id.clone()).delete().await;
    deleted.map_err(|error| DEVICE.explain(&label, error))?;
    let store = Store::open(&ctx.paths)?;
    // One that cannot be read is not touched.
    let is_own = matches!(store.load(), Ok(Some(identity)) if identity.id == view.id);
    let cleared = is_own && store.clear()?;
    let document = json!({
        "action": "device_removed",
        "id": view.id,
        "name": view.name,
        "client_ip": view.client_ip,
        "cleared_local_state": cleared,
    });
    ctx.out.result(&document, || match cleared {
        true => format!("removed {label}, and the key of this machine"),
        false => format!("removed {label}"),
    })?;
    Ok(Exit::Success)
}

/// The device of this id, or else of this name.
fn find<'a>(rows: &'a [DeviceView], word: &str) -> Result<&'a DeviceView, Failure> {
    if let Some(view) = rows.iter().find(|view| view.id.as_str() == word) {
        return Ok(view);
    }
    let mut called = rows.iter().filter(|view| view.name == word);
    match (called.next(), called.next()) {
        (Some(view), None) => Ok(view),
        (Some(_), Some(_)) => {
            let ids = rows.iter().filter(|view| view.name == word).map(|view| view.id.as_str());
            let ids: Vec<&str> = ids.collect();
            Err(Failure::usage(format!("{} devices are called \"{word}\"", ids.len()))
                .hint(format!("name one by its id: {}", ids.join(", "))))
        }
        (None, _) => Err(Failure::new(Class::NotFound, format!("no device called \"{word}\""))
            .hint(format!("see what you have: {}", DEVICE.list))),
    }
}
