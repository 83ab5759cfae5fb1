//! `createos sandbox process run`.

use std::time::Duration;

use clap::Args;

use super::follow::Follow;
use super::start::{What, announce};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::value::duration;

/// Run a command and print its output, whatever happens to the connection
///
/// The exit code is the command's, or 128 and the number of the signal that
/// killed it. Ctrl+C leaves the command running. With --pty it is at this
/// terminal: Ctrl-] leaves it running. --output json waits, and prints the
/// process instead of its output.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox process run my-box -- make test
  createos sandbox process run my-box --pty -- vim notes.txt
  createos sandbox process run my-box --timeout 10m -- ./train --epochs 3")]
pub(super) struct RunArgs {
    #[command(flatten)]
    what: What,

    /// Return at once, as start does
    #[arg(long)]
    no_follow: bool,

    /// Wait for everything that it started too
    #[arg(long)]
    all: bool,

    /// Leave it running after this time, and fail [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    timeout: Option<Duration>,
}

impl RunArgs {
    pub(super) fn writes_payload(&self) -> bool {
        !self.no_follow
    }
}

pub(super) async fn run(args: RunArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some((place, process)) = args.what.start(ctx).await? else { return Ok(Exit::Success) };
    if args.no_follow {
        announce(ctx, &place, &process)?;
        return Ok(Exit::Success);
    }
    let follow = Follow::new(ctx, &place, &process).after(args.what.after).tree(args.all);
    let following = follow.to_the_end(args.what.has_terminal());
    match args.timeout {
        None => following.await,
        Some(limit) => match tokio::time::timeout(limit, following).await {
            Ok(ended) => ended,
            Err(_) => Err(follow.still_running(limit)),
        },
    }
}
