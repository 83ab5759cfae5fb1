//! What the engine and the SDK cost: `cargo bench -p createos-tests --bench engine`.
//!
//! The engine runs in a process of its own, so that its memory can be told from the
//! client's. Everything that has a peer is measured beside it in the same run.

mod common;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::{Outcome, SHAPE, Server, millis, rate, resident, row, spread};
use createos_sdk::{Client, ExecEvent, ProcessEvent, Upload};
use futures::{StreamExt, TryStreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const TRANSFER: u64 = 500 << 20;
const STREAM: u64 = 100_000_000;
const PIECE: u64 = 500_000;

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
    pauses(&server).await?;
    commands(&server).await?;
    crowd(&server).await?;
    streams(&server).await?;
    process(&server).await?;
    keystrokes(&server).await?;
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
    let before = resident(server.pid(), "VmRSS")?;
    let began = Instant::now();
    let creations = (0..COUNT).map(|_| async { client.create_sandbox(SHAPE).await });
    let sandboxes = futures::future::try_join_all(creations).await?;
    row("50 sandboxes at once", &millis(began.elapsed()));
    let of_engine = resident(server.pid(), "VmRSS")?.saturating_sub(before) / COUNT;
    let mut of_sandboxes = 0;
    for sandbox in &sandboxes {
        of_sandboxes += sandbox.metrics().await?.mem_used_bytes().unwrap_or(0) / 1024 / COUNT;
    }
    row(
        "memory of an idle sandbox",
        &format!("{of_sandboxes} KiB of its own, {of_engine} KiB in the engine"),
    );
    let removals = sandboxes.iter().map(|sandbox| async { sandbox.destroy().await });
    futures::future::try_join_all(removals).await?;
    Ok(())
}

/// What runs in a sandbox goes to disk and comes back, beside a file of the same size.
async fn pauses(server: &Server) -> Outcome<()> {
    const ROUNDS: usize = 5;
    for mib in [0, 100, 1024] {
        let sandbox = server.client()?.create_sandbox("s-2vcpu-2gb").await?;
        let hold = format!(
            "nohup python3 -c 'import os, time; held = [os.urandom(1 << 20) for _ in range({mib})]; \
             open(\"/root/up\", \"w\"); time.sleep(3600)' >/dev/null 2>&1 </dev/null & \
             until [ -e /root/up ]; do sleep 0.05; done"
        );
        sandbox.command("sh").args(["-c", &hold]).output().await?;
        let (mut pauses, mut resumes, mut files) = (Vec::new(), Vec::new(), Vec::new());
        let file = tempfile::NamedTempFile::new()?;
        let content = vec![7; mib << 20];
        let mut frozen = false;
        for _ in 0..ROUNDS {
            let began = Instant::now();
            frozen |= sandbox.pause().await?.status_reason.is_some();
            pauses.push(began.elapsed());
            let began = Instant::now();
            sandbox.resume().await?;
            resumes.push(began.elapsed());
            let began = Instant::now();
            std::fs::write(file.path(), &content)?;
            std::fs::read(file.path())?;
            files.push(began.elapsed());
        }
        let [pause, resume, file] = [pauses, resumes, files].map(|mut times| {
            times.sort_unstable();
            times[ROUNDS / 2]
        });
        let how = if frozen { "in memory" } else { "to disk" };
        row(
            &format!("pause {how} and resume of a process with {mib} MiB (median)"),
            &format!(
                "{} and {}; a file of that size is written and read in {}",
                millis(pause),
                millis(resume),
                millis(file)
            ),
        );
        sandbox.destroy().await?;
    }
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

/// Output of a managed process, as fast as it can be followed.
async fn process(server: &Server) -> Outcome<()> {
    let sandbox = server.client()?.create_sandbox("s-2vcpu-2gb").await?;
    // Written only as fast as it is read: a gap would be measured as speed.
    let script = format!("while read -r _; do head -c {PIECE} /dev/zero; done");
    let process = sandbox.spawn("bash").args(["-c", &script]).await?;
    let mut events = process.attach().await?;
    let mut taken = Duration::ZERO;
    for _ in 0..STREAM / PIECE {
        let began = Instant::now();
        process.input("go\n").await?;
        let mut received = 0;
        while received < PIECE {
            match events.next().await.ok_or("it ended")?? {
                ProcessEvent::Output { bytes, .. } => received += bytes.len() as u64,
                other => return Err(format!("{other:?}").into()),
            }
        }
        taken += began.elapsed();
    }
    row("output of a managed process, followed", &rate(STREAM / PIECE * PIECE, taken));

    let ended = sandbox.spawn("head").args(["-c", "1000000", "/dev/zero"]).await?;
    ended.wait().tree().await?;
    let began = Instant::now();
    let mut received = 0;
    for _ in 0..20 {
        let mut events = ended.attach().await?;
        while let Some(event) = events.next().await {
            if let ProcessEvent::Output { bytes, .. } = event? {
                received += bytes.len() as u64;
            }
        }
    }
    row("the same, replayed", &rate(received, began.elapsed()));
    sandbox.destroy().await?;
    Ok(())
}

/// From a key to its echo, beside the same over a bare loopback connection.
async fn keystrokes(server: &Server) -> Outcome<()> {
    let sandbox = server.client()?.create_sandbox(SHAPE).await?;
    for (what, over_web_socket) in [("a terminal", false), ("a WebSocket", true)] {
        let opening = sandbox.terminal();
        let opened = if over_web_socket { opening.open_web_socket() } else { opening.open() };
        let mut shell = opened.await?;
        // No prompt, no line editing: what comes back is the echo alone.
        shell.write_all(b"exec cat\r").await?;
        let mut shown = Vec::new();
        while !String::from_utf8_lossy(&shown).contains("exec cat\r\n") {
            shell.read_buf(&mut shown).await?;
        }
        settle(&mut shell).await?;
        let mut times = vec![];
        for key in (b'a'..=b'z').cycle().take(500) {
            let began = Instant::now();
            shell.write_all(&[key]).await?;
            while shell.read_u8().await? != key {}
            times.push(began.elapsed());
        }
        row(&format!("echo of a key in {what}, 500"), &spread(times));
    }
    sandbox.destroy().await?;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let mut near = tokio::net::TcpStream::connect(listener.local_addr()?).await?;
    let (mut far, _) = listener.accept().await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    tokio::spawn(async move {
        while let Ok(byte) = far.read_u8().await {
            if far.write_u8(byte).await.is_err() {
                break;
            }
        }
    });
    let mut times = vec![];
    for _ in 0..500 {
        let began = Instant::now();
        near.write_u8(1).await?;
        near.read_u8().await?;
        times.push(began.elapsed());
    }
    row("echo of a byte over loopback, 500", &spread(times));
    Ok(())
}

/// Reads until nothing has come for a moment.
async fn settle(shell: &mut createos_sdk::Terminal) -> Outcome<()> {
    let mut rest = [0; 1024];
    while let Ok(read) =
        tokio::time::timeout(Duration::from_millis(300), shell.read(&mut rest)).await
    {
        read?;
    }
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

/// Makes the peak start again from what is resident now.
fn reset_peak(pid: u32) {
    let _ = std::fs::write(format!("/proc/{pid}/clear_refs"), "5");
}
