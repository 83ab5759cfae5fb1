//! `createos sandbox devices …`.

mod keys;
mod list;
mod register;
mod remove;
mod unregister;

use clap::{Args, Subcommand};
use createos_sdk::wire::DeviceView;
use createos_sdk::{Client, Device};

use super::choose::{Kind, Named};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;

/// What devices are called in messages.
const DEVICE: Kind = Kind {
    word: "device",
    verb: "register",
    create: "createos sandbox devices register",
    list: "createos sandbox devices list",
    remove: "createos sandbox devices remove",
};

/// Register machines of your own that join private networks
///
/// A device reaches the sandboxes of the networks that it is attached to, and
/// they reach it, while `createos sandbox vpn up` runs on it.
#[derive(Args)]
#[command(
    visible_alias = "device",
    arg_required_else_help = true,
    before_help = "\
Examples:
  createos sandbox devices register
  createos sandbox devices list
  createos sandbox network attach dev-01k… my-net
  createos sandbox vpn up"
)]
pub(super) struct DevicesArgs {
    #[command(subcommand)]
    command: DevicesCommand,
}

#[derive(Subcommand)]
enum DevicesCommand {
    Register(register::RegisterArgs),
    /// Delete this machine's registration and its key
    ///
    /// The key goes even where the control plane cannot be reached.
    #[command(before_help = "\
Examples:
  createos sandbox devices unregister
  createos sandbox devices unregister --output json")]
    Unregister,
    /// List your devices
    #[command(
        visible_alias = "ls",
        before_help = "\
Examples:
  createos sandbox devices list
  createos sandbox devices list --output json"
    )]
    List,
    Remove(remove::RemoveArgs),
}

pub(super) async fn run(args: DevicesArgs, ctx: &Context) -> Result<Exit, Failure> {
    match args.command {
        DevicesCommand::Register(args) => register::run(args, ctx).await,
        DevicesCommand::Unregister => unregister::run(ctx).await,
        DevicesCommand::List => list::run(ctx).await,
        DevicesCommand::Remove(args) => remove::run(args, ctx).await,
    }
}

async fn all(client: &Client) -> createos_sdk::Result<Vec<DeviceView>> {
    let rows = client.devices().await?;
    Ok(rows.iter().filter_map(Device::view).map(|view| (*view).clone()).collect())
}

fn named(view: &DeviceView) -> Named {
    Named::new(view.id.as_str(), &*view.name)
}
