//! One command line in a sandbox, followed to its end across broken connections.

use std::time::Duration;

use createos_sdk::wire::OutputStream;
use createos_sdk::{ProcessEvent, ProcessExit, Sandbox};
use futures::StreamExt;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::WORK;
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::output::Payload;
use crate::resolve::Found;
use crate::value::duration;

/// Begins when somebody listens: only so much output is kept, and a fast program could have
/// lost its first lines by then. A program that reads its input finds the end.
const WHEN_HEARD: &str = "read -r go && exec bash -lc \"$1\" </dev/null";

/// A command line and where it runs.
pub(in crate::commands::sandbox) struct Program<'a> {
    pub(in crate::commands::sandbox) ctx: &'a Context,
    pub(in crate::commands::sandbox) sandbox: &'a Sandbox,
    pub(in crate::commands::sandbox) found: &'a Found,
    pub(in crate::commands::sandbox) line: &'a str,
    /// Whether the directory was made by us.
    pub(in crate::commands::sandbox) ours: bool,
    pub(in crate::commands::sandbox) timeout: Option<Duration>,
}

/// Where output goes.
pub(in crate::commands::sandbox) enum Sink {
    /// As it is, to where it belongs.
    Ours(Payload),
    /// All of it to standard error; standard output has a document.
    Stderr(Payload),
    /// All of it, as it came.
    File(File, String),
}

impl Sink {
    async fn write(&mut self, stream: &OutputStream, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Ours(payload) if *stream == OutputStream::Stderr => payload.stderr(bytes).await,
            Self::Ours(payload) => payload.stdout(bytes).await,
            Self::Stderr(payload) => payload.stderr(bytes).await,
            Self::File(file, name) => {
                let written = file.write_all(bytes).await;
                written.map_err(|error| Failure::io(format!("cannot write {name}"), &error))
            }
        }
    }

    async fn finish(&mut self) -> Result<(), Failure> {
        let Self::File(file, name) = self else { return Ok(()) };
        file.flush().await.map_err(|error| Failure::io(format!("cannot write {name}"), &error))
    }
}

impl Program<'_> {
    /// Runs it to its end.
    pub(in crate::commands::sandbox) async fn run(
        &self,
        sink: &mut Sink,
    ) -> Result<ProcessExit, Failure> {
        let run = self.to_the_end(sink);
        let Some(limit) = self.timeout else { return run.await };
        tokio::time::timeout(limit, run).await.unwrap_or_else(|_| {
            let limit = duration::show(limit);
            Err(Failure::new(Class::Timeout, format!("not finished after {limit}: {}", self.line)))
        })
    }

    async fn to_the_end(&self, sink: &mut Sink) -> Result<ProcessExit, Failure> {
        let explain = |error| self.found.explain(error);
        let spawn = self.sandbox.spawn("sh").args(["-c", WHEN_HEARD, "sh"]);
        let spawn = match self.ours {
            true => spawn.arg(self.line).cwd(WORK),
            // A sandbox of the user's may have no such directory.
            false => spawn.arg(format!("if [ -d {WORK} ]; then cd {WORK}; fi\n{}", self.line)),
        };
        let process = spawn.await.map_err(explain)?;
        let mut events = process.attach().await.map_err(explain)?;
        process.input("go\n").await.map_err(explain)?;
        while let Some(event) = events.next().await {
            match event.map_err(explain)? {
                ProcessEvent::Output { stream, bytes, .. } => sink.write(&stream, &bytes).await?,
                ProcessEvent::Gap { .. } => {
                    self.ctx
                        .out
                        .warn("some output is missing here: it came faster than it was read");
                }
                ProcessEvent::Exit(exit) => {
                    sink.finish().await?;
                    return Ok(exit);
                }
                _ => {}
            }
        }
        Err(Failure::local(format!("{}: the command's end was not seen", self.found.label())))
    }
}
