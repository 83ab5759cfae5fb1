//! One file per command: its arguments and what it does with them.

mod completion;
mod ending;
mod local;
mod login;
mod logout;
mod man;
mod overview;
mod sandbox;
mod version;
mod whoami;

use clap::Subcommand;

use crate::context::Context;
use crate::failure::Failure;

/// How a command ended when nothing has to be reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Success,
    /// The exit code of the program inside, or 1 for a result that was
    /// printed and says what failed.
    Code(u8),
}

/// The commands.
#[derive(Subcommand)]
pub(crate) enum Command {
    Login(login::LoginArgs),
    /// Forget the stored sign-in
    #[command(before_help = "\
Examples:
  createos logout")]
    Logout,
    /// Show who is signed in, and where
    #[command(before_help = "\
Examples:
  createos whoami
  createos whoami --output json")]
    Whoami,
    Sandbox(Box<sandbox::SandboxArgs>),
    Local(local::LocalArgs),
    Completion(completion::CompletionArgs),
    Man(man::ManArgs),
    /// Show the version of this command
    #[command(before_help = "\
Examples:
  createos version
  createos version --output json")]
    Version,
}

impl Command {
    /// Whether standard output carries bytes that are not a document of ours,
    /// so that JSON has to be asked for (cli.md 1.9).
    pub(crate) fn writes_payload(&self) -> bool {
        match self {
            Self::Sandbox(args) => args.writes_payload(),
            Self::Local(args) => args.writes_payload(),
            Self::Completion(_) => true,
            _ => false,
        }
    }

    /// Whether the command ends itself in order when a signal comes.
    pub(crate) fn handles_signals(&self) -> bool {
        match self {
            Self::Local(args) => args.handles_signals(),
            Self::Sandbox(args) => args.handles_signals(),
            _ => false,
        }
    }

    /// Runs the command.
    pub(crate) async fn run(self, ctx: &Context) -> Result<Exit, Failure> {
        match self {
            Self::Login(args) => login::run(args, ctx).await,
            Self::Logout => logout::run(ctx).await,
            Self::Whoami => whoami::run(ctx).await,
            Self::Sandbox(args) => sandbox::run(*args, ctx).await,
            Self::Local(args) => local::run(args, ctx).await,
            Self::Completion(args) => completion::run(&args, ctx),
            Self::Man(args) => man::run(&args, ctx),
            Self::Version => version::run(ctx),
        }
    }
}

/// What bare `createos` prints.
pub(crate) fn overview(ctx: &Context) -> Result<Exit, Failure> {
    overview::run(ctx)
}
