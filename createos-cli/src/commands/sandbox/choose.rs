//! Picking networks, disks and templates, on a terminal.

use serde::Serialize;

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{Table, format, ids};
use crate::prompt;

/// A kind of thing that has an id and a name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kind {
    /// `network`
    pub(super) word: &'static str,
    /// What making one is called.
    pub(super) verb: &'static str,
    /// Makes the first one.
    pub(super) create: &'static str,
    /// Shows all of them.
    pub(super) list: &'static str,
    /// Removes one.
    pub(super) remove: &'static str,
}

pub(super) const SANDBOX: Kind = Kind {
    word: "sandbox",
    verb: "create",
    create: "createos sandbox create --shape <id>",
    list: "createos sandbox list",
    remove: "createos sandbox rm",
};

pub(super) const NETWORK: Kind = Kind {
    word: "network",
    verb: "create",
    create: "createos sandbox network create my-net",
    list: "createos sandbox network ls",
    remove: "createos sandbox network rm",
};

pub(super) const DISK: Kind = Kind {
    word: "disk",
    verb: "create",
    create: "createos sandbox disk create my-disk --bucket …",
    list: "createos sandbox disk ls",
    remove: "createos sandbox disk rm",
};

pub(super) const TEMPLATE: Kind = Kind {
    word: "template",
    verb: "build",
    create: "createos sandbox template submit my-image -f Dockerfile",
    list: "createos sandbox template ls",
    remove: "createos sandbox template rm",
};

impl Kind {
    /// A failed call about one of these, saying which one it was.
    pub(super) fn explain(self, name: &str, error: createos_sdk::Error) -> Failure {
        let missing = error.status() == Some(404);
        let failure = Failure::from(error).about(name);
        match missing {
            true => failure
                .saying(format!("no {} called \"{name}\"", self.word))
                .hint(format!("see what you have: {}", self.list)),
            false => failure,
        }
    }

    /// `1 network`, `2 sandboxes`.
    pub(super) fn count(self, number: usize) -> String {
        format!("{number} {}", self.words(number))
    }

    fn words(self, number: usize) -> String {
        let plural = match (number, self.word.ends_with('x')) {
            (1, _) => "",
            (_, true) => "es",
            (_, false) => "s",
        };
        format!("{}{plural}", self.word)
    }

    /// That the name is missing where nobody can be asked.
    pub(super) fn which(self) -> Failure {
        Failure::usage(format!("which {}? its name or id is missing", self.word))
    }

    fn none(self) -> String {
        format!("there are no {}; make one: {}", self.words(0), self.create)
    }
}

/// An id and the name that people know it by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) id: String,
    pub(super) name: String,
}

impl Named {
    pub(super) fn new(id: impl AsRef<str>, name: impl Into<String>) -> Self {
        Self { id: id.as_ref().to_owned(), name: name.into() }
    }

    /// `name (id)`.
    pub(super) fn label(&self) -> String {
        format::label(Some(&self.name), &self.id)
    }

    /// What to type to name it.
    pub(super) fn handle(&self) -> &str {
        if self.name.is_empty() { &self.id } else { &self.name }
    }
}

/// One that was typed or picked.
pub(super) enum Choice {
    /// As it was typed.
    Typed(String),
    Picked(Named),
}

impl Choice {
    /// What was typed, or what to type to name it.
    pub(super) fn handle(&self) -> &str {
        match self {
            Self::Typed(text) => text,
            Self::Picked(named) => named.handle(),
        }
    }

    /// What was typed, or the id.
    pub(super) fn key(&self) -> &str {
        match self {
            Self::Typed(text) => text,
            Self::Picked(named) => &named.id,
        }
    }
}

/// What was typed, or the one that is picked; `None` when nothing was picked.
pub(super) async fn typed_or_picked(
    ctx: &Context,
    kind: Kind,
    text: Option<&str>,
    rows: impl AsyncFnOnce() -> Result<Vec<Named>, Failure>,
) -> Result<Option<Choice>, Failure> {
    match text.map(str::trim).filter(|text| !text.is_empty()) {
        Some(text) => Ok(Some(Choice::Typed(text.to_owned()))),
        None if ctx.interactive() => Ok(one(ctx, kind, rows().await?).await?.map(Choice::Picked)),
        None => Err(kind.which()),
    }
}

/// Prints a list: its ids, its JSON, or a table; where it is empty, how to make the first one.
pub(super) fn listed<T: Serialize>(
    ctx: &Context,
    kind: Kind,
    quiet: bool,
    rows: &[T],
    id: impl Fn(&T) -> &str,
    table: impl FnOnce(&[T]) -> Table,
) -> Result<Exit, Failure> {
    if quiet {
        ctx.out.raw(&ids(rows.iter().map(id)))?;
        return Ok(Exit::Success);
    }
    ctx.out.result(&rows, || match rows.is_empty() {
        true => format!("No {}.", kind.words(0)).into(),
        false => ctx.out.table(&table(rows)),
    })?;
    if rows.is_empty() {
        ctx.out.hint(&format!("{} one: {}", kind.verb, kind.create));
    }
    Ok(Exit::Success)
}

/// Picks one of these; `None` when there is none, or nothing was picked.
pub(super) async fn one(
    ctx: &Context,
    kind: Kind,
    rows: Vec<Named>,
) -> Result<Option<Named>, Failure> {
    if rows.is_empty() {
        ctx.out.note(&kind.none());
        return Ok(None);
    }
    let items = rows.iter().map(row).collect();
    let picked = prompt::pick(ctx, &format!("which {}?", kind.word), items).await?;
    Ok(picked.and_then(|at| rows.into_iter().nth(at)))
}

/// Picks any number of these; `None` when there is none, or nothing was picked.
pub(super) async fn several(
    ctx: &Context,
    kind: Kind,
    rows: Vec<Named>,
) -> Result<Option<Vec<Named>>, Failure> {
    if rows.is_empty() {
        ctx.out.note(&kind.none());
        return Ok(None);
    }
    let items = rows.iter().map(row).collect();
    let picked = prompt::pick_several(ctx, &format!("which {}?", kind.words(2)), items).await?;
    Ok(picked.map(|picked| picked.into_iter().filter_map(|at| rows.get(at).cloned()).collect()))
}

fn row(named: &Named) -> String {
    format!("{}   (id: {})", named.handle(), named.id)
}
