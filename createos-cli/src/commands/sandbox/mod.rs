//! `createos sandbox …`.

mod batch;
mod choose;
mod create;
mod devices;
mod disk;
mod edit;
mod exec;
mod facts;
mod firewall;
mod fork;
mod get;
mod job;
mod list;
mod made;
mod matrix;
mod network;
mod offload;
mod pause;
mod process;
mod pull;
mod push;
mod resume;
mod rm;
mod rootfs;
mod self_signal;
mod shapes;
mod shell;
mod sync;
mod template;
mod transfer;
mod tunnel;
mod vpn;

use clap::{Args, Subcommand};

use super::Exit;
use crate::context::Context;
use crate::failure::Failure;

/// Create, run and manage sandboxes
#[derive(Args)]
#[command(
    visible_alias = "sb",
    arg_required_else_help = true,
    before_help = "\
Examples:
  createos sandbox create --shape s-1vcpu-256mb --name my-box
  createos sandbox exec my-box -- uname -a
  createos sandbox rm my-box --force"
)]
pub(crate) struct SandboxArgs {
    #[command(subcommand)]
    command: SandboxCommand,
}

#[derive(Subcommand)]
enum SandboxCommand {
    Create(create::CreateArgs),
    List(list::ListArgs),
    Get(get::GetArgs),
    Edit(edit::EditArgs),
    Pause(pause::PauseArgs),
    Resume(resume::ResumeArgs),
    Fork(fork::ForkArgs),
    Rm(rm::RmArgs),
    Exec(exec::ExecArgs),
    Shell(shell::ShellArgs),
    Process(process::ProcessArgs),
    Push(push::PushArgs),
    Pull(pull::PullArgs),
    Sync(sync::SyncArgs),
    Tunnel(tunnel::TunnelArgs),
    #[command(name = "self")]
    SelfSignal(self_signal::SelfArgs),
    Network(network::NetworkArgs),
    Devices(devices::DevicesArgs),
    Firewall(firewall::FirewallArgs),
    Disk(disk::DiskArgs),
    Template(template::TemplateArgs),
    Offload(offload::OffloadArgs),
    Matrix(matrix::MatrixArgs),
    Vpn(vpn::VpnArgs),
    Shapes(shapes::ShapesArgs),
    Rootfs(rootfs::RootfsArgs),
}

impl SandboxArgs {
    /// Whether the command has something to put away when a signal comes.
    pub(super) fn handles_signals(&self) -> bool {
        use SandboxCommand::{Matrix, Offload, Sync, Vpn};
        matches!(&self.command, Offload(_) | Matrix(_) | Sync(_) | Vpn(_))
    }

    pub(super) fn writes_payload(&self) -> bool {
        match &self.command {
            SandboxCommand::Exec(_) | SandboxCommand::Offload(_) | SandboxCommand::Shell(_) => true,
            SandboxCommand::Process(args) => args.writes_payload(),
            // Text alone, so JSON that nobody asked for is no mistake.
            SandboxCommand::Sync(_) => true,
            SandboxCommand::Pull(args) => args.to_stdout(),
            SandboxCommand::Tunnel(args) => args.writes_payload(),
            SandboxCommand::List(args) => args.quiet(),
            SandboxCommand::Network(args) => args.writes_payload(),
            SandboxCommand::Disk(args) => args.writes_payload(),
            SandboxCommand::Template(args) => args.writes_payload(),
            SandboxCommand::Shapes(args) => args.quiet,
            SandboxCommand::Rootfs(args) => args.quiet,
            _ => false,
        }
    }
}

pub(super) async fn run(args: SandboxArgs, ctx: &Context) -> Result<Exit, Failure> {
    match args.command {
        SandboxCommand::Create(args) => create::run(args, ctx).await,
        SandboxCommand::List(args) => list::run(args, ctx).await,
        SandboxCommand::Get(args) => get::run(args, ctx).await,
        SandboxCommand::Edit(args) => edit::run(args, ctx).await,
        SandboxCommand::Pause(args) => pause::run(args, ctx).await,
        SandboxCommand::Resume(args) => resume::run(args, ctx).await,
        SandboxCommand::Fork(args) => fork::run(args, ctx).await,
        SandboxCommand::Rm(args) => rm::run(args, ctx).await,
        SandboxCommand::Exec(args) => exec::run(args, ctx).await,
        SandboxCommand::Shell(args) => shell::run(args, ctx).await,
        SandboxCommand::Process(args) => process::run(args, ctx).await,
        SandboxCommand::Push(args) => push::run(args, ctx).await,
        SandboxCommand::Pull(args) => pull::run(args, ctx).await,
        SandboxCommand::Sync(args) => sync::run(args, ctx).await,
        SandboxCommand::Tunnel(args) => tunnel::run(args, ctx).await,
        SandboxCommand::SelfSignal(args) => self_signal::run(args, ctx).await,
        SandboxCommand::Network(args) => network::run(args, ctx).await,
        SandboxCommand::Devices(args) => devices::run(args, ctx).await,
        SandboxCommand::Firewall(args) => firewall::run(args, ctx).await,
        SandboxCommand::Disk(args) => disk::run(args, ctx).await,
        SandboxCommand::Vpn(args) => vpn::run(args, ctx).await,
        SandboxCommand::Template(args) => template::run(args, ctx).await,
        SandboxCommand::Offload(args) => offload::run(args, ctx).await,
        SandboxCommand::Matrix(args) => matrix::run(args, ctx).await,
        SandboxCommand::Shapes(args) => shapes::run(args, ctx).await,
        SandboxCommand::Rootfs(args) => rootfs::run(args, ctx).await,
    }
}
