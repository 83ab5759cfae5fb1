//! `createos sandbox disk detach`.

use clap::Args;
use createos_sdk::wire::DiskAttachment;
use serde_json::json;

use super::place::{self, Place};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::prompt;
use crate::resolve::{self, Found, Rules};
use crate::wait;

/// Unmount a disk from a sandbox; the bucket keeps everything
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox disk detach my-box my-disk
  createos sandbox disk detach my-box my-disk --force
  createos sandbox disk detach my-box my-disk:/mnt/data --force")]
pub(super) struct DetachArgs {
    /// Name or id [default: ask on a terminal]
    sandbox: Option<String>,

    /// Name or id of the disk; the path, behind a colon or as the next word, is
    /// needed where the sandbox has it more than once
    #[arg(value_name = "DISK[:/PATH]")]
    disk: Option<String>,

    /// Where it is
    #[arg(value_name = "PATH")]
    path: Option<String>,

    /// Do not ask [aliases: --yes, -y]
    #[arg(short = 'y', long, alias = "yes")]
    force: bool,
}

pub(super) async fn run(args: DetachArgs, ctx: &Context) -> Result<Exit, Failure> {
    let place = place::read(args.disk.as_deref(), args.path.as_deref())?;
    if !ctx.interactive() {
        refuse(&args, &place)?;
    }
    let rules = Rules::CHANGE;
    let Some(found) = resolve::sandbox(ctx, args.sandbox.as_deref(), rules).await? else {
        return Ok(Exit::Success);
    };
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    let rows = sandbox.disks().await.map_err(|error| found.explain(error))?;
    let Some(row) = meant(ctx, &found, &rows, &place).await? else { return Ok(Exit::Success) };
    let (name, path) = (named(row), &row.mount_path);
    let question = format!("take {name} out of {}, where it is at {path}?", found.label());
    if !args.force && !prompt::confirm(question, false).await? {
        ctx.out.note("nothing was changed");
        return Ok(Exit::Success);
    }
    let detach = async || {
        let detached = sandbox.detach_disk(row.disk_id.as_str(), path).await;
        detached.map_err(|error| found.explain(error))
    };
    wait::on_running(ctx, &sandbox, &found, detach).await?;
    let document = json!({
        "action": "disk_detached",
        "disk": place.disk.as_deref().unwrap_or(name),
        "sandbox_id": found.id.as_str(),
        "mount_path": path,
    });
    ctx.out.result(&document, || {
        format!("{name} left {}, was at {path}; the bucket is unchanged", found.label())
    })?;
    Ok(Exit::Success)
}

fn refuse(args: &DetachArgs, place: &Place) -> Result<(), Failure> {
    let (Some(sandbox), Some(disk)) = (&args.sandbox, &place.disk) else {
        return Err(Failure::usage("a sandbox and a disk are needed")
            .hint("createos sandbox disk detach my-box my-disk --force"));
    };
    if args.force {
        return Ok(());
    }
    let path = place.path.as_ref().map(|path| format!(":{path}")).unwrap_or_default();
    Err(Failure::usage("this needs a confirmation, and nobody can be asked here")
        .hint(format!("createos sandbox disk detach {sandbox} {disk}{path} --force")))
}

fn named(row: &DiskAttachment) -> &str {
    if row.name.is_empty() { row.disk_id.as_str() } else { &row.name }
}

fn mount(row: &DiskAttachment) -> String {
    format!("{}:{}", named(row), row.mount_path)
}

/// The one attachment that fits; asked for where several do.
async fn meant<'a>(
    ctx: &Context,
    found: &Found,
    rows: &'a [DiskAttachment],
    place: &Place,
) -> Result<Option<&'a DiskAttachment>, Failure> {
    let fits = |row: &&DiskAttachment| {
        let disk = place.disk.as_ref();
        let path = place.path.as_ref();
        disk.is_none_or(|disk| row.name == *disk || row.disk_id.as_str() == disk)
            && path.is_none_or(|path| row.mount_path.trim_end_matches('/') == path)
    };
    let fitting: Vec<&DiskAttachment> = rows.iter().filter(fits).collect();
    match fitting.as_slice() {
        [] => Err(none(found, rows, place)),
        [one] if place.disk.is_some() => Ok(Some(*one)),
        several if ctx.interactive() => {
            let items = several.iter().map(|row| mount(row)).collect();
            let picked = prompt::pick(ctx, "which mount?", items).await?;
            Ok(picked.and_then(|at| several.get(at).copied()))
        }
        several => {
            let lines = several.iter().map(|row| {
                format!("createos sandbox disk detach {} {} --force", found.handle(), mount(row))
            });
            let text = format!("{} has it at {} paths; name one", found.label(), several.len());
            Err(Failure::usage(text).hint(lines.collect::<Vec<_>>().join("\n")))
        }
    }
}

fn none(found: &Found, rows: &[DiskAttachment], place: &Place) -> Failure {
    let label = found.label();
    if rows.is_empty() {
        return Failure::local(format!("{label} has no disks"));
    }
    let disk = place.disk.as_deref().unwrap_or("such a disk");
    let at = place.path.as_ref().map(|path| format!(" at {path}")).unwrap_or_default();
    let have: Vec<String> = rows.iter().map(mount).collect();
    Failure::local(format!("{label} does not have {disk}{at}"))
        .hint(format!("it has: {}", have.join(", ")))
}
