//! A shell that echoes, knows the size of its terminal, and a handful of words.

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::routing::post;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::upgrade::upgrade;
use super::{Answer, Outcome, Plane, World};

pub(crate) async fn start() -> Plane {
    let world = World::new(|_, _| Outcome::Unknown);
    let area =
        Router::new().route("/v1/sandboxes/{id}/shell", post(shell)).with_state(world.clone());
    Plane::start(world, area).await
}

async fn shell(State(world): State<World>, Path(id): Path<String>, request: Request) -> Answer {
    world.live(&id, |_| ())?;
    upgrade(request, talk)
}

async fn talk(mut io: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut size = (0, 0);
    let mut line = String::new();
    io.write_all(b"# ").await?;
    loop {
        let kind = io.read_u8().await?;
        let mut payload = vec![0; io.read_u32().await? as usize];
        io.read_exact(&mut payload).await?;
        if let (1, &[a, b, c, d]) = (kind, &*payload) {
            size = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            continue;
        }
        for byte in payload {
            if byte != b'\r' {
                line.push(byte.into());
                io.write_all(&[byte]).await?;
                continue;
            }
            io.write_all(b"\r\n").await?;
            for word in line.split("; ") {
                let said = match word {
                    "echo from $(tty)" => "from /dev/pts/0\r\n".to_owned(),
                    "echo size $(stty size)" => format!("size {} {}\r\n", size.0, size.1),
                    "exit" => return io.shutdown().await,
                    other => format!("{other}: not found\r\n"),
                };
                io.write_all(said.as_bytes()).await?;
            }
            line.clear();
            io.write_all(b"# ").await?;
        }
    }
}
