//! `createos sandbox disk …`.

mod attach;
mod create;
mod detach;
mod list;
mod place;
mod rm;
mod show;

use clap::{Args, Subcommand};
use createos_sdk::wire::DiskView;
use createos_sdk::{Client, Disk};

use super::choose::{self, DISK, Named};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;

/// Mount S3 buckets into sandboxes
#[derive(Args)]
#[command(
    visible_alias = "disks",
    arg_required_else_help = true,
    before_help = "\
Examples:
  createos sandbox disk create my-disk --bucket my-bucket \\
      --endpoint https://s3.example.org --access-key AK… --secret-key -
  createos sandbox disk attach my-box my-disk:/mnt/data
  createos sandbox disk detach my-box my-disk"
)]
pub(super) struct DiskArgs {
    #[command(subcommand)]
    command: DiskCommand,
}

#[derive(Subcommand)]
enum DiskCommand {
    Create(create::CreateArgs),
    Ls(list::ListArgs),
    Show(show::ShowArgs),
    Attach(attach::AttachArgs),
    Detach(detach::DetachArgs),
    Rm(rm::RmArgs),
}

impl DiskArgs {
    pub(super) fn writes_payload(&self) -> bool {
        matches!(&self.command, DiskCommand::Ls(args) if args.quiet)
    }
}

pub(super) async fn run(args: DiskArgs, ctx: &Context) -> Result<Exit, Failure> {
    match args.command {
        DiskCommand::Create(args) => create::run(args, ctx).await,
        DiskCommand::Ls(args) => list::run(args, ctx).await,
        DiskCommand::Show(args) => show::run(args, ctx).await,
        DiskCommand::Attach(args) => attach::run(args, ctx).await,
        DiskCommand::Detach(args) => detach::run(args, ctx).await,
        DiskCommand::Rm(args) => rm::run(args, ctx).await,
    }
}

async fn all(client: &Client) -> createos_sdk::Result<Vec<DiskView>> {
    let rows = client.disks().await?;
    Ok(rows.iter().filter_map(Disk::view).map(|view| (*view).clone()).collect())
}

fn named(view: &DiskView) -> Named {
    Named::new(view.id.as_str(), &*view.name)
}

/// The disk that was typed, or picked; `None` when nothing was picked.
async fn chosen(ctx: &Context, text: Option<&str>) -> Result<Option<String>, Failure> {
    let rows = async || Ok(all(&ctx.plane()?.client).await?.iter().map(named).collect());
    let choice = choose::typed_or_picked(ctx, DISK, text, rows).await?;
    Ok(choice.map(|choice| choice.handle().to_owned()))
}
