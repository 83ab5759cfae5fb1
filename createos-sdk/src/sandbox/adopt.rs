//! Creating by name: what is there already is taken instead of made again.

use futures::TryStreamExt;
use tokio::time::sleep;

use super::create::PATIENCE;
use super::{CreateSandbox, Sandbox};
use crate::error::{Error, ErrorKind, Result};
use crate::transport::retry;
use crate::wire::{self, SandboxStatus, SandboxView};

/// Creates the sandbox, or adopts the one of that name.
///
/// With the name to go by, repeating is safe: what an attempt made shows as a taken name.
pub(super) async fn create(create: CreateSandbox) -> Result<Sandbox> {
    let options = create.options.clone();
    let policy = options.retry.unwrap_or(create.client.inner().retry);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match create.clone().create().await {
            Ok(sandbox) => return Ok(sandbox),
            Err(error) if error.may_have_acted() || error.kind() == ErrorKind::Conflict => error,
            Err(error) => return Err(error),
        };
        match find(&create).await {
            Ok(Some(sandbox)) => return adopt(sandbox, &create, error).await,
            Ok(None) => {}
            // It says less than the failure that made us look.
            Err(_) => return Err(error),
        }
        let again = error.kind() != ErrorKind::Conflict && attempt < policy.max_attempts;
        if !again {
            return Err(error);
        }
        sleep(retry::delay(&policy, attempt, error.retry_after(), fastrand::f64())).await;
    }
}

/// The live sandbox of that name; names are unique among those.
async fn find(create: &CreateSandbox) -> Result<Option<Sandbox>> {
    let lookup = create.client.sandboxes().with(create.options.clone());
    let mut rows = lookup.stream();
    while let Some(sandbox) = rows.try_next().await? {
        let Some(view) = sandbox.view() else { continue };
        let gone = view.status.is_terminal() || view.status == SandboxStatus::Destroying;
        if !gone && view.name == create.request.name {
            return Ok(Some(sandbox));
        }
    }
    Ok(None)
}

/// Takes the sandbox if it is what was asked for, and sees that it runs.
async fn adopt(sandbox: Sandbox, create: &CreateSandbox, cause: Error) -> Result<Sandbox> {
    let Some(view) = sandbox.view() else { return Err(cause) };
    if let Some(difference) = difference(&create.request, &view) {
        return Err(refused(&sandbox, format!("has another {difference}"), cause));
    }
    let options = || create.options.clone();
    match &view.status {
        SandboxStatus::Running => return Ok(sandbox),
        SandboxStatus::Paused => drop(sandbox.resume().no_wait().with(options()).await?),
        SandboxStatus::Creating | SandboxStatus::Resuming | SandboxStatus::Forking => {}
        other => return Err(refused(&sandbox, format!("is {other}"), cause)),
    }
    let running = sandbox.wait_until(SandboxStatus::Running).budget(PATIENCE);
    running.with(options()).await?;
    Ok(sandbox)
}

/// What of a sandbox is not as it was asked for. What the server does not tell is believed.
fn difference(asked: &wire::CreateSandbox, is: &SandboxView) -> Option<String> {
    let differs = |asked: &str, is: &Option<String>| is.as_ref().is_some_and(|is| is != asked);
    if differs(&asked.shape, &is.shape) {
        return Some(format!("shape, {}", is.shape.as_deref().unwrap_or_default()));
    }
    match &asked.rootfs {
        Some(rootfs) if differs(rootfs, &is.rootfs) => {
            Some(format!("root filesystem, {}", is.rootfs.as_deref().unwrap_or_default()))
        }
        _ => None,
    }
}

fn refused(sandbox: &Sandbox, why: String, cause: Error) -> Error {
    let message = format!("the name is taken by {}, which {why}", sandbox.id());
    Error::new(ErrorKind::Conflict, message).in_operation("sandbox.create").with_source(cause)
}

impl CreateSandbox {
    /// Adopts the sandbox of this [`name`](Self::name) where it exists already: when the
    /// server says that the name is taken, and when an attempt failed in a way that may have
    /// created it. This makes creating safe to repeat, and it is repeated as the retry policy
    /// says also where it otherwise would not be.
    ///
    /// What is adopted has the shape and root filesystem that were asked for (a template as
    /// the server names it); everything else is as it is. A paused one is resumed. It has no
    /// [`created`](Sandbox::created) but a [`view`](Sandbox::view).
    ///
    /// # Errors
    ///
    /// Also `InvalidArgument` without a name, and `Conflict` when the sandbox of that name is
    /// another one, or on its way to an end.
    pub fn adopt(mut self) -> Self {
        self.adopt = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_and_differs_is_found() {
        let mut asked = wire::CreateSandbox::new("s-1vcpu-1gb");
        let mut is = SandboxView::new("sb-1".parse().unwrap(), SandboxStatus::Running);
        assert_eq!(difference(&asked, &is), None);
        is.shape = Some("s-1vcpu-1gb".into());
        is.rootfs = Some("devbox:1".into());
        assert_eq!(difference(&asked, &is), None);
        asked.rootfs = Some("debian:13".into());
        assert!(difference(&asked, &is).unwrap().contains("devbox:1"));
        is.shape = Some("s-2vcpu-2gb".into());
        assert!(difference(&asked, &is).unwrap().contains("s-2vcpu-2gb"));
    }
}
