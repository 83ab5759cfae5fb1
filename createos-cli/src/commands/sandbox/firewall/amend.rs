//! `createos sandbox firewall add` and `remove`.

use clap::Args;

use super::{rules, update};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::resolve::{self, Found, Rules};

/// Add rules to those of a sandbox
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox firewall add my-box github.com
  createos sandbox firewall add my-box '*.example.org:443' 10.20.0.0/16")]
pub(super) struct AddArgs {
    /// Name or id
    sandbox: String,

    /// What may be reached as well
    #[arg(value_name = "RULE", required = true)]
    rules: Vec<String>,
}

/// Take rules away from those of a sandbox
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox firewall remove my-box github.com
  createos sandbox firewall remove my-box '*.example.org:443'")]
pub(super) struct RemoveArgs {
    /// Name or id
    sandbox: String,

    /// What may not be reached any more, as `firewall show` writes it
    #[arg(value_name = "RULE", required = true)]
    rules: Vec<String>,
}

pub(super) async fn add(args: AddArgs, ctx: &Context) -> Result<Exit, Failure> {
    let added = given(&args.rules)?;
    let Some((found, now)) = now(ctx, &args.sandbox).await? else { return Ok(Exit::Success) };
    if now.is_empty() || now == ["*"] {
        let name = found.handle();
        return Err(Failure::local(format!(
            "{} is open: a first rule would block everything else",
            found.label()
        ))
        .hint(format!(
            "if that is meant: createos sandbox firewall set {name} {}",
            added.join(" ")
        )));
    }
    let all = rules(now.iter().chain(&added).map(String::as_str));
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    update(ctx, &sandbox, &found, &all).await
}

pub(super) async fn remove(args: RemoveArgs, ctx: &Context) -> Result<Exit, Failure> {
    let removed = given(&args.rules)?;
    let Some((found, now)) = now(ctx, &args.sandbox).await? else { return Ok(Exit::Success) };
    let label = found.label();
    if let Some(unknown) = removed.iter().find(|rule| !now.contains(rule)) {
        return Err(Failure::local(format!("{label} has no rule {unknown}"))
            .hint(format!("see them: createos sandbox firewall show {}", found.handle())));
    }
    let left: Vec<String> = now.into_iter().filter(|rule| !removed.contains(rule)).collect();
    if left.is_empty() {
        return Err(Failure::local(format!(
            "that is the last rule of {label}: without any, everything may be reached"
        ))
        .hint(format!("if that is meant: createos sandbox firewall clear {}", found.handle())));
    }
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    update(ctx, &sandbox, &found, &left).await
}

fn given(words: &[String]) -> Result<Vec<String>, Failure> {
    let rules = rules(words.iter().map(String::as_str));
    if rules.is_empty() { Err(Failure::usage("no rule is given")) } else { Ok(rules) }
}

/// The sandbox and its rules now.
async fn now(ctx: &Context, sandbox: &str) -> Result<Option<(Found, Vec<String>)>, Failure> {
    let Some(found) = resolve::sandbox(ctx, Some(sandbox), Rules::CHANGE).await? else {
        return Ok(None);
    };
    let now = ctx.plane()?.client.sandbox(found.id.clone()).egress().await;
    let now = now.map_err(|error| found.explain(error))?;
    Ok(Some((found, now)))
}
