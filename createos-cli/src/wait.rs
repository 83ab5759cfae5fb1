//! Waiting for a state (cli.md 1.13).

use std::sync::Arc;
use std::time::Duration;

use createos_sdk::wire::{SandboxStatus, SandboxView};
use createos_sdk::{ErrorKind, Sandbox};

use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::output::Spinner;
use crate::prompt;
use crate::resolve::Found;

const BUDGET: Duration = Duration::from_secs(5 * 60);

/// Waits until the sandbox is in a state.
///
/// # Errors
/// The sandbox ended in a state that leads nowhere, or it takes longer than 5 minutes.
pub(crate) async fn until(
    ctx: &Context,
    sandbox: &Sandbox,
    found: &Found,
    wanted: SandboxStatus,
) -> Result<Arc<SandboxView>, Failure> {
    let _spinner = spinner(ctx, found, &wanted);
    match sandbox.wait_until(wanted).budget(BUDGET).await {
        Ok(Some(view)) => Ok(view),
        Ok(None) => Err(Failure::local(format!("{} is gone", found.label()))),
        Err(error) => Err(ended_elsewhere(sandbox, found, error)),
    }
}

fn spinner(ctx: &Context, found: &Found, wanted: &SandboxStatus) -> Spinner {
    Spinner::start(ctx.out.terminal(), format!("waiting for {}: {wanted}", found.label()))
}

/// Names the state that the wait ended in.
fn ended_elsewhere(sandbox: &Sandbox, found: &Found, error: createos_sdk::Error) -> Failure {
    let label = found.label();
    let look = format!("look at it: createos sandbox get {}", found.id);
    let state = error.last_status().map_or("not known", SandboxStatus::as_str).to_owned();
    match error.kind() {
        ErrorKind::UnexpectedState => {
            Failure::local(format!("{label} is {state}{}", reason(sandbox))).hint(look)
        }
        // A limit of a single question has no state; that of the wait has one.
        ErrorKind::Timeout if error.status().is_none() => {
            Failure::new(Class::Timeout, format!("{label} is still {state} after 5m")).hint(look)
        }
        _ => found.explain(error),
    }
}

/// Why it is in its state, where the server says it.
fn reason(sandbox: &Sandbox) -> String {
    let reason = sandbox.view().and_then(|view| view.status_reason.clone());
    reason.map(|reason| format!(": {reason}")).unwrap_or_default()
}

/// Resumes a sandbox and waits until it runs. One that runs already is fine.
pub(crate) async fn resume(
    ctx: &Context,
    sandbox: &Sandbox,
    found: &Found,
) -> Result<Arc<SandboxView>, Failure> {
    change(ctx, sandbox, found, SandboxStatus::Running).await
}

/// Pauses a sandbox and waits until it is paused. One that is paused already is fine.
pub(crate) async fn pause(
    ctx: &Context,
    sandbox: &Sandbox,
    found: &Found,
) -> Result<Arc<SandboxView>, Failure> {
    change(ctx, sandbox, found, SandboxStatus::Paused).await
}

async fn change(
    ctx: &Context,
    sandbox: &Sandbox,
    found: &Found,
    wanted: SandboxStatus,
) -> Result<Arc<SandboxView>, Failure> {
    let before = sandbox.refresh().await.map_err(|error| found.explain(error))?;
    let (change, goes_on) = match wanted {
        SandboxStatus::Paused => (sandbox.pause(), "pausing"),
        _ => (sandbox.resume(), "resuming"),
    };
    let _note = ctx.if_interrupted(format!(
        "{} goes on {goes_on}: createos sandbox get {}",
        found.label(),
        found.id
    ));
    let _spinner = spinner(ctx, found, &wanted);
    let view = change.budget(BUDGET).await;
    let view = view.map_err(|error| ended_elsewhere(sandbox, found, error))?;
    if before.status == wanted {
        ctx.out.note(&format!("{} was {wanted} already", found.label()));
    }
    Ok(view)
}

/// Runs an operation that needs a running sandbox. When the sandbox turns out
/// to be paused, a person is asked whether to resume it (that starts billing).
pub(crate) async fn on_running<T>(
    ctx: &Context,
    sandbox: &Sandbox,
    found: &Found,
    operation: impl AsyncFn() -> Result<T, Failure>,
) -> Result<T, Failure> {
    let failure = match operation().await {
        Err(failure) if failure.class() == Some(Class::Conflict) => failure,
        other => return other,
    };
    let paused = sandbox.refresh().await.is_ok_and(|view| view.status == SandboxStatus::Paused);
    if !paused {
        return Err(failure);
    }
    let question = format!("{} is paused; resume it now?", found.label());
    if ctx.interactive() && prompt::confirm(question, false).await? {
        resume(ctx, sandbox, found).await?;
        return operation().await;
    }
    Err(failure
        .saying(format!("{} is paused", found.label()))
        .hint(format!("bring it back: createos sandbox resume {}", found.handle())))
}
