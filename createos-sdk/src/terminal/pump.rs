//! Sends what is typed, and the newest size, one frame at a time.
//!
//! Writer and resize handle may be used from different tasks, and a frame must not be torn:
//! so one task owns the sending side.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{SinkExt, stream::SplitSink};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, WriteHalf};
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::wire::{PtySize, ShellFrame};

/// What was typed last may take this long to leave when nobody holds the terminal any more.
const LINGER: Duration = Duration::from_secs(5);
/// Idle WebSockets are cut by what lies between.
const PING: Duration = Duration::from_secs(30);
const PIECE: usize = 32 << 10;

/// The sending side of a connection.
pub(super) enum Sink {
    Plain(WriteHalf<reqwest::Upgraded>),
    WebSocket(SplitSink<WebSocketStream<reqwest::Upgraded>, Message>),
}

impl Sink {
    async fn send(&mut self, frame: BytesMut) -> io::Result<()> {
        match self {
            Self::Plain(io) => {
                io.write_all(&frame).await?;
                io.flush().await
            }
            Self::WebSocket(socket) => {
                socket.send(Message::Binary(frame.freeze())).await.map_err(io::Error::other)
            }
        }
    }

    async fn ping(&mut self) -> io::Result<()> {
        match self {
            // The keep-alive of the connection does it.
            Self::Plain(_) => Ok(()),
            Self::WebSocket(socket) => {
                socket.send(Message::Ping(Bytes::new())).await.map_err(io::Error::other)
            }
        }
    }

    async fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(io) => io.shutdown().await,
            Self::WebSocket(socket) => socket.close().await.map_err(io::Error::other),
        }
    }
}

/// Runs until the input has ended and was sent, or the connection is gone: then the writer
/// finds its pipe broken, and the reader tells why.
pub(super) async fn run(
    input: DuplexStream,
    sizes: watch::Receiver<PtySize>,
    sink: Sink,
    dropped: oneshot::Receiver<()>,
) {
    let nobody_waits = async {
        let _ = dropped.await;
        sleep(LINGER).await;
    };
    tokio::select! {
        _ = forward(input, sizes, sink) => {}
        () = nobody_waits => {}
    }
}

async fn forward(
    mut input: DuplexStream,
    mut sizes: watch::Receiver<PtySize>,
    mut sink: Sink,
) -> io::Result<()> {
    let mut frame = BytesMut::new();
    let mut typed = vec![0; PIECE];
    let mut resizable = true;
    let size = *sizes.borrow_and_update();
    ShellFrame::write_resize(size, &mut frame);
    sink.send(frame.split()).await?;
    loop {
        tokio::select! {
            biased;
            changed = sizes.changed(), if resizable => {
                if changed.is_err() {
                    resizable = false;
                    continue;
                }
                let size = *sizes.borrow_and_update();
                ShellFrame::write_resize(size, &mut frame);
            }
            count = input.read(&mut typed) => match typed.get(..count?) {
                Some(piece) if !piece.is_empty() => ShellFrame::write_data(piece, &mut frame),
                _ => break,
            },
            () = sleep(PING) => {
                sink.ping().await?;
                continue;
            }
        }
        sink.send(frame.split()).await?;
    }
    sink.close().await
}
