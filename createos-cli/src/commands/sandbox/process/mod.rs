//! `createos sandbox process …`: commands that run on when nobody is connected.

mod attach;
mod close_stdin;
mod end;
mod follow;
mod get;
mod input;
mod list;
mod resize;
mod run;
mod session;
mod shell;
mod signal;
mod start;
mod stop;
mod target;
mod wait;

use clap::{Args, Subcommand};

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;

/// Run commands that survive disconnects, and come back to them
///
/// A managed process keeps an id and its newest output, whoever is connected.
#[derive(Args)]
#[command(
    visible_alias = "proc",
    arg_required_else_help = true,
    before_help = "\
Examples:
  createos sandbox process start my-box -- python3 -m http.server 8000
  createos sandbox process list my-box
  createos sandbox process attach my-box
  createos sandbox process stop my-box proc_01k..."
)]
pub(super) struct ProcessArgs {
    #[command(subcommand)]
    command: ProcessCommand,
}

#[derive(Subcommand)]
enum ProcessCommand {
    Run(run::RunArgs),
    Start(start::StartArgs),
    Shell(shell::ShellArgs),
    Attach(attach::AttachArgs),
    List(list::ListArgs),
    Get(get::GetArgs),
    Input(input::InputArgs),
    CloseStdin(close_stdin::CloseStdinArgs),
    Resize(resize::ResizeArgs),
    Signal(signal::SignalArgs),
    Wait(wait::WaitArgs),
    Stop(stop::StopArgs),
}

impl ProcessArgs {
    pub(super) fn writes_payload(&self) -> bool {
        match &self.command {
            ProcessCommand::Run(args) => args.writes_payload(),
            ProcessCommand::Start(args) => args.writes_payload(),
            ProcessCommand::Shell(args) => args.writes_payload(),
            ProcessCommand::Attach(_) => true,
            _ => false,
        }
    }
}

pub(super) async fn run(args: ProcessArgs, ctx: &Context) -> Result<Exit, Failure> {
    match args.command {
        ProcessCommand::Run(args) => run::run(args, ctx).await,
        ProcessCommand::Start(args) => start::run(args, ctx).await,
        ProcessCommand::Shell(args) => shell::run(args, ctx).await,
        ProcessCommand::Attach(args) => attach::run(args, ctx).await,
        ProcessCommand::List(args) => list::run(args, ctx).await,
        ProcessCommand::Get(args) => get::run(args, ctx).await,
        ProcessCommand::Input(args) => input::run(args, ctx).await,
        ProcessCommand::CloseStdin(args) => close_stdin::run(args, ctx).await,
        ProcessCommand::Resize(args) => resize::run(args, ctx).await,
        ProcessCommand::Signal(args) => signal::run(args, ctx).await,
        ProcessCommand::Wait(args) => wait::run(args, ctx).await,
        ProcessCommand::Stop(args) => stop::run(args, ctx).await,
    }
}
