//! Names and ids of sandboxes (cli.md 1.12).

use std::cmp::Reverse;

use createos_sdk::wire::{SandboxStatus, SandboxView};
use createos_sdk::{Client, ErrorKind, Sandbox, SandboxId};
use tokio::sync::OnceCell;

use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::output::format;
use crate::prompt;

/// `sb-` and 26 characters: complete, no lookup needed.
const FULL_ID: usize = 29;
/// Candidates named when a text is ambiguous.
const NAMED: usize = 10;

/// What a text may stand for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rules {
    /// Whether sandboxes that ended can be meant, when no other fits.
    ended: bool,
    /// Whether the beginning of a name is enough.
    prefix: bool,
    /// Whether an id is looked up although it is complete.
    exists: bool,
    /// The states that a picker offers; empty is all.
    pub(crate) offered: &'static [SandboxStatus],
}

impl Rules {
    /// Looking at a sandbox.
    pub(crate) const READ: Self = Self { ended: true, prefix: true, exists: false, offered: &[] };
    /// Using a live sandbox.
    pub(crate) const ACT: Self =
        Self { ended: false, prefix: true, exists: false, offered: &[SandboxStatus::Running] };
    /// Changing what should not be changed by mistake: the whole name has to be typed.
    pub(crate) const CHANGE: Self =
        Self { ended: false, prefix: false, exists: false, offered: &[SandboxStatus::Running] };
    /// Deleting: the whole name has to be typed.
    pub(crate) const REMOVE: Self = Self {
        ended: true,
        prefix: false,
        exists: true,
        offered: &[SandboxStatus::Running, SandboxStatus::Paused],
    };

    /// The same where the beginning of a name is not enough.
    pub(crate) const fn whole_name(self) -> Self {
        Self { prefix: false, ..self }
    }

    /// The same with other states in the picker.
    pub(crate) const fn offering(self, offered: &'static [SandboxStatus]) -> Self {
        Self { offered, ..self }
    }
}

/// The sandbox that was meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: SandboxId,
    pub(crate) name: Option<String>,
}

impl Found {
    fn of(view: &SandboxView) -> Self {
        Self { id: view.id.clone(), name: view.name.clone() }
    }

    /// `name (id)` when a name was typed, the id otherwise.
    pub(crate) fn label(&self) -> String {
        format::label(self.name.as_deref(), self.id.as_str())
    }

    /// What to type to name this sandbox in a suggested command.
    pub(crate) fn handle(&self) -> &str {
        self.name.as_deref().unwrap_or(self.id.as_str())
    }

    /// A failed call on this sandbox, saying which one it was.
    pub(crate) fn explain(&self, error: createos_sdk::Error) -> Failure {
        let kind = error.kind();
        let failure = Failure::from(error).about(&self.label());
        match kind {
            ErrorKind::NotFound => failure.hint("see what you have: createos sandbox list"),
            _ => failure,
        }
    }
}

/// The sandbox named on the command line, or picked from a list when a person can be asked.
///
/// `None` when the user chose nothing.
pub(crate) async fn sandbox(
    ctx: &Context,
    text: Option<&str>,
    rules: Rules,
) -> Result<Option<Found>, Failure> {
    match text.map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => Resolver::new(&ctx.plane()?.client).find(text, rules).await.map(Some),
        None if ctx.interactive() => prompt::pick_sandbox(ctx, rules).await,
        None => Err(Failure::usage("which sandbox? its name or id is missing")),
    }
}

/// Looks names up; the list is fetched at most once.
pub(crate) struct Resolver<'a> {
    client: &'a Client,
    all: OnceCell<Vec<SandboxView>>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(client: &'a Client) -> Self {
        Self { client, all: OnceCell::new() }
    }

    /// Finds the one sandbox that is meant.
    pub(crate) async fn find(&self, text: &str, rules: Rules) -> Result<Found, Failure> {
        if text.starts_with("sb-") {
            let found = self.by_id(text).await?;
            if rules.exists {
                self.check(&found).await?;
            }
            return Ok(found);
        }
        by_name(self.all().await?, text, rules)
    }

    async fn all(&self) -> Result<&[SandboxView], createos_sdk::Error> {
        let fetch = async || Ok(views(self.client.sandboxes().await?));
        Ok(self.all.get_or_try_init(fetch).await?)
    }

    /// Deleting what does not exist succeeds; the typo behind it should be seen.
    async fn check(&self, found: &Found) -> Result<(), Failure> {
        let looked_up = self.client.get_sandbox(found.id.clone()).await;
        looked_up.map(drop).map_err(|error| found.explain(error))
    }

    /// A complete id, or the beginning of exactly one. What cannot be decided
    /// here is sent as it is, and the server answers.
    async fn by_id(&self, text: &str) -> Result<Found, Failure> {
        let as_typed = || Ok(Found { id: text.parse()?, name: None });
        if text.len() >= FULL_ID {
            return as_typed();
        }
        let Ok(all) = self.all().await else { return as_typed() };
        let fitting: Vec<&SandboxView> =
            all.iter().filter(|view| view.id.as_str().starts_with(text)).collect();
        match fitting.as_slice() {
            [] => as_typed(),
            [one] => Ok(Found { id: one.id.clone(), name: None }),
            many => Err(ambiguous(text, many)),
        }
    }
}

/// What a list said about its rows.
pub(crate) fn views(rows: Vec<Sandbox>) -> Vec<SandboxView> {
    rows.iter().filter_map(Sandbox::view).map(|view| (*view).clone()).collect()
}

/// Live sandboxes first; then, where allowed, ended ones and beginnings of names.
fn by_name(all: &[SandboxView], text: &str, rules: Rules) -> Result<Found, Failure> {
    let (ended, live): (Vec<_>, Vec<_>) = all.iter().partition(|view| has_ended(&view.status));
    let named = |view: &&SandboxView| view.name.as_deref() == Some(text);
    let begins =
        |view: &&SandboxView| view.name.as_deref().is_some_and(|name| name.starts_with(text));
    let mut attempts: Vec<Vec<&SandboxView>> = vec![live.iter().copied().filter(named).collect()];
    if rules.ended {
        attempts.push(ended.iter().copied().filter(named).collect());
    }
    if rules.prefix {
        attempts.push(live.iter().copied().filter(begins).collect());
    }
    match attempts.iter().find(|fitting| !fitting.is_empty()).map(Vec::as_slice) {
        Some([one]) => Ok(Found::of(one)),
        Some(many) => Err(ambiguous(text, many)),
        None => Err(Failure::new(Class::NotFound, format!("no sandbox called \"{text}\""))
            .hint("see what you have: createos sandbox list")),
    }
}

fn has_ended(status: &SandboxStatus) -> bool {
    use SandboxStatus::{Destroyed, Destroying, Failed};
    matches!(status, Destroyed | Destroying | Failed)
}

fn ambiguous(text: &str, fitting: &[&SandboxView]) -> Failure {
    let mut fitting = fitting.to_vec();
    fitting.sort_by_key(|view| Reverse(view.created_at));
    let labels = fitting.iter().take(NAMED).map(|view| Found::of(view).label());
    let mut lines: Vec<String> = labels.collect();
    if fitting.len() > NAMED {
        lines.push(format!("… and {} more", fitting.len() - NAMED));
    }
    Failure::local(format!("\"{text}\" fits {} sandboxes; name one by its id", fitting.len()))
        .hint(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(id: &str, name: &str, status: SandboxStatus) -> SandboxView {
        let mut view = SandboxView::new(id.parse().unwrap(), status);
        view.name = Some(name.to_owned());
        view
    }

    fn find(all: &[SandboxView], text: &str, rules: Rules) -> Result<String, String> {
        by_name(all, text, rules)
            .map(|found| found.id.to_string())
            .map_err(|failure| failure.message().to_owned())
    }

    #[test]
    fn a_live_sandbox_beats_destroyed_ones_of_its_name() {
        use SandboxStatus::*;
        let all = [
            view("sb-3", "web", Destroyed),
            view("sb-2", "web", Paused),
            view("sb-1", "web", Failed),
        ];
        for rules in [Rules::READ, Rules::ACT, Rules::REMOVE] {
            assert_eq!(find(&all, "web", rules).as_deref(), Ok("sb-2"));
        }
    }

    #[test]
    fn ended_sandboxes_are_found_only_where_that_makes_sense() {
        let all = [view("sb-1", "old", SandboxStatus::Destroyed)];
        assert_eq!(find(&all, "old", Rules::READ).as_deref(), Ok("sb-1"));
        assert_eq!(find(&all, "old", Rules::REMOVE).as_deref(), Ok("sb-1"));
        assert!(find(&all, "old", Rules::ACT).is_err());
    }

    #[test]
    fn the_beginning_of_a_name_never_deletes() {
        let all = [view("sb-1", "web-1", SandboxStatus::Running)];
        assert_eq!(find(&all, "web", Rules::ACT).as_deref(), Ok("sb-1"));
        assert_eq!(find(&all, "web", Rules::READ).as_deref(), Ok("sb-1"));
        assert!(find(&all, "web", Rules::REMOVE).is_err());
        assert!(find(&all, "WEB", Rules::ACT).is_err(), "names have their case");
    }

    #[test]
    fn several_live_ones_are_listed() {
        let many: Vec<SandboxView> =
            (10..23).map(|n| view(&format!("sb-{n}"), "web", SandboxStatus::Running)).collect();
        let Err(Failure::Report(report)) = by_name(&many, "web", Rules::REMOVE) else {
            panic!("ambiguous")
        };
        assert!(report.message.contains("13 sandboxes"), "{report:?}");
        let hint = report.hint.unwrap();
        assert_eq!(hint.lines().count(), 11);
        assert!(hint.ends_with("… and 3 more"), "{hint}");
    }
}
