//! Printing the output of a process to its end.

use std::time::Duration;

use createos_sdk::wire::OutputStream;
use createos_sdk::{ErrorKind, Process, ProcessEvent, ProcessExit};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::target::{Place, has_ended};
use super::{end, session};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::output::Payload;
use crate::value::duration;

/// How often a broken connection is made again without a sign of life.
pub(super) const RECONNECTS: u32 = 5;

/// A process to follow.
pub(super) struct Follow<'a> {
    ctx: &'a Context,
    place: &'a Place,
    process: &'a Process,
    after: u64,
    tree: bool,
    stdin: bool,
    raw: bool,
}

impl<'a> Follow<'a> {
    pub(super) fn new(ctx: &'a Context, place: &'a Place, process: &'a Process) -> Self {
        Self { ctx, place, process, after: 0, tree: false, stdin: false, raw: false }
    }

    /// Prints what comes behind this place.
    pub(super) fn after(self, after: u64) -> Self {
        Self { after, ..self }
    }

    /// Waits for everything that the process started.
    pub(super) fn tree(self, tree: bool) -> Self {
        Self { tree, ..self }
    }

    /// Sends our standard input to it.
    pub(super) fn stdin(self, stdin: bool) -> Self {
        Self { stdin, ..self }
    }

    /// At a terminal: every key is the process's.
    pub(super) fn raw(self, raw: bool) -> Self {
        Self { raw, ..self }
    }

    /// Until it has ended: its exit code. One with a terminal gets ours, where we have one.
    pub(super) async fn to_the_end(&self, has_terminal: bool) -> Result<Exit, Failure> {
        let note = format!("it goes on: {}", self.place.attach_line(self.process));
        let _note = self.ctx.if_interrupted(note);
        if self.ctx.out.is_json() {
            return self.document().await;
        }
        if has_terminal && self.ctx.interactive() {
            let (ctx, place) = (self.ctx, self.place.clone());
            let at = session::At { ctx, place, raw: self.raw };
            return at.process(self.process.clone(), self.after).await;
        }
        let ended = match self.stdin {
            false => self.output().await?,
            true => tokio::select! {
                ended = self.output() => ended?,
                failed = self.input(has_terminal) => return Err(failed),
            },
        };
        if self.tree {
            self.wait().await?;
        }
        Ok(end::exit(self.ctx, &ended))
    }

    /// Waits, and prints the process as it ended.
    async fn document(&self) -> Result<Exit, Failure> {
        let ended = self.wait().await?;
        let view = self.process.refresh().await.map_err(|error| self.place.explain(error))?;
        self.ctx.out.document(&*view)?;
        Ok(end::exit(self.ctx, &ended))
    }

    async fn wait(&self) -> Result<ProcessExit, Failure> {
        let waiting = match self.tree {
            true => self.process.wait().tree(),
            false => self.process.wait(),
        };
        waiting.await.map_err(|error| self.lost(error))
    }

    /// Prints what is kept and leaves, or its exit code if it has ended.
    pub(super) async fn replay(&self) -> Result<Exit, Failure> {
        let refresh = async || self.process.refresh().await;
        let view = self.place.on_running(self.ctx, refresh).await?;
        if self.ctx.out.is_json() {
            self.ctx.out.document(&*view)?;
            return Ok(Exit::Success);
        }
        if has_ended(&view) && view.tree_exited {
            return Ok(end::exit(self.ctx, &self.output().await?));
        }
        if view.output.newest_seq > self.after {
            self.output_until(Some(view.output.newest_seq)).await?;
        }
        Ok(Exit::Success)
    }

    async fn output(&self) -> Result<ProcessExit, Failure> {
        let lost = || Failure::new(Class::Network, "the output ended without the process");
        self.output_until(None).await?.ok_or_else(lost)
    }

    /// Prints until the process ends, or up to a place.
    async fn output_until(&self, last: Option<u64>) -> Result<Option<ProcessExit>, Failure> {
        let attach = async || self.process.attach().after(self.after).reconnects(RECONNECTS).await;
        let mut events = self.place.on_running(self.ctx, attach).await?;
        let mut payload = Payload::new();
        while let Some(event) = events.next().await {
            match event.map_err(|error| self.lost(error))? {
                ProcessEvent::Output { seq, stream, bytes } => {
                    match stream {
                        OutputStream::Stderr => payload.stderr(&bytes).await?,
                        _ => payload.stdout(&bytes).await?,
                    }
                    if last.is_some_and(|last| seq >= last) {
                        return Ok(None);
                    }
                }
                ProcessEvent::Gap { after, next } => {
                    self.ctx.out.warn(&gone(after, next));
                }
                ProcessEvent::Exit(exit) => return Ok(Some(exit)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// Sends our standard input and its end; comes back with a failure alone.
    async fn input(&self, has_terminal: bool) -> Failure {
        let mut stdin = tokio::io::stdin();
        let mut writer = self.process.stdin();
        let mut piece = vec![0; 64 << 10];
        loop {
            let count = match stdin.read(&mut piece).await {
                Ok(count) => count,
                Err(error) => return Failure::io("cannot read standard input", &error),
            };
            let sent = match count {
                // A terminal has no end to give.
                0 if has_terminal => writer.flush().await,
                0 => writer.shutdown().await,
                count => writer.write_all(&piece[..count]).await,
            };
            match sent {
                Ok(()) if count > 0 => {}
                // A process that has ended, or reads no more: its exit follows.
                Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                    return Failure::io("cannot send standard input", &error);
                }
                _ => return std::future::pending().await,
            }
        }
    }

    /// A stream that broke off for good: what runs inside may go on.
    fn lost(&self, error: createos_sdk::Error) -> Failure {
        let lost = matches!(error.kind(), ErrorKind::Connection | ErrorKind::StreamLost);
        let failure = self.place.explain(error);
        match lost {
            true => failure
                .about("the connection was lost")
                .hint(format!("it may go on: {}", self.place.attach_line(self.process))),
            false => failure,
        }
    }

    /// The time is up.
    pub(super) fn still_running(&self, limit: Duration) -> Failure {
        let (id, limit) = (self.process.id(), duration::show(limit));
        Failure::new(Class::Timeout, format!("{id} is still running after {limit}"))
            .hint(format!("it goes on: {}", self.place.attach_line(self.process)))
    }
}

/// What to say of output that is missing.
pub(super) fn gone(after: u64, next: u64) -> String {
    format!("older output is gone (between {after} and {next}); the newest is kept")
}
