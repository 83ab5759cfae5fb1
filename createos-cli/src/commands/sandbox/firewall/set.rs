//! `createos sandbox firewall set`.

use clap::Args;

use super::{rules, update};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::prompt;
use crate::resolve::{self, Rules};

/// Replace the rules of a sandbox: only what they name may be reached
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox firewall set my-box api.example.com github.com
  createos sandbox firewall set my-box '*.example.org:443' 10.20.0.0/16
  createos sandbox firewall set my-box api.example.com,github.com")]
pub(super) struct SetArgs {
    /// Name or id [default: ask on a terminal]
    sandbox: Option<String>,

    /// What may be reached; the rules before are replaced
    #[arg(value_name = "RULE")]
    rules: Vec<String>,
}

pub(super) async fn run(args: SetArgs, ctx: &Context) -> Result<Exit, Failure> {
    let mut rules = rules(args.rules.iter().map(String::as_str));
    if rules.is_empty() && !(args.rules.is_empty() && ctx.interactive()) {
        let box_name = args.sandbox.as_deref().unwrap_or("<sandbox>");
        return Err(Failure::usage("no rule is given").hint(format!(
            "to allow everything again: createos sandbox firewall clear {box_name}"
        )));
    }
    let Some(found) = resolve::sandbox(ctx, args.sandbox.as_deref(), Rules::CHANGE).await? else {
        return Ok(Exit::Success);
    };
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    if rules.is_empty() {
        let now = sandbox.egress().await.map_err(|error| found.explain(error))?;
        let typed = prompt::edit("rules, with blanks between them", now.join(" ")).await?;
        rules = super::rules([typed.as_str()]);
        if rules.is_empty() {
            ctx.out.note("nothing was changed");
            return Ok(Exit::Success);
        }
    }
    update(ctx, &sandbox, &found, &rules).await
}
