//! Best of several: agents start from one snapshot, each tries its own way, the best one wins
//! and the others are thrown away.
//!
//! The task here is to make a text small; the "agents" are compressors.
//!
//! ```sh
//! cargo run -p examples --example fork
//! ```

use std::process::ExitCode;
use std::time::Duration;

use createos_sdk::{Client, Guard, RequestOptions, Sandbox};
use futures::future::join_all;

const WAYS: [&str; 3] = ["gzip -1", "gzip -9", "xz -9"];
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> ExitCode {
    examples::run(fork).await
}

async fn fork(client: Client) -> examples::Result {
    // What all of them need is done once.
    let source = client.create_sandbox("s-1vcpu-1gb").env("WAY", "").guarded().await?;
    let prepare = "mkdir -p /workspace && seq 200000 >/workspace/text";
    source.command("sh").args(["-c", prepare]).await?.ensure_success()?;
    source.pause().await?;
    println!("prepared and paused");

    let attempts = join_all(WAYS.map(|way| attempt(&source, way))).await;
    let mut best: Option<Attempt> = None;
    for (way, attempt) in WAYS.into_iter().zip(attempts) {
        match attempt {
            Ok(attempt) => {
                println!("{way}: {} bytes", attempt.size);
                // Whichever is dropped here is destroyed.
                if best.as_ref().is_none_or(|best| attempt.size < best.size) {
                    best = Some(attempt);
                }
            }
            // One that fails does not stop the others.
            Err(error) => println!("{way}: {error}"),
        }
    }

    let Attempt { way, size, sandbox } = best.ok_or("all of them failed")?;
    println!("the best is {way}");
    let result = sandbox.files().read("/workspace/result").await?;
    println!("its result came out: {}", result.len() as u64 == size);
    sandbox.close().await?;
    source.close().await?;
    Ok(())
}

struct Attempt {
    way: &'static str,
    size: u64,
    sandbox: Guard<Sandbox>,
}

async fn attempt(source: &Sandbox, way: &'static str) -> examples::Result<Attempt> {
    let sandbox = source.fork().env("WAY", way).guarded().await?;
    let work = "cd /workspace && $WAY <text >result && wc -c <result";
    let limit = RequestOptions::new().deadline(PATIENCE);
    let running = sandbox.command("sh").args(["-c", work]).with(limit);
    let output = running.await?.ensure_success()?;
    let size = output.stdout_str()?.trim().parse()?;
    Ok(Attempt { way, size, sandbox })
}
