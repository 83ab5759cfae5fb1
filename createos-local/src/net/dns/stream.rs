//! Questions by TCP: each message has its length in front.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::answer::{Transport, answer};
use crate::net::uplink::Shared;

/// How long a client may take for a question, or to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

pub(in crate::net) async fn serve_stream(shared: &Shared, mut stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    while let Ok(Some(question)) = timeout(PATIENCE, receive(&mut stream)).await {
        let Ok(_place) = shared.questions.acquire().await else { return };
        let Some(message) = answer(shared, &question, Transport::Stream).await else { return };
        let Ok(length) = u16::try_from(message.len()) else { return };
        let whole = [&length.to_be_bytes(), &message[..]].concat();
        let Ok(Ok(())) = timeout(PATIENCE, stream.write_all(&whole)).await else { return };
    }
}

async fn receive(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let length = stream.read_u16().await.ok()?;
    let mut message = vec![0; usize::from(length)];
    stream.read_exact(&mut message).await.ok()?;
    Some(message)
}
