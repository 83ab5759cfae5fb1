//! Questions and pickers, drawn on standard error (cli.md 1.7).

mod secret;

use console::Term;
use createos_sdk::wire::SandboxView;
use dialoguer::theme::ColorfulTheme;
use dialoguer::{Confirm, Input, MultiSelect, Select};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::unicode;
use crate::resolve::{self, Found, Rules};
use crate::terminal::Hold;

pub(crate) use secret::secret;

/// Rows of one picker.
const MOST: u64 = 200;

/// A yes or no question; Esc is no.
pub(crate) async fn confirm(question: String, default: bool) -> Result<bool, Failure> {
    let answer = ask(move |term| {
        Confirm::with_theme(&theme())
            .with_prompt(question)
            .default(default)
            .wait_for_newline(true)
            .interact_on_opt(term)
    });
    Ok(answer.await?.unwrap_or(false))
}

/// One line of text, trimmed.
pub(crate) async fn line(question: impl Into<String>) -> Result<String, Failure> {
    let question = question.into();
    let answer = ask(move |term| {
        Input::<String>::with_theme(&theme())
            .with_prompt(question)
            .allow_empty(true)
            .interact_text_on(term)
    });
    Ok(answer.await?.trim().to_owned())
}

/// One line of text that begins with `text`, for the user to change; trimmed.
pub(crate) async fn edit(question: &'static str, text: String) -> Result<String, Failure> {
    let answer = ask(move |term| {
        Input::<String>::with_theme(&theme())
            .with_prompt(question)
            .with_initial_text(text)
            .allow_empty(true)
            .interact_text_on(term)
    });
    Ok(answer.await?.trim().to_owned())
}

/// Picks one of these; `None`, and a line that says so, when nothing was picked.
pub(crate) async fn pick(
    ctx: &Context,
    question: &str,
    items: Vec<String>,
) -> Result<Option<usize>, Failure> {
    let picked = choose(question, items, 0).await?;
    if picked.is_none() {
        ctx.out.note("nothing was changed");
    }
    Ok(picked)
}

/// Picks one of these, the row `start` being current at first. Silent when nothing was picked.
pub(crate) async fn choose(
    question: &str,
    items: Vec<String>,
    start: usize,
) -> Result<Option<usize>, Failure> {
    let question = format!("{question}  (arrows move, Enter picks, q leaves)");
    ask(move |term| {
        let theme = theme();
        let select = Select::with_theme(&theme).with_prompt(question).items(items);
        select.default(start).interact_on_opt(term)
    })
    .await
}

/// Picks any number of these; `None`, and a line that says so, when nothing was picked.
pub(crate) async fn pick_several(
    ctx: &Context,
    question: &str,
    items: Vec<String>,
) -> Result<Option<Vec<usize>>, Failure> {
    let question = format!("{question}  (Space marks, Enter confirms, q leaves)");
    let picked = ask(move |term| {
        let theme = theme();
        let select = MultiSelect::with_theme(&theme).with_prompt(question).items(items);
        select.interact_on_opt(term)
    });
    let picked = picked.await?.filter(|picked| !picked.is_empty());
    if picked.is_none() {
        ctx.out.note("nothing was changed");
    }
    Ok(picked)
}

/// Picks one sandbox; `None` when there is none or nothing was picked.
pub(crate) async fn pick_sandbox(ctx: &Context, rules: Rules) -> Result<Option<Found>, Failure> {
    let Some(rows) = candidates(ctx, rules).await? else { return Ok(None) };
    let picked = pick(ctx, "which sandbox?", labels(&rows)).await?;
    Ok(picked.and_then(|at| rows.into_iter().nth(at)))
}

/// Picks any number of sandboxes; `None` when nothing was picked.
pub(crate) async fn pick_sandboxes(
    ctx: &Context,
    rules: Rules,
) -> Result<Option<Vec<Found>>, Failure> {
    let Some(rows) = candidates(ctx, rules).await? else { return Ok(None) };
    let picked = pick_several(ctx, "which sandboxes?", labels(&rows)).await?;
    Ok(picked.map(|picked| picked.into_iter().filter_map(|at| rows.get(at).cloned()).collect()))
}

async fn candidates(ctx: &Context, rules: Rules) -> Result<Option<Vec<Found>>, Failure> {
    let client = &ctx.plane()?.client;
    let mut views: Vec<SandboxView> = Vec::new();
    if rules.offered.is_empty() {
        views = resolve::views(client.sandboxes().page(MOST, 0).await?.data);
    }
    for status in rules.offered {
        let page = client.sandboxes().status(status.clone()).page(MOST, 0).await?;
        views.extend(resolve::views(page.data));
    }
    if views.is_empty() {
        let states: Vec<String> = rules.offered.iter().map(ToString::to_string).collect();
        ctx.out.note(&format!("there are no {} sandboxes", states.join(" or ")).replace("  ", " "));
        return Ok(None);
    }
    Ok(Some(views.into_iter().map(|view| Found { id: view.id, name: view.name }).collect()))
}

fn labels(rows: &[Found]) -> Vec<String> {
    rows.iter().map(|row| format!("{}   (id: {})", row.handle(), row.id)).collect()
}

fn theme() -> ColorfulTheme {
    let mark = |rich: &str, plain: &str| {
        console::style(if unicode() { rich } else { plain }.to_owned()).for_stderr()
    };
    ColorfulTheme {
        prompt_suffix: mark("›", ">").black().bright(),
        success_prefix: mark("✔", "+").green(),
        success_suffix: mark("·", ":").black().bright(),
        error_prefix: mark("✘", "x").red(),
        active_item_prefix: mark("›", ">").cyan(),
        checked_item_prefix: console::style("[x]".to_owned()).for_stderr().green(),
        unchecked_item_prefix: console::style("[ ]".to_owned()).for_stderr(),
        ..ColorfulTheme::default()
    }
}

/// Asks on a thread of its own, so that signals are still heard.
async fn ask<T: Send + 'static>(
    question: impl FnOnce(&Term) -> dialoguer::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let _restored = Hold::keep();
    let answer = tokio::task::spawn_blocking(move || question(&Term::stderr())).await;
    match answer {
        Ok(Ok(answer)) => Ok(answer),
        // Ctrl+C while the terminal delivers keys instead of signals.
        Ok(Err(dialoguer::Error::IO(error))) if error.kind() == std::io::ErrorKind::Interrupted => {
            Err(Failure::interrupted(130))
        }
        Ok(Err(dialoguer::Error::IO(error))) => Err(Failure::io("cannot ask", &error)),
        Err(error) => Err(Failure::local(format!("cannot ask: {error}"))),
    }
}
