//! What a command costs before and besides its work, beside peers in the same run:
//! `nice cargo bench -p createos-cli --bench start`.
//!
//! Processor time of the process and its children, user and system, median of all rounds. Fails
//! where cli.md 5 and the size limit of the binary are not kept.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::resource::{UsageWho, getrusage};

const ROUNDS: usize = 41;
/// Most processor time of a start.
const MOST: Duration = Duration::from_millis(15);
/// Largest binary, in bytes.
const LARGEST: u64 = 15 << 20;
/// Sandboxes in the list.
const ROWS: usize = 20;

/// Makes a command that is measured.
type Make<'a> = Box<dyn Fn() -> Command + 'a>;

fn main() {
    let program = env!("CARGO_BIN_EXE_createos");
    let url = serve();
    let home = tempfile::tempdir().expect("a directory");
    let ours = |arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).env_clear().env("HOME", home.path());
        command.env("CREATEOS_SANDBOX_URL", &url).env("CREATEOS_API_KEY", "k");
        command
    };
    let completing = || {
        let mut command = ours(&["--", "createos", "sandbox", "get", ""]);
        command.env("CREATEOS_COMPLETE", "fish");
        command
    };
    let list = format!("{url}/v1/sandboxes?status=running");
    let sides: Vec<(&str, Make<'_>, bool)> = vec![
        ("createos --help", Box::new(|| ours(&["--help"])), true),
        ("createos sandbox list", Box::new(|| ours(&["sandbox", "list"])), true),
        ("createos version", Box::new(|| ours(&["version"])), true),
        ("Tab after createos sandbox get", Box::new(completing), true),
        ("git --version", Box::new(|| peer("git", &["--version"])), false),
        ("curl --help", Box::new(|| peer("curl", &["--help"])), false),
        ("curl, the same list", Box::new(move || peer("curl", &["-s", &list])), false),
    ];
    let mut times: Vec<Vec<Duration>> = sides.iter().map(|_| Vec::new()).collect();
    // The sides take turns, so that what else the machine does falls on all.
    for _ in 0..ROUNDS {
        for ((_, command, _), times) in sides.iter().zip(&mut times) {
            times.push(cost(command()));
        }
    }
    let mut kept = true;
    println!("{:32}  {:>9}", "processor time", "median");
    for ((name, _, limited), times) in sides.iter().zip(&mut times) {
        times.sort();
        let median = times[times.len() / 2];
        let over = *limited && median > MOST;
        kept &= !over;
        let ms = median.as_secs_f64() * 1e3;
        println!("{name:32}  {ms:6.1} ms{}", if over { "  over the limit" } else { "" });
    }
    let size = std::fs::metadata(program).expect("the program").len();
    kept &= size <= LARGEST;
    println!("{:32}  {:6.1} MiB", "size of the binary", size as f64 / f64::from(1 << 20));
    assert!(kept, "at most {MOST:?} and {} MiB", LARGEST >> 20);
}

fn peer(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// Runs it and gives the processor time it took.
fn cost(mut command: Command) -> Duration {
    let before = children();
    let status = command.stdout(Stdio::null()).stdin(Stdio::null()).status().expect("it runs");
    assert!(status.success(), "{command:?}");
    children() - before
}

/// Processor time of all children that have ended.
fn children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage");
    let time = |time: nix::sys::time::TimeVal| {
        let micros = time.tv_sec() * 1_000_000 + time.tv_usec();
        Duration::from_micros(u64::try_from(micros).expect("not before the start"))
    };
    time(usage.user_time()) + time(usage.system_time())
}

/// A control plane with some sandboxes. Its own work is ours, not our children's.
fn serve() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    url
}

fn answer(stream: TcpStream) -> Option<()> {
    let body = list();
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
    let whole = format!("{head}: {}\r\n\r\n{body}", body.len());
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let (mut stream, mut line) = (stream, String::new());
    loop {
        line.clear();
        if reader.read_line(&mut line).ok()? == 0 {
            return None;
        }
        if line == "\r\n" {
            stream.write_all(whole.as_bytes()).ok()?;
        }
    }
}

fn list() -> String {
    let row = |at: usize| {
        serde_json::json!({"id": format!("sb-{at:026}"), "name": format!("box-{at}"), "vcpu": 1,
            "status": "running", "mem_mib": 256, "disk_mib": 1024, "region": "us",
            "created_at": "2026-08-02T10:00:00Z", "ingress_enabled": false})
    };
    let rows: Vec<_> = (0..ROWS).map(row).collect();
    let pagination = serde_json::json!({"total": ROWS, "limit": 500, "offset": 0, "count": ROWS});
    let data = serde_json::json!({"data": rows, "pagination": pagination});
    serde_json::json!({"status": "success", "data": data}).to_string()
}
