//! The engine's end of a conversation with the agent inside a sandbox.
//!
//! The agent lives with the guest and may be the guest: lengths are bounded, every
//! wait has an end, and nothing it says reaches beyond its own sandbox.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::warden::Init;
use crate::guest_protocol::{Failure, HEADER, Input, Reply, Request, VERSION, parse_header};
use crate::runtime::RuntimeError;

/// How long the agent may take to take a connection and give its first answer. It
/// does nothing slow before that.
const ANSWER: Duration = Duration::from_secs(10);

/// A connection that has sent its request and had the first answer.
pub(crate) struct Conversation {
    reader: OwnedReadHalf,
    pub(crate) writer: OwnedWriteHalf,
}

/// Asks the agent of the sandbox whose PID 1 is `init`.
pub(crate) async fn ask(
    init: &Init,
    request: &Request,
) -> Result<(Reply, Conversation), RuntimeError> {
    let conversation = async {
        let stream = connect(init).await.map_err(unreachable)?;
        let (reader, writer) = stream.into_split();
        let mut conversation = Conversation { reader, writer };
        conversation.send(&request.to_frame()).await?;
        let reply = conversation.receive().await?;
        Ok((reply, conversation))
    };
    timeout(ANSWER, conversation).await.unwrap_or_else(|_| {
        let seconds = ANSWER.as_secs();
        Err(RuntimeError::Unreachable(format!("the sandbox did not answer within {seconds} s")))
    })
}

/// Waits until the agent answers, and makes sure that it speaks our language.
pub(crate) async fn greet(init: &Init) -> Result<(), RuntimeError> {
    match ask(init, &Request::Ping).await?.0 {
        Reply::Pong { version: VERSION } => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// The socket lies in a directory that only the launcher could write. Still, who
/// answers must be PID 1 of that sandbox and nobody else.
async fn connect(init: &Init) -> io::Result<UnixStream> {
    let pid = init.pid;
    let stream = UnixStream::connect(format!("/proc/{pid}/root/.cos/run/sock")).await?;
    if stream.peer_cred()?.pid() != Some(pid) {
        return Err(io::Error::other("somebody else answers for the agent"));
    }
    // The number could name a later process; the handle cannot.
    if !init.is_alive() {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    Ok(stream)
}

impl Conversation {
    pub(crate) async fn send(&mut self, frame: &[u8]) -> Result<(), RuntimeError> {
        self.writer.write_all(frame).await.map_err(unreachable)
    }

    pub(crate) async fn receive(&mut self) -> Result<Reply, RuntimeError> {
        receive(&mut self.reader).await
    }

    pub(crate) fn into_halves(self) -> (OwnedReadHalf, OwnedWriteHalf) {
        (self.reader, self.writer)
    }
}

/// The next frame. The end of the connection is an error: the agent says when it is done.
pub(crate) async fn receive(reader: &mut OwnedReadHalf) -> Result<Reply, RuntimeError> {
    let mut header = [0; HEADER];
    reader.read_exact(&mut header).await.map_err(unreachable)?;
    let (length, kind) = parse_header(header).map_err(|_| malformed())?;
    let mut payload = vec![0; length];
    reader.read_exact(&mut payload).await.map_err(unreachable)?;
    Reply::parse(kind, payload).map_err(|_| malformed())
}

/// Sends a command's whole input, then its end. A command that does not read it is
/// no error.
pub(crate) async fn send_input(mut writer: OwnedWriteHalf, input: bytes::Bytes) -> OwnedWriteHalf {
    for chunk in input.chunks(crate::guest_protocol::CHUNK) {
        if writer.write_all(&Input::Data(chunk.to_vec()).to_frame()).await.is_err() {
            return writer;
        }
    }
    let _ = writer.write_all(&Input::End.to_frame()).await;
    // The half is kept open: closing it would read as the engine going away.
    writer
}

pub(crate) fn failure(kind: Failure, message: String) -> RuntimeError {
    match kind {
        Failure::NoSuchFile => RuntimeError::NoSuchFile(message),
        Failure::BadPath => RuntimeError::BadPath(message),
        Failure::CommandNotFound => RuntimeError::NotStarted { message, exit_code: 127 },
        Failure::CommandNotRunnable => RuntimeError::NotStarted { message, exit_code: 126 },
        Failure::Refused => RuntimeError::Refused(message),
    }
}

pub(crate) fn unexpected(reply: &Reply) -> RuntimeError {
    match reply {
        Reply::Failed { kind, message } => failure(*kind, message.clone()),
        _ => malformed(),
    }
}

fn malformed() -> RuntimeError {
    RuntimeError::Unreachable("the sandbox's agent sent nonsense".to_owned())
}

fn unreachable(error: io::Error) -> RuntimeError {
    let reason = match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => "the sandbox closed the connection".to_owned(),
        _ => format!("cannot reach the sandbox: {error}"),
    };
    RuntimeError::Unreachable(reason)
}
