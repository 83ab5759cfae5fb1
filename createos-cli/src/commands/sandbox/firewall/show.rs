//! `createos sandbox firewall show`.

use clap::Args;
use serde_json::json;

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::resolve::{self, Rules};

/// Show what a sandbox may reach outside
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox firewall show my-box
  createos sandbox firewall show my-box --output json")]
pub(super) struct ShowArgs {
    /// Name or id [default: ask on a terminal]
    sandbox: Option<String>,
}

pub(super) async fn run(args: ShowArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some(found) = resolve::sandbox(ctx, args.sandbox.as_deref(), Rules::ACT).await? else {
        return Ok(Exit::Success);
    };
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    let rules = sandbox.egress().await.map_err(|error| found.explain(error))?;
    let document = json!({ "id": found.id.as_str(), "rules": rules });
    ctx.out.result(&document, || super::text(&found, &rules))?;
    match rules.is_empty() {
        true => ctx.out.hint(&format!(
            "allow some hosts only: createos sandbox firewall set {} api.example.com",
            found.handle()
        )),
        false => super::explain(ctx, &rules),
    }
    Ok(Exit::Success)
}
