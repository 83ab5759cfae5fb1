//! What an S3 disk costs, beside curl against the same server:
//! `cargo bench -p createos-tests --bench s3`.

mod common;

use std::process::Command;
use std::time::Instant;

use common::{Outcome, SHAPE, millis, row};
use createos_local::Engine;
use createos_sdk::Sandbox;
use createos_tests::s3::{BUCKET, S3};

const MIB: usize = 100;

#[tokio::main]
async fn main() -> Outcome<()> {
    let (mut s3, engine) = (S3::start(), Engine::builder().ephemeral().start().await?);
    let client = engine.client();
    let disk = client.create_disk("bench", s3.config(), s3.keys()).await?;
    let sandbox = client.create_sandbox(SHAPE).disk(disk.id().clone(), "/mnt/data").await?;
    sandbox.wait_until_mounted("/mnt/data").await?;
    println!("| what | S3 disk | curl |\n|---|---|---|");

    let temp = tempfile::tempdir()?;
    let file = temp.path().join("file");
    std::fs::write(&file, vec![7; MIB << 20])?;
    let base = format!("http://127.0.0.1:{}/{BUCKET}", s3.unguarded());
    let file = file.to_str().ok_or("a path")?;

    sh(&sandbox, &format!("head -c {MIB}M /dev/zero >/tmp/file; cat /tmp/file >/dev/null")).await?;
    let ours = timed(&sandbox, "cp /tmp/file /mnt/data/file").await?;
    let theirs = curl(&["-T", file, &format!("{base}/raw")])?;
    row(&format!("write {MIB} MiB, durable"), &format!("{ours} | {theirs}"));
    let ours = timed(&sandbox, "cat /mnt/data/file >/dev/null").await?;
    let theirs = curl(&["-o", "/dev/null", &format!("{base}/raw")])?;
    row(&format!("read {MIB} MiB"), &format!("{ours} | {theirs}"));

    let before = s3.requests();
    let script = "mkdir /mnt/data/d; for n in $(seq 50); do echo $n >/mnt/data/d/$n; done";
    let ours = timed(&sandbox, script).await?;
    let requests = s3.requests() - before;
    let uploads: Vec<String> = (0..50).map(|n| format!("{base}/small/{n}")).collect();
    let small = temp.path().join("small");
    std::fs::write(&small, "7\n")?;
    let small = small.to_str().ok_or("a path")?;
    let pairs: Vec<&str> = uploads.iter().flat_map(|url| ["-T", small, url]).collect();
    let theirs = curl(&pairs)?;
    row("write 50 small files", &format!("{ours}, {requests} requests | {theirs}"));
    sh(&sandbox, "sleep 1.1").await?;
    let ours = timed(&sandbox, "cat /mnt/data/d/* >/dev/null").await?;
    let urls: Vec<&str> = uploads.iter().flat_map(|url| ["-o", "/dev/null", url]).collect();
    let theirs = curl(&urls)?;
    row("read 50 small files", &format!("{ours} | {theirs}"));
    sh(&sandbox, "sleep 1.1").await?;
    row("ls -l of them", &format!("{} |", timed(&sandbox, "ls -l /mnt/data/d >/dev/null").await?));
    engine.shutdown().await;
    Ok(())
}

async fn sh(sandbox: &Sandbox, script: &str) -> Outcome<()> {
    sandbox.command("sh").args(["-c", script]).output().await?.ensure_success()?;
    Ok(())
}

async fn timed(sandbox: &Sandbox, script: &str) -> Outcome<String> {
    let began = Instant::now();
    sh(sandbox, script).await?;
    Ok(millis(began.elapsed()))
}

fn curl(arguments: &[&str]) -> Outcome<String> {
    let began = Instant::now();
    // Moto looks whether a request is signed, not by whom.
    let signed = "Authorization: AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request, \
                  SignedHeaders=host, Signature=x";
    let done = Command::new("curl").args(["-sSf", "-H", signed]).args(arguments).output()?;
    if !done.status.success() {
        return Err(format!("curl: {}", String::from_utf8_lossy(&done.stderr)).into());
    }
    Ok(millis(began.elapsed()))
}
