//! `createos sandbox edit`.

mod change;
mod menu;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::resolve::{self, Rules};
use crate::value::duration::{self, AutoPause};
use crate::value::{self, size, ssh_key};
use change::{Change, Done};

/// Change the settings of a running sandbox
///
/// Without flags, on a terminal, a menu. SSH keys can be added, not removed.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox edit my-box --ingress on
  createos sandbox edit my-box --add-ssh-key ~/.ssh/id_ed25519.pub
  createos sandbox edit my-box --auto-pause 30m
  createos sandbox edit my-box --auto-pause off --add-bandwidth 5GB")]
pub(super) struct EditArgs {
    /// Name or id [default: ask on a terminal]
    sandbox: Option<String>,

    /// Whether it has a public HTTPS address
    #[arg(long, value_name = "on|off", value_parser = value::on_off)]
    ingress: Option<bool>,

    /// File with an SSH public key to admit as well (repeatable); it cannot be
    /// removed again
    #[arg(long, value_name = "PATH")]
    add_ssh_key: Vec<PathBuf>,

    /// Pause by itself after this time without activity, 1m to 24h, or off
    #[arg(long, value_name = "DURATION|off", value_parser = duration::auto_pause)]
    auto_pause: Option<AutoPause>,

    /// Allow this much more outbound traffic, for example 5GB
    #[arg(long, value_name = "SIZE", value_parser = size::parse)]
    add_bandwidth: Option<u64>,

    /// Replace the firewall's rules (repeatable, or a list with commas);
    /// `createos sandbox firewall` does more
    #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = value::word)]
    egress: Vec<String>,
}

pub(super) async fn run(args: EditArgs, ctx: &Context) -> Result<Exit, Failure> {
    let changes = changes(&args, ctx)?;
    if changes.is_empty() && !ctx.interactive() {
        return Err(Failure::usage(
            "what is to be changed? --ingress, --auto-pause, --add-ssh-key, --add-bandwidth \
             or --egress is missing",
        )
        .hint("createos sandbox edit my-box --ingress on"));
    }
    let Some(found) = resolve::sandbox(ctx, args.sandbox.as_deref(), Rules::CHANGE).await? else {
        return Ok(Exit::Success);
    };
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    if changes.is_empty() {
        return menu::run(ctx, &sandbox, &found).await;
    }
    let mut done: Vec<Done> = Vec::new();
    for change in changes {
        match change.apply(&sandbox, &found).await {
            Ok(more) => done.extend(more),
            Err(failure) => return Err(after(failure, &done)),
        }
    }
    report(ctx, &found, &done)?;
    Ok(Exit::Success)
}

/// Everything is checked, files included, before the first request.
fn changes(args: &EditArgs, ctx: &Context) -> Result<Vec<Change>, Failure> {
    let keys = ssh_key::read_all(&args.add_ssh_key, ctx.paths.home())?;
    let mut changes = Vec::new();
    if args.ingress.is_some() || args.auto_pause.is_some() {
        changes.push(Change::Settings { ingress: args.ingress, auto_pause: args.auto_pause });
    }
    if !keys.is_empty() {
        changes.push(Change::Keys(keys));
    }
    if !args.egress.is_empty() {
        changes.push(Change::Egress(args.egress.clone()));
    }
    if let Some(bytes) = args.add_bandwidth {
        changes.push(Change::Bandwidth(bytes));
    }
    Ok(changes)
}

/// A failure half-way says what holds already.
fn after(failure: Failure, done: &[Done]) -> Failure {
    let lines = done.iter().map(|done| format!("done before: {}", done.line));
    let lines: Vec<String> = failure.advice().map(str::to_owned).into_iter().chain(lines).collect();
    if lines.is_empty() { failure } else { failure.hint(lines.join("\n")) }
}

fn report(ctx: &Context, found: &resolve::Found, done: &[Done]) -> Result<(), Failure> {
    let document = match done {
        [one] => one.document.clone(),
        many => {
            let changes: Vec<&Value> = many.iter().map(|done| &done.document).collect();
            json!({ "action": "updated", "id": found.id.as_str(), "changes": changes })
        }
    };
    let lines = || done.iter().map(|done| done.line.as_str()).collect::<Vec<&str>>().join("\n");
    ctx.out.result(&document, lines)
}
