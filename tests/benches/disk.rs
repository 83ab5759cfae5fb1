//! What disks of sandboxes cost: `cargo bench -p createos-tests --bench disk`.

mod common;

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use common::{Outcome, SHAPE, millis, row, spread};
use createos_local::Engine;
use createos_sdk::{Client, Sandbox};

#[tokio::main]
async fn main() -> Outcome<()> {
    let engine = Engine::builder().ephemeral().start().await?;
    let client = engine.client();
    println!("| what | result |\n|---|---|");
    creation(&client).await?;
    growth(&client).await?;
    sharing(&client, engine.data_dir()).await?;
    writing(&client).await?;
    engine.shutdown().await;
    Ok(())
}

/// Beside disks that no ready-made one fits.
async fn creation(client: &Client) -> Outcome<()> {
    client.create_sandbox(SHAPE).await?.destroy().await?;
    for (what, size) in [("the usual size", 10_240), ("another size", 5000)] {
        let mut times = vec![];
        for _ in 0..50 {
            let began = Instant::now();
            let sandbox = client.create_sandbox(SHAPE).disk_mib(size).await?;
            times.push(began.elapsed());
            sandbox.destroy().await?;
        }
        row(&format!("create with a disk of {what}, 50"), &spread(times));
    }
    Ok(())
}

async fn growth(client: &Client) -> Outcome<()> {
    let sandbox = client.create_sandbox(SHAPE).await?;
    let mut times = vec![];
    for step in 1..=20 {
        let began = Instant::now();
        sandbox.resize(10_240 + step * 1024).await?;
        times.push(began.elapsed());
    }
    row("resize by 1 GiB, 20", &spread(times));
    sandbox.destroy().await?;
    Ok(())
}

/// New space on this machine's disk, for children that do not run yet and for one that does.
async fn sharing(client: &Client, data_dir: &Path) -> Outcome<()> {
    let source = client.create_sandbox(SHAPE).await?;
    sh(&source, "head -c 1G /dev/urandom >/root/big; sync").await?;
    source.pause().await?;
    let before = taken(&data_dir.join("sandboxes")) + taken(&data_dir.join("layers"));
    let mut times = vec![];
    let mut children = vec![];
    for _ in 0..5 {
        let began = Instant::now();
        children.push(source.fork().start_paused().await?);
        times.push(began.elapsed());
    }
    let now = || taken(&data_dir.join("sandboxes")) + taken(&data_dir.join("layers"));
    let new = now().saturating_sub(before) / 5 / 1024;
    row("fork of 1 GiB to paused, 5", &format!("{}; {new} KiB of new disk each", spread(times)));
    let before = now();
    let began = Instant::now();
    children[0].resume().await?;
    let time = millis(began.elapsed());
    let new = now().saturating_sub(before) / 1024;
    row("first resume of such a fork", &format!("{time}; {new} KiB of new disk"));
    for sandbox in children.iter().chain([&source]) {
        sandbox.destroy().await?;
    }
    Ok(())
}

/// Beside the same outside.
async fn writing(client: &Client) -> Outcome<()> {
    let sandbox = client.create_sandbox("s-2vcpu-2gb").await?;
    let script = "head -c 1G /dev/zero >/root/big; sync -f /root/big";
    let mut times: Vec<Duration> = vec![];
    for _ in 0..3 {
        let began = Instant::now();
        sh(&sandbox, script).await?;
        times.push(began.elapsed());
        sh(&sandbox, "rm /root/big; sync -f /root").await?;
    }
    row("1 GiB written inside and synced, 3", &spread(times));
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("big");
    let began = Instant::now();
    let script = format!("head -c 1G /dev/zero >{0}; sync {0}", path.display());
    let status = std::process::Command::new("sh").args(["-c", &script]).status()?;
    assert!(status.success());
    row("the same on this machine's disk", &millis(began.elapsed()));
    sandbox.destroy().await?;
    Ok(())
}

async fn sh(sandbox: &Sandbox, script: &str) -> Outcome<()> {
    let output = sandbox.command("sh").args(["-c", script]).output().await?;
    assert!(output.status.success(), "{}", output.stderr_lossy());
    Ok(())
}

fn taken(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let metadata = entry.metadata().ok()?;
        Some(if metadata.is_dir() { taken(&entry.path()) } else { metadata.blocks() * 512 })
    });
    sizes.sum()
}
