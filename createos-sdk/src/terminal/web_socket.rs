//! A shell over a WebSocket (api.md 4.21, 9.12).

use std::future::ready;
use std::io;

use bytes::Bytes;
use futures::stream::SplitSink;
use futures::{Stream, StreamExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_util::io::StreamReader;

use super::Output;

/// Largest message taken.
const LIMIT: usize = 16 << 20;

/// A fresh key of a handshake.
pub(super) fn key() -> String {
    generate_key()
}

/// Both sides of a connection whose handshake is done.
pub(super) async fn over(
    io: reqwest::Upgraded,
) -> (Output, SplitSink<WebSocketStream<reqwest::Upgraded>, Message>) {
    let config =
        WebSocketConfig::default().max_message_size(Some(LIMIT)).max_frame_size(Some(LIMIT));
    let socket = WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await;
    let (sink, messages) = socket.split();
    (Box::pin(StreamReader::new(Box::pin(output(messages)))), sink)
}

/// The bytes of the messages, up to the close; an end without one is an error.
fn output(
    messages: impl Stream<Item = Result<Message, Error>>,
) -> impl Stream<Item = io::Result<Bytes>> {
    messages
        .take_while(|message| {
            ready(!matches!(message, Ok(Message::Close(_)) | Err(Error::ConnectionClosed)))
        })
        .filter_map(|message| {
            ready(match message {
                Ok(Message::Binary(bytes)) => Some(Ok(bytes)),
                Ok(Message::Text(text)) => Some(Ok(Bytes::copy_from_slice(text.as_bytes()))),
                Ok(_) => None,
                Err(Error::Io(error)) => Some(Err(error)),
                Err(error) => Some(Err(io::Error::new(io::ErrorKind::InvalidData, error))),
            })
        })
        .filter(|piece| ready(!matches!(piece, Ok(bytes) if bytes.is_empty())))
}
