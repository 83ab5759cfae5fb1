//! `createos sandbox disk attach`.

use std::time::Duration;

use clap::Args;
use createos_sdk::wire::{DiskAttachment, MountStatus};
use createos_sdk::{ErrorKind, Sandbox};
use serde_json::json;

use super::place::{self, Place};
use crate::commands::Exit;
use crate::commands::sandbox::choose::DISK;
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::output::{self, Spinner};
use crate::prompt;
use crate::resolve::{self, Found, Rules};
use crate::wait;

/// Longest wait for a mount.
const BUDGET: Duration = Duration::from_secs(45);

/// Mount a disk into a running sandbox, and wait until it is there
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox disk attach my-box my-disk:/mnt/data
  createos sandbox disk attach my-box my-disk /mnt/data
  createos sandbox disk attach my-box my-disk:/mnt/data --no-wait")]
pub(super) struct AttachArgs {
    /// Name or id [default: ask on a terminal]
    sandbox: Option<String>,

    /// Name or id of the disk, with the path behind a colon or as the next word
    #[arg(value_name = "DISK[:/PATH]")]
    disk: Option<String>,

    /// Where it appears: an absolute path [default: ask on a terminal]
    #[arg(value_name = "PATH")]
    path: Option<String>,

    /// Return as soon as the server has accepted it
    #[arg(long)]
    no_wait: bool,
}

pub(super) async fn run(args: AttachArgs, ctx: &Context) -> Result<Exit, Failure> {
    let place = place::read(args.disk.as_deref(), args.path.as_deref())?;
    if !ctx.interactive()
        && (args.sandbox.is_none() || place.disk.is_none() || place.path.is_none())
    {
        return Err(Failure::usage("a sandbox, a disk and a mount path are needed")
            .hint("createos sandbox disk attach my-box my-disk:/mnt/data"));
    }
    let Some(found) = resolve::sandbox(ctx, args.sandbox.as_deref(), Rules::ACT).await? else {
        return Ok(Exit::Success);
    };
    let Some((disk, path)) = complete(ctx, place).await? else { return Ok(Exit::Success) };
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    let attach = async || {
        let attaching = sandbox.attach_disk(&disk, &path).no_wait();
        attaching.await.map_err(|error| refused(&found, &disk, error))
    };
    wait::on_running(ctx, &sandbox, &found, attach).await?;
    let row = match args.no_wait {
        true => None,
        false => Some(mounted(ctx, &sandbox, &found, &disk, &path).await?),
    };
    let status = row.as_ref().map_or(&MountStatus::Pending, |row| &row.mount_status);
    let curated = [
        ("action", json!("disk_attached")),
        ("disk", json!(disk)),
        ("sandbox_id", json!(found.id.as_str())),
        ("mount_path", json!(path)),
        ("mount_status", json!(status)),
    ];
    let document = output::document(&curated, &row.as_ref().map_or(json!({}), |row| json!(row)))?;
    ctx.out.result(&document, || match row {
        Some(_) => format!("{disk} is mounted in {} at {path}", found.label()),
        None => format!("{disk} will be mounted in {} at {path}", found.label()),
    })?;
    if args.no_wait {
        ctx.out.hint(&format!("see how far it is: createos sandbox get {}", found.handle()));
    }
    Ok(Exit::Success)
}

/// Asks for what is missing.
async fn complete(ctx: &Context, place: Place) -> Result<Option<(String, String)>, Failure> {
    let Some(disk) = super::chosen(ctx, place.disk.as_deref()).await? else { return Ok(None) };
    if let Some(path) = place.path {
        return Ok(Some((disk, path)));
    }
    let typed = prompt::edit("mount path", format!("/mnt/{disk}")).await?;
    if typed.is_empty() {
        ctx.out.note("nothing was changed");
        return Ok(None);
    }
    Ok(Some((disk, place::absolute(&typed)?)))
}

fn refused(found: &Found, disk: &str, error: createos_sdk::Error) -> Failure {
    // A 404 may mean either of the two.
    let missing = error.status() == Some(404);
    let failure = Failure::from(error).about(&format!("{disk} in {}", found.label()));
    match missing {
        true => failure.hint(format!("see what you have: {}", DISK.list)),
        false => failure,
    }
}

async fn mounted(
    ctx: &Context,
    sandbox: &Sandbox,
    found: &Found,
    disk: &str,
    path: &str,
) -> Result<DiskAttachment, Failure> {
    let label = found.label();
    let look = format!("look at it: createos sandbox get {}", found.handle());
    let _note = ctx.if_interrupted(format!("{disk} goes on being mounted in {label}\n{look}"));
    let _spinner = Spinner::start(ctx.out.terminal(), format!("mounting {disk} at {path}"));
    let row = sandbox.wait_until_mounted(path).budget(BUDGET).await;
    row.map_err(|error| match error.kind() {
        ErrorKind::UnexpectedState => {
            let why = error.message().to_owned();
            Failure::local(format!("{disk} in {label} at {path}: {why}")).hint(format!(
                "take it off again: createos sandbox disk detach {} {disk} {path}",
                found.handle()
            ))
        }
        ErrorKind::Timeout if error.status().is_none() => Failure::new(
            Class::Timeout,
            format!("{disk} is attached to {label} and not mounted after 45s"),
        )
        .hint(look),
        _ => found.explain(error),
    })
}
