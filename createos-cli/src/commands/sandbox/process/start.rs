//! `createos sandbox process start`, and what it shares with `run`.

use clap::Args;
use createos_sdk::Process;
use createos_sdk::wire::ProcessView;

use super::follow::Follow;
use super::target::Place;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::terminal;
use crate::value::env_pair::{self, EnvPair};

/// Start a command that runs on by itself
///
/// Returns at once. Come back to it with attach, wait and stop.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox process start my-box -- python3 -m http.server 8000
  createos sandbox process start my-box --cwd /work --env PORT=80 -- ./serve
  createos sandbox process start my-box --follow -- make test")]
pub(super) struct StartArgs {
    #[command(flatten)]
    what: What,

    /// Stay and print its output, as run does
    #[arg(long)]
    follow: bool,
}

/// A command and how it is started.
#[derive(Args)]
pub(super) struct What {
    /// Name or id of the sandbox [default: ask on a terminal]
    sandbox: Option<String>,

    /// The command and its arguments
    #[arg(last = true)]
    command: Vec<String>,

    /// Directory to start in: an absolute path
    #[arg(long, value_name = "DIR")]
    cwd: Option<String>,

    /// Add a variable to those of the sandbox (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = env_pair::parse)]
    env: Vec<EnvPair>,

    /// Give it a terminal
    #[arg(short = 't', long, visible_alias = "tty")]
    pty: bool,

    /// Rows of its terminal [default: those of this one, else 24]
    #[arg(long, requires = "pty", value_parser = clap::value_parser!(u16).range(1..))]
    rows: Option<u16>,

    /// Columns of its terminal [default: those of this one, else 80]
    #[arg(long, requires = "pty", value_parser = clap::value_parser!(u16).range(1..))]
    cols: Option<u16>,

    /// Print output behind this place only [default: 0, all of it]
    #[arg(long, value_name = "SEQ", default_value_t = 0, hide_default_value = true)]
    pub(super) after: u64,
}

impl StartArgs {
    pub(super) fn writes_payload(&self) -> bool {
        self.follow
    }
}

impl What {
    /// Starts it; `None` when no sandbox was picked.
    pub(super) async fn start(&self, ctx: &Context) -> Result<Option<(Place, Process)>, Failure> {
        if self.command.is_empty() {
            return Err(Failure::usage("which command? write it behind --"));
        }
        let Some(place) = Place::find(ctx, self.sandbox.as_deref()).await? else { return Ok(None) };
        let (program, arguments) =
            self.command.split_first().map_or(("", &[][..]), |(p, a)| (p, a));
        let spawn = async || {
            let mut spawning = place.sandbox.spawn(program).args(arguments);
            for pair in &self.env {
                spawning = spawning.env(&pair.key, pair.value.as_str());
            }
            if let Some(directory) = &self.cwd {
                spawning = spawning.cwd(directory);
            }
            if self.pty {
                let (rows, cols) = terminal::size();
                spawning = spawning.pty(self.rows.unwrap_or(rows), self.cols.unwrap_or(cols));
            }
            spawning.await
        };
        let process = place.on_running(ctx, spawn).await?;
        Ok(Some((place, process)))
    }

    pub(super) fn has_terminal(&self) -> bool {
        self.pty
    }
}

pub(super) async fn run(args: StartArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some((place, process)) = args.what.start(ctx).await? else { return Ok(Exit::Success) };
    if args.follow {
        let follow = Follow::new(ctx, &place, &process).after(args.what.after);
        return follow.to_the_end(args.what.has_terminal()).await;
    }
    announce(ctx, &place, &process)?;
    Ok(Exit::Success)
}

/// Says what was started, and how to come back to it.
pub(super) fn announce(ctx: &Context, place: &Place, process: &Process) -> Result<(), Failure> {
    let view = process.view();
    let pid = view.as_ref().map_or(0, |view| view.pid);
    let unknown = || Failure::local("the server said nothing about the process");
    let view: &ProcessView = view.as_deref().ok_or_else(unknown)?;
    ctx.out.result(view, || {
        format!("started {} (pid {pid}) in {}", process.id(), place.found.label())
    })?;
    ctx.out.hint(&format!("come back to it: {}", place.attach_line(process)));
    Ok(())
}
