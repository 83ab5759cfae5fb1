//! What the engine and the SDK cost: `cargo bench -p createos-tests --bench engine`.
//!
//! The engine runs in a process of its own, so that its memory can be told from the
//! client's. Everything that has a peer is measured beside it in the same run.

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Outcome, SHAPE, Server, kib_of, millis, rate, resident, row, spread};
use createos_sdk::{Client, ExecEvent, Upload};
use futures::{StreamExt, TryStreamExt};

const TRANSFER: u64 = 500 << 20;
const STREAM: u64 = 100_000_000;

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["engine"] => common::serve().await,
        ["transfer", direction, url, key, id] => transfer(direction, url, key, id).await,
        _ => measure().await,
    }
}

fn official(server: &Server) -> Outcome<createos::Client> {
    let client = createos::Client::builder().base_url(&server.url).api_key(&server.key);
    Ok(client.timeout(Duration::from_secs(600)).build()?)
}

async fn measure() -> Outcome<()> {
    let server = Server::start()?;
    println!("| what | result |\n|---|---|");
    creation(&server).await?;
    commands(&server).await?;
    crowd(&server).await?;
    streams(&server).await?;
    transfers(&server).await?;
    server.end()
}

async fn creation(server: &Server) -> Outcome<()> {
    let client = server.client()?;
    client.create_sandbox(SHAPE).await?.destroy().await?;
    let (mut created, mut first, mut destroyed) = (vec![], vec![], vec![]);
    for _ in 0..100 {
        let began = Instant::now();
        let sandbox = client.create_sandbox(SHAPE).await?;
        created.push(began.elapsed());
        sandbox.command("/bin/true").output().await?;
        first.push(began.elapsed());
        let began = Instant::now();
        sandbox.destroy().await?;
        destroyed.push(began.elapsed());
    }
    row("create to running, 100", &spread(created));
    row("create and first command, 100", &spread(first));
    row("destroy answered, 100", &spread(destroyed));
    Ok(())
}

async fn commands(server: &Server) -> Outcome<()> {
    let sandbox = server.client()?.create_sandbox(SHAPE).await?;
    let official = official(server)?.sandbox(sandbox.id().as_str()).await?;
    let (mut ours, mut theirs) = (vec![], vec![]);
    for _ in 0..300 {
        let began = Instant::now();
        sandbox.command("/bin/true").output().await?;
        ours.push(began.elapsed());
        let request =
            createos::RunCommandRequest { command: "/bin/true".into(), ..Default::default() };
        let began = Instant::now();
        official.run_command(request, createos::ExecOptions::default()).await?;
        theirs.push(began.elapsed());
    }
    row("exec of /bin/true, 300", &spread(ours));
    row("the same through the official client", &spread(theirs));
    sandbox.destroy().await?;
    Ok(())
}

async fn crowd(server: &Server) -> Outcome<()> {
    const COUNT: u64 = 50;
    let client = server.client()?;
    let before = (available_memory()?, resident(server.pid(), "VmRSS")?);
    let began = Instant::now();
    let creations = (0..COUNT).map(|_| async { client.create_sandbox(SHAPE).await });
    let sandboxes = futures::future::try_join_all(creations).await?;
    row("50 sandboxes at once", &millis(began.elapsed()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after = (available_memory()?, resident(server.pid(), "VmRSS")?);
    let of_machine = before.0.saturating_sub(after.0) / COUNT;
    let of_engine = after.1.saturating_sub(before.1) / COUNT;
    row(
        "memory of an idle sandbox",
        &format!("{of_machine} KiB of the machine, {of_engine} KiB of them in the engine"),
    );
    let removals = sandboxes.iter().map(|sandbox| async { sandbox.destroy().await });
    futures::future::try_join_all(removals).await?;
    Ok(())
}

async fn streams(server: &Server) -> Outcome<()> {
    let sandbox = server.client()?.create_sandbox("s-2vcpu-2gb").await?;
    let script = format!("yes 'a line of output, as programs write them' | head -c {STREAM}");
    let began = Instant::now();
    let mut events = sandbox.command("sh").args(["-c", &script]).stream().await?;
    let mut received = 0;
    while let Some(event) = events.next().await {
        if let ExecEvent::Stdout(bytes) = event? {
            received += bytes.len() as u64;
        }
    }
    let ours = began.elapsed();
    assert_eq!(received, STREAM);

    let official = official(server)?.sandbox(sandbox.id().as_str()).await?;
    let request = createos::RunCommandRequest {
        command: "sh".into(),
        arguments: vec!["-c".into(), script],
        ..Default::default()
    };
    let began = Instant::now();
    let mut stream = official.stream_command(request, createos::ExecOptions::default()).await?;
    let mut received = 0;
    while let Some(event) = stream.next().await? {
        received += event.data.len() as u64;
    }
    let theirs = began.elapsed();
    assert_eq!(received, STREAM);
    row("100 MB of streamed output", &rate(STREAM, ours));
    row("the same through the official client", &rate(STREAM, theirs));
    row("ratio", &format!("{:.2}x", theirs.as_secs_f64() / ours.as_secs_f64()));
    sandbox.destroy().await?;
    Ok(())
}

/// Each direction in a fresh client process, so that its peak is its own.
async fn transfers(server: &Server) -> Outcome<()> {
    let sandbox = server.client()?.create_sandbox("s-2vcpu-2gb").await?;
    for direction in ["up", "down"] {
        reset_peak(server.pid());
        let output = Command::new(std::env::current_exe()?)
            .args(["transfer", direction, &server.url, &server.key, sandbox.id().as_str()])
            .stderr(Stdio::inherit())
            .output()?;
        let told = String::from_utf8(output.stdout)?;
        let engine = resident(server.pid(), "VmHWM")? / 1024;
        row(&format!("500 MiB {direction}"), &format!("{}, {engine} MiB engine peak", told.trim()));
    }
    sandbox.destroy().await?;
    Ok(())
}

async fn transfer(direction: &str, url: &str, key: &str, id: &str) -> Outcome<()> {
    let client = Client::builder().base_url(url).api_key(key).build()?;
    let files = client.sandbox(id.parse::<createos_sdk::SandboxId>()?).files();
    let began = Instant::now();
    if direction == "up" {
        let chunk = bytes::Bytes::from(vec![7u8; 1 << 20]);
        let chunks = (0..TRANSFER >> 20).map(move |_| Ok(chunk.clone()));
        let upload = Upload::stream(futures::stream::iter(chunks)).with_len(TRANSFER);
        files.write("/root/big", upload).await?;
    } else {
        let mut received = 0;
        let mut chunks = files.download("/root/big").await?;
        while let Some(chunk) = chunks.try_next().await? {
            received += chunk.len() as u64;
        }
        assert_eq!(received, TRANSFER);
    }
    let peak = resident(std::process::id(), "VmHWM")? / 1024;
    println!("{}, {peak} MiB client peak", rate(TRANSFER, began.elapsed()));
    Ok(())
}

fn available_memory() -> Outcome<u64> {
    kib_of(&std::fs::read_to_string("/proc/meminfo")?, "MemAvailable")
}

/// Makes the peak start again from what is resident now.
fn reset_peak(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}
