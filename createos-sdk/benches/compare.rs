//! This client and the official one on the same loopback server:
//! `nice cargo bench -p createos-sdk --bench compare`.
//!
//! The server is a process of its own that answers from memory. Both clients do the same work
//! in turns; of several rounds the fastest counts. A word as an argument selects what to run.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use createos_sdk::{Client, ExecEvent, SandboxId};
use futures::StreamExt;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 3;
const SMALL_FRAMES: usize = 1_000_000;
const LARGE_FRAMES: usize = 8_000;
const LARGE: usize = 32 << 10;
const LINE: usize = 15 << 20;
/// The official client takes quadratic time, so it is given less.
const SHORT_LINE: usize = 2 << 20;
const SANDBOXES: usize = 10_000;
const CALLS: usize = 3_000;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if arguments.first().is_some_and(|word| word == "server") {
        return serve();
    }
    let wanted = |name: &str| arguments.is_empty() || arguments.iter().any(|arg| arg == name);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::start()?;
        println!("| what | ours | official | ratio |\n|---|---|---|---|");
        if wanted("small") {
            streams(&server, "small", "1,000,000 frames of 64 B", SMALL_FRAMES * 64).await?;
        }
        if wanted("large") {
            let bytes = LARGE_FRAMES * LARGE;
            streams(&server, "large", "8,000 frames of 32 KiB", bytes).await?;
        }
        if wanted("line") {
            lines(&server).await?;
        }
        if wanted("list") {
            lists(&server).await?;
        }
        if wanted("calls") {
            calls(&server).await?;
        }
        server.end()
    })
}

struct Server {
    process: Child,
    url: String,
}

impl Server {
    fn start() -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("server")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut url = String::new();
        BufReader::new(process.stdout.take().ok_or("no output")?).read_line(&mut url)?;
        Ok(Self { process, url: url.trim().to_owned() })
    }

    fn ours(&self) -> Outcome<Client> {
        Ok(Client::builder().base_url(&self.url).api_key("k").build()?)
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

/// Bytes of output that our client took from a command, and the time.
async fn our_stream(server: &Server, id: &str) -> Outcome<(usize, Duration)> {
    let sandbox = server.ours()?.sandbox(id.parse::<SandboxId>()?);
    let began = Instant::now();
    let mut events = sandbox.command("x").stream().await?;
    let mut bytes = 0;
    while let Some(event) = events.next().await {
        if let ExecEvent::Stdout(piece) = event? {
            bytes += piece.len();
        }
    }
    Ok((bytes, began.elapsed()))
}

async fn official_stream(server: &Server, id: &str) -> Outcome<(usize, Duration)> {
    let sandbox = server.official()?.sandbox(id).await?;
    let request = createos::RunCommandRequest { command: "x".into(), ..Default::default() };
    let began = Instant::now();
    let mut events = sandbox.stream_command(request, createos::ExecOptions::default()).await?;
    let mut bytes = 0;
    while let Some(event) = events.next().await? {
        bytes += event.data.len();
    }
    Ok((bytes, began.elapsed()))
}

async fn streams(server: &Server, kind: &str, what: &str, size: usize) -> Outcome<()> {
    let (mut ours, mut official) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let (our_bytes, took) = our_stream(server, &format!("sb-{kind}")).await?;
        ours = ours.min(took);
        let (bytes, took) = official_stream(server, &format!("sb-{kind}")).await?;
        official = official.min(took);
        assert_eq!(bytes, our_bytes, "both clients see the same output");
    }
    let rate = |took: Duration| format!("{:.0} MB/s", size as f64 / took.as_secs_f64() / 1e6);
    row(what, rate(ours), rate(official), official.as_secs_f64() / ours.as_secs_f64());
    Ok(())
}

async fn lines(server: &Server) -> Outcome<()> {
    let (mut short, mut long) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        short = short.min(our_stream(server, "sb-shortline").await?.1);
        let (bytes, took) = our_stream(server, "sb-line").await?;
        assert!(bytes > LINE - 100);
        long = long.min(took);
    }
    let official = official_stream(server, "sb-shortline").await?.1;
    let ratio = |ours: Duration, theirs: f64| theirs / ours.as_secs_f64();
    let what = "one line of 2 MiB in chunks of 1 KiB";
    row(what, millis(short), millis(official), ratio(short, official.as_secs_f64()));
    // Time grows with the square of the length.
    let expected = official.as_secs_f64() * (LINE as f64 / SHORT_LINE as f64).powi(2);
    let what = "one line of 15 MiB in chunks of 1 KiB";
    let estimate = format!("{expected:.0} s (extrapolated)");
    row(what, millis(long), estimate, ratio(long, expected));
    Ok(())
}

async fn lists(server: &Server) -> Outcome<()> {
    let (ours, official) = (server.ours()?, server.official()?);
    let (mut our_time, mut their_time) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let began = Instant::now();
        assert_eq!(ours.sandboxes().await?.len(), SANDBOXES);
        our_time = our_time.min(began.elapsed());
        let began = Instant::now();
        let all = official.sandboxes(createos::ListSandboxesOptions::default()).await?;
        assert_eq!(all.len(), SANDBOXES);
        their_time = their_time.min(began.elapsed());
    }
    let ratio = their_time.as_secs_f64() / our_time.as_secs_f64();
    row("list of 10,000 sandboxes", millis(our_time), millis(their_time), ratio);
    Ok(())
}

async fn calls(server: &Server) -> Outcome<()> {
    let (ours, official) = (server.ours()?, server.official()?);
    for (what, at_once) in [("small calls, one by one", 1), ("small calls, 64 at once", 64)] {
        let (mut our_time, mut their_time) = (Duration::MAX, Duration::MAX);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            let calls = futures::stream::iter(0..CALLS).map(|_| ours.whoami().into_future());
            calls
                .buffer_unordered(at_once)
                .for_each(|answer| async { drop(answer.expect("an answer")) })
                .await;
            our_time = our_time.min(began.elapsed());
            let began = Instant::now();
            let calls = futures::stream::iter(0..CALLS).map(|_| official.who_am_i());
            calls
                .buffer_unordered(at_once)
                .for_each(|answer| async { drop(answer.expect("an answer")) })
                .await;
            their_time = their_time.min(began.elapsed());
        }
        let each = |time: Duration| format!("{:.1} µs", time.as_secs_f64() * 1e6 / CALLS as f64);
        let ratio = their_time.as_secs_f64() / our_time.as_secs_f64();
        row(what, each(our_time), each(their_time), ratio);
    }
    Ok(())
}

fn row(what: &str, ours: String, official: String, ratio: f64) {
    println!("| {what} | {ours} | {official} | {ratio:.2}x |");
}

fn millis(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

/// Answers until standard input ends.
fn serve() -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("http://{}", listener.local_addr()?);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away ends its connection.
            std::thread::spawn(move || drop(connection(stream)));
        }
    });
    std::io::stdin().read_to_end(&mut Vec::new())?;
    Ok(())
}

fn connection(mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut target = String::new();
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            if target.is_empty() {
                target = line.split(' ').nth(1).unwrap_or_default().to_owned();
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
            if line == "\r\n" {
                break;
            }
        }
        std::io::copy(&mut (&mut reader).take(length), &mut std::io::sink())?;
        answer(&mut stream, &target)?;
    }
}

fn answer(stream: &mut TcpStream, target: &str) -> std::io::Result<()> {
    let exec = target.contains("/exec");
    match target {
        _ if exec && target.contains("small") => frames(stream, 64, SMALL_FRAMES),
        _ if exec && target.contains("large") => frames(stream, LARGE, LARGE_FRAMES),
        _ if exec && target.contains("shortline") => one_line(stream, SHORT_LINE),
        _ if exec => one_line(stream, LINE),
        _ if target.starts_with("/v1/sandboxes?") => page(stream, target),
        _ if target.starts_with("/v1/sandboxes/sb") => {
            let id = target["/v1/sandboxes/".len()..].replace("%2D", "-");
            json(
                stream,
                &format!(
                    r#"{{"id":"{id}",{}"#,
                    &view(0)["{\"id\":\"sb-01k4m2c9zq8v7n5t3r1p000000\",".len()..]
                ),
            )
        }
        _ => json(
            stream,
            r#"{"user_id":"u","email":"e","stats":{"total":1,"running":1,"paused":0,"other":0}}"#,
        ),
    }
}

fn json(stream: &mut TcpStream, data: &str) -> std::io::Result<()> {
    let body = format!(r#"{{"status":"success","data":{data}}}"#);
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
    stream.write_all(format!("{head}{length}\r\n\r\n{body}").as_bytes())
}

fn view(number: usize) -> String {
    format!(
        r#"{{"id":"sb-01k4m2c9zq8v7n5t3r1p{number:06}","status":"running","name":"calm-heron-{number}",
        "ip":"10.0.4.17","vcpu":1,"mem_mib":1024,"disk_mib":10240,"shape":"s-1vcpu-1gb",
        "rootfs":"devbox:1","region":"us","created_at":"2026-08-02T10:00:00Z",
        "running_at":"2026-08-02T10:00:01Z","spawn_ms":148.2,"ingress_enabled":true,
        "ingress_url_template":"https://x-<port>.example.org","envs":["STAGE"],
        "auto_pause_after_seconds":900}}"#
    )
}

fn page(stream: &mut TcpStream, target: &str) -> std::io::Result<()> {
    let number = |name: &str| {
        let value = target.split(['?', '&']).find_map(|pair| pair.strip_prefix(name));
        value.and_then(|value| value.parse::<usize>().ok())
    };
    let limit = number("limit=").unwrap_or(50).min(500);
    let offset = number("offset=").unwrap_or(0);
    let rows: Vec<_> = (offset..SANDBOXES.min(offset + limit)).map(view).collect();
    let count = rows.len();
    let place =
        format!(r#"{{"total":{SANDBOXES},"limit":{limit},"offset":{offset},"count":{count}}}"#);
    json(stream, &format!(r#"{{"data":[{}],"pagination":{place}}}"#, rows.join(",")))
}

const STREAM_HEAD: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\
    Transfer-Encoding: chunked\r\n\r\n";

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

fn end(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(&chunk(b"{\"exit_code\":0}\n"))?;
    stream.write_all(b"0\r\n\r\n")
}

/// Frames of exactly `size` bytes, line break included; about 64 KiB to a chunk.
fn frames(stream: &mut TcpStream, size: usize, count: usize) -> std::io::Result<()> {
    let text = size - r#"{"stdout":""}"#.len() - 1;
    // Output of programs has a line break now and then.
    let output: String = (0..text - 1).map(|at| if at % 61 == 60 { ' ' } else { 'x' }).collect();
    let output = format!("{}\\n", &output[..text - 2]);
    let frame = format!("{{\"stdout\":\"{output}\"}}\n");
    let per_chunk = (65_536 / size).max(1);
    let whole = chunk(frame.repeat(per_chunk).as_bytes());
    stream.write_all(STREAM_HEAD)?;
    for _ in 0..count / per_chunk {
        stream.write_all(&whole)?;
    }
    if !count.is_multiple_of(per_chunk) {
        stream.write_all(&chunk(frame.repeat(count % per_chunk).as_bytes()))?;
    }
    end(stream)
}

fn one_line(stream: &mut TcpStream, size: usize) -> std::io::Result<()> {
    let line = format!("{{\"stdout\":\"{}\"}}\n", "x".repeat(size - 14));
    stream.write_all(STREAM_HEAD)?;
    for piece in line.as_bytes().chunks(1024) {
        stream.write_all(&chunk(piece))?;
    }
    end(stream)
}
