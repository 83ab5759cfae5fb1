//! `createos sandbox self …`: for a program inside a sandbox.

use std::time::Duration;

use clap::{Args, Subcommand};
use createos_sdk::local::{self, SelfSignal};
use createos_sdk::{ErrorKind, RequestOptions};
use serde_json::json;

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::prompt;

/// The agent of a sandbox answers at once.
const PATIENCE: Duration = Duration::from_secs(2);
/// What the server keeps of a reason.
const REASON: usize = 128;

/// Pause or delete the sandbox that this command runs in
///
/// Works inside a sandbox only, and without signing in.
#[derive(Args)]
#[command(
    arg_required_else_help = true,
    before_help = "\
Examples:
  createos sandbox self pause --reason 'work is done'
  createos sandbox self delete --force"
)]
pub(super) struct SelfArgs {
    #[command(subcommand)]
    command: SelfCommand,
}

#[derive(Subcommand)]
enum SelfCommand {
    Pause(PauseArgs),
    Delete(DeleteArgs),
}

/// Let this sandbox pause
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox self pause
  createos sandbox self pause --reason 'night'")]
struct PauseArgs {
    /// Why, for the records; cut to 128 characters
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Let this sandbox be deleted, with everything in it
#[derive(Args)]
#[command(visible_aliases = ["destroy", "rm"], before_help = "\
Examples:
  createos sandbox self delete
  createos sandbox self delete --force --reason 'tests are done'")]
struct DeleteArgs {
    /// Why, for the records; cut to 128 characters
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    /// Do not ask [aliases: --yes, -y]
    #[arg(short = 'y', long, alias = "yes")]
    force: bool,
}

pub(super) async fn run(args: SelfArgs, ctx: &Context) -> Result<Exit, Failure> {
    match args.command {
        SelfCommand::Pause(args) => send(ctx, "pause", local::pause(), args.reason).await,
        SelfCommand::Delete(args) => {
            if !args.force && !ctx.interactive() {
                let text = "deleting needs a confirmation, and nobody can be asked here";
                return Err(Failure::usage(text).hint("createos sandbox self delete --force"));
            }
            let question = "delete this sandbox, with everything in it?";
            if !args.force && !prompt::confirm(question, false).await? {
                ctx.out.note("nothing was deleted");
                return Ok(Exit::Success);
            }
            send(ctx, "delete", local::delete(), args.reason).await
        }
    }
}

async fn send(
    ctx: &Context,
    action: &str,
    mut signal: SelfSignal,
    reason: Option<String>,
) -> Result<Exit, Failure> {
    let reason: String = reason.unwrap_or_default().trim().chars().take(REASON).collect();
    if !reason.is_empty() {
        signal = signal.reason(&reason);
    }
    match signal.with(RequestOptions::new().timeout(PATIENCE)).await {
        Ok(()) => {}
        // Some agents say so in another way.
        Err(error) if error.status() == Some(200) => {}
        Err(error) => return Err(outside(error, action)),
    }
    let document = json!({ "status": "accepted", "action": action, "reason": reason });
    ctx.out.result(&document, || match action {
        "pause" => "this sandbox is about to pause",
        _ => "this sandbox is about to be deleted",
    })?;
    Ok(Exit::Success)
}

/// Nobody listens anywhere but in a sandbox.
fn outside(error: createos_sdk::Error, action: &str) -> Failure {
    let nobody = matches!(error.kind(), ErrorKind::Connection | ErrorKind::Timeout);
    let refused = matches!(error.status(), Some(404 | 405));
    if !nobody && !refused {
        return Failure::from(error);
    }
    let other = if action == "pause" { "pause" } else { "rm" };
    Failure::local(format!("self {action} works only inside a sandbox, and this is none"))
        .hint(format!("from outside: createos sandbox {other} <sandbox>"))
}
