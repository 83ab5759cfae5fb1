//! Terminals over a WebSocket (api.md 4.21, 9.12).

use std::io;

use axum::extract::{Request, State};
use axum::http::header::{SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::{Bytes, BytesMut};
use createos_sdk::wire::{PtySize, ShellFrame};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt as _, StreamExt as _};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::Front;
use super::answer::Fail;
use super::path::Id;
use super::terminal::{CLOSING, FIRST_FRAME, last_words, send, typed, usual_size};
use super::upgrade::{self, Takeover};
use crate::core::{Keyboard, Screen, Session};
use crate::relay::Side;
use crate::runtime::Typed;

/// Largest message: a frame with its header.
const MAX_MESSAGE: usize = ShellFrame::MAX_PAYLOAD + 5;
const PROTOCOL: &str = "websocket";

type Socket = WebSocketStream<TcpStream>;

pub(super) async fn shell(
    State(front): State<Front>,
    Id(id): Id,
    mut request: Request,
) -> Result<Response, Fail> {
    let live = front.core().live(&id).await?;
    if !upgrade::asks_for(request.version(), request.headers(), PROTOCOL) {
        return Ok(upgrade::needed(PROTOCOL).into_response());
    }
    let accept = accept_key(request.headers())?;
    let session = live.terminal().await?;
    let takeover = Takeover::of(&mut request);
    tokio::spawn(async move {
        // Dropped with the session, what runs in the terminal ends.
        let Ok(side) = takeover.finish().await else { return };
        if let Err(error) = serve(side, session).await {
            tracing::debug!(%error, "a terminal ended early");
        }
    });
    let mut answer = upgrade::switching(PROTOCOL);
    answer.headers_mut().insert(SEC_WEBSOCKET_ACCEPT, accept);
    Ok(answer)
}

/// What proves that this server speaks the protocol (RFC 6455 4.2).
fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, Fail> {
    let is_current = headers.get(SEC_WEBSOCKET_VERSION).is_some_and(|version| version == "13");
    let key = headers.get(SEC_WEBSOCKET_KEY).filter(|key| key.len() == 24 && is_current);
    let accept = key.and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok());
    accept.ok_or_else(|| {
        let message = "needs a WebSocket handshake of version 13, with its key";
        Fail::new(StatusCode::UPGRADE_REQUIRED, message)
    })
}

/// Both directions until the shell or the connection ends; a WebSocket ends as a whole.
async fn serve(Side { stream, early }: Side, session: Session) -> io::Result<()> {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE));
    let early = early.to_vec();
    let socket = Socket::from_partially_read(stream, early, Role::Server, Some(config)).await;
    let (mut sink, mut messages) = socket.split();
    let (keyboard, screen) = session.split();
    tokio::select! {
        biased;
        shown = show(screen, &mut sink) => shown?,
        ended = take(keyboard, &mut messages) => ended?,
    }
    let close = async {
        sink.close().await.map_err(io::Error::other)?;
        // Up to the client's own farewell; closing over unread input would destroy ours.
        while messages.next().await.is_some_and(|message| message.is_ok()) {}
        Ok(())
    };
    tokio::time::timeout(CLOSING, close).await.unwrap_or(Ok(()))
}

async fn show(mut screen: Screen, sink: &mut SplitSink<Socket, Message>) -> io::Result<()> {
    while let Some(output) = screen.next().await {
        let (output, is_last) = match output {
            Ok(output) => (output, false),
            Err(error) => (last_words(&error).into(), true),
        };
        sink.send(Message::Binary(output)).await.map_err(io::Error::other)?;
        if is_last {
            break;
        }
    }
    Ok(())
}

async fn take(mut keyboard: Keyboard, messages: &mut SplitStream<Socket>) -> io::Result<()> {
    let mut waiting = match tokio::time::timeout(FIRST_FRAME, messages.next()).await {
        Ok(Some(message)) => read(message.map_err(io::Error::other)?)?,
        Ok(None) => return Ok(()),
        Err(_) => Vec::new(),
    };
    if !matches!(waiting.first(), Some(Typed::Resize(_))) {
        waiting.insert(0, usual_size());
    }
    loop {
        for typed in waiting.drain(..) {
            send(&mut keyboard, typed).await?;
        }
        match messages.next().await {
            Some(message) => waiting = read(message.map_err(io::Error::other)?)?,
            None => return Ok(()),
        }
    }
}

/// Binary messages are frames of api.md 4.20; texts are typed, unless they are a size.
fn read(message: Message) -> io::Result<Vec<Typed>> {
    match message {
        Message::Binary(bytes) => {
            let mut bytes = BytesMut::from(&bytes[..]);
            let mut frames = Vec::new();
            while let Some(frame) = ShellFrame::take(&mut bytes).map_err(io::Error::other)? {
                frames.push(typed(frame));
            }
            if bytes.is_empty() { Ok(frames) } else { Err(io::ErrorKind::InvalidData.into()) }
        }
        Message::Text(text) => Ok(vec![match serde_json::from_str(&text) {
            Ok(SizeMessage::Resize { rows, cols }) => Typed::Resize(PtySize::new(rows, cols)),
            Err(_) => Typed::Bytes(Bytes::from(text)),
        }]),
        _ => Ok(Vec::new()),
    }
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum SizeMessage {
    Resize { rows: u16, cols: u16 },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_frames_sizes_or_text() {
        let read_whole = |message| read(message).unwrap();
        let size = |rows, cols| Typed::Resize(PtySize::new(rows, cols));
        let mut frames = BytesMut::new();
        ShellFrame::write_resize(PtySize::new(40, 120), &mut frames);
        ShellFrame::write_data(b"ls", &mut frames);
        let both = read_whole(Message::Binary(frames.clone().freeze()));
        assert_eq!(both, [size(40, 120), Typed::Bytes("ls".into())]);
        let text = r#"{"type":"resize","rows":2,"cols":3}"#;
        assert_eq!(read_whole(Message::Text(text.into())), [size(2, 3)]);
        for text in ["ls\r", "{", r#"{"type":"resize","rows":-1,"cols":3}"#, r#"{"type":"x"}"#] {
            assert_eq!(read_whole(Message::Text(text.into())), [Typed::Bytes(text.into())]);
        }
        assert_eq!(read_whole(Message::Ping(Bytes::new())), []);
        let cut = frames.freeze().slice(..12);
        assert!(read(Message::Binary(cut)).is_err());
        assert!(read(Message::Binary(Bytes::from_static(&[9; 9]))).is_err());
    }
}
