//! `createos sandbox vpn …`.

mod routes;
mod tunnel;
mod up;

use clap::{Args, Subcommand};

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;

/// Connect this machine to private networks
#[derive(Args)]
#[command(
    arg_required_else_help = true,
    before_help = "\
Examples:
  createos sandbox devices register
  createos sandbox vpn up"
)]
pub(super) struct VpnArgs {
    #[command(subcommand)]
    command: VpnCommand,
}

#[derive(Subcommand)]
enum VpnCommand {
    /// Connect this machine to the networks that it is attached to
    ///
    /// Runs until Ctrl+C. Needs wg-quick (wireguard-tools), which asks for
    /// administrator rights, and wireguard-go where the kernel has no
    /// WireGuard. Networks that this machine is attached to later are reached
    /// once it is connected anew.
    #[command(before_help = "\
Examples:
  createos sandbox network attach dev-01k… my-net
  createos sandbox vpn up
  curl http://10.64.0.2:8000/ # meanwhile, at a sandbox's address there")]
    Up,
}

pub(super) async fn run(args: VpnArgs, ctx: &Context) -> Result<Exit, Failure> {
    match args.command {
        VpnCommand::Up => up::run(ctx).await,
    }
}
