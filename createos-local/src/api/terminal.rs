//! Terminals: frames over an upgraded connection (api.md 4.20).

use std::io;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use createos_sdk::wire::{PtySize, ShellFrame};
use rustix::io::Errno;
use rustix::net::SendFlags;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::Front;
use super::answer::Fail;
use super::path::Id;
use super::upgrade::{self, Takeover};
use crate::core::{CoreError, Keyboard, Screen, Session};
use crate::relay::Side;
use crate::runtime::Typed;

const PROTOCOL: &str = "tcp-tunnel";
/// How long the first frame, which is to be the size, is waited for before the shell starts.
pub(super) const FIRST_FRAME: Duration = Duration::from_millis(500);
/// How long a client may take to notice the end.
pub(super) const CLOSING: Duration = Duration::from_secs(2);
const READ: usize = 32 << 10;
/// How often a client that types no more is looked at: from the first pause to the last.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

pub(super) async fn shell(
    State(front): State<Front>,
    Id(id): Id,
    mut request: Request,
) -> Result<Response, Fail> {
    let live = front.core().live(&id).await?;
    if !upgrade::asks_for(request.version(), request.headers(), PROTOCOL) {
        return Ok(upgrade::needed(PROTOCOL).into_response());
    }
    let session = live.terminal().await?;
    let takeover = Takeover::of(&mut request);
    tokio::spawn(async move {
        // Dropped with the session, what runs in the terminal ends.
        let Ok(side) = takeover.finish().await else { return };
        if let Err(error) = serve(side, session).await {
            tracing::debug!(%error, "a terminal ended early");
        }
    });
    Ok(upgrade::switching(PROTOCOL))
}

/// Both directions until the shell or the connection ends.
async fn serve(Side { stream, early }: Side, session: Session) -> io::Result<()> {
    let (keyboard, screen) = session.split();
    let (reader, mut writer) = stream.into_split();
    let mut typing = Typing { keyboard, reader, arrived: BytesMut::from(&early[..]) };
    tokio::select! {
        biased;
        shown = show(screen, &mut writer) => shown?,
        ended = typing.run() => return ended,
    }
    writer.shutdown().await?;
    // Closing over unread input would destroy the last output on its way.
    let rest = async { while typing.frame().await.is_ok_and(|frame| frame.is_some()) {} };
    let _ = tokio::time::timeout(CLOSING, rest).await;
    Ok(())
}

async fn show(mut screen: Screen, writer: &mut OwnedWriteHalf) -> io::Result<()> {
    while let Some(output) = screen.next().await {
        match output {
            Ok(output) => writer.write_all(&output).await?,
            Err(error) => return writer.write_all(&last_words(&error)).await,
        }
    }
    Ok(())
}

/// There is no other place for it.
pub(super) fn last_words(error: &CoreError) -> Vec<u8> {
    format!("\r\n[{error}]\r\n").into_bytes()
}

/// What comes from the client.
struct Typing {
    keyboard: Keyboard,
    reader: OwnedReadHalf,
    arrived: BytesMut,
}

impl Typing {
    /// Ends with the connection.
    async fn run(&mut self) -> io::Result<()> {
        // The shell must know its size before it shows anything.
        let first = match tokio::time::timeout(FIRST_FRAME, self.frame()).await {
            Ok(frame) => frame?,
            Err(_) => None,
        };
        if !matches!(first, Some(ShellFrame::Resize(_))) {
            send(&mut self.keyboard, usual_size()).await?;
        }
        if let Some(frame) = first {
            send(&mut self.keyboard, typed(frame)).await?;
        }
        while let Some(frame) = self.frame().await? {
            send(&mut self.keyboard, typed(frame)).await?;
        }
        self.until_gone().await
    }

    /// The client will type no more, and may still read.
    async fn until_gone(&mut self) -> io::Result<()> {
        let mut pause = LOOK.0;
        let mut is_asked = false;
        loop {
            // Again and again: a terminal forgets an end of input that comes while the shell
            // waits for something else.
            send(&mut self.keyboard, Typed::End).await?;
            check(self.reader.as_ref(), &mut is_asked)?;
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LOOK.1);
        }
    }

    /// The next frame; `None` when the client will send no more. Nothing is lost when it is
    /// dropped in between.
    async fn frame(&mut self) -> io::Result<Option<ShellFrame>> {
        loop {
            if let Some(frame) = ShellFrame::take(&mut self.arrived).map_err(io::Error::other)? {
                return Ok(Some(frame));
            }
            self.arrived.reserve(READ);
            if self.reader.read_buf(&mut self.arrived).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// Zeros stand for it.
pub(super) fn usual_size() -> Typed {
    Typed::Resize(PtySize::new(0, 0))
}

pub(super) fn typed(frame: ShellFrame) -> Typed {
    match frame {
        ShellFrame::Data(bytes) => Typed::Bytes(bytes),
        ShellFrame::Resize(size) => Typed::Resize(size),
        // The type has no others today.
        _ => Typed::Bytes(Bytes::new()),
    }
}

pub(super) async fn send(keyboard: &mut Keyboard, typed: Typed) -> io::Result<()> {
    keyboard.send(typed).await.map_err(io::Error::other)
}

/// Fails when nobody is at the other end. A client that has closed its sending side may still
/// read, or have closed both: only sending something tells. One byte out of band does, which
/// readers do not get to see.
fn check(stream: &TcpStream, is_asked: &mut bool) -> io::Result<()> {
    if !*is_asked {
        let flags = SendFlags::OOB | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        match rustix::net::send(stream, &[0], flags) {
            Ok(_) => *is_asked = true,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    stream.take_error()?.map_or(Ok(()), Err)
}
