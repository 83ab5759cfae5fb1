//! What the benches share: the engine in a process of its own, and the rows of a table.

// Each bench includes this module and uses its own part of it.
#![allow(dead_code, missing_docs, missing_debug_implementations, unreachable_pub)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use createos_sdk::Client;

pub const SHAPE: &str = "s-1vcpu-256mb";

pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// The engine's process: says where it is, then serves until its input ends.
pub async fn serve() -> Outcome<()> {
    let engine = createos_local::Engine::builder().ephemeral().start().await?;
    println!("{} {}", engine.url(), engine.api_key().expose());
    tokio::task::spawn_blocking(|| std::io::stdin().lines().count()).await?;
    engine.shutdown().await;
    Ok(())
}

pub struct Server {
    process: Child,
    pub url: String,
    pub key: String,
}

impl Server {
    pub fn start() -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("engine")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut line)?;
        let (url, key) = line.trim().split_once(' ').ok_or("the engine did not start")?;
        Ok(Self { url: url.to_owned(), key: key.to_owned(), process })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    pub fn client(&self) -> Outcome<Client> {
        Ok(Client::builder().base_url(&self.url).api_key(self.key.as_str()).build()?)
    }

    pub fn end(mut self) -> Outcome<()> {
        drop(self.process.stdin.take());
        self.process.wait()?;
        Ok(())
    }
}

pub fn row(what: &str, result: &str) {
    println!("| {what} | {result} |");
}

pub fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    format!("median {}, p95 {}", millis(at(50)), millis(at(95)))
}

pub fn millis(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}

pub fn rate(bytes: u64, time: Duration) -> String {
    format!("{:.0} MB/s", bytes as f64 / time.as_secs_f64() / 1e6)
}

/// A field of `/proc/PID/status` in KiB.
pub fn resident(pid: u32, field: &str) -> Outcome<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let number = line.and_then(|line| line.split_whitespace().next()).ok_or("no such field")?;
    Ok(number.parse()?)
}
