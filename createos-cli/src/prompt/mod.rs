//! Questions and pickers, drawn on standard error (cli.md 1.7).
//!
//! Esc leaves a question. Where that ends the whole command it is
//! [`Failure::Left`], which says that nothing changed and exits with 0. Ctrl+C
//! ends with exit code 130.

mod line;
mod list;
mod sandboxes;
mod screen;
mod slider;

use std::io;
use std::ops::RangeInclusive;

use console::Term;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::{printable, unicode};
use crate::terminal::Hold;
use line::Line;
use list::List;
pub(crate) use sandboxes::{pick_sandbox, pick_sandboxes};
use slider::Slider;

/// What stands before the current row.
fn mark() -> &'static str {
    if unicode() { "›" } else { ">" }
}

/// What came of a question.
enum Answer<T> {
    Given(T),
    /// Esc, or `q` where letters are not text.
    Left,
    /// Ctrl+C.
    Interrupted,
}

/// A yes or no question; Enter alone is the default, Esc is no.
pub(crate) async fn confirm(question: impl Into<String>, default: bool) -> Result<bool, Failure> {
    let choices = if default { "[Y/n]" } else { "[y/N]" };
    let question = format!("{} {choices}", question.into());
    loop {
        let answer = match line(question.as_str()).await {
            Err(Failure::Left) => return Ok(false),
            answer => answer?,
        };
        match answer.to_ascii_lowercase().as_str() {
            "" => return Ok(default),
            "y" | "yes" => return Ok(true),
            "n" | "no" | "q" => return Ok(false),
            _ => {}
        }
    }
}

/// One line of text, trimmed; may be empty.
pub(crate) async fn line(question: impl Into<String>) -> Result<String, Failure> {
    edit(question, "").await
}

/// One line that starts with a text for the user to change; trimmed.
pub(crate) async fn edit(
    question: impl Into<String>,
    text: impl Into<String>,
) -> Result<String, Failure> {
    typed(question.into(), text.into(), false).await
}

/// One line that must be understood; asks again, saying why, until it is.
pub(crate) async fn parsed<T>(
    ctx: &Context,
    question: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<T, Failure> {
    loop {
        match parse(&line(question).await?) {
            Ok(value) => return Ok(value),
            Err(why) => ctx.out.warn(&why),
        }
    }
}

/// One line that shows as stars; trimmed.
pub(crate) async fn secret(question: impl Into<String>) -> Result<String, Failure> {
    typed(question.into(), String::new(), true).await
}

/// Picks one of these; `None`, and a line that says so, when nothing was picked.
pub(crate) async fn pick(
    ctx: &Context,
    question: &str,
    items: Vec<String>,
) -> Result<Option<usize>, Failure> {
    Ok(noted(ctx, choose(question, items, 0).await?))
}

/// Picks any number of these; `None`, and a line that says so, when nothing was picked.
pub(crate) async fn pick_several(
    ctx: &Context,
    question: &str,
    items: Vec<String>,
) -> Result<Option<Vec<usize>>, Failure> {
    let picked = choose_several(question, items).await?;
    Ok(noted(ctx, picked.filter(|picked| !picked.is_empty())))
}

/// Picks one of these, the row `start` being current at first. Silent when
/// nothing was picked.
pub(crate) async fn choose(
    title: &str,
    items: Vec<String>,
    start: usize,
) -> Result<Option<usize>, Failure> {
    let list = list(title, items, start);
    ask(move |term| list.one(term)).await
}

/// Picks any number of these, none included; `None` when the question was left.
pub(crate) async fn choose_several(
    title: &str,
    items: Vec<String>,
) -> Result<Option<Vec<usize>>, Failure> {
    let list = list(title, items, 0);
    ask(move |term| list.several(term)).await
}

/// A number between bounds; `None` when the question was left, with Ctrl+C too.
pub(crate) async fn slide(
    title: &str,
    range: RangeInclusive<u64>,
    start: u64,
    unit: &'static str,
) -> Result<Option<u64>, Failure> {
    let slider = Slider { title: printable(title), range, start, unit };
    ask(move |term| slider.ask(term)).await
}

fn list(title: &str, items: Vec<String>, start: usize) -> List {
    // A line break would fall out of its row.
    let items = items.iter().map(|item| printable(item).replace(['\n', '\t'], " ")).collect();
    List { title: printable(title), items, start }
}

async fn typed(question: String, text: String, hidden: bool) -> Result<String, Failure> {
    let line = Line { question: printable(&question), text: printable(&text), hidden };
    let answer = ask(move |term| line.ask(term)).await?;
    Ok(answer.ok_or(Failure::Left)?.trim().to_owned())
}

fn noted<T>(ctx: &Context, picked: Option<T>) -> Option<T> {
    if picked.is_none() {
        ctx.out.note(NOTHING);
    }
    picked
}

/// What is said when a question was left.
pub(crate) const NOTHING: &str = "nothing was changed";

/// Asks on a thread of its own, so that signals are still heard.
///
/// The keys are held over the whole question: what is typed or pasted faster
/// than it is read must not be shown by the terminal.
async fn ask<T: Send + 'static>(
    question: impl FnOnce(&Term) -> io::Result<Answer<T>> + Send + 'static,
) -> Result<Option<T>, Failure> {
    let cannot = |error: &io::Error| Failure::io("cannot ask", error);
    let term = Term::buffered_stderr();
    if !term.is_term() {
        return Err(Failure::local("cannot ask: standard error is no terminal")
            .hint("name everything on the command line, or let standard error be"));
    }
    let _restored = Hold::keys().map_err(|error| cannot(&error))?;
    match tokio::task::spawn_blocking(move || question(&term)).await {
        Ok(Ok(Answer::Given(answer))) => Ok(Some(answer)),
        Ok(Ok(Answer::Left)) => Ok(None),
        Ok(Ok(Answer::Interrupted)) => Err(Failure::interrupted(130)),
        Ok(Err(error)) => Err(cannot(&error)),
        Err(error) => Err(Failure::local(format!("cannot ask: {error}"))),
    }
}
