//! Output while it is written, and a command that ends because nobody listens any more.
//!
//! ```sh
//! cargo run -p examples --example streaming
//! ```

use std::process::ExitCode;
use std::time::Duration;

use createos_sdk::{Client, ExecEvent, RequestOptions, Sandbox};
use futures::TryStreamExt;

/// It writes to both of its streams, with pauses.
const BUILD: &str = r#"
for step in 1 2 3; do
    echo "compiling part $step"
    sleep 0.1
done
echo "warning: one thing is odd" >&2
exit 2
"#;

#[tokio::main]
async fn main() -> ExitCode {
    examples::run(streaming).await
}

async fn streaming(client: Client) -> examples::Result {
    let sandbox = client.create_sandbox("s-1vcpu-1gb").guarded().await?;

    println!("a build, as it goes on:");
    // The limits of a stream: its silence, and here also its whole length.
    let limits = RequestOptions::new()
        .stall_timeout(Duration::from_secs(20))
        .deadline(Duration::from_secs(300));
    let mut events = sandbox.command("sh").args(["-c", BUILD]).with(limits).stream().await?;
    while let Some(event) = events.try_next().await? {
        match event {
            ExecEvent::Stdout(bytes) => print!("  out| {}", String::from_utf8_lossy(&bytes)),
            ExecEvent::Stderr(bytes) => print!("  err| {}", String::from_utf8_lossy(&bytes)),
            ExecEvent::Exit(status) => println!("  it ended: {status}"),
            _ => {}
        }
    }

    stop_listening(&sandbox).await?;

    println!("a million lines, of which the ends are kept:");
    let output = sandbox.command("seq").arg("1000000").limit_output(12, 16).await?;
    println!("  {}", output.stdout_marked().trim_end().replace('\n', "\n  "));

    sandbox.close().await?;
    Ok(())
}

/// Dropping the stream kills the command.
async fn stop_listening(sandbox: &Sandbox) -> examples::Result {
    println!("an endless command, until it has said enough:");
    let endless = "echo $$ >/tmp/endless; while echo tick; do sleep 0.1; done";
    let mut events = sandbox.command("sh").args(["-c", endless]).stream().await?;
    let mut heard = String::new();
    while heard.lines().count() < 3 {
        match events.try_next().await? {
            Some(ExecEvent::Stdout(bytes)) => heard += &String::from_utf8_lossy(&bytes),
            Some(_) => {}
            None => return Err("it ended by itself".into()),
        }
    }
    drop(events);

    // Its number is free again a moment later.
    let gone = "for try in $(seq 100); do kill -0 $(cat /tmp/endless) 2>/dev/null || exit 0; \
                sleep 0.1; done; exit 1";
    sandbox.command("sh").args(["-c", gone]).await?.ensure_success()?;
    println!("  heard {:?}, and it is gone", heard.lines().next().unwrap_or_default());
    Ok(())
}
