//! `createos sandbox network rm`.

use clap::Args;
use createos_sdk::wire::{NetworkMember, NetworkView, SandboxStatus};
use createos_sdk::{Client, Error, ErrorKind, Network};

use super::{all, named};
use crate::commands::Exit;
use crate::commands::sandbox::batch;
use crate::commands::sandbox::choose::{self, NETWORK, Named};
use crate::context::Context;
use crate::failure::Failure;
use crate::resolve::Found;

/// Delete private networks; sandboxes on them are taken off first
#[derive(Args)]
#[command(
    visible_alias = "delete",
    before_help = "\
Examples:
  createos sandbox network rm my-net
  createos sandbox network rm my-net other-net --force"
)]
pub(super) struct RmArgs {
    /// Names or ids [default: ask on a terminal]
    #[arg(value_name = "NETWORK")]
    networks: Vec<String>,

    /// Do not ask [aliases: --yes, -y]
    #[arg(short = 'y', long, alias = "yes")]
    force: bool,
}

pub(super) async fn run(args: RmArgs, ctx: &Context) -> Result<Exit, Failure> {
    let mut wanted = batch::wanted(ctx, NETWORK, &args.networks, args.force)?;
    let client = &ctx.plane()?.client;
    if wanted.is_empty() {
        let rows = all(client).await?.iter().map(named).collect();
        let Some(picked) = choose::several(ctx, NETWORK, rows).await? else {
            return Ok(Exit::Success);
        };
        wanted = picked.into_iter().map(|picked| picked.id).collect();
    }
    let mut outcomes = batch::look_up(wanted, async |word| look_up(client, word).await).await;
    let members = outcomes.iter().filter_map(|outcome| outcome.found.as_ref());
    let members: usize = members.map(|(_, network)| members_of(network).len()).sum();
    let suffix = match members {
        0 => String::new(),
        1 => " and take 1 sandbox off".to_owned(),
        many => format!(" and take {many} sandboxes off"),
    };
    if !args.force && !batch::confirm(ctx, NETWORK, &outcomes, &suffix).await? {
        return Ok(Exit::Success);
    }
    batch::remove(&mut outcomes, async |named, network| remove(ctx, named, network).await).await;
    batch::report(ctx, "network_deleted", &outcomes)
}

async fn look_up(client: &Client, word: &str) -> Result<(Named, Network), Failure> {
    let network = client.get_network(word).await;
    let network = network.map_err(|error| NETWORK.explain(word, error))?;
    let name = network.view().map(|view| view.name.clone()).unwrap_or_default();
    Ok((Named::new(network.id(), name), network))
}

/// Those that have to leave; who is being destroyed leaves anyway.
fn members_of(network: &Network) -> Vec<NetworkMember> {
    use SandboxStatus::{Destroyed, Destroying};
    let stays = |member: &&NetworkMember| !matches!(member.status, Destroyed | Destroying);
    let members = |view: &NetworkView| view.members.iter().filter(stays).cloned().collect();
    network.view().as_deref().map(members).unwrap_or_default()
}

async fn remove(ctx: &Context, named: &Named, network: &Network) -> Result<(), Failure> {
    for member in members_of(network) {
        let found = Found { id: member.sandbox_id.clone(), name: member.name.clone() };
        let sandbox = ctx.plane()?.client.sandbox(member.sandbox_id);
        match sandbox.detach_network(network.id().as_str()).await {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(found.explain(error)),
            _ => ctx.out.note(&format!("{} left {}", found.label(), named.label())),
        }
    }
    network.delete().await.map_err(|error: Error| NETWORK.explain(named.handle(), error))
}
