//! `createos sandbox pull`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use createos_sdk::Sandbox;
use futures::StreamExt;
use serde_json::json;

use super::transfer;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::output::{Bar, Payload, format};
use crate::resolve::{self, Found, Rules};
use crate::wait;

/// Fetch a file out of a sandbox
///
/// The file here is replaced only when all of it has arrived.
#[derive(Args)]
#[command(
    visible_alias = "download",
    alias = "cp-down",
    before_help = "\
Examples:
  createos sandbox pull my-box /workspace/result.csv ./result.csv
  createos sandbox pull my-box /workspace/result.csv ./downloads
  createos sandbox pull my-box /workspace/result.csv - | head -5"
)]
pub(super) struct PullArgs {
    /// Name or id
    sandbox: String,

    /// The absolute path inside
    #[arg(value_parser = transfer::remote_path)]
    remote: String,

    /// The file or directory here; - is standard output
    local: PathBuf,

    /// Show how long it took
    #[arg(long)]
    stats: bool,

    /// Do not check whether the path is on a mounted disk
    #[arg(long)]
    no_disk_check: bool,
}

impl PullArgs {
    pub(super) fn to_stdout(&self) -> bool {
        self.local == Path::new("-")
    }
}

pub(super) async fn run(args: PullArgs, ctx: &Context) -> Result<Exit, Failure> {
    let local = target(&args)?;
    let Some(found) = resolve::sandbox(ctx, Some(&args.sandbox), Rules::ACT).await? else {
        return Ok(Exit::Success);
    };
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    if !args.no_disk_check {
        transfer::guard(&sandbox, &found, &args.remote).await?;
    }
    let pull = Pull { ctx, sandbox, found, remote: &args.remote };
    if args.to_stdout() {
        pull.to_stdout().await?;
        return Ok(Exit::Success);
    }
    let started = Instant::now();
    let fetch = async || pull.to_file(&local).await;
    let bytes = wait::on_running(ctx, &pull.sandbox, &pull.found, fetch).await?;
    let document = json!({
        "action": "pulled",
        "sandbox_id": pull.found.id.as_str(),
        "path": args.remote,
        "local": local,
        "bytes": bytes,
    });
    ctx.out.result(&document, || {
        let size = match args.stats {
            true => format::rate(bytes, started.elapsed()),
            false => format::bytes(bytes),
        };
        let from = format!("{}:{}", pull.found.handle(), args.remote);
        format!("fetched {from} to {} ({size})", local.display())
    })?;
    Ok(Exit::Success)
}

/// A directory here keeps the name that the file has inside.
fn target(args: &PullArgs) -> Result<PathBuf, Failure> {
    let names_directory = args.local.as_os_str().to_string_lossy().ends_with('/');
    if args.to_stdout() || !(args.local.is_dir() || names_directory) {
        return Ok(args.local.clone());
    }
    match args.remote.rsplit('/').next().filter(|name| !matches!(*name, "" | "." | "..")) {
        Some(name) => Ok(args.local.join(name)),
        None => Err(Failure::usage(format!("{} names a directory; name a file", args.remote))),
    }
}

/// One file on its way here.
struct Pull<'a> {
    ctx: &'a Context,
    sandbox: Sandbox,
    found: Found,
    remote: &'a str,
}

impl Pull<'_> {
    async fn to_file(&self, local: &Path) -> Result<u64, Failure> {
        let bar = Bar::new(self.ctx.out.terminal());
        let fetch = self.sandbox.files().download_to(self.remote, local).progress(bar.follow());
        fetch.await.map_err(|error| self.explain(error))
    }

    async fn to_stdout(&self) -> Result<(), Failure> {
        let bar = Bar::new(self.ctx.out.terminal());
        let open = async || {
            let fetch = self.sandbox.files().download(self.remote).progress(bar.follow());
            fetch.await.map_err(|error| self.explain(error))
        };
        let mut pieces = wait::on_running(self.ctx, &self.sandbox, &self.found, open).await?;
        let mut payload = Payload::new();
        while let Some(piece) = pieces.next().await {
            payload.stdout(&piece.map_err(|error| self.explain(error))?).await?;
        }
        Ok(())
    }

    fn explain(&self, error: createos_sdk::Error) -> Failure {
        let failure = self.found.explain(error);
        let (name, remote) = (self.found.handle(), self.remote);
        match failure.class() {
            Some(Class::BadRequest) => failure.hint(format!(
                "a directory comes as an archive:\n\
                 createos sandbox exec {name} -- tar -cf /tmp/x.tar {remote}\n\
                 createos sandbox pull {name} /tmp/x.tar -"
            )),
            Some(Class::NotFound) => failure.hint(format!(
                "see what is there: createos sandbox exec {name} -- ls -la {remote}"
            )),
            _ => failure,
        }
    }
}
