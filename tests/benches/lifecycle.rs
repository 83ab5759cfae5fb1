//! What changes of state cost: `cargo bench -p createos-tests --bench lifecycle`.

mod common;

use std::time::{Duration, Instant};

use common::{Outcome, SHAPE, Server, millis, resident, row, spread};
use createos_sdk::Sandbox;
use createos_sdk::wire::SandboxStatus;

#[tokio::main]
async fn main() -> Outcome<()> {
    if std::env::args().nth(1).as_deref() == Some("engine") {
        return common::serve().await;
    }
    let server = Server::start()?;
    println!("| what | result |\n|---|---|");
    pauses(&server).await?;
    forks(&server).await?;
    templates(&server).await?;
    churn(&server).await?;
    server.end()
}

/// Asked without waiting, then looked at until it is there: what the engine takes, not what
/// a client waits between two looks.
async fn until(sandbox: &Sandbox, wanted: SandboxStatus, began: Instant) -> Outcome<Duration> {
    while sandbox.refresh().await?.status != wanted {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(began.elapsed())
}

async fn pauses(server: &Server) -> Outcome<()> {
    let client = server.client()?;
    let hold = "nohup python3 -c 'import time; held = bytes(range(256)) * (100 << 12); \
                open(\"/root/up\", \"w\"); time.sleep(9999)' >/dev/null 2>&1 </dev/null & \
                while [ ! -e /root/up ]; do sleep 0.01; done";
    for (what, script) in [("idle", "true"), ("with 100 MiB in a process", hold)] {
        let sandbox = client.create_sandbox("s-1vcpu-1gb").await?;
        sandbox.command("sh").args(["-c", script]).output().await?;
        let (mut paused, mut resumed) = (vec![], vec![]);
        for _ in 0..30 {
            let began = Instant::now();
            sandbox.pause().no_wait().await?;
            paused.push(until(&sandbox, SandboxStatus::Paused, began).await?);
            let began = Instant::now();
            sandbox.resume().no_wait().await?;
            resumed.push(until(&sandbox, SandboxStatus::Running, began).await?);
        }
        row(&format!("pause, {what}, 30"), &spread(paused));
        row(&format!("resume, {what}, 30"), &spread(resumed));
        sandbox.destroy().await?;
    }
    Ok(())
}

/// Beside a plain copy of as much on this machine's disk.
async fn forks(server: &Server) -> Outcome<()> {
    const SIZE: u64 = 1 << 30;
    let source = server.client()?.create_sandbox("s-1vcpu-1gb").await?;
    let fill = format!("head -c {SIZE} /dev/urandom > /root/big; sync");
    source.command("sh").args(["-c", &fill]).output().await?;
    source.pause().await?;
    let mut forked = vec![];
    for _ in 0..5 {
        let began = Instant::now();
        let child = source.fork().no_wait().await?;
        forked.push(until(&child, SandboxStatus::Running, began).await?);
        child.destroy().await?;
    }
    row("fork with 1 GiB of files to running, 5", &spread(forked));
    source.destroy().await?;
    let dir = tempfile::tempdir()?;
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    std::fs::write(&from, vec![7; usize::try_from(SIZE)?])?;
    let began = Instant::now();
    std::fs::copy(from, to)?;
    row("a plain copy of a file of 1 GiB", &millis(began.elapsed()));
    Ok(())
}

/// Sandboxes of a template beside those of this machine's own system, in turn.
async fn templates(server: &Server) -> Outcome<()> {
    let client = server.client()?;
    let began = Instant::now();
    let dockerfile = "FROM nodeops/sandbox:debian\nRUN echo built >/root/f\n";
    let template = client.create_template("bench", dockerfile).await?;
    template.wait_until_ready().await?;
    row("a template of one command, built", &millis(began.elapsed()));
    let (mut own, mut built) = (vec![], vec![]);
    for _ in 0..30 {
        for (rootfs, times) in [("devbox:1", &mut own), ("bench", &mut built)] {
            let began = Instant::now();
            let sandbox = client.create_sandbox(SHAPE).rootfs(rootfs).await?;
            times.push(began.elapsed());
            sandbox.destroy().await?;
            sandbox.wait_until(SandboxStatus::Destroyed).await?;
        }
    }
    let middle = |times: &[Duration]| {
        let mut times = times.to_vec();
        times.sort();
        times[times.len() / 2].as_secs_f64()
    };
    let ratio = middle(&built) / middle(&own);
    row("create from a template, 30", &format!("{}; {ratio:.2} of the next row", spread(built)));
    row("create from devbox:1, 30", &spread(own));
    template.delete().await?;
    Ok(())
}

/// What is left in the engine after many sandboxes have come and gone.
async fn churn(server: &Server) -> Outcome<()> {
    const CYCLES: u32 = 1000;
    let client = server.client()?;
    let pid = server.pid();
    let cycle = async || -> Outcome<()> {
        let sandbox = client.create_sandbox(SHAPE).await?;
        sandbox.destroy().await?;
        sandbox.wait_until(SandboxStatus::Destroyed).await?;
        Ok(())
    };
    for _ in 0..100 {
        cycle().await?;
    }
    let before = (resident(pid, "VmRSS")?, descriptors(pid)?);
    let began = Instant::now();
    for _ in 0..CYCLES {
        cycle().await?;
    }
    let time = began.elapsed() / CYCLES;
    let after = (resident(pid, "VmRSS")?, descriptors(pid)?);
    row(
        "1,000 creates and destroys",
        &format!(
            "{} each; memory {} to {} KiB, file descriptors {} to {}",
            millis(time),
            before.0,
            after.0,
            before.1,
            after.1
        ),
    );
    Ok(())
}

fn descriptors(pid: u32) -> Outcome<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}
