//! This client beside its peers, against one loopback server, in one run:
//! `nice cargo bench -p createos-sdk --bench compare`. See the README beside it.
//!
//! Words as arguments select rows, and `ours`, `official`, `curl` or `bare` one side of them, which is
//! what a profiler wants; a number is how many rounds: `… --bench compare -- large ours 1`.

mod calls;
mod server;
mod streams;
mod transfers;
mod tunnel;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use createos_sdk::Client;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Of so many rounds, in which the sides take turns, the fastest of each counts.
const ROUNDS: usize = 9;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if words == ["server"] {
        return server::serve();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    if let ["transfer", what, url, path] = words[..] {
        return runtime.block_on(transfers::run_alone(what, url, path));
    }
    let (numbers, words): (Vec<&str>, Vec<&str>) =
        words.into_iter().partition(|word| word.parse::<usize>().is_ok());
    let rounds = numbers.first().and_then(|number| number.parse().ok()).unwrap_or(ROUNDS);
    let plan = Plan { words: &words, rounds };
    runtime.block_on(async {
        let server = Server::start()?;
        streams::run(&server, &plan).await?;
        calls::run(&server, &plan).await?;
        transfers::run(&server, &plan)?;
        tunnel::run(&server, &plan).await?;
        server.end()
    })
}

/// What was asked for on the command line.
struct Plan<'a> {
    words: &'a [&'a str],
    rounds: usize,
}

const SIDES: [&str; 4] = ["ours", "official", "curl", "bare"];

impl Plan<'_> {
    fn wants(&self, row: &str) -> bool {
        let mut rows = self.words.iter().filter(|word| !SIDES.contains(word)).peekable();
        rows.peek().is_none() || rows.any(|word| *word == row)
    }

    fn side(&self, side: &str) -> bool {
        let mut sides = self.words.iter().filter(|word| SIDES.contains(word)).peekable();
        sides.peek().is_none() || sides.any(|word| *word == side)
    }
}

/// The server, in a process of its own.
struct Server {
    process: Child,
    url: String,
}

impl Server {
    /// The server gets the second processor and this process the first, where the machine lets
    /// them be told apart: on one they would take turns, and the server's work would be counted.
    fn start() -> Outcome<Self> {
        let this = std::env::current_exe()?;
        let pinned = pin(std::process::id());
        let mut command = match pinned {
            true => Command::new("taskset"),
            false => Command::new(&this),
        };
        if pinned {
            command.args(["-c", "1"]).arg(&this);
        }
        let mut process =
            command.arg("server").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let mut url = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut url)?;
        println!("Client and server {} a processor each.", if pinned { "have" } else { "lack" });
        Ok(Self { process, url: url.trim().to_owned() })
    }

    /// Host and port.
    fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    fn ours(&self) -> Outcome<Client> {
        our_client(&self.url)
    }

    fn official(&self) -> Outcome<createos::Client> {
        let client = createos::Client::builder().base_url(&self.url).api_key("k");
        Ok(client.timeout(Duration::from_secs(3600)).build()?)
    }

    fn end(mut self) -> Outcome<()> {
        drop(self.process.stdin.take());
        self.process.wait()?;
        Ok(())
    }
}

fn our_client(url: &str) -> Outcome<Client> {
    Ok(Client::builder().base_url(url).api_key("k").build()?)
}

/// Keeps this process on the first processor.
fn pin(process: u32) -> bool {
    let mut taskset = Command::new("taskset");
    taskset.args(["-c", "-p", "0", &process.to_string()]).stdout(Stdio::null());
    let several = std::thread::available_parallelism().is_ok_and(|count| count.get() > 1);
    several && taskset.status().is_ok_and(|status| status.success())
}

/// This thread, which is the whole of a client without files.
const SELF: &str = "/proc/thread-self";

/// The moment work begins.
struct Clock {
    began: Instant,
    busy: Duration,
}

impl Clock {
    fn start() -> Self {
        Self { busy: busy(Path::new(SELF)), began: Instant::now() }
    }

    fn stop(&self) -> Time {
        Time { passed: self.began.elapsed(), busy: busy(Path::new(SELF)).saturating_sub(self.busy) }
    }
}

/// How long the processor has worked for a thread; a process is its first thread.
fn busy(thread: &Path) -> Duration {
    let told = std::fs::read_to_string(thread.join("schedstat")).unwrap_or_default();
    let nanos = told.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// How long work took.
#[derive(Clone, Copy)]
struct Time {
    passed: Duration,
    /// Of the client's processor alone.
    busy: Duration,
}

impl Time {
    fn times(self, factor: u32) -> Self {
        Self { passed: self.passed * factor, busy: self.busy * factor }
    }
}

/// The shortest of several times.
#[derive(Clone, Copy)]
struct Best(Option<Time>);

impl Best {
    fn new() -> Self {
        Self(None)
    }

    fn saw(&mut self, time: Time) {
        let best = self.0.get_or_insert(time);
        best.passed = best.passed.min(time.passed);
        best.busy = best.busy.min(time.busy);
    }

    /// How many times as long the other one took.
    fn ahead_of(self, other: Self) -> String {
        self.beside(other, |time| time.passed)
    }

    /// How many times as long the processor worked for the other one.
    fn less_work_than(self, other: Self) -> String {
        self.beside(other, |time| time.busy)
    }

    fn beside(self, other: Self, of: fn(Time) -> Duration) -> String {
        let (Some(own), Some(other)) = (self.0, other.0) else { return "-".to_owned() };
        format!("{:.2}x", of(other).as_secs_f64() / of(own).as_secs_f64())
    }

    fn rate(self, bytes: usize) -> String {
        self.show(|seconds| format!("{:.0} MB/s", bytes as f64 / seconds / 1e6))
    }

    fn millis(self) -> String {
        self.show(|seconds| format!("{:.1} ms", seconds * 1e3))
    }

    fn micros_each(self, count: usize) -> String {
        self.show(|seconds| format!("{:.1} µs", seconds * 1e6 / count as f64))
    }

    fn show(self, how: impl FnOnce(f64) -> String) -> String {
        self.0.map_or_else(|| "-".to_owned(), |time| how(time.passed.as_secs_f64()))
    }
}

fn heading(columns: &[&str]) {
    println!("\n| {} |\n|{}", columns.join(" | "), "---|".repeat(columns.len()));
}

fn row(cells: &[&str]) {
    println!("| {} |", cells.join(" | "));
}
