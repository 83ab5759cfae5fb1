//! `createos local …`: the engine of this machine.

#[cfg(target_os = "linux")]
mod doctor;
#[cfg(target_os = "linux")]
mod image;
#[cfg(target_os = "linux")]
mod serve;
#[cfg(target_os = "linux")]
mod start;
mod status;
#[cfg(target_os = "linux")]
mod stop;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::Exit;
use crate::context::Context;
use crate::failure::Failure;

/// Run sandboxes on this machine, without an account
#[derive(Args)]
#[command(
    arg_required_else_help = true,
    before_help = "\
Examples:
  createos local doctor
  createos local start
  createos sandbox create --shape s-1vcpu-256mb --name my-box
  createos local stop"
)]
pub(crate) struct LocalArgs {
    #[command(subcommand)]
    command: LocalCommand,
}

#[derive(Subcommand)]
enum LocalCommand {
    /// Start the engine in the background and use it from now on
    ///
    /// Commands then talk to this machine until `createos local stop` or
    /// `createos login`. --sandbox-api-url still names another control plane.
    #[command(before_help = "\
Examples:
  createos local start
  createos local start --listen 127.0.0.1:8080 --data-dir ./engine")]
    Start(EngineArgs),
    /// Stop the engine that was started in the background
    #[command(before_help = "\
Examples:
  createos local stop")]
    Stop,
    /// Tell whether the engine runs; exit code 1 when it does not
    #[command(before_help = "\
Examples:
  createos local status
  createos local status --output json")]
    Status,
    /// Run the engine in the foreground until Ctrl+C
    ///
    /// With --output json the first line on standard output is one object with
    /// url, api_key and pid, written once the engine serves.
    #[command(before_help = "\
Examples:
  createos local serve
  createos local serve --output json --listen 127.0.0.1:8080")]
    Serve(ServeArgs),
    /// Check what this machine can do, and what is missing
    #[command(before_help = "\
Examples:
  createos local doctor
  createos local doctor --output json")]
    Doctor,
    #[cfg(target_os = "linux")]
    Image(image::ImageArgs),
}

/// Where an engine serves and keeps its state.
#[derive(Args, Clone)]
struct EngineArgs {
    /// Address to serve on [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,

    /// Directory of the engine's state [default: createos in the user's data
    /// directory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// Let sandboxes that ask for it hold containers, such as Docker's; only for
    /// what you would run on this machine anyway
    #[arg(long)]
    allow_nesting: bool,
}

#[derive(Args)]
struct ServeArgs {
    #[command(flatten)]
    engine: EngineArgs,

    /// Leave the terminal's session; used by `local start`
    #[arg(long, hide = true)]
    detached: bool,
}

impl LocalArgs {
    pub(super) fn writes_payload(&self) -> bool {
        self.handles_signals()
    }

    pub(super) fn handles_signals(&self) -> bool {
        matches!(self.command, LocalCommand::Serve(_))
    }
}

#[cfg(target_os = "linux")]
pub(super) async fn run(args: LocalArgs, ctx: &Context) -> Result<Exit, Failure> {
    match args.command {
        LocalCommand::Start(args) => start::run(args, ctx).await,
        LocalCommand::Stop => stop::run(ctx).await,
        LocalCommand::Status => status::run(ctx).await,
        LocalCommand::Serve(args) => serve::run(args, ctx).await,
        LocalCommand::Doctor => doctor::run(ctx).await,
        LocalCommand::Image(args) => image::run(args, ctx).await,
    }
}

/// The engine needs Linux; the rest of the command does not.
#[cfg(not(target_os = "linux"))]
pub(super) async fn run(args: LocalArgs, ctx: &Context) -> Result<Exit, Failure> {
    match args.command {
        LocalCommand::Status => status::run(ctx).await,
        _ => Err(Failure::local("the local engine runs on Linux only")
            .hint("use the hosted control plane: createos login --token <key>")),
    }
}

/// The directory of an engine's state, absolute.
#[cfg(target_os = "linux")]
fn data_dir(given: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let dir = given.or_else(createos_local::default_data_dir).ok_or_else(|| {
        Failure::local("there is no place for the engine's state")
            .hint("name a directory: --data-dir <dir>, or set HOME")
    })?;
    std::path::absolute(&dir).map_err(|error| Failure::io(format!("{}", dir.display()), &error))
}
