//! `createos sandbox create`.

mod wizard;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use createos_sdk::wire::{CreatedSandbox, SandboxStatus, SandboxView};
use createos_sdk::{Client, CreateSandbox, DiskId, Sandbox};
use serde_json::Value;

use super::made;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{self, Spinner, format};
use crate::resolve::Found;
use crate::value::disk_mount::{self, DiskMount};
use crate::value::duration::{self, AutoPause};
use crate::value::env_pair::{self, EnvPair};
use crate::value::{self, ssh_key};
use crate::wait;

/// Create a sandbox and wait until it runs
///
/// Without --shape, on a terminal, a few questions.
#[derive(Args)]
#[command(
    visible_alias = "c",
    before_help = "\
Examples:
  createos sandbox create --shape s-1vcpu-256mb
  createos sandbox create --shape s-1vcpu-1gb --name demo --env STAGE=ci
  createos sandbox create --shape s-1vcpu-1gb --auto-pause 30m --ingress
  createos sandbox create --shape s-1vcpu-1gb --disk my-disk:/mnt/data"
)]
pub(super) struct CreateArgs {
    /// Size; `createos sandbox shapes` lists them
    #[arg(long, value_name = "ID", value_parser = value::text)]
    shape: Option<String>,

    /// Name and hostname [default: chosen by the server]
    #[arg(long, value_name = "NAME", value_parser = value::text)]
    name: Option<String>,

    /// Image; `createos sandbox rootfs` lists them [default: the server's]
    #[arg(long, value_name = "IMAGE", value_parser = value::text)]
    rootfs: Option<String>,

    /// Disk size in MiB [default: the shape's]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    disk_mib: Option<u64>,

    /// File with an SSH public key to admit (repeatable)
    #[arg(long, value_name = "PATH")]
    ssh_key: Vec<PathBuf>,

    /// Environment variable of every command (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = env_pair::parse)]
    env: Vec<EnvPair>,

    /// Pause by itself after this time without activity, 1m to 24h [default: off]
    #[arg(long, value_name = "DURATION", value_parser = duration::auto_pause)]
    auto_pause: Option<AutoPause>,

    /// Return as soon as the server has accepted it
    #[arg(long)]
    no_wait: bool,

    /// Give it a public HTTPS address
    #[arg(long, help_heading = "Networking")]
    ingress: bool,

    /// Join a private network (repeatable, or a list with commas)
    #[arg(long, visible_alias = "net", value_name = "NAME|ID", value_delimiter = ',',
          value_parser = value::word, help_heading = "Networking")]
    network: Vec<String>,

    /// Allow outbound traffic to this host only (repeatable, or a list with
    /// commas) [default: everything]
    #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = value::word,
          help_heading = "Networking")]
    egress: Vec<String>,

    /// Mount an S3 disk (repeatable)
    #[arg(long, value_name = "DISK:/PATH", value_parser = disk_mount::parse,
          help_heading = "Storage")]
    disk: Vec<DiskMount>,
}

pub(super) async fn run(mut args: CreateArgs, ctx: &Context) -> Result<Exit, Failure> {
    let mut keys = ssh_key::read_all(&args.ssh_key, ctx.paths.home())?;
    if args.shape.is_none() {
        if !ctx.interactive() {
            return Err(Failure::usage("a size is missing: --shape <id>")
                .hint("see the sizes: createos sandbox shapes"));
        }
        match wizard::complete(&mut args, &mut keys, ctx).await {
            Ok(true) => {}
            Ok(false) | Err(Failure::Left) => {
                ctx.out.note("nothing was created");
                return Ok(Exit::Success);
            }
            Err(failure) => return Err(failure),
        }
    }
    create(&args, keys, ctx).await
}

async fn create(args: &CreateArgs, keys: Vec<String>, ctx: &Context) -> Result<Exit, Failure> {
    let shape = args.shape.as_deref().unwrap_or_default();
    let request = request(&ctx.plane()?.client, shape, args, keys)?;
    let sandbox = {
        let _spinner = Spinner::start(ctx.out.terminal(), "creating".to_owned());
        let _note = ctx.if_interrupted(
            "it may have been created all the same: createos sandbox list".to_owned(),
        );
        request.await.map_err(refused)?
    };
    let created = sandbox.created().cloned();
    let found = Found {
        id: sandbox.id().clone(),
        name: created.as_ref().and_then(|created| created.name.clone()),
    };
    let view = running(ctx, args, &sandbox, &found, created.as_ref()).await?;
    let document = document(&found, &created, &view)?;
    ctx.out.result(&document, || text(&found, &document))?;
    after(ctx, args, &found);
    Ok(Exit::Success)
}

fn request(
    client: &Client,
    shape: &str,
    args: &CreateArgs,
    keys: Vec<String>,
) -> Result<CreateSandbox, Failure> {
    let mut request = client.create_sandbox(shape).egress(&args.egress);
    if let Some(name) = &args.name {
        request = request.name(name);
    }
    if let Some(rootfs) = &args.rootfs {
        request = request.rootfs(rootfs);
    }
    if let Some(mib) = args.disk_mib {
        request = request.disk_mib(mib);
    }
    if args.ingress {
        request = request.ingress(true);
    }
    if let Some(AutoPause::After(idle)) = args.auto_pause {
        request = request.auto_pause_after(idle);
    }
    for key in keys {
        request = request.ssh_pubkey(key);
    }
    for pair in &args.env {
        request = request.env(&pair.key, pair.value.as_str());
    }
    for network in &args.network {
        request = request.network_named(network);
    }
    for mount in &args.disk {
        // The server takes a name where an id belongs (cli.md 1.12).
        let disk: DiskId = mount.disk.parse()?;
        request = request.disk(disk, &mount.path);
    }
    Ok(request)
}

/// A lost answer does not mean that nothing was made, and what was made costs.
fn refused(error: createos_sdk::Error) -> Failure {
    let unsure = error.may_have_acted();
    let failure = Failure::from(error);
    match unsure {
        true => failure.hint("it may have been created all the same: createos sandbox list"),
        false => failure,
    }
}

/// Waits for `running` unless it runs already or nobody wants to wait.
async fn running(
    ctx: &Context,
    args: &CreateArgs,
    sandbox: &Sandbox,
    found: &Found,
    created: Option<&CreatedSandbox>,
) -> Result<Option<Arc<SandboxView>>, Failure> {
    let runs = created.is_some_and(|created| created.status == SandboxStatus::Running);
    if runs || args.no_wait {
        return Ok(None);
    }
    let _note = ctx.if_interrupted(format!(
        "{} was created and keeps running; to remove it: {}",
        found.label(),
        made::removal(std::slice::from_ref(found))
    ));
    wait::until(ctx, sandbox, found, SandboxStatus::Running).await.map(Some)
}

fn after(ctx: &Context, args: &CreateArgs, found: &Found) {
    if args.ingress {
        ctx.out.warn(
            "anyone with the public address can reach the service behind it; \
             the service has to listen on 0.0.0.0, not on loopback",
        );
    }
    if !args.disk.is_empty() {
        ctx.out.hint("disks appear some seconds later: createos sandbox get shows their state");
    }
    ctx.out.hint(&format!("next: createos sandbox shell {}", found.handle()));
}

/// Curated keys first, then everything the server answered; what was seen
/// while waiting is newer than the answer to the create.
fn document(
    found: &Found,
    created: &Option<CreatedSandbox>,
    view: &Option<Arc<SandboxView>>,
) -> Result<Value, Failure> {
    let view = output::to_value(&view.as_deref())?;
    let server = match view.as_object() {
        Some(view) => {
            let newer: Vec<(&str, Value)> =
                view.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
            output::document(&newer, created)?
        }
        None => output::to_value(created)?,
    };
    made::document("created", found, &["name", "shape", "rootfs"], &[], &server)
}

fn text(found: &Found, document: &Value) -> String {
    let word = |key: &str| made::word(document, key);
    let idle = document["auto_pause_after_seconds"].as_u64().map(Duration::from_secs);
    let idle = idle.map(|idle| format!("after {} without activity", duration::show(idle)));
    let rows = [
        ("size", word("shape").map(str::to_owned)),
        ("image", word("rootfs").map(str::to_owned)),
        ("ip", word("ip").map(str::to_owned)),
        ("public url", made::url(document)),
        ("auto-pause", idle),
    ];
    let rows: Vec<(&str, String)> =
        rows.into_iter().filter_map(|(label, value)| Some((label, value?))).collect();
    format::details(&format!("Created {}", found.label()), &rows)
}
