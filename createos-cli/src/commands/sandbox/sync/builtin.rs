//! The engine that is built in (cli.md 3.8).

use std::fs::File;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use createos_sdk::sync::{SyncMode, SyncSession};
use createos_sdk::wire::SandboxStatus;
use createos_sdk::{Error, ErrorKind};
use futures::StreamExt;
use sha2::{Digest, Sha256};

use super::report::Reporter;
use super::{Job, Mode, remote_path};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::output::Spinner;

/// How long what is being written may take when the sync is to end.
const FAREWELL: Duration = Duration::from_secs(10);

pub(super) async fn run(
    job: &Job,
    ctx: &Context,
    stopped: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    let mut stopped = pin!(stopped);
    let (memory, _lock) = memory(job, ctx)?;
    let mut session = {
        let spinner = Spinner::start(ctx.out.terminal(), "getting ready".to_owned());
        let mut starting = pin!(start(job, memory));
        let started = tokio::select! {
            started = &mut starting => started,
            () = &mut stopped => return ended(job, ctx),
        };
        drop(spinner);
        started.map_err(|error| failed(job, error))?
    };
    // A link in the sandbox could lead to what is refused by name.
    if let Some(why) = remote_path::refusal(session.remote_path(), &job.user) {
        return Err(super::leads_elsewhere(&job.remote, session.remote_path(), why));
    }
    if !job.quiet {
        ctx.out.text(format!("syncing {} (built-in engine)", job.ends()))?;
        ctx.out.hint("Ctrl+C ends the sync");
    }
    let mut reporter = Reporter::new(ctx, job.quiet);
    loop {
        tokio::select! {
            event = session.next() => match event {
                Some(Ok(event)) => reporter.event(event)?,
                Some(Err(error)) => return Err(failed(job, error)),
                None => return ended(job, ctx),
            },
            () = &mut stopped => break,
        }
    }
    finish(session).await;
    ended(job, ctx)
}

async fn start(job: &Job, memory: Option<PathBuf>) -> Result<SyncSession, Error> {
    let mut sync = job.sandbox.sync(&job.local, &job.remote);
    sync = sync.excludes(job.excludes.iter().cloned()).ignore_vcs(job.ignore_vcs);
    sync = sync.mode(match job.mode {
        Mode::TwoWay => SyncMode::TwoWay,
        Mode::OneWay => SyncMode::OneWay,
        Mode::Mirror => SyncMode::Mirror,
    });
    if let Some(memory) = memory {
        sync = sync.remember_in(memory);
    }
    sync.await
}

/// Lets the sync finish what it is writing, so that nothing is left lying around.
async fn finish(mut session: SyncSession) {
    session.stop_handle().stop();
    let rest = async { while let Some(Ok(_)) = session.next().await {} };
    // What is not done by then is done by the next sync.
    drop(tokio::time::timeout(FAREWELL, rest).await);
}

fn ended(job: &Job, ctx: &Context) -> Result<Exit, Failure> {
    if !job.quiet {
        ctx.out.text("the sync has ended")?;
    }
    Ok(Exit::Success)
}

/// Where the agreement of these two directories is remembered, locked against a second sync
/// of them. Without a home directory there is none.
fn memory(job: &Job, ctx: &Context) -> Result<(Option<PathBuf>, Option<File>), Failure> {
    let Ok(dir) = ctx.paths.private_dir("sync") else { return Ok((None, None)) };
    let real = job.local.canonicalize().unwrap_or_else(|_| job.local.clone());
    let mut hash = Sha256::new();
    for part in [real.as_os_str().as_encoded_bytes(), b"\0", job.remote.as_bytes()] {
        hash.update(part);
    }
    let hash: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let file = dir.join(format!("{}-{hash}.json", job.found.id));
    let lock = file.with_extension("lock");
    let opened = File::create(&lock)
        .map_err(|error| Failure::io(format!("cannot open {}", lock.display()), &error))?;
    if let Err(std::fs::TryLockError::WouldBlock) = opened.try_lock() {
        return Err(Failure::local("another sync of these two directories is running"));
    }
    Ok((Some(file), Some(opened)))
}

/// A sync that cannot go on.
fn failed(job: &Job, error: Error) -> Failure {
    let found = &job.found;
    match (error.kind(), error.last_status()) {
        (ErrorKind::UnexpectedState, Some(status)) => {
            let message = format!("{} is {status}; the sync has ended", found.label());
            let failure = Failure::new(Class::Conflict, message);
            match status {
                SandboxStatus::Paused => failure.hint(format!(
                    "bring it back, then sync again: createos sandbox resume {}",
                    found.handle()
                )),
                _ => failure,
            }
        }
        (ErrorKind::Connection | ErrorKind::Timeout | ErrorKind::StreamLost, _) => {
            let message = format!(
                "{} cannot be reached; the sync has ended: {}",
                found.label(),
                error.message()
            );
            Failure::new(Class::Network, message)
                .hint("nothing is lost: sync again when the connection is back")
        }
        // About a directory, not about the sandbox.
        (ErrorKind::NotFound, _) if error.status().is_none() => {
            Failure::local(error.message().to_owned())
        }
        (ErrorKind::Io | ErrorKind::InvalidArgument | ErrorKind::Unsupported, _)
            if error.status().is_none() =>
        {
            Failure::local(error.message().to_owned())
        }
        _ => found.explain(error),
    }
}
