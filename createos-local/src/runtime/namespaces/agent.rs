//! The engine's end of a conversation with the agent inside a sandbox.
//!
//! The agent lives with the guest and may be the guest: lengths are bounded, what must
//! be quick has a time limit, and nothing it says reaches beyond its own sandbox. A
//! command may be silent for as long as it likes; stopping the sandbox ends the wait.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::warden::Init;
use crate::guest_protocol::{
    Failure, HEADER, Input, MAX_PAYLOAD, Reply, Request, VERSION, parse_header,
};
use crate::runtime::RuntimeError;

/// How long the agent may take to take a connection and give its first answer. It
/// does nothing slow before that.
const ANSWER: Duration = Duration::from_secs(10);
/// How long the agent may take to look around.
const LOOK: Duration = Duration::from_secs(1);
/// How long a piece of a file may take, be the disk inside ever so slow.
const TRANSFER: Duration = Duration::from_secs(60);

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
        let frame = request.to_frame();
        if frame.len() > MAX_PAYLOAD + HEADER {
            let message = "the command's arguments and variables are too long".to_owned();
            return Err(RuntimeError::NotStarted { message, exit_code: 126 });
        }
        let stream = connect(init).await.map_err(unreachable)?;
        let (reader, writer) = stream.into_split();
        let mut conversation = Conversation { reader, writer };
        conversation.send(&frame).await?;
        let reply = conversation.receive().await?;
        Ok((reply, conversation))
    };
    within(ANSWER, conversation).await
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, RuntimeError>>,
) -> Result<T, RuntimeError> {
    timeout(limit, work).await.unwrap_or_else(|_| {
        let seconds = limit.as_secs();
        Err(RuntimeError::Unreachable(format!("the sandbox did not answer within {seconds} s")))
    })
}

/// What must be answered at once, or not at all.
pub(crate) async fn in_time<T>(
    work: impl Future<Output = Result<T, RuntimeError>>,
) -> Result<T, RuntimeError> {
    within(ANSWER, work).await
}

/// Waits until the agent answers, and makes sure that it speaks our language.
pub(crate) async fn greet(init: &Init) -> Result<(), RuntimeError> {
    match ask(init, &Request::Ping).await?.0 {
        Reply::Pong { version: VERSION } => Ok(()),
        other => Err(unexpected(&other)),
    }
}

/// Whether nothing would be lost if the machine ended: no process but the agent, and nothing
/// in memory. A guest that keeps the agent from answering is not at rest.
pub(crate) async fn is_at_rest(init: &Init) -> bool {
    let asked = timeout(LOOK, ask(init, &Request::Look)).await;
    matches!(asked, Ok(Ok((Reply::AtRest(true), _))))
}

/// Has the agent close every connection, with what goes on over it. A guest can keep it
/// from doing so.
pub(crate) async fn detach(init: &Init) -> bool {
    let asked = timeout(LOOK, ask(init, &Request::Detach)).await;
    matches!(asked, Ok(Ok((Reply::Ready, _))))
}

/// Who answers must be PID 1 of that sandbox and nobody else.
async fn connect(init: &Init) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(init.socket_path()).await?;
    if stream.peer_cred()?.pid() != Some(init.pid) {
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
        within(TRANSFER, async { self.writer.write_all(frame).await.map_err(unreachable) }).await
    }

    pub(crate) async fn receive(&mut self) -> Result<Reply, RuntimeError> {
        within(TRANSFER, receive(&mut self.reader)).await
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
        Failure::NoSuchProcess => RuntimeError::NoSuchProcess,
        Failure::WrongState => RuntimeError::WrongState(message),
        Failure::Full => RuntimeError::Full(message),
    }
}

pub(crate) fn unexpected(reply: &Reply) -> RuntimeError {
    match reply {
        Reply::Failed { kind, message } => failure(*kind, message.clone()),
        _ => malformed(),
    }
}

pub(crate) fn malformed() -> RuntimeError {
    RuntimeError::Unreachable("the sandbox's agent sent nonsense".to_owned())
}

pub(crate) fn unreachable(error: io::Error) -> RuntimeError {
    let reason = match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => "the sandbox closed the connection".to_owned(),
        _ => format!("cannot reach the sandbox: {error}"),
    };
    RuntimeError::Unreachable(reason)
}
