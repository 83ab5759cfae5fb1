//! `createos sandbox network …`.

mod attach;
mod create;
mod detach;
mod endpoint;
mod list;
mod rm;
mod show;

use clap::{Args, Subcommand};
use createos_sdk::wire::NetworkView;
use createos_sdk::{Client, Network};

use super::choose::{self, Named};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;

/// Let sandboxes reach each other on private networks
///
/// Sandboxes on one network reach each other by address and by name:
/// SANDBOX.fc.local, SANDBOX.NETWORK.fc.local and ID.fc.local.
#[derive(Args)]
#[command(
    visible_alias = "net",
    alias = "networks",
    arg_required_else_help = true,
    before_help = "\
Examples:
  createos sandbox network create my-net
  createos sandbox network attach my-box my-net
  createos sandbox network show my-net"
)]
pub(super) struct NetworkArgs {
    #[command(subcommand)]
    command: NetworkCommand,
}

#[derive(Subcommand)]
enum NetworkCommand {
    Create(create::CreateArgs),
    Ls(list::ListArgs),
    Show(show::ShowArgs),
    Attach(attach::AttachArgs),
    Detach(detach::DetachArgs),
    Rm(rm::RmArgs),
}

impl NetworkArgs {
    pub(super) fn writes_payload(&self) -> bool {
        matches!(&self.command, NetworkCommand::Ls(args) if args.quiet)
    }
}

pub(super) async fn run(args: NetworkArgs, ctx: &Context) -> Result<Exit, Failure> {
    match args.command {
        NetworkCommand::Create(args) => create::run(args, ctx).await,
        NetworkCommand::Ls(args) => list::run(args, ctx).await,
        NetworkCommand::Show(args) => show::run(args, ctx).await,
        NetworkCommand::Attach(args) => attach::run(args, ctx).await,
        NetworkCommand::Detach(args) => detach::run(args, ctx).await,
        NetworkCommand::Rm(args) => rm::run(args, ctx).await,
    }
}

/// Every network, without its members.
async fn all(client: &Client) -> createos_sdk::Result<Vec<NetworkView>> {
    let rows = client.networks().await?;
    Ok(rows.iter().filter_map(Network::view).map(|view| (*view).clone()).collect())
}

fn named(view: &NetworkView) -> Named {
    Named::new(view.id.as_str(), &*view.name)
}

/// The network that was typed, or picked; `None` when nothing was picked.
async fn chosen(ctx: &Context, text: Option<&str>) -> Result<Option<String>, Failure> {
    let rows = async || Ok(all(&ctx.plane()?.client).await?.iter().map(named).collect());
    let choice = choose::typed_or_picked(ctx, choose::NETWORK, text, rows).await?;
    Ok(choice.map(|choice| choice.handle().to_owned()))
}
