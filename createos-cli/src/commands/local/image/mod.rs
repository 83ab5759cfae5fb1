//! `createos local image …`: root filesystems for this machine's engine.

mod build;
mod pull;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use createos_local::images::{ImageError, ImageInfo, Images};
use createos_sdk::Timestamp;
use serde_json::{Value, json};

use self::build::BuildArgs;
use self::pull::PullArgs;
use super::data_dir;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Table, format};
use crate::store::local::Store;

/// Root filesystems that sandboxes of this machine can be made from
///
/// An engine sees a change at once, and need not run.
#[derive(Args)]
#[command(
    arg_required_else_help = true,
    before_help = "\
Examples:
  createos local image pull alpine:3.20
  createos local image build debian:13 --include python3,curl
  createos local image import alpine:3.20 alpine-minirootfs-3.20.3-x86_64.tar.gz
  createos local image import tools:1 tools.tar.gz    from docker save | gzip
  createos sandbox create --shape s-1vcpu-256mb --rootfs alpine:3.20"
)]
pub(super) struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,

    /// Directory of the engine's state [default: that of the engine which was
    /// started last, or createos in the user's data directory]
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
}

#[derive(Subcommand)]
enum ImageCommand {
    Build(BuildArgs),
    /// Import a root filesystem from a file
    ///
    /// A tarball of its files, or one container image as `docker save` writes it or
    /// in an OCI layout; plain, or compressed by gzip, zstd, xz or bzip2. What has
    /// the name already is replaced.
    #[command(before_help = "\
Examples:
  createos local image import alpine:3.20 alpine-minirootfs.tar.gz
  createos local image import tools:1 tools.tar.gz")]
    Import {
        /// Its name, such as alpine:3.20
        name: String,
        /// The tarball or archive
        file: PathBuf,
    },
    /// List the root filesystems that were imported
    #[command(
        visible_alias = "list",
        before_help = "\
Examples:
  createos local image ls
  createos local image ls --output json"
    )]
    Ls,
    Pull(PullArgs),
    /// Remove some; sandboxes that were made from them keep their files
    #[command(before_help = "\
Examples:
  createos local image rm tools:1
  createos local image rm alpine:3.20 tools:1")]
    Rm {
        /// Their names
        #[arg(required = true)]
        names: Vec<String>,
    },
}

pub(super) async fn run(args: ImageArgs, ctx: &Context) -> Result<Exit, Failure> {
    let images = Images::of(directory(args.data_dir, ctx)?);
    match args.command {
        ImageCommand::Build(args) => args.run(&images, ctx).await,
        ImageCommand::Import { name, file } => import(&images, &name, file, ctx).await,
        ImageCommand::Ls => list(&images, ctx).await,
        ImageCommand::Pull(args) => args.run(&images, ctx).await,
        ImageCommand::Rm { names } => remove(&images, &names, ctx).await,
    }
}

/// Where the images belong: to the engine that commands would talk to.
fn directory(given: Option<PathBuf>, ctx: &Context) -> Result<PathBuf, Failure> {
    if given.is_none()
        && let Some(engine) = Store::open(&ctx.paths)?.load()?
    {
        return Ok(engine.data_dir);
    }
    data_dir(given)
}

async fn import(
    images: &Images,
    name: &str,
    file: PathBuf,
    ctx: &Context,
) -> Result<Exit, Failure> {
    let image = images.import(name, file).await.map_err(failure)?;
    imported(&image, ctx)
}

/// Says what is there now.
fn imported(image: &ImageInfo, ctx: &Context) -> Result<Exit, Failure> {
    ctx.out.result(&document(image), || {
        format!("Imported {}, {}.", image.name, format::bytes(image.size_bytes))
    })?;
    ctx.out.hint(&format!("next: createos sandbox create --shape <id> --rootfs {}", image.name));
    Ok(Exit::Success)
}

async fn list(images: &Images, ctx: &Context) -> Result<Exit, Failure> {
    let images = images.list().await.map_err(failure)?;
    let documents: Vec<Value> = images.iter().map(document).collect();
    ctx.out.result(&documents, || match images.is_empty() {
        true => "No root filesystem was imported.".into(),
        false => {
            let columns = [("NAME", 0), ("SIZE", 0), ("IMPORTED", 0), ("FROM", 80)];
            let mut table = Table::new(&columns);
            for image in &images {
                let created = time(image).map(format::minute).unwrap_or_default();
                let size = format::bytes(image.size_bytes);
                table.row([image.name.clone(), size, created, image.source.clone()]);
            }
            ctx.out.table(&table)
        }
    })?;
    Ok(Exit::Success)
}

async fn remove(images: &Images, names: &[String], ctx: &Context) -> Result<Exit, Failure> {
    for name in names {
        images.remove(name).await.map_err(failure)?;
        let document = json!({ "action": "image_removed", "name": name });
        ctx.out.result(&document, || format!("Removed {name}."))?;
    }
    Ok(Exit::Success)
}

fn time(image: &ImageInfo) -> Option<Timestamp> {
    Timestamp::try_from(image.created).ok()
}

fn document(image: &ImageInfo) -> Value {
    json!({
        "name": image.name,
        "source": image.source,
        "digest": image.digest,
        "size_bytes": image.size_bytes,
        "created_at": time(image).map(|time| time.to_string()),
    })
}

fn failure(error: ImageError) -> Failure {
    let hint = match &error {
        ImageError::NotFound(_) => Some("see what is there: createos local image ls".to_owned()),
        ImageError::TooLarge(_) => Some("free some room, or use another --data-dir".to_owned()),
        ImageError::Denied { registry, .. } => {
            Some(format!("check the name; if it is private, sign in: docker login {registry}"))
        }
        ImageError::Reference { .. } => {
            Some("for example: createos local image pull alpine:3.20".to_owned())
        }
        _ => None,
    };
    let failure = Failure::local(error.to_string());
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}
