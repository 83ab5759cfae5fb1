//! `createos sandbox get`.

use std::sync::Arc;

use clap::Args;
use createos_sdk::Sandbox;
use createos_sdk::wire::{Bandwidth, DiskAttachment, SandboxStatus, SandboxView};
use serde_json::{Value, json};

use super::facts;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::format;
use crate::resolve::{self, Rules};

/// Show everything about one sandbox
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox get my-box
  createos sandbox get my-box --output json")]
pub(super) struct GetArgs {
    /// Name or id [default: ask on a terminal]
    sandbox: Option<String>,
}

/// What is known about a sandbox; parts that could not be had are absent.
struct Known {
    view: Arc<SandboxView>,
    bandwidth: Option<Bandwidth>,
    disks: Option<Vec<DiskAttachment>>,
}

pub(super) async fn run(args: GetArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some(found) = resolve::sandbox(ctx, args.sandbox.as_deref(), Rules::READ).await? else {
        return Ok(Exit::Success);
    };
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    let view = sandbox.refresh().await.map_err(|error| found.explain(error))?;
    let known = complete(&sandbox, view).await;
    ctx.out.result(&document(&known)?, || text(&known))?;
    Ok(Exit::Success)
}

/// Bandwidth and disks are extras: a server without them is no reason to fail.
async fn complete(sandbox: &Sandbox, view: Arc<SandboxView>) -> Known {
    let live = matches!(view.status, SandboxStatus::Running | SandboxStatus::Paused);
    if !live {
        return Known { view, bandwidth: None, disks: None };
    }
    let (bandwidth, disks) =
        tokio::join!(sandbox.bandwidth().into_future(), sandbox.disks().into_future());
    Known { view, bandwidth: bandwidth.ok(), disks: disks.ok() }
}

fn document(known: &Known) -> Result<Value, Failure> {
    let mut document = crate::output::to_value(&*known.view)?;
    if let Some(bandwidth) = &known.bandwidth {
        document["bandwidth"] = json!(bandwidth);
    }
    if let Some(disks) = &known.disks {
        document["disks"] = json!(disks);
    }
    Ok(document)
}

fn text(known: &Known) -> String {
    let view = &known.view;
    let mut rows = Rows(Vec::new());
    rows.some("status", Some(&view.status));
    rows.some("reason", view.status_reason.as_ref());
    rows.some("size", view.shape.as_ref());
    rows.some("image", view.rootfs.as_ref());
    rows.some("vcpu", view.vcpu);
    rows.some("ram", view.mem_mib.map(|mib| format!("{mib} MiB")));
    rows.some("disk", view.disk_mib.map(|mib| format!("{mib} MiB")));
    rows.some("ip", view.ip.as_ref());
    rows.some("region", view.region.as_ref());
    rows.some("public url", Some(facts::address(view)));
    rows.some("firewall", Some(facts::firewall(&view.egress)));
    rows.some("bandwidth", known.bandwidth.as_ref().map(facts::bandwidth));
    rows.list("env keys", &view.envs, ", ");
    rows.some("auto-pause", Some(facts::auto_pause(view)));
    let disks: Vec<String> = known.disks.iter().flatten().map(disk).collect();
    rows.list("disks", &disks, "\n");
    rows.some("ssh keys", Some(view.ssh_pubkeys.len()).filter(|count| *count > 0));
    rows.some("created", view.created_at.map(format::second));
    let running = view.running_at.filter(|_| view.status == SandboxStatus::Running);
    rows.some("running since", running.map(format::second));
    rows.some("paused at", view.paused_at.map(format::second));
    rows.some("last resumed", view.last_resumed_at.map(format::second));
    rows.some("destroyed at", view.destroyed_at.map(format::second));
    rows.some("forked from", view.forked_from.as_ref());
    let label = format::label(view.name.as_deref(), view.id.as_str());
    format::details(&label, &rows.0)
}

/// Rows without a value are left out.
struct Rows(Vec<(&'static str, String)>);

impl Rows {
    fn some(&mut self, label: &'static str, value: Option<impl ToString>) {
        self.0.extend(value.map(|value| (label, value.to_string())));
    }

    fn list(&mut self, label: &'static str, values: &[String], between: &str) {
        self.some(label, Some(values.join(between)).filter(|text| !text.is_empty()));
    }
}

fn disk(disk: &DiskAttachment) -> String {
    let error = disk.mount_error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
    format!("{} at {} ({}{error})", disk.name, disk.mount_path, disk.mount_status)
}
