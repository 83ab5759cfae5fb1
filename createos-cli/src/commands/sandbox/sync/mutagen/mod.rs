//! Mutagen over SSH (cli.md 3.3 to 3.7).
//!
//! Nothing of the user's own Mutagen is touched: the daemon is one of our own, with a private
//! data directory and a private way to call ssh, and is gone when the sync is.

mod bridge;
mod daemon;
mod download;
mod find;
mod key;
mod private;

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::{Duration, Instant};

use createos_sdk::wire::SandboxStatus;
use createos_sdk::{ErrorKind, Ssh};

use self::bridge::Bridge;
use self::daemon::Daemon;
use self::key::Key;
use self::private::Private;
use super::Job;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::output::Spinner;
use crate::ssh::{admit, server};

pub(super) use self::download::obtain;
pub(super) use self::find::find;

/// How long a lost connection is waited for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the sandbox is looked at.
const LOOK: Duration = Duration::from_secs(5);
/// How long everything that was started may take to end.
const FAREWELL: Duration = Duration::from_secs(15);

/// How to log in.
pub(super) struct Login<'a> {
    pub(super) identity: Option<&'a Path>,
    pub(super) yes: bool,
    pub(super) sshd_wait: Duration,
}

pub(super) async fn run(
    job: &Job,
    ctx: &Context,
    binary: PathBuf,
    login: Login<'_>,
    stopped: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let mut stopped = pin!(stopped);
    let ssh = job.sandbox.ssh().user(&job.user);
    let private = Private::new()?;
    let key = {
        let mut choosing = pin!(Key::choose(ctx, &job.found.id, &private, login.identity));
        tokio::select! {
            key = &mut choosing => key?,
            () = &mut stopped => return ended(job, ctx),
        }
    };
    let outcome = {
        let mut working = pin!(work(job, ctx, &ssh, &key, &private, &binary, &login));
        tokio::select! {
            outcome = &mut working => outcome,
            () = &mut stopped => Ok(()),
        }
    };
    // Whatever came of it, what was started is ended.
    let leaving = async {
        if let Some(daemon) = private.daemon() {
            daemon.end().await;
        }
        key.forget(&ssh).await;
    };
    drop(tokio::time::timeout(FAREWELL, leaving).await);
    drop(private);
    outcome?;
    ended(job, ctx)
}

fn ended(job: &Job, ctx: &Context) -> Result<Exit, Failure> {
    if !job.quiet {
        ctx.out.text("the sync has ended")?;
    }
    Ok(Exit::Success)
}

async fn work(
    job: &Job,
    ctx: &Context,
    ssh: &Ssh,
    key: &Key,
    private: &Private,
    binary: &Path,
    login: &Login<'_>,
) -> Result<(), Failure> {
    let explain = |error| job.found.explain(error);
    let known = ssh.authorized_keys().await.map_err(explain)?;
    if key.is_generated() {
        // It was made for this and goes with it, so there is nothing to agree to.
        ssh.authorize(&key.pair().public).await.map_err(explain)?;
    } else {
        let request = admit::Request {
            found: &job.found,
            ssh,
            user: &job.user,
            key: key.pair(),
            known: &known,
            yes: login.yes,
        };
        if !request.ask_and_add(ctx).await? {
            return Ok(());
        }
    }
    let bridge = {
        let text = format!("preparing SSH in {}", job.found.label());
        let _spinner = Spinner::start(ctx.out.terminal(), text);
        server::start(ssh, &job.found).await?;
        make_directory(job).await?;
        Bridge::open(&job.sandbox, &job.found, login.sshd_wait).await?
    };
    private.write_wrappers(&ctx.paths, &job.found.id, key.pair())?;
    let daemon = private.start(Daemon::new(binary, private.path(), &job.found.id)).await?;
    daemon.create(job, bridge.port()).await?;
    if !job.quiet {
        ctx.out.text(format!("syncing {} (Mutagen)", job.ends()))?;
        ctx.out.hint("Ctrl+C ends the sync");
    }
    let mut watching = pin!(watch(job));
    tokio::select! {
        outcome = daemon.monitor(job.quiet) => outcome,
        failure = &mut watching => Err(failure),
    }
}

/// Makes the directory in the sandbox, and looks where it leads.
async fn make_directory(job: &Job) -> Result<(), Failure> {
    let script =
        "mkdir -p -- \"$1\" && cd -P -- \"$1\" && pwd -P && chown \"$2:\" . 2>/dev/null; :";
    let words = ["-c", script, "sh", &job.remote, &job.user];
    let output = job.sandbox.command("sh").args(words).output().await;
    let output = output.map_err(|error| job.found.explain(error))?;
    let real = output.stdout_lossy().trim_end_matches('\n').to_owned();
    if !real.starts_with('/') {
        let said = output.stderr_lossy().trim().to_owned();
        return Err(Failure::local(format!("cannot make {} in the sandbox: {said}", job.remote)));
    }
    match super::remote_path::refusal(&real, &job.user) {
        Some(why) => Err(super::leads_elsewhere(&job.remote, &real, why)),
        None => Ok(()),
    }
}

/// Waits until the sandbox does not run any more, or cannot be reached for too long.
async fn watch(job: &Job) -> Failure {
    let mut lost: Option<Instant> = None;
    loop {
        tokio::time::sleep(LOOK).await;
        let status = match job.sandbox.refresh().await {
            Ok(view) => view.status.clone(),
            Err(error) if error.kind() == ErrorKind::NotFound => SandboxStatus::Destroyed,
            Err(error) => {
                let since = *lost.get_or_insert_with(Instant::now);
                if since.elapsed() >= PATIENCE {
                    let label = job.found.label();
                    let why = error.message();
                    let text = format!("{label} cannot be reached; the sync has ended: {why}");
                    return Failure::new(Class::Network, text);
                }
                continue;
            }
        };
        lost = None;
        if status != SandboxStatus::Running {
            let text = format!("{} is {status}; the sync has ended", job.found.label());
            return Failure::new(Class::Conflict, text);
        }
    }
}
