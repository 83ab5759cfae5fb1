//! `createos sandbox rm`.

use std::time::Duration;

use clap::Args;
use createos_sdk::Sandbox;
use createos_sdk::wire::SandboxStatus;

use super::batch::{self, Outcome};
use super::choose::{Named, SANDBOX};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::Spinner;
use crate::prompt;
use crate::resolve::{Resolver, Rules};

/// Longest wait of `--wait` for one sandbox.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// Delete sandboxes for good
#[derive(Args)]
#[command(visible_aliases = ["delete", "destroy"], before_help = "\
Examples:
  createos sandbox rm my-box
  createos sandbox rm my-box other-box --force
  createos sandbox rm --force $(createos sandbox list --quiet)")]
pub(super) struct RmArgs {
    /// Names or ids [default: ask on a terminal]
    #[arg(value_name = "SANDBOX")]
    sandboxes: Vec<String>,

    /// Do not ask [aliases: --yes, -y]
    #[arg(short = 'y', long, alias = "yes")]
    force: bool,

    /// Wait until they are gone [default: teardown goes on in the background]
    #[arg(long)]
    wait: bool,

    /// Show what would be deleted, and delete nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: RmArgs, ctx: &Context) -> Result<Exit, Failure> {
    let sure = args.force || args.dry_run;
    let mut wanted = batch::wanted(ctx, SANDBOX, &args.sandboxes, sure)?;
    let mut picked = Vec::new();
    if wanted.is_empty() {
        let Some(chosen) = prompt::pick_sandboxes(ctx, Rules::REMOVE).await? else {
            return Ok(Exit::Success);
        };
        wanted = chosen.iter().map(|found| found.id.to_string()).collect();
        picked = chosen;
    }
    let client = &ctx.plane()?.client;
    let resolver = Resolver::new(client);
    let mut outcomes = batch::look_up(wanted, async |word| {
        let found = match picked.iter().find(|picked| picked.id.as_str() == word) {
            Some(picked) => picked.clone(),
            None => resolver.find(word, Rules::REMOVE).await?,
        };
        let named = Named::new(&found.id, found.name.clone().unwrap_or_default());
        Ok((named, (client.sandbox(found.id.clone()), found)))
    })
    .await;
    if args.dry_run {
        return batch::preview(ctx, &outcomes);
    }
    if !args.force && !batch::confirm(ctx, SANDBOX, &outcomes, "").await? {
        return Ok(Exit::Success);
    }
    batch::remove(&mut outcomes, async |_, (sandbox, found)| {
        sandbox.destroy().await.map(drop).map_err(|error| found.explain(error))
    })
    .await;
    if args.wait {
        wait(ctx, &mut outcomes).await;
    }
    batch::report(ctx, "deleted", &outcomes)
}

async fn wait<T>(ctx: &Context, outcomes: &mut [Outcome<(Sandbox, T)>]) {
    let _note = ctx.if_interrupted("teardown goes on: createos sandbox list --all".to_owned());
    let _spinner = Spinner::start(ctx.out.terminal(), "waiting until they are gone".to_owned());
    for outcome in outcomes.iter_mut().filter(|outcome| outcome.error.is_none()) {
        let Some((named, (sandbox, _))) = &outcome.found else { continue };
        let gone = sandbox.wait_until(SandboxStatus::Destroyed).budget(PATIENCE).await;
        outcome.error = gone.err().map(|error| Failure::from(error).about(&named.label()));
    }
}
