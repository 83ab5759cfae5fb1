//! `createos sandbox firewall clear`.

use clap::Args;
use serde_json::json;

use super::replace;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::prompt;
use crate::resolve::{self, Rules};

/// Let a sandbox reach everything again
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox firewall clear my-box
  createos sandbox firewall clear my-box --force")]
pub(super) struct ClearArgs {
    /// Name or id [default: ask on a terminal]
    sandbox: Option<String>,

    /// Do not ask; a script is never asked [aliases: --yes, -y]
    #[arg(short = 'y', long, alias = "yes")]
    force: bool,
}

pub(super) async fn run(args: ClearArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some(found) = resolve::sandbox(ctx, args.sandbox.as_deref(), Rules::CHANGE).await? else {
        return Ok(Exit::Success);
    };
    let question = format!("let {} reach everything?", found.label());
    if ctx.interactive() && !args.force && !prompt::confirm(question, false).await? {
        ctx.out.note("nothing was changed");
        return Ok(Exit::Success);
    }
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    let rules = replace(ctx, &sandbox, &found, &[]).await?;
    let document = json!({ "action": "firewall_cleared", "id": found.id.as_str(), "rules": rules });
    ctx.out.result(&document, || {
        format!("firewall of {} is open: everything may be reached", found.label())
    })?;
    Ok(Exit::Success)
}
