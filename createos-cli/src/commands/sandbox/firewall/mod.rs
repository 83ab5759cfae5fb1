//! `createos sandbox firewall …`.

mod amend;
mod clear;
mod set;
mod show;

use clap::{Args, Subcommand};
use createos_sdk::Sandbox;
use serde_json::json;

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::resolve::Found;
use crate::wait;

/// Say what sandboxes may reach outside
///
/// Without rules everything may be reached. A rule is a host, *.host, an address
/// or a range such as 10.0.0.0/8, with :port at its end for one port alone.
#[derive(Args)]
#[command(
    visible_alias = "fw",
    arg_required_else_help = true,
    before_help = "\
Examples:
  createos sandbox firewall show my-box
  createos sandbox firewall set my-box api.example.com *.example.org:443
  createos sandbox firewall clear my-box"
)]
pub(super) struct FirewallArgs {
    #[command(subcommand)]
    command: FirewallCommand,
}

#[derive(Subcommand)]
enum FirewallCommand {
    Show(show::ShowArgs),
    Set(set::SetArgs),
    Add(amend::AddArgs),
    Remove(amend::RemoveArgs),
    Clear(clear::ClearArgs),
}

pub(super) async fn run(args: FirewallArgs, ctx: &Context) -> Result<Exit, Failure> {
    match args.command {
        FirewallCommand::Show(args) => show::run(args, ctx).await,
        FirewallCommand::Set(args) => set::run(args, ctx).await,
        FirewallCommand::Add(args) => amend::add(args, ctx).await,
        FirewallCommand::Remove(args) => amend::remove(args, ctx).await,
        FirewallCommand::Clear(args) => clear::run(args, ctx).await,
    }
}

/// Rules in the order they were typed, each once. A word may hold several, between commas
/// or blanks.
fn rules<'a>(words: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut rules: Vec<String> = Vec::new();
    for word in words {
        for rule in word.split(|c: char| c == ',' || c.is_whitespace()) {
            if !rule.is_empty() && !rules.iter().any(|known| known == rule) {
                rules.push(rule.to_owned());
            }
        }
    }
    rules
}

/// Replaces the rules of a sandbox; gives those that hold now.
async fn replace(
    ctx: &Context,
    sandbox: &Sandbox,
    found: &Found,
    rules: &[String],
) -> Result<Vec<String>, Failure> {
    let set = async || sandbox.set_egress(rules).await.map_err(|error| found.explain(error));
    wait::on_running(ctx, sandbox, found, set).await
}

/// Replaces the rules and says what holds now.
async fn update(
    ctx: &Context,
    sandbox: &Sandbox,
    found: &Found,
    rules: &[String],
) -> Result<Exit, Failure> {
    let stored = replace(ctx, sandbox, found, rules).await?;
    let document =
        json!({ "action": "firewall_updated", "id": found.id.as_str(), "rules": stored });
    ctx.out.result(&document, || text(found, &stored))?;
    explain(ctx, &stored);
    if stored.iter().any(|rule| is_name(rule)) {
        ctx.out.hint("rules for names can take 30 s to act; those for addresses act at once");
    }
    Ok(Exit::Success)
}

fn text(found: &Found, rules: &[String]) -> String {
    let label = found.label();
    match rules {
        [] => format!("firewall of {label}: open, everything may be reached"),
        [one] => format!("firewall of {label}: 1 rule\n  {one}"),
        many => format!("firewall of {label}: {} rules\n  {}", many.len(), many.join("\n  ")),
    }
}

/// What the rules mean for everything else.
fn explain(ctx: &Context, rules: &[String]) {
    if !rules.is_empty() && rules != ["*"] {
        ctx.out.hint("everything else is blocked");
    }
}

/// Whether a rule is about a name, not about addresses.
fn is_name(rule: &str) -> bool {
    let host = rule.rsplit_once(':').map_or(rule, |(host, _)| host);
    let host = host.split('/').next().unwrap_or(host);
    rule != "*" && host.parse::<std::net::IpAddr>().is_err() && !rule.starts_with('[')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_cut_and_repetitions_dropped() {
        let typed = ["b.example, a.example", "b.example", "", "10.0.0.0/8:443\t*.x"];
        assert_eq!(rules(typed), ["b.example", "a.example", "10.0.0.0/8:443", "*.x"]);
        assert!(rules([" , "]).is_empty());
    }

    #[test]
    fn names_are_told_from_addresses() {
        for name in ["a.example", "*.example:443", "localhost:80"] {
            assert!(is_name(name), "{name}");
        }
        for address in ["*", "10.0.0.1", "10.0.0.1:443", "10.0.0.0/8", "10.0.0.0/8:443"] {
            assert!(!is_name(address), "{address}");
        }
    }
}
