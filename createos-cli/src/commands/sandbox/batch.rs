//! Removing several things of one kind: one question, one result.

use serde_json::{Value, json};

use super::choose::{Kind, Named};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::prompt;

/// What came of one of the things that were named.
pub(super) struct Outcome<T> {
    wanted: String,
    /// What was found, unless nothing was.
    pub(super) found: Option<(Named, T)>,
    pub(super) error: Option<Failure>,
}

impl<T> Outcome<T> {
    fn of(wanted: String, found: Result<(Named, T), Failure>) -> Self {
        match found {
            Ok(found) => Self { wanted, found: Some(found), error: None },
            Err(error) => Self { wanted, found: None, error: Some(error) },
        }
    }
}

/// The words without repetitions; refused where nothing confirms the removal.
pub(super) fn wanted(
    ctx: &Context,
    kind: Kind,
    words: &[String],
    force: bool,
) -> Result<Vec<String>, Failure> {
    let mut wanted: Vec<String> = Vec::new();
    for word in words.iter().map(|word| word.trim().to_owned()) {
        if word.is_empty() {
            return Err(kind.which());
        }
        if !wanted.contains(&word) {
            wanted.push(word);
        }
    }
    if ctx.interactive() {
        return Ok(wanted);
    }
    if wanted.is_empty() {
        return Err(kind.which().hint(format!("{} my-{} --force", kind.remove, kind.word)));
    }
    if !force {
        return Err(Failure::usage("deleting needs a confirmation, and nobody can be asked here")
            .hint(format!("{} {} --force", kind.remove, wanted.join(" "))));
    }
    Ok(wanted)
}

/// Looks everything up before anything is removed. What was named twice, by name and by id,
/// is there once.
pub(super) async fn look_up<T>(
    wanted: Vec<String>,
    find: impl AsyncFn(&str) -> Result<(Named, T), Failure>,
) -> Vec<Outcome<T>> {
    let mut outcomes: Vec<Outcome<T>> = Vec::new();
    for word in wanted {
        let outcome = Outcome::of(word.clone(), find(&word).await);
        let id = |outcome: &Outcome<T>| outcome.found.as_ref().map(|(named, _)| named.id.clone());
        let known = id(&outcome);
        if known.is_none() || !outcomes.iter().any(|other| id(other) == known) {
            outcomes.push(outcome);
        }
    }
    outcomes
}

/// Asks once for all of them; `suffix` says what else it means. Yes when nothing was found.
pub(super) async fn confirm<T>(
    ctx: &Context,
    kind: Kind,
    outcomes: &[Outcome<T>],
    suffix: &str,
) -> Result<bool, Failure> {
    let found: Vec<&Named> =
        outcomes.iter().filter_map(|outcome| Some(&outcome.found.as_ref()?.0)).collect();
    let what = match found.as_slice() {
        [] => return Ok(true),
        [one] => one.label(),
        many => kind.count(many.len()),
    };
    let confirmed = prompt::confirm(format!("delete {what} for good{suffix}?"), false).await?;
    if !confirmed {
        ctx.out.note("nothing was deleted");
    }
    Ok(confirmed)
}

/// Removes one after another; one that fails does not keep the rest.
pub(super) async fn remove<T>(
    outcomes: &mut [Outcome<T>],
    remove: impl AsyncFn(&Named, &T) -> Result<(), Failure>,
) {
    for outcome in outcomes {
        if let Some((named, thing)) = &outcome.found {
            outcome.error = remove(named, thing).await.err();
        }
    }
}

/// One document or one line for each; exit code 1 when one of them failed.
pub(super) fn report<T>(
    ctx: &Context,
    action: &str,
    outcomes: &[Outcome<T>],
) -> Result<Exit, Failure> {
    let failed = outcomes.iter().filter(|outcome| outcome.error.is_some()).count();
    let document = json!({
        "action": action,
        "results": outcomes.iter().map(result).collect::<Vec<Value>>(),
        "deleted": outcomes.len() - failed,
        "failed": failed,
    });
    ctx.out.result(&document, || {
        let removed = outcomes.iter().filter(|outcome| outcome.error.is_none());
        let labels = removed.filter_map(|outcome| Some(outcome.found.as_ref()?.0.label()));
        labels.map(|label| format!("removed {label}\n")).collect::<String>()
    })?;
    for failure in outcomes.iter().filter_map(|outcome| outcome.error.as_ref()) {
        ctx.complain(failure);
    }
    Ok(if failed == 0 { Exit::Success } else { Exit::Code(1) })
}

/// What would be removed.
pub(super) fn preview<T>(ctx: &Context, outcomes: &[Outcome<T>]) -> Result<Exit, Failure> {
    let failed = outcomes.iter().filter(|outcome| outcome.error.is_some()).count();
    let results = outcomes.iter().map(|outcome| {
        let mut result = result(outcome);
        result["deleted"] = json!(false);
        result
    });
    let document = json!({
        "action": "would_delete",
        "results": results.collect::<Vec<Value>>(),
        "deleted": 0,
        "failed": failed,
    });
    ctx.out.result(&document, || {
        let labels = outcomes.iter().filter_map(|outcome| Some(outcome.found.as_ref()?.0.label()));
        labels.map(|label| format!("would remove {label}\n")).collect::<String>()
    })?;
    for failure in outcomes.iter().filter_map(|outcome| outcome.error.as_ref()) {
        ctx.complain(failure);
    }
    Ok(if failed == 0 { Exit::Success } else { Exit::Code(1) })
}

fn result<T>(outcome: &Outcome<T>) -> Value {
    let mut result = json!({ "ref": outcome.wanted });
    if let Some((named, _)) = &outcome.found {
        result["id"] = json!(named.id);
    }
    result["deleted"] = json!(outcome.error.is_none());
    if let Some(failure) = &outcome.error {
        result["error"] = json!(failure.message());
    }
    result
}
