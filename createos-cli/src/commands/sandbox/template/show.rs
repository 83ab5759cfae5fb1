//! `createos sandbox template show`.

use clap::Args;
use createos_sdk::wire::{TemplateStatus, TemplateView};
use serde_json::json;

use super::{chosen, named};
use crate::commands::Exit;
use crate::commands::sandbox::choose::TEMPLATE;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, format};

/// Show how far a template is
#[derive(Args)]
#[command(
    visible_alias = "get",
    before_help = "\
Examples:
  createos sandbox template show my-rails
  createos sandbox template show my-rails --dockerfile
  createos sandbox template show my-rails --output json"
)]
pub(super) struct ShowArgs {
    /// Name or id [default: ask on a terminal]
    template: Option<String>,

    /// Show the Dockerfile as well
    #[arg(long)]
    dockerfile: bool,
}

pub(super) async fn run(args: ShowArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some(template) = chosen(ctx, args.template.as_deref()).await? else {
        return Ok(Exit::Success);
    };
    let view = super::view(&template)?;
    let named = named(&view);
    let dockerfile = match args.dockerfile {
        true => {
            let text = template.dockerfile().await;
            Some(text.map_err(|error| TEMPLATE.explain(named.handle(), error))?)
        }
        false => None,
    };
    let mut document = output::to_value(&*view)?;
    if let Some(dockerfile) = &dockerfile {
        document["dockerfile"] = json!(dockerfile);
    }
    ctx.out.result(&document, || text(&view, dockerfile.as_deref()))?;
    let name = named.handle();
    match view.status {
        TemplateStatus::Failed => {
            ctx.out.hint(&format!("why it failed: createos sandbox template logs {name}"));
        }
        TemplateStatus::Ready => {
            ctx.out.hint(&format!("use it: createos sandbox create --shape <id> --rootfs {name}"));
        }
        _ => ctx.out.hint(&format!("follow it: createos sandbox template logs {name} --follow")),
    }
    Ok(Exit::Success)
}

fn text(view: &TemplateView, dockerfile: Option<&str>) -> String {
    let or_dash = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let rows = [
        ("status", view.status.to_string()),
        ("base", or_dash(view.base.clone())),
        ("size", or_dash(super::size(view))),
        ("created", or_dash(view.created_at.map(format::second).unwrap_or_default())),
        ("built", or_dash(view.built_at.map(format::second).unwrap_or_default())),
    ];
    let details = format::details(&named(view).label(), &rows);
    match dockerfile {
        Some(dockerfile) => format!("{details}\n\n{dockerfile}"),
        None => details,
    }
}
