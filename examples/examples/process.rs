//! A process that outlives its connections: leave it, come back, and lose nothing, or be told
//! what was lost.
//!
//! ```sh
//! cargo run -p examples --example process
//! ```

use std::process::ExitCode;

use createos_sdk::{Client, Process, ProcessEvent};
use futures::TryStreamExt;
use tokio::io::AsyncWriteExt;

/// Goes on when it is told to; at last it writes more than any server keeps.
const PROGRAM: &str = "
echo ready
read go; seq 3
read go; head -c 33554432 /dev/zero | tr '\\0' x; echo; echo done; exit 7
";

#[tokio::main]
async fn main() -> ExitCode {
    examples::run(process).await
}

async fn process(client: Client) -> examples::Result {
    let sandbox = client.create_sandbox("s-1vcpu-1gb").guarded().await?;
    let process = sandbox.spawn("sh").args(["-c", PROGRAM]).await?;
    println!("process {} runs", process.id());

    let seq = follow_to(&process, 0, "ready\n").await?;
    println!("left it at {seq}");

    // Nobody listens while it writes this.
    let mut stdin = process.stdin();
    stdin.write_all(b"go\n").await?;
    stdin.flush().await?;
    let seq = follow_to(&process, seq, "1\n2\n3\n").await?;
    println!("came back, missed nothing, left it at {seq}");

    // Another handle, as another program would have it, knows it by its id.
    let process = sandbox.process(process.id().clone());
    process.input("go\n").await?;
    println!("it ended meanwhile: {}", process.wait().await?);
    the_rest(&process, seq).await?;

    sandbox.close().await?;
    Ok(())
}

/// Follows the output until it ends like this; gives the place where it can be continued.
/// Dropping the stream on the way out leaves the process alone.
async fn follow_to(process: &Process, after: u64, end: &str) -> examples::Result<u64> {
    let mut events = process.attach().after(after).await?;
    let mut heard = Vec::new();
    while let Some(event) = events.try_next().await? {
        match event {
            ProcessEvent::Output { bytes, .. } => heard.extend_from_slice(&bytes),
            ProcessEvent::Gap { .. } => return Err("output was lost".into()),
            ProcessEvent::Exit(exit) => return Err(format!("too early: {exit}").into()),
            _ => {}
        }
        if heard.ends_with(end.as_bytes()) {
            println!("heard {:?}", String::from_utf8_lossy(&heard));
            return Ok(events.last_seq());
        }
    }
    Err("it ended without a word".into())
}

async fn the_rest(process: &Process, after: u64) -> examples::Result {
    let mut events = process.attach().after(after).await?;
    let (mut bytes, mut last) = (0, Vec::new());
    while let Some(event) = events.try_next().await? {
        match event {
            ProcessEvent::Gap { .. } => println!("lost: more was written than is kept"),
            ProcessEvent::Output { bytes: piece, .. } => {
                bytes += piece.len();
                last.extend_from_slice(&piece);
                last.drain(..last.len().saturating_sub(5));
            }
            ProcessEvent::Exit(exit) => {
                println!("kept: {bytes} bytes, at the end {:?}", String::from_utf8_lossy(&last));
                println!("{exit}");
            }
            _ => {}
        }
    }
    Ok(())
}
