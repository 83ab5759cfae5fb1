//! `createos sandbox disk rm`.

use clap::Args;
use createos_sdk::wire::{DiskAttachment, SandboxStatus};
use createos_sdk::{Client, Disk, ErrorKind};
use futures::{StreamExt, TryStreamExt, stream};

use super::{all, named};
use crate::commands::Exit;
use crate::commands::sandbox::batch;
use crate::commands::sandbox::choose::{self, DISK, Named};
use crate::context::Context;
use crate::failure::Failure;
use crate::prompt;
use crate::resolve::{self, Found};

/// Sandboxes that are asked at a time for their disks.
const AT_ONCE: usize = 8;

/// Delete disks; the buckets stay as they are
#[derive(Args)]
#[command(
    visible_alias = "delete",
    before_help = "\
Examples:
  createos sandbox disk rm my-disk
  createos sandbox disk rm my-disk other-disk --force"
)]
pub(super) struct RmArgs {
    /// Names or ids [default: ask on a terminal]
    #[arg(value_name = "DISK")]
    disks: Vec<String>,

    /// Do not ask; detach them where they are mounted [aliases: --yes, -y]
    #[arg(short = 'y', long, alias = "yes")]
    force: bool,
}

pub(super) async fn run(args: RmArgs, ctx: &Context) -> Result<Exit, Failure> {
    let mut wanted = batch::wanted(ctx, DISK, &args.disks, args.force)?;
    let client = &ctx.plane()?.client;
    if wanted.is_empty() {
        let rows = all(client).await?.iter().map(named).collect();
        let Some(picked) = choose::several(ctx, DISK, rows).await? else {
            return Ok(Exit::Success);
        };
        wanted = picked.into_iter().map(|picked| picked.id).collect();
    }
    let mut outcomes = batch::look_up(wanted, async |word| look_up(client, word).await).await;
    let suffix = " (the bucket itself stays)";
    if !args.force && !batch::confirm(ctx, DISK, &outcomes, suffix).await? {
        return Ok(Exit::Success);
    }
    let remove = async |named: &Named, disk: &Disk| remove(ctx, named, disk, args.force).await;
    batch::remove(&mut outcomes, remove).await;
    batch::report(ctx, "disk_deleted", &outcomes)
}

async fn look_up(client: &Client, word: &str) -> Result<(Named, Disk), Failure> {
    let disk = client.get_disk(word).await.map_err(|error| DISK.explain(word, error))?;
    let name = disk.view().map(|view| view.name.clone()).unwrap_or_default();
    Ok((Named::new(disk.id(), name), disk))
}

/// Where a disk is mounted.
struct Mount {
    found: Found,
    row: DiskAttachment,
}

/// Deletes it; where sandboxes hold it, from them first.
async fn remove(ctx: &Context, named: &Named, disk: &Disk, force: bool) -> Result<(), Failure> {
    let explain = |error| DISK.explain(named.handle(), error);
    let refused = match disk.delete().await {
        Err(error) if error.kind() == ErrorKind::Conflict => error,
        done => return done.map_err(explain),
    };
    let mounts = mounts(&ctx.plane()?.client, disk).await?;
    if mounts.is_empty() {
        return Err(explain(refused));
    }
    if !force {
        let places = mounts
            .iter()
            .map(|mount| format!("{} at {}", mount.found.label(), mount.row.mount_path));
        let places = places.collect::<Vec<_>>().join(", ");
        let question = format!("{} is mounted in {places}; detach and delete it?", named.label());
        if !prompt::confirm(question, false).await? {
            return Err(explain(refused));
        }
    }
    for Mount { found, row } in mounts {
        let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
        let detached = sandbox.detach_disk(disk.id().as_str(), &row.mount_path).await;
        detached.map_err(|error| {
            let still = format!("{} is still in {}", named.label(), found.label());
            let failure = Failure::from(error);
            let why = failure.message().to_owned();
            failure.saying(format!("{still}: {why}"))
        })?;
        ctx.out.note(&format!(
            "{} left {}, was at {}",
            named.label(),
            found.label(),
            row.mount_path
        ));
    }
    disk.delete().await.map_err(explain)
}

/// Nothing says where a disk is but the sandboxes themselves.
async fn mounts(client: &Client, disk: &Disk) -> Result<Vec<Mount>, Failure> {
    let mut views = Vec::new();
    for status in [SandboxStatus::Running, SandboxStatus::Paused] {
        views.extend(resolve::views(client.sandboxes().status(status).await?));
    }
    let asked = stream::iter(views.into_iter().map(|view| async move {
        let found = Found { id: view.id.clone(), name: view.name };
        let rows = client.sandbox(view.id).disks().await.map_err(|error| found.explain(error))?;
        let ours = rows.into_iter().filter(|row| row.disk_id == *disk.id());
        Ok::<_, Failure>(ours.map(|row| Mount { found: found.clone(), row }).collect::<Vec<_>>())
    }));
    let mounts: Vec<Vec<Mount>> = asked.buffered(AT_ONCE).try_collect().await?;
    Ok(mounts.into_iter().flatten().collect())
}
