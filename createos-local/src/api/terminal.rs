//! Terminals: frames over an upgraded connection (api.md 4.20).

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use axum::extract::State;
use bytes::{Bytes, BytesMut};
use createos_sdk::wire::{PtySize, ShellFrame};
use rustix::io::Errno;
use rustix::net::{SendFlags, sockopt};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};

use super::Front;
use super::answer::Answer;
use super::linger::Lingering;
use super::path::Id;
use super::switch::Upgrade;
use crate::core::{CoreError, Keyboard, Screen, Session};
use crate::runtime::Typed;

/// How long the first frame, which is to be the size, is waited for before the shell starts.
pub(super) const FIRST_FRAME: Duration = Duration::from_millis(500);
const READ: usize = 32 << 10;
/// A client that vanished is noticed after about this much silence, and half of it again.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How often a client that types no more is looked at: from the first pause to the last.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

pub(super) async fn shell(State(front): State<Front>, Id(id): Id, upgrade: Upgrade) -> Answer {
    let live = front.core().live(&id).await?;
    let switch = upgrade.to("tcp-tunnel")?;
    let session = live.terminal().await?;
    Ok(switch.begin(|connection, early| async {
        if let Err(error) = serve(connection, early, session).await {
            tracing::debug!(%error, "a terminal ended early");
        }
    }))
}

/// Both directions until the shell or the connection ends. Then everything is dropped, and
/// what runs in the terminal ends with it.
async fn serve(connection: Lingering, early: Bytes, session: Session) -> io::Result<()> {
    let line = Line::of(&connection)?;
    let (keyboard, screen) = session.split();
    let (reader, mut writer) = tokio::io::split(connection);
    let typing = Typing { keyboard, reader, arrived: BytesMut::from(&early[..]), line };
    tokio::select! {
        biased;
        shown = show(screen, &mut writer) => {
            shown?;
            writer.shutdown().await
        }
        ended = typing.run() => ended,
    }
}

async fn show(mut screen: Screen, writer: &mut WriteHalf<Lingering>) -> io::Result<()> {
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
    reader: ReadHalf<Lingering>,
    arrived: BytesMut,
    line: Line,
}

impl Typing {
    /// Ends with the connection.
    async fn run(mut self) -> io::Result<()> {
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
    async fn until_gone(mut self) -> io::Result<()> {
        let mut pause = LOOK.0;
        loop {
            // Again and again: a terminal forgets an end of input that comes while the shell
            // waits for something else.
            send(&mut self.keyboard, Typed::End).await?;
            self.line.check()?;
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

/// The connection itself, to find out whether anybody is at its other end.
pub(super) struct Line {
    descriptor: OwnedFd,
    is_asked: bool,
}

impl Line {
    pub(super) fn of(connection: &Lingering) -> io::Result<Self> {
        let line = connection.stream().as_fd().try_clone_to_owned()?;
        sockopt::set_socket_keepalive(&line, true)?;
        sockopt::set_tcp_keepidle(&line, KEEP_ALIVE)?;
        sockopt::set_tcp_keepintvl(&line, KEEP_ALIVE / 6)?;
        sockopt::set_tcp_keepcnt(&line, 3)?;
        Ok(Self { descriptor: line, is_asked: false })
    }

    /// Fails when nobody is at the other end. A client that has closed its sending side may
    /// still read, or have closed both: only sending something tells. One byte out of band
    /// does, which readers do not get to see.
    fn check(&mut self) -> io::Result<()> {
        let flags = SendFlags::OOB | SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        if !self.is_asked {
            match rustix::net::send(&self.descriptor, &[0], flags) {
                Ok(_) => self.is_asked = true,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(sockopt::socket_error(&self.descriptor)??)
    }
}
