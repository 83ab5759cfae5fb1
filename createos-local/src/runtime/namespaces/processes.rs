//! Managed processes and terminals, over conversations with the agent.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use createos_sdk::wire::{OutputStream, PtySize};
use createos_sdk::{ProcessId, SandboxId};
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use futures::{FutureExt, sink};
use tokio::io::AsyncWriteExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::Namespaces;
use super::agent::{self, Conversation};
use super::transfer::environment;
use super::warden::Init;
use crate::guest_protocol::{
    CHUNK, Call, Channel, Exit, Input, Reply, Request, Size, Spawn, Status,
};
use crate::runtime::{
    Control, ExitReason, Kept, Place, ProcessEvent, ProcessEvents, ProcessSpec, ProcessStatus,
    Processes, RuntimeError, Terminal, Typed, When,
};

impl Processes for Namespaces {
    fn spawn<'a>(
        &'a self,
        id: &'a SandboxId,
        spec: ProcessSpec,
    ) -> BoxFuture<'a, Result<ProcessStatus, RuntimeError>> {
        async move { spawn(&*self.init_of(id)?, spec).await }.boxed()
    }

    fn processes<'a>(
        &'a self,
        id: &'a SandboxId,
    ) -> BoxFuture<'a, Result<Vec<ProcessStatus>, RuntimeError>> {
        async move { list(&*self.init_of(id)?).await }.boxed()
    }

    fn status<'a>(
        &'a self,
        id: &'a SandboxId,
        process: &'a ProcessId,
        when: When,
    ) -> BoxFuture<'a, Result<ProcessStatus, RuntimeError>> {
        async move { status(&*self.init_of(id)?, process, when).await }.boxed()
    }

    fn control<'a>(
        &'a self,
        id: &'a SandboxId,
        process: &'a ProcessId,
        control: Control,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            let call = match control {
                Control::CloseInput => Call::CloseInput,
                Control::Resize(size) => Call::Resize(size_of(size)),
                Control::Signal(signal) => Call::Signal(signal),
            };
            match call_process(&*self.init_of(id)?, process, call).await? {
                (Reply::Ready, _) => Ok(()),
                (reply, _) => Err(agent::unexpected(&reply)),
            }
        }
        .boxed()
    }

    fn feed<'a>(
        &'a self,
        id: &'a SandboxId,
        process: &'a ProcessId,
        bytes: Bytes,
        patience: Duration,
    ) -> BoxFuture<'a, Result<u64, RuntimeError>> {
        async move { feed(&*self.init_of(id)?, process, bytes, patience).await }.boxed()
    }

    fn follow<'a>(
        &'a self,
        id: &'a SandboxId,
        process: &'a ProcessId,
        after: u64,
    ) -> BoxFuture<'a, Result<ProcessEvents, RuntimeError>> {
        async move {
            let conversation = begin(&*self.init_of(id)?, process, Call::Follow { after }).await?;
            Ok(events(conversation).boxed())
        }
        .boxed()
    }

    fn terminal<'a>(
        &'a self,
        id: &'a SandboxId,
        env: BTreeMap<String, String>,
        place: Place,
    ) -> BoxFuture<'a, Result<Terminal, RuntimeError>> {
        async move {
            let env = environment(&env, place.user.as_deref(), true);
            let request = Request::Shell { env, place };
            match agent::ask(&*self.init_of(id)?, &request).await? {
                (Reply::Ready, conversation) => Ok(terminal(conversation)),
                (reply, _) => Err(agent::unexpected(&reply)),
            }
        }
        .boxed()
    }
}

async fn spawn(init: &Init, spec: ProcessSpec) -> Result<ProcessStatus, RuntimeError> {
    let request = Request::Spawn(Spawn {
        id: spec.id.to_string(),
        argv: spec.argv,
        env: environment(&spec.env, spec.user.as_deref(), spec.terminal.is_some()),
        directory: spec.directory,
        terminal: spec.terminal.map(size_of),
        user: spec.user,
    });
    match agent::ask(init, &request).await?.0 {
        Reply::Process(status) => read_status(*status, Some(&spec.id)),
        other => Err(agent::unexpected(&other)),
    }
}

async fn list(init: &Init) -> Result<Vec<ProcessStatus>, RuntimeError> {
    let (mut reply, mut conversation) = agent::ask(init, &Request::ListProcesses).await?;
    let mut processes = Vec::new();
    loop {
        match reply {
            Reply::Process(status) if processes.len() < MAX_LISTED => {
                processes.push(read_status(*status, None)?);
            }
            Reply::Done(_) => return Ok(processes),
            other => return Err(agent::unexpected(&other)),
        }
        reply = conversation.receive().await?;
    }
}

/// More than an agent keeps is nonsense.
const MAX_LISTED: usize = 1024;

async fn status(
    init: &Init,
    process: &ProcessId,
    when: When,
) -> Result<ProcessStatus, RuntimeError> {
    let reply = match when {
        When::Now => call_process(init, process, Call::Look).await?.0,
        When::LeaderEnded => later(init, process, Call::Await { tree: false }).await?,
        When::TreeEnded => later(init, process, Call::Await { tree: true }).await?,
        When::Terminated { grace } => {
            let grace_ms = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
            later(init, process, Call::Terminate { grace_ms }).await?
        }
    };
    match reply {
        Reply::Process(status) => read_status(*status, Some(process)),
        other => Err(agent::unexpected(&other)),
    }
}

async fn feed(
    init: &Init,
    process: &ProcessId,
    bytes: Bytes,
    patience: Duration,
) -> Result<u64, RuntimeError> {
    let conversation = begin(init, process, Call::Feed(bytes.to_vec())).await?;
    let (mut reader, mut writer) = conversation.into_halves();
    let mut answer = Box::pin(agent::receive(&mut reader));
    let reply = match timeout(patience, &mut answer).await {
        Ok(reply) => reply?,
        Err(_) => {
            // The agent says which came first: room, or this.
            let _ = writer.write_all(&Input::End.to_frame()).await;
            agent::in_time(answer).await?
        }
    };
    match reply {
        Reply::Taken(number) => Ok(number),
        other => Err(agent::unexpected(&other)),
    }
}

async fn call_process(
    init: &Init,
    process: &ProcessId,
    call: Call,
) -> Result<(Reply, Conversation), RuntimeError> {
    agent::ask(init, &Request::Process { id: process.to_string(), call }).await
}

/// Begins a call that may take its time.
async fn begin(init: &Init, process: &ProcessId, call: Call) -> Result<Conversation, RuntimeError> {
    match call_process(init, process, call).await? {
        (Reply::Ready, conversation) => Ok(conversation),
        (reply, _) => Err(agent::unexpected(&reply)),
    }
}

async fn later(init: &Init, process: &ProcessId, call: Call) -> Result<Reply, RuntimeError> {
    // The other half is held until the answer is there: closing it takes the call back.
    let (mut reader, _writer) = begin(init, process, call).await?.into_halves();
    agent::receive(&mut reader).await
}

fn events(
    conversation: Conversation,
) -> impl stream::Stream<Item = Result<ProcessEvent, RuntimeError>> + Send {
    stream::try_unfold(Some(conversation.into_halves()), |halves| async {
        let Some((mut reader, writer)) = halves else { return Ok(None) };
        let (event, is_last) = match agent::receive(&mut reader).await? {
            Reply::Output { place, channel, bytes } => {
                let stream = match channel {
                    Channel::Stdout => OutputStream::Stdout,
                    Channel::Stderr => OutputStream::Stderr,
                    Channel::Terminal => OutputStream::Pty,
                };
                (ProcessEvent::Output { place, stream, bytes: bytes.into() }, false)
            }
            Reply::Ended { place, exit } => {
                (ProcessEvent::Exited { place, reason: reason_of(exit) }, true)
            }
            Reply::Expired { oldest } => (ProcessEvent::Expired { oldest }, true),
            other => return Err(agent::unexpected(&other)),
        };
        Ok(Some((event, (!is_last).then_some((reader, writer)))))
    })
}

fn terminal(conversation: Conversation) -> Terminal {
    let (reader, writer) = conversation.into_halves();
    let input = sink::unfold(writer, |mut writer: OwnedWriteHalf, typed| async move {
        for frame in frames(typed) {
            writer.write_all(&frame).await.map_err(agent::unreachable)?;
        }
        Ok(writer)
    });
    Terminal { input: Box::pin(input), output: screen(reader).boxed() }
}

fn frames(typed: Typed) -> Vec<Vec<u8>> {
    match typed {
        Typed::Bytes(bytes) => {
            bytes.chunks(CHUNK).map(|piece| Input::Data(piece.to_vec()).to_frame()).collect()
        }
        Typed::Resize(size) => vec![Input::Resize(size_of(size)).to_frame()],
        Typed::End => vec![Input::End.to_frame()],
    }
}

fn screen(reader: OwnedReadHalf) -> impl stream::Stream<Item = Result<Bytes, RuntimeError>> + Send {
    stream::try_unfold(reader, |mut reader| async {
        match agent::receive(&mut reader).await? {
            Reply::Data(bytes) => Ok(Some((bytes.into(), reader))),
            Reply::Exited(_) | Reply::Signaled(_) => Ok(None),
            other => Err(agent::unexpected(&other)),
        }
    })
}

fn size_of(size: PtySize) -> Size {
    Size { rows: size.rows, cols: size.cols }
}

fn reason_of(exit: Exit) -> ExitReason {
    match exit {
        Exit::Code(code) => ExitReason::Code(code),
        Exit::Signal(signal) => ExitReason::Signal(signal),
    }
}

/// What the agent says of a process, which must be the one that was asked for.
fn read_status(
    status: Status,
    expected: Option<&ProcessId>,
) -> Result<ProcessStatus, RuntimeError> {
    let id = ProcessId::try_from(status.id).map_err(|_| agent::malformed())?;
    if expected.is_some_and(|expected| *expected != id) {
        return Err(agent::malformed());
    }
    Ok(ProcessStatus {
        id,
        has_terminal: status.has_terminal,
        pid: status.pid,
        exit: status.exit.map(reason_of),
        tree_ended: status.tree_ended,
        terminating: status.terminating,
        created: status.created,
        finished: status.finished,
        argv: status.argv,
        directory: status.directory,
        foreground: status.foreground.map(|job| (job.pid, job.argv)),
        output: Kept { oldest: status.oldest, newest: status.newest, bytes: status.kept },
    })
}
