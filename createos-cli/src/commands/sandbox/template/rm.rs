//! `createos sandbox template rm`.

use clap::Args;
use createos_sdk::{Client, Template};

use super::{all, named};
use crate::commands::Exit;
use crate::commands::sandbox::batch;
use crate::commands::sandbox::choose::{self, Named, TEMPLATE};
use crate::context::Context;
use crate::failure::Failure;

/// Delete templates; sandboxes made from them go on
#[derive(Args)]
#[command(
    visible_alias = "delete",
    before_help = "\
Examples:
  createos sandbox template rm my-rails
  createos sandbox template rm my-rails old-try --force"
)]
pub(super) struct RmArgs {
    /// Names or ids [default: ask on a terminal]
    #[arg(value_name = "TEMPLATE")]
    templates: Vec<String>,

    /// Do not ask [aliases: --yes, -y]
    #[arg(short = 'y', long, alias = "yes")]
    force: bool,
}

pub(super) async fn run(args: RmArgs, ctx: &Context) -> Result<Exit, Failure> {
    let mut wanted = batch::wanted(ctx, TEMPLATE, &args.templates, args.force)?;
    let client = &ctx.plane()?.client;
    if wanted.is_empty() {
        let rows = all(client).await?.iter().map(named).collect();
        let Some(picked) = choose::several(ctx, TEMPLATE, rows).await? else {
            return Ok(Exit::Success);
        };
        wanted = picked.into_iter().map(|picked| picked.id).collect();
    }
    let mut outcomes = batch::look_up(wanted, async |word| look_up(client, word).await).await;
    if !args.force && !batch::confirm(ctx, TEMPLATE, &outcomes, "").await? {
        return Ok(Exit::Success);
    }
    batch::remove(&mut outcomes, async |named, template: &Template| {
        template.delete().await.map_err(|error| TEMPLATE.explain(named.handle(), error))
    })
    .await;
    let exit = batch::report(ctx, "template_deleted", &outcomes)?;
    if outcomes.iter().any(|outcome| outcome.error.is_none()) {
        ctx.out.hint("sandboxes built from it go on, and paused ones can still be resumed");
    }
    Ok(exit)
}

async fn look_up(client: &Client, word: &str) -> Result<(Named, Template), Failure> {
    let found = client.get_template(word).await;
    let found = found.map_err(|error| TEMPLATE.explain(word, error))?;
    let name = found.view().map(|view| view.name.clone()).unwrap_or_default();
    Ok((Named::new(found.id(), name), found))
}
