//! `createos sandbox process attach`.

use clap::Args;
use createos_sdk::Process;
use createos_sdk::wire::ProcessKind;

use super::follow::Follow;
use super::shell;
use super::target::{Place, ProcessRef};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::prompt;

/// Come back to a process: its newest output, and what it does from now on
///
/// At a process's terminal, Ctrl-] leaves it running, Ctrl-N opens another
/// shell and Ctrl-P changes to another. Otherwise Ctrl+C leaves it running.
/// The exit code is the process's. A connection that breaks is made again.
#[derive(Args)]
#[command(
    visible_alias = "connect",
    before_help = "\
Examples:
  createos sandbox process attach my-box
  createos sandbox process attach my-box proc_01k... --no-follow
  echo hello | createos sandbox process attach my-box proc_01k... --stdin"
)]
pub(super) struct AttachArgs {
    #[command(flatten)]
    target: ProcessRef,

    /// Print output behind this place only [default: 0, all of it]
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    after: u64,

    /// Print what is kept, and leave
    #[arg(long, conflicts_with_all = ["stdin", "raw"])]
    no_follow: bool,

    /// Send our standard input to it, and its end
    #[arg(long)]
    stdin: bool,

    /// Pass on every key, Ctrl-], Ctrl-N and Ctrl-P too
    #[arg(long)]
    raw: bool,
}

pub(super) async fn run(args: AttachArgs, ctx: &Context) -> Result<Exit, Failure> {
    let (place, process) = match args.target.has_process() || !ctx.interactive() {
        true => match args.target.find(ctx).await? {
            Some(found) => found,
            None => return Ok(Exit::Success),
        },
        false => {
            let Some(place) = Place::find(ctx, args.target.sandbox()).await? else {
                return Ok(Exit::Success);
            };
            match pick(ctx, &place).await? {
                Pick::One(process) => (place, process),
                Pick::Shell => return shell::open(ctx, &place, None, true).await,
                Pick::Nothing => return Ok(Exit::Success),
            }
        }
    };
    let follow = Follow::new(ctx, &place, &process).after(args.after);
    if args.no_follow {
        return follow.replay().await;
    }
    let view = place.on_running(ctx, async || process.refresh().await).await?;
    // Standard input that is wanted as it is makes no terminal of ours.
    let has_terminal = view.kind == ProcessKind::Pty && !args.stdin;
    follow.stdin(args.stdin).raw(args.raw).to_the_end(has_terminal).await
}

enum Pick {
    One(Process),
    Shell,
    Nothing,
}

/// One of those that run; a new shell when there are none.
async fn pick(ctx: &Context, place: &Place) -> Result<Pick, Failure> {
    let running = place.running(ctx).await?;
    if running.is_empty() {
        let question = format!("no process runs in {}; open a shell?", place.found.label());
        return Ok(match prompt::confirm(question, true).await? {
            true => Pick::Shell,
            false => Pick::Nothing,
        });
    }
    Ok(place.pick(ctx, running).await?.map_or(Pick::Nothing, Pick::One))
}
