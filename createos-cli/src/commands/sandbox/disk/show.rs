//! `createos sandbox disk show`.

use clap::Args;
use createos_sdk::wire::DiskView;

use super::named;
use crate::commands::Exit;
use crate::commands::sandbox::choose::DISK;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::format;

/// Show a disk; its keys are never shown
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox disk show my-disk
  createos sandbox disk show my-disk --output json")]
pub(super) struct ShowArgs {
    /// Name or id [default: ask on a terminal]
    disk: Option<String>,
}

pub(super) async fn run(args: ShowArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some(disk) = super::chosen(ctx, args.disk.as_deref()).await? else {
        return Ok(Exit::Success);
    };
    let found = ctx.plane()?.client.get_disk(&disk).await;
    let found = found.map_err(|error| DISK.explain(&disk, error))?;
    let view = found.view();
    let view = view.as_deref().ok_or_else(|| Failure::local("the server describes no disk"))?;
    ctx.out.result(view, || text(view))?;
    Ok(Exit::Success)
}

fn text(view: &DiskView) -> String {
    let config = &view.config;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let rows = [
        ("kind", view.kind.to_string()),
        ("bucket", config.bucket.clone()),
        ("endpoint", config.endpoint.clone()),
        ("region", or_dash(config.region.clone())),
        ("path style", if config.use_path_style { "yes" } else { "no" }.to_owned()),
        ("created", or_dash(view.created_at.map(format::second))),
    ];
    format::details(&named(view).label(), &rows)
}
