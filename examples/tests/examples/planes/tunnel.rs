//! Tunnels to a web server inside, which is not there at the first try.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::routing::post;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufStream};

use super::upgrade::upgrade;
use super::{Answer, Outcome, Plane, World, fail, serving};

pub(crate) async fn start() -> Plane {
    let world = World::new(|_, _| Outcome::Unknown);
    let tries = Arc::new(AtomicUsize::new(0));
    let area = Router::new()
        .route("/v1/sandboxes/{id}/tunnel/{port}", post(tunnel))
        .with_state((world.clone(), tries))
        .merge(serving::routes(world.clone(), true));
    Plane::start(world, area).await
}

async fn tunnel(
    State((world, tries)): State<(World, Arc<AtomicUsize>)>,
    Path((id, port)): Path<(String, String)>,
    request: Request,
) -> Answer {
    let found = world.live(&id, |sandbox| {
        let serves = sandbox.request["serves"] == *port;
        sandbox.files.get("/srv/index.html").filter(|_| serves).cloned()
    })?;
    let first = tries.fetch_add(1, Ordering::Relaxed) == 0;
    match found {
        Some(page) if !first => upgrade(request, async move |io| {
            let mut io = BufStream::new(io);
            let mut line = String::new();
            if io.read_line(&mut line).await? == 0 {
                // Somebody wanted to know whether anything listens.
                return Ok(());
            }
            let asked = line.split(' ').nth(1).unwrap_or_default().to_owned();
            while line != "\r\n" {
                line.clear();
                io.read_line(&mut line).await?;
            }
            let (status, body) = match &*asked {
                "/" => ("200 OK", &page[..]),
                _ => ("404 Not Found", &b"no such page"[..]),
            };
            let head = format!("HTTP/1.0 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
            io.write_all(&[head.as_bytes(), body].concat()).await?;
            io.shutdown().await
        }),
        _ => fail(502, "nothing listens on the port"),
    }
}
