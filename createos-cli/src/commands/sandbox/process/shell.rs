//! `createos sandbox process shell`.

use clap::Args;

use super::follow::Follow;
use super::start::announce;
use super::target::Place;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::terminal;

/// Open a shell that lives on when the connection ends
///
/// Ctrl-] leaves it running, Ctrl-N opens another, Ctrl-P changes between them.
/// The exit code is the shell's.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox process shell my-box
  createos sandbox process shell my-box --cmd python3
  createos sandbox process shell my-box --no-attach")]
pub(super) struct ShellArgs {
    /// Name or id of the sandbox [default: ask on a terminal]
    sandbox: Option<String>,

    /// Program to run [default: the shell of the image]
    #[arg(long, value_name = "PROGRAM", value_parser = crate::value::text)]
    cmd: Option<String>,

    /// Start it and return at once
    #[arg(long)]
    no_attach: bool,
}

impl ShellArgs {
    pub(super) fn writes_payload(&self) -> bool {
        !self.no_attach
    }
}

pub(super) async fn run(args: ShellArgs, ctx: &Context) -> Result<Exit, Failure> {
    if !args.no_attach && !ctx.interactive() {
        return Err(Failure::usage("a shell needs a terminal, and there is none")
            .hint("start it for later: --no-attach"));
    }
    match Place::find(ctx, args.sandbox.as_deref()).await? {
        Some(place) => open(ctx, &place, args.cmd.as_deref(), !args.no_attach).await,
        None => Ok(Exit::Success),
    }
}

/// Opens a shell, or another program in a terminal.
pub(super) async fn open(
    ctx: &Context,
    place: &Place,
    program: Option<&str>,
    attach: bool,
) -> Result<Exit, Failure> {
    let (rows, cols) = terminal::size();
    let spawn = async || match program {
        Some(program) => place.sandbox.spawn(program).pty(rows, cols).await,
        None => place.sandbox.spawn_shell(rows, cols).await,
    };
    let process = place.on_running(ctx, spawn).await?;
    if !attach {
        announce(ctx, place, &process)?;
        return Ok(Exit::Success);
    }
    Follow::new(ctx, place, &process).to_the_end(true).await
}
