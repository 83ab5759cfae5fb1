//! `createos sandbox push`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use createos_sdk::{MAX_FILE_BYTES, Sandbox, Upload};
use serde_json::json;
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};

use super::transfer;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Bar, format};
use crate::resolve::{self, Found, Rules};
use crate::wait;

/// Up to here standard input is kept in memory.
const IN_MEMORY: usize = 8 * 1024 * 1024;

/// Send a file into a sandbox
///
/// At most 500 MiB. The file inside is replaced as a whole or not at all;
/// missing directories are made. Mode and times of the file are not kept.
#[derive(Args)]
#[command(
    visible_alias = "upload",
    alias = "cp-up",
    before_help = "\
Examples:
  createos sandbox push my-box ./main.py /workspace/main.py
  createos sandbox push my-box ./main.py /workspace/
  tar -c mydir | createos sandbox push my-box - /tmp/bundle.tar"
)]
pub(super) struct PushArgs {
    /// Name or id
    sandbox: String,

    /// The file here; - is standard input
    local: PathBuf,

    /// The absolute path inside; with / at its end the file keeps its name
    #[arg(value_parser = transfer::remote_path)]
    remote: String,

    /// Show how long it took
    #[arg(long)]
    stats: bool,

    /// Do not check whether the path is on a mounted disk
    #[arg(long)]
    no_disk_check: bool,
}

/// What is sent; a pipe was read to its end before.
enum Source {
    File(PathBuf, u64),
    Memory(Vec<u8>),
    Spooled(NamedTempFile, u64),
}

impl Source {
    fn len(&self) -> u64 {
        match self {
            Self::File(_, len) | Self::Spooled(_, len) => *len,
            Self::Memory(bytes) => bytes.len() as u64,
        }
    }

    fn upload(&self) -> Upload {
        match self {
            Self::File(path, _) => Upload::file(path),
            Self::Memory(bytes) => bytes.as_slice().into(),
            Self::Spooled(file, _) => Upload::file(file.path()),
        }
    }
}

pub(super) async fn run(args: PushArgs, ctx: &Context) -> Result<Exit, Failure> {
    let remote = target(&args)?;
    let source = source(&args.local, ctx).await?;
    let rules = Rules::ACT;
    let Some(found) = resolve::sandbox(ctx, Some(&args.sandbox), rules).await? else {
        return Ok(Exit::Success);
    };
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    if !args.no_disk_check {
        transfer::guard(&sandbox, &found, &remote).await?;
    }
    let started = Instant::now();
    let send = async || send(ctx, &sandbox, &found, &source, &remote).await;
    wait::on_running(ctx, &sandbox, &found, send).await?;
    let bytes = source.len();
    let document = json!({
        "action": "pushed",
        "sandbox_id": found.id.as_str(),
        "path": remote,
        "bytes": bytes,
    });
    ctx.out.result(&document, || {
        let size = match args.stats {
            true => format::rate(bytes, started.elapsed()),
            false => format::bytes(bytes),
        };
        format!("sent {} to {}:{remote} ({size})", args.local.display(), found.handle())
    })?;
    Ok(Exit::Success)
}

/// The path inside, with the file's own name behind a directory.
fn target(args: &PushArgs) -> Result<String, Failure> {
    if !args.remote.ends_with('/') {
        return Ok(args.remote.clone());
    }
    let own = args.local.file_name().filter(|_| !is_stdin(&args.local));
    match own.and_then(|name| name.to_str()) {
        Some(name) => Ok(format!("{}{name}", args.remote)),
        None => Err(Failure::usage(format!("{} names a directory; name the file", args.remote))),
    }
}

fn is_stdin(local: &Path) -> bool {
    local == Path::new("-")
}

async fn source(local: &Path, ctx: &Context) -> Result<Source, Failure> {
    if is_stdin(local) {
        if ctx.out.terminal().stdin {
            return Err(Failure::usage("standard input is a terminal; pipe something into it"));
        }
        return spool("standard input", tokio::io::stdin()).await;
    }
    let name = local.display().to_string();
    let cannot = |error| Failure::io(format!("cannot open {name}"), &error);
    let kind = tokio::fs::metadata(local).await.map_err(cannot)?;
    if kind.is_dir() {
        return Err(Failure::local(format!("{name} is a directory")).hint(format!(
            "send it as an archive: tar -c {name} | createos sandbox push <sandbox> - /tmp/x.tar"
        )));
    }
    let file = tokio::fs::File::open(local).await.map_err(cannot)?;
    if !kind.is_file() {
        return spool(&name, file).await;
    }
    if kind.len() > MAX_FILE_BYTES {
        return Err(too_large(&name));
    }
    Ok(Source::File(local.to_owned(), kind.len()))
}

fn too_large(name: &str) -> Failure {
    Failure::local(format!("{name} is larger than 500 MiB, the most that can be sent"))
        .hint("split it, or let the sandbox fetch it from a server")
}

/// Reads to the end, because the server wants to know the length before the content.
async fn spool(name: &str, source: impl AsyncRead + Unpin) -> Result<Source, Failure> {
    let cannot = |error| Failure::io(format!("cannot read {name}"), &error);
    let mut source = source.take(MAX_FILE_BYTES + 1);
    let mut head = Vec::new();
    (&mut source).take(IN_MEMORY as u64 + 1).read_to_end(&mut head).await.map_err(cannot)?;
    if head.len() <= IN_MEMORY {
        return Ok(Source::Memory(head));
    }
    let keep = |error| Failure::io("cannot keep the input in a temporary file", &error);
    let file = NamedTempFile::new().map_err(keep)?;
    let mut writer = tokio::fs::File::from_std(file.reopen().map_err(keep)?);
    writer.write_all(&head).await.map_err(keep)?;
    let mut len = head.len() as u64;
    drop(head);
    let mut piece = vec![0; 256 * 1024];
    loop {
        let read = source.read(&mut piece).await.map_err(cannot)?;
        if read == 0 {
            break;
        }
        writer.write_all(&piece[..read]).await.map_err(keep)?;
        len += read as u64;
    }
    writer.flush().await.map_err(keep)?;
    if len > MAX_FILE_BYTES { Err(too_large(name)) } else { Ok(Source::Spooled(file, len)) }
}

async fn send(
    ctx: &Context,
    sandbox: &Sandbox,
    found: &Found,
    source: &Source,
    remote: &str,
) -> Result<(), Failure> {
    let bar = Bar::new(ctx.out.terminal());
    let sent = sandbox.files().write(remote, source.upload()).progress(bar.follow()).await;
    sent.map_err(|error| match error.status() {
        Some(413) => Failure::from(error).saying(too_large(remote).message().to_owned()),
        _ => found.explain(error),
    })
}
