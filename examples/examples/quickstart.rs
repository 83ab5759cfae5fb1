//! The product in one minute, on this machine alone: an embedded engine, a sandbox,
//! a program in it, a file in and out. Run it with
//! `cargo run --release -p examples --example quickstart`.

use std::io::Write;
use std::time::{Duration, Instant};

use createos_local::Engine;
use createos_sdk::{ExecEvent, Sandbox};
use futures::StreamExt;

/// Prefers Python; a machine without it still has a shell.
const PYTHON: &str = r#"
import platform, time
for step in range(1, 4):
    print(f"python {platform.python_version()} on {platform.node()}: step {step}", flush=True)
    time.sleep(0.2)
"#;
const SHELL: &str =
    r#"for step in 1 2 3; do echo "sh on $(uname -n): step $step"; sleep 0.2; done"#;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("Starting an engine in this program (the first time, it prepares its base image).");
    let (engine, took) = timed(Engine::builder().ephemeral().start()).await;
    let engine = engine?;
    println!("  engine at {} in {}", engine.url(), millis(took));

    // Whatever happens in between, the engine ends in order.
    let outcome = tour(&engine).await;
    engine.shutdown().await;
    outcome?;
    println!("\nNothing is left. Next: README.md, `createos --help`, `cargo doc --open`.");
    Ok(())
}

async fn tour(engine: &Engine) -> Result<(), Box<dyn std::error::Error>> {
    let client = engine.client();
    let (sandbox, took) =
        timed(async { client.create_sandbox("s-1vcpu-1gb").name("quickstart").await }).await;
    let sandbox = sandbox?;
    println!("  sandbox {} in {}", sandbox.id(), millis(took));

    let (output, took) = timed(async { sandbox.command("true").output().await }).await;
    output?;
    println!("  first command in {}", millis(took));

    println!("\nA program in it, its output as it comes:");
    stream_a_program(&sandbox).await?;

    println!("\nA file in and out:");
    move_a_file(&sandbox).await?;

    let (destroyed, took) = timed(async { sandbox.destroy().await }).await;
    destroyed?;
    println!("\n  destroyed in {}", millis(took));
    Ok(())
}

async fn stream_a_program(sandbox: &Sandbox) -> Result<(), Box<dyn std::error::Error>> {
    let has_python =
        sandbox.command("sh").args(["-c", "command -v python3"]).output().await?.status.success();
    let (program, flag, code) =
        if has_python { ("python3", "-c", PYTHON) } else { ("sh", "-c", SHELL) };
    let mut events = sandbox.command(program).args([flag, code]).stream().await?;
    while let Some(event) = events.next().await {
        match event? {
            ExecEvent::Stdout(bytes) => {
                print!("  {}", String::from_utf8_lossy(&bytes));
                std::io::stdout().flush()?;
            }
            ExecEvent::Stderr(bytes) => eprint!("  {}", String::from_utf8_lossy(&bytes)),
            ExecEvent::Exit(status) => println!("  it ended: {status}"),
            _ => {}
        }
    }
    Ok(())
}

async fn move_a_file(sandbox: &Sandbox) -> Result<(), Box<dyn std::error::Error>> {
    let content = "createos\n".repeat(1 << 20);
    let (written, took) =
        timed(async { sandbox.files().write("/workspace/big.txt", content.clone()).await }).await;
    written?;
    println!("  9 MiB in, in {}", millis(took));

    let lines = sandbox.command("wc").args(["-l", "/workspace/big.txt"]).output().await?;
    print!("  inside, wc -l says {}", lines.stdout_str()?);

    let (read, took) = timed(async { sandbox.files().read("/workspace/big.txt").await }).await;
    println!("  9 MiB out, in {}; the same: {}", millis(took), read? == content);
    Ok(())
}

async fn timed<T>(work: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let done = work.await;
    (done, began.elapsed())
}

fn millis(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}
