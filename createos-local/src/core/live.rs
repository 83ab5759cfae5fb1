//! Work inside a running sandbox: commands and files. Processes and terminals are in
//! `processes`.
//!
//! A [`Live`] is proof that the sandbox was running; it holds no lock. Everything begun with
//! it is interrupted when this life of the sandbox ends.

use std::time::Duration;

use bytes::Bytes;
use createos_sdk::SandboxId;
use createos_sdk::wire::ExecRequest;
use futures::StreamExt;
use tokio::time::Instant;

use super::error::Fields;
use super::processes::declared;
use super::slot::Life;
use super::{Core, CoreError, State, validate};
use crate::runtime::{ExecEvent, ExecEvents, ExecSpec, FileRead, FileWrite, Runtime, RuntimeError};
use crate::store::Sandbox;

/// A sandbox that was running a moment ago.
pub(crate) struct Live {
    pub(super) core: Core,
    pub(super) sandbox: Sandbox,
    pub(super) life: Life,
}

/// How starting a command went.
pub(crate) enum Started {
    Command(Command),
    /// The program could not be started, in the shell's terms: 127 not found, 126 not runnable.
    Not {
        message: String,
        exit_code: i32,
    },
}

/// A running command. Dropping it kills the command and everything it started.
pub(crate) struct Command {
    events: ExecEvents,
    life: Life,
    limit: Duration,
    deadline: Instant,
}

/// What a command does next.
#[derive(Debug)]
pub(crate) enum Step {
    Stdout(Bytes),
    Stderr(Bytes),
    Ended(End),
}

/// How a command ended.
#[derive(Debug)]
pub(crate) enum End {
    /// By itself, with this code.
    Exited(i32),
    /// The engine killed it; the text says why.
    Killed { message: String, exit_code: i32 },
}

impl Core {
    /// The sandbox, if it is running. Every other state is a conflict (api.md 7.3).
    pub(crate) async fn live(&self, id: &SandboxId) -> Result<Live, CoreError> {
        let life = self.inner.slots.get_existing(id).map(|slot| slot.life());
        let sandbox = self.get(id).await?;
        match (sandbox.state, life) {
            (State::Running, Some(life)) => Ok(Live { core: self.clone(), sandbox, life }),
            _ => Err(not_running(&sandbox)),
        }
    }
}

fn not_running(sandbox: &Sandbox) -> CoreError {
    let state = sandbox.state;
    let mut text = format!("sandbox is not running; it is {state}");
    if state == State::Error {
        if let Some(reason) = &sandbox.reason {
            text = format!("{text} ({reason})");
        }
        text.push_str("; resume starts it again from its files");
    }
    CoreError::Conflict(text)
}

impl Live {
    pub(super) fn id(&self) -> &SandboxId {
        self.sandbox.id()
    }

    pub(super) fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    pub(super) fn runtime(&self) -> &dyn Runtime {
        &*self.core.inner.runtime
    }

    /// Starts a command with the sandbox's variables and the request's values for them.
    pub(crate) async fn exec(self, request: ExecRequest) -> Result<Started, CoreError> {
        let spec = exec_spec(request, &self.sandbox)?;
        let runtime = &self.core.inner.runtime;
        let started = self.life.run_until_cancelled(runtime.exec(self.id(), spec)).await;
        match started.ok_or_else(|| self.life.lost())? {
            Ok(events) => {
                let limit = self.core.inner.tuning.exec_limit;
                let deadline = Instant::now() + limit;
                Ok(Started::Command(Command { events, life: self.life, limit, deadline }))
            }
            Err(RuntimeError::NotStarted { message, exit_code }) => {
                Ok(Started::Not { message, exit_code })
            }
            // Too many processes or no memory left inside: the command did not start either.
            Err(RuntimeError::Refused(message)) => Ok(Started::Not { message, exit_code: 126 }),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a file for reading.
    pub(crate) async fn download(self, path: &[u8]) -> Result<Download, CoreError> {
        check_path(path)?;
        let runtime = &self.core.inner.runtime;
        let opened = self.life.run_until_cancelled(runtime.read_file(self.id(), path)).await;
        let file = opened.ok_or_else(|| self.life.lost())?;
        let file = file.map_err(|error| CoreError::from_file(error, path))?;
        Ok(Download { size: file.size, file, life: self.life })
    }

    /// Begins a file. `declared` is its size, where the client has said it.
    pub(crate) async fn upload(
        self,
        path: &[u8],
        declared: Option<u64>,
    ) -> Result<Upload, CoreError> {
        check_path(path)?;
        let limit = self.core.inner.tuning.max_upload;
        if declared.is_some_and(|size| size > limit) {
            return Err(too_large(limit));
        }
        let runtime = &self.core.inner.runtime;
        let opened = self.life.run_until_cancelled(runtime.write_file(self.id(), path)).await;
        let file = opened.ok_or_else(|| self.life.lost())?;
        let file = file.map_err(|error| CoreError::from_file(error, path))?;
        Ok(Upload { file, path: path.to_owned(), limit, declared, received: 0, life: self.life })
    }
}

fn check_path(path: &[u8]) -> Result<(), CoreError> {
    validate::path(path).map_err(|why| CoreError::field("path", why))
}

fn exec_spec(request: ExecRequest, sandbox: &Sandbox) -> Result<ExecSpec, CoreError> {
    let mut wrong = Fields::new();
    if request.cmd.is_empty() {
        wrong.insert("cmd".into(), "is empty; name a program".into());
    } else if request.cmd.contains('\0') {
        wrong.insert("cmd".into(), "must not contain a NUL character".into());
    }
    if request.args.iter().any(|arg| arg.contains('\0')) {
        wrong.insert("args".into(), "must not contain a NUL character".into());
    }
    let mut env = declared(sandbox);
    let given = request.env.iter().map(|(key, value)| (key.as_str(), value.expose()));
    let limits = validate::envs(given);
    for (key, value) in request.env {
        match env.get_mut(&key) {
            Some(declared) => *declared = value.expose().to_owned(),
            None => {
                wrong.insert(
                    "env".into(),
                    format!("{} was not declared at create time", validate::shown(&key)),
                );
            }
        }
    }
    if let Err(why) = limits {
        wrong.entry("env".into()).or_insert(why);
    }
    CoreError::check(wrong)?;
    Ok(ExecSpec {
        program: request.cmd,
        args: request.args,
        env,
        stdin: request.stdin.map(Bytes::from),
        place: sandbox.spec.image.place(),
    })
}

impl Command {
    /// Exit code of a command that the engine killed: 128 plus SIGKILL.
    pub(crate) const KILLED: i32 = 137;

    /// The next thing that happens. After `Ended` there is nothing more; an error means that
    /// how it ended is unknown.
    pub(crate) async fn next(&mut self) -> Result<Step, CoreError> {
        let event = tokio::select! {
            biased;
            // First, so that a command that never stops talking is not spared.
            () = tokio::time::sleep_until(self.deadline) => return Ok(Step::Ended(self.killed())),
            event = self.events.next() => event,
            () = self.life.cancelled() => return Err(self.life.lost()),
        };
        match event {
            Some(Ok(ExecEvent::Stdout(chunk))) => Ok(Step::Stdout(chunk)),
            Some(Ok(ExecEvent::Stderr(chunk))) => Ok(Step::Stderr(chunk)),
            Some(Ok(ExecEvent::Exited(reason))) => Ok(Step::Ended(End::Exited(reason.code()))),
            Some(Err(error)) => Err(error.into()),
            None => Err(CoreError::Lost("the command's end was not reported".into())),
        }
    }

    fn killed(&self) -> End {
        End::Killed {
            message: format!(
                "killed after {} seconds, the longest a command may run; start longer work in \
                 the background",
                self.limit.as_secs()
            ),
            exit_code: Self::KILLED,
        }
    }

    /// Completes when the command may not go on, with why: its time is up or its sandbox ended.
    pub(crate) async fn cut_off(&mut self) -> Result<End, CoreError> {
        tokio::select! {
            () = self.life.cancelled() => Err(self.life.lost()),
            () = tokio::time::sleep_until(self.deadline) => Ok(self.killed()),
        }
    }
}

/// A file on its way out.
pub(crate) struct Download {
    pub(crate) size: u64,
    file: FileRead,
    life: Life,
}

impl Download {
    /// The next piece; `None` after exactly `size` bytes.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, CoreError>> {
        tokio::select! {
            biased;
            chunk = self.file.chunks.next() => Some(chunk?.map_err(CoreError::from)),
            () = self.life.cancelled() => Some(Err(self.life.lost())),
        }
    }
}

/// A file on its way in. Dropped before `commit`, it leaves the old file untouched.
pub(crate) struct Upload {
    file: Box<dyn FileWrite>,
    path: Vec<u8>,
    limit: u64,
    declared: Option<u64>,
    received: u64,
    life: Life,
}

impl Upload {
    /// Completes, with the error to report, when the sandbox ends.
    pub(crate) async fn interrupted(&mut self) -> CoreError {
        self.life.cancelled().await;
        self.life.lost()
    }

    /// Takes the next piece of the file.
    pub(crate) async fn write(&mut self, chunk: Bytes) -> Result<(), CoreError> {
        self.received += chunk.len() as u64;
        if self.received > self.limit {
            return Err(too_large(self.limit));
        }
        let written = self.life.run_until_cancelled(self.file.write(chunk)).await;
        written
            .ok_or_else(|| self.life.lost())?
            .map_err(|error| CoreError::from_file(error, &self.path))
    }

    /// Puts the file in place and returns its size.
    pub(crate) async fn commit(self) -> Result<u64, CoreError> {
        if let Some(declared) = self.declared.filter(|declared| *declared != self.received) {
            return Err(CoreError::field(
                "body",
                format!("{} bytes came of the {declared} that were announced", self.received),
            ));
        }
        let committed = self.life.run_until_cancelled(self.file.commit()).await;
        committed
            .ok_or_else(|| self.life.lost())?
            .map_err(|error| CoreError::from_file(error, &self.path))
    }
}

fn too_large(limit: u64) -> CoreError {
    CoreError::TooLarge(format!(
        "the file is larger than {} MiB, the most one upload may carry; split it, or fetch it \
         from inside the sandbox",
        limit >> 20
    ))
}
