//! A sync that runs.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::event::SyncEvent;
use super::filter::Filter;
use super::local::LocalRoot;
use super::remote::{OPERATION, RemoteRoot};
use super::round::{Events, Round, Syncer};
use super::start::StartSync;
use super::state;
use super::tree::Base;
use super::watch::{LocalWatch, RemoteWatch};
use crate::error::{Error, ErrorKind, Result};
use crate::wire::SandboxStatus;

/// How long after a change others are waited for that come with it.
const GATHER: Duration = Duration::from_millis(150);
/// How often the directory here is looked at although nothing told of a change.
const LOOK: Duration = Duration::from_secs(60);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
const RECONNECT: Duration = Duration::from_secs(2);

/// A sync that runs: a [`Stream`] of what it does and finds. Made by awaiting [`StartSync`].
///
/// It works only while it is polled. It ends when it was [stopped](StopSync), and with an error
/// when it cannot go on:
///
/// - `Io`, `NotFound`: a directory is gone, or is another one now. Nothing was deleted.
/// - `UnexpectedState`: the sandbox was paused or destroyed
///   ([`Error::last_status`] says which).
/// - `Connection`, `Timeout`, `StreamLost`: the sandbox could not be reached for as long as the
///   [patience](StartSync::patience) lasts.
/// - `NotAuthenticated`, `PermissionDenied`: the credential is no longer good.
///
/// Dropping it is safe at any point: every file is the old or the new one.
#[must_use = "a sync does nothing unless polled"]
pub struct SyncSession {
    events: Events,
    work: Option<Pin<Box<dyn Future<Output = Result<()>> + Send>>>,
    stop: watch::Sender<bool>,
    local: Arc<LocalRoot>,
    remote: String,
}

/// Stops a [`SyncSession`] from elsewhere.
#[derive(Debug, Clone)]
pub struct StopSync(watch::Sender<bool>);

impl StopSync {
    /// Lets the sync finish what it is writing, and end.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl SyncSession {
    pub(super) fn new(
        start: StartSync,
        filter: Filter,
        local: Arc<LocalRoot>,
        remote: RemoteRoot,
        base: Option<Base>,
    ) -> Self {
        let (stop, stopped) = watch::channel(false);
        let remote_path = remote.path.clone();
        let syncer = Syncer::new(start.mode, filter, local.clone(), remote, base, stopped.clone());
        let events = syncer.events.clone();
        let driver = Driver { syncer, start, stopped, lost: None, pause: FIRST_PAUSE };
        let work = Some(Box::pin(driver.run()) as _);
        Self { events, work, stop, local, remote: remote_path }
    }

    /// The directory here: an absolute path.
    pub fn local_path(&self) -> &std::path::Path {
        self.local.path()
    }

    /// The directory in the sandbox, without links.
    pub fn remote_path(&self) -> &str {
        &self.remote
    }

    /// What stops it.
    pub fn stop_handle(&self) -> StopSync {
        StopSync(self.stop.clone())
    }
}

impl Stream for SyncSession {
    type Item = Result<SyncEvent>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.events.pop() {
                return Poll::Ready(Some(Ok(event)));
            }
            let Some(work) = &mut self.work else { return Poll::Ready(None) };
            match work.as_mut().poll(cx) {
                Poll::Ready(Ok(())) => self.work = None,
                Poll::Ready(Err(error)) => {
                    self.work = None;
                    let told = self.events.pop();
                    let Some(event) = told else { return Poll::Ready(Some(Err(error))) };
                    // What happened before the failure is told before it.
                    self.work = Some(Box::pin(async move { Err(error) }));
                    return Poll::Ready(Some(Ok(event)));
                }
                Poll::Pending => {
                    return match self.events.pop() {
                        Some(event) => Poll::Ready(Some(Ok(event))),
                        None => Poll::Pending,
                    };
                }
            }
        }
    }
}

impl fmt::Debug for SyncSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncSession")
            .field("local", &self.local.path())
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

struct Driver {
    syncer: Syncer,
    start: StartSync,
    stopped: watch::Receiver<bool>,
    /// Since when the sandbox cannot be reached.
    lost: Option<Instant>,
    pause: Duration,
}

impl Driver {
    async fn run(mut self) -> Result<()> {
        let filter = self.syncer.filter.clone();
        let local = LocalWatch::start(self.syncer.local.path(), filter).await;
        let mut remote = None;
        let mut look = (true, true);
        let mut unsteady = 0;
        while !*self.stopped.borrow() {
            match self.syncer.round(look).await {
                Ok(round) => {
                    self.reached();
                    look = (true, true);
                    unsteady = if round == Round::Unsteady { unsteady + 1 } else { 0 };
                    match round {
                        Round::Progress => {}
                        Round::Unsteady => self.rest(GATHER * unsteady.min(20)).await,
                        Round::Emptied => self.rest(FIRST_PAUSE).await,
                        Round::Settled => {
                            self.settled().await;
                            look = self.wait(&local, &mut remote).await;
                        }
                    }
                }
                Err(error) => {
                    remote = None;
                    look = (true, true);
                    self.failed(error).await?;
                }
            }
        }
        self.save().await;
        if let Some(watch) = remote.take() {
            watch.close().await;
        }
        Ok(())
    }

    /// Waits, but not when stopped.
    async fn rest(&mut self, time: Duration) {
        drop(tokio::time::timeout(time, self.stopped.wait_for(|stopped| *stopped)).await);
    }

    fn reached(&mut self) {
        if self.lost.take().is_some() {
            self.syncer.events.push(SyncEvent::Restored);
        }
    }

    async fn settled(&mut self) {
        self.syncer.events.push(SyncEvent::Settled(self.syncer.report.clone()));
        self.save().await;
    }

    async fn save(&mut self) {
        let Some(file) = self.start.memory.clone().filter(|_| self.syncer.unsaved) else { return };
        let (local, remote) = (self.syncer.local.clone(), self.syncer.remote.clone());
        let base = self.syncer.base.clone();
        let work = move || state::save(&file, &local, &remote, &base);
        match tokio::task::spawn_blocking(work).await {
            Ok(Ok(())) => self.syncer.unsaved = false,
            Ok(Err(error)) => {
                // The next time is told once more only when something has changed.
                self.syncer.unsaved = false;
                let message = format!("what both sides agreed on cannot be stored: {error}");
                self.syncer.events.push(SyncEvent::Problem { path: None, message });
            }
            Err(_) => {}
        }
    }

    /// Waits until there may be something to do; which sides to look at.
    async fn wait(&mut self, local: &LocalWatch, remote: &mut Option<RemoteWatch>) -> (bool, bool) {
        let entries = self.syncer.report.remote_entries;
        if remote.as_ref().is_some_and(|watch| watch.is_outgrown(entries)) {
            *remote = None;
        }
        if remote.is_none() && !*self.stopped.borrow() {
            // What changes before it watches is found by the look that it makes at its start.
            match RemoteWatch::start(&self.syncer.remote, &self.syncer.filter, entries).await {
                Ok(watch) => *remote = Some(watch),
                // The next look finds out what is wrong.
                Err(_) => {
                    self.rest(FIRST_PAUSE).await;
                    return (false, true);
                }
            }
        }
        let retry = self.syncer.report.has_problems.then_some(self.pause);
        self.pause = match retry {
            Some(pause) => (pause * 2).min(LONGEST_PAUSE),
            None => FIRST_PAUSE,
        };
        let mut look = (false, false);
        let watching = async {
            match remote {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        let mut over = false;
        tokio::select! {
            _ = self.stopped.wait_for(|stopped| *stopped) => {}
            () = local.changed() => look.0 = true,
            told = watching => {
                look.1 = true;
                over = !matches!(told, Ok(true));
            }
            () = sleep(retry.unwrap_or(LOOK)) => look = (true, retry.is_some()),
        }
        if over {
            *remote = None;
        }
        if look.0 || look.1 {
            self.rest(GATHER).await;
        }
        look
    }

    /// What goes on after a failure; an error when nothing does.
    async fn failed(&mut self, error: Error) -> Result<()> {
        use ErrorKind::{
            CommandFailed, Conflict, Connection, InvalidArgument, NotFound, Protocol, RateLimited,
            Server, StreamLost, Timeout, Unavailable,
        };
        let by_server = error.status().is_some();
        match error.kind() {
            Connection | Timeout | StreamLost => self.lost(error).await,
            Conflict => match self.ended(&error).await {
                Some(ended) => Err(ended),
                None => self.trouble(error).await,
            },
            // A disk that is full, for some servers.
            InvalidArgument if by_server => self.trouble(error).await,
            NotFound if by_server => Err(self.ended(&error).await.unwrap_or(error)),
            RateLimited | Unavailable | Server | CommandFailed | Protocol => {
                match self.ended(&error).await {
                    Some(ended) => Err(ended),
                    None => self.trouble(error).await,
                }
            }
            _ => Err(error),
        }
    }

    /// The sandbox is there; something else is wrong.
    async fn trouble(&mut self, error: Error) -> Result<()> {
        let message = error.message().to_owned();
        self.syncer.events.push(SyncEvent::Problem { path: None, message });
        self.syncer.report.has_problems = true;
        self.settled().await;
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        self.rest(pause).await;
        Ok(())
    }

    async fn lost(&mut self, error: Error) -> Result<()> {
        if let Some(ended) = self.ended(&error).await {
            return Err(ended);
        }
        let since = match self.lost {
            Some(since) => since,
            None => {
                let message = error.message().to_owned();
                self.syncer.events.push(SyncEvent::Lost { message });
                *self.lost.insert(Instant::now())
            }
        };
        if since.elapsed() > self.start.patience {
            return Err(error);
        }
        self.rest(RECONNECT.min(self.start.patience)).await;
        Ok(())
    }

    /// The error that says so, when the sandbox does not run any more.
    async fn ended(&self, cause: &Error) -> Option<Error> {
        let looked = self.start.sandbox.refresh().await;
        let status = match looked {
            Ok(view) => view.status.clone(),
            Err(error) if error.kind() == ErrorKind::NotFound => SandboxStatus::Destroyed,
            Err(error) if error.kind() == ErrorKind::NotAuthenticated => return Some(error),
            Err(_) => return None,
        };
        if matches!(status, SandboxStatus::Running | SandboxStatus::Forking) {
            return None;
        }
        let message = format!("the sandbox is {status}; the sync has ended");
        let error = Error::new(ErrorKind::UnexpectedState, message).in_operation(OPERATION);
        let error = error.with_resource(self.start.sandbox.id()).with_last_status(Some(status));
        Some(error.with_source(cause.to_string()))
    }
}
