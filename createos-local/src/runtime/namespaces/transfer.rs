//! Commands and files as streams of the core, over conversations with the agent.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use futures::{FutureExt, Stream};
use tokio::net::unix::OwnedReadHalf;
use tokio::task::JoinHandle;

use super::agent::{self, Conversation};
use super::warden::Init;
use crate::guest_protocol::{CHUNK, Input, Reply, Request};
use crate::runtime::{
    ExecEvent, ExecEvents, ExecSpec, ExitReason, FileRead, FileWrite, RuntimeError,
};

/// Where programs are looked for unless a variable says otherwise.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that every command has; declared ones win.
const BASIC_ENV: [(&str, &str); 4] =
    [("PATH", PATH), ("HOME", "/root"), ("USER", "root"), ("SHELL", "/bin/bash")];

/// Added where there is a terminal.
const TERM: (&str, &str) = ("TERM", "xterm-256color");

/// A whole environment, as `KEY=VALUE`. What depends on another user than root, the agent
/// adds, who knows that user.
pub(super) fn environment(
    declared: &BTreeMap<String, String>,
    user: Option<&str>,
    in_terminal: bool,
) -> Vec<String> {
    let basic = BASIC_ENV.iter().chain(in_terminal.then_some(&TERM));
    let basic = basic.filter(|(name, _)| user.is_none() || !matches!(*name, "HOME" | "USER"));
    let basic = basic.filter(|(name, _)| !declared.contains_key(*name));
    let basic = basic.map(|(name, value)| format!("{name}={value}"));
    basic.chain(declared.iter().map(|(name, value)| format!("{name}={value}"))).collect()
}

pub(super) async fn exec(init: &Init, spec: ExecSpec) -> Result<ExecEvents, RuntimeError> {
    let request = Request::Exec {
        argv: std::iter::once(spec.program).chain(spec.args).collect(),
        env: environment(&spec.env, spec.place.user.as_deref(), false),
        place: spec.place,
    };
    let (reply, conversation) = agent::ask(init, &request).await?;
    if reply != Reply::Ready {
        return Err(agent::unexpected(&reply));
    }
    let (reader, writer) = conversation.into_halves();
    let input = agent::send_input(writer, spec.stdin.unwrap_or_default());
    let command = Running { reader, _input: Writing(tokio::spawn(input)) };
    Ok(events(command).boxed())
}

/// A command's connection. Dropping it closes both halves, which kills the command.
struct Running {
    reader: OwnedReadHalf,
    _input: Writing,
}

/// The task that writes the input and then holds the connection's other half.
struct Writing(JoinHandle<tokio::net::unix::OwnedWriteHalf>);

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn events(command: Running) -> impl Stream<Item = Result<ExecEvent, RuntimeError>> + Send {
    stream::try_unfold(Some(command), |command| async {
        let Some(mut command) = command else { return Ok(None) };
        let event = match agent::receive(&mut command.reader).await? {
            Reply::Stdout(bytes) => ExecEvent::Stdout(bytes.into()),
            Reply::Stderr(bytes) => ExecEvent::Stderr(bytes.into()),
            Reply::Exited(code) => ExecEvent::Exited(ExitReason::Code(code)),
            Reply::Signaled(signal) => ExecEvent::Exited(ExitReason::Signal(signal)),
            other => return Err(agent::unexpected(&other)),
        };
        let over = matches!(event, ExecEvent::Exited(_));
        Ok(Some((event, (!over).then_some(command))))
    })
}

pub(super) async fn read_file(init: &Init, path: &[u8]) -> Result<FileRead, RuntimeError> {
    let request = Request::ReadFile { path: path.to_owned() };
    let (reply, conversation) = agent::ask(init, &request).await?;
    let Reply::Size(size) = reply else { return Err(agent::unexpected(&reply)) };
    let chunks =
        stream::try_unfold((conversation, 0), move |(mut conversation, read)| async move {
            match conversation.receive().await? {
                Reply::Data(bytes) if read + bytes.len() as u64 <= size => {
                    let read = read + bytes.len() as u64;
                    Ok(Some((Bytes::from(bytes), (conversation, read))))
                }
                Reply::Done(_) if read == size => Ok(None),
                other => Err(agent::unexpected(&other)),
            }
        });
    Ok(FileRead { size, chunks: chunks.into_stream().boxed() })
}

pub(super) async fn write_file(
    init: &Init,
    path: &[u8],
) -> Result<Box<dyn FileWrite>, RuntimeError> {
    let request = Request::WriteFile { path: path.to_owned() };
    match agent::ask(init, &request).await? {
        (Reply::Ready, conversation) => Ok(Box::new(Upload(conversation))),
        (reply, _) => Err(agent::unexpected(&reply)),
    }
}

struct Upload(Conversation);

impl Upload {
    async fn send(&mut self, input: Input) -> Result<(), RuntimeError> {
        match self.0.send(&input.to_frame()).await {
            Ok(()) => Ok(()),
            // The agent closes when it gives up, and says why before that.
            Err(error) => match self.0.receive().await {
                Ok(reply) => Err(agent::unexpected(&reply)),
                Err(_) => Err(error),
            },
        }
    }
}

impl FileWrite for Upload {
    fn write(&mut self, chunk: Bytes) -> BoxFuture<'_, Result<(), RuntimeError>> {
        async move {
            for part in chunk.chunks(CHUNK) {
                self.send(Input::Data(part.to_vec())).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn commit(mut self: Box<Self>) -> BoxFuture<'static, Result<u64, RuntimeError>> {
        async move {
            self.send(Input::End).await?;
            match self.0.receive().await? {
                Reply::Done(size) => Ok(size),
                other => Err(agent::unexpected(&other)),
            }
        }
        .boxed()
    }
}
