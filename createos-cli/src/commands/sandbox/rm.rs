//! `createos sandbox rm`.

use clap::Args;
use serde_json::{Value, json};

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::prompt;
use crate::resolve::{self, Found, Rules};

/// Delete sandboxes for good
#[derive(Args)]
#[command(visible_aliases = ["delete", "destroy"], before_help = "\
Examples:
  createos sandbox rm my-box
  createos sandbox rm my-box other-box --force
  createos sandbox rm --force $(createos sandbox list --quiet)")]
pub(super) struct RmArgs {
    /// Names or ids [default: ask on a terminal]
    #[arg(value_name = "SANDBOX")]
    sandboxes: Vec<String>,

    /// Do not ask [aliases: --yes, -y]
    #[arg(short = 'y', long, alias = "yes")]
    force: bool,
}

/// One line of the result.
struct Outcome {
    wanted: String,
    found: Option<Found>,
    error: Option<Failure>,
}

pub(super) async fn run(args: RmArgs, ctx: &Context) -> Result<Exit, Failure> {
    let mut wanted: Vec<String> = Vec::new();
    for name in &args.sandboxes {
        let name = name.trim().to_owned();
        if !wanted.contains(&name) {
            wanted.push(name);
        }
    }
    if !args.force && !ctx.interactive() {
        return Err(unconfirmed(&wanted));
    }
    let Some(outcomes) = choose(ctx, wanted).await? else { return Ok(Exit::Success) };
    if !args.force && !confirm(&outcomes).await? {
        ctx.out.note("nothing was deleted");
        return Ok(Exit::Success);
    }
    let client = &ctx.plane()?.client;
    let mut done = Vec::new();
    for mut outcome in outcomes {
        if let Some(found) = &outcome.found {
            let destroyed = client.sandbox(found.id.clone()).destroy().await;
            outcome.error = destroyed.err().map(|error| found.explain(error));
        }
        done.push(outcome);
    }
    report(ctx, &done)
}

fn unconfirmed(wanted: &[String]) -> Failure {
    let names = if wanted.is_empty() { "<sandbox>".to_owned() } else { wanted.join(" ") };
    Failure::usage("deleting needs a confirmation, and nobody can be asked here")
        .hint(format!("createos sandbox rm {names} --force"))
}

/// Resolves every name before anything is deleted; `None` when the user chose nothing.
async fn choose(ctx: &Context, wanted: Vec<String>) -> Result<Option<Vec<Outcome>>, Failure> {
    if wanted.is_empty() {
        if !ctx.interactive() {
            return Err(Failure::usage("which sandbox?").hint("createos sandbox rm my-box --force"));
        }
        let chosen = prompt::pick_sandboxes(ctx, Rules::REMOVE).await?;
        let outcome = |found: Found| Outcome {
            wanted: found.id.to_string(),
            found: Some(found),
            error: None,
        };
        return Ok(chosen.map(|chosen| chosen.into_iter().map(outcome).collect()));
    }
    let resolver = resolve::Resolver::new(&ctx.plane()?.client);
    let mut outcomes: Vec<Outcome> = Vec::new();
    for wanted in wanted {
        let (found, error) = match resolver.find(&wanted, Rules::REMOVE).await {
            Ok(found) => (Some(found), None),
            Err(failure) => (None, Some(failure)),
        };
        let known = |outcome: &Outcome| {
            found.is_some()
                && outcome.found.as_ref().map(|f| &f.id) == found.as_ref().map(|f| &f.id)
        };
        if !outcomes.iter().any(known) {
            outcomes.push(Outcome { wanted, found, error });
        }
    }
    Ok(Some(outcomes))
}

async fn confirm(outcomes: &[Outcome]) -> Result<bool, Failure> {
    let found: Vec<&Found> = outcomes.iter().filter_map(|outcome| outcome.found.as_ref()).collect();
    let question = match found.as_slice() {
        [] => return Ok(true),
        [one] => format!("delete {} for good?", one.label()),
        many => format!("delete {} sandboxes for good?", many.len()),
    };
    prompt::confirm(question, false).await
}

/// One document or one line per sandbox; exit code 1 when one of them failed.
fn report(ctx: &Context, outcomes: &[Outcome]) -> Result<Exit, Failure> {
    let failed = outcomes.iter().filter(|outcome| outcome.error.is_some()).count();
    let document = json!({
        "action": "deleted",
        "results": outcomes.iter().map(result).collect::<Vec<Value>>(),
        "deleted": outcomes.len() - failed,
        "failed": failed,
    });
    ctx.out.result(&document, || {
        let removed = outcomes.iter().filter(|outcome| outcome.error.is_none());
        let lines = removed.filter_map(|outcome| outcome.found.as_ref());
        lines.map(|found| format!("removed {}\n", found.label())).collect::<String>()
    })?;
    for failure in outcomes.iter().filter_map(|outcome| outcome.error.as_ref()) {
        ctx.complain(failure);
    }
    Ok(if failed == 0 { Exit::Success } else { Exit::Code(1) })
}

fn result(outcome: &Outcome) -> Value {
    let mut result = json!({ "ref": outcome.wanted });
    if let Some(found) = &outcome.found {
        result["id"] = json!(found.id.as_str());
    }
    result["deleted"] = json!(outcome.error.is_none());
    if let Some(failure) = &outcome.error {
        result["error"] = json!(failure.message());
    }
    result
}
