//! The server: it answers from memory and throws away what it gets, with as little work of its
//! own as can be, so that it is the client that is measured.

use std::io::{BufRead, BufReader, Read, Result, Write};
use std::net::{Shutdown, TcpListener, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::Outcome;
use crate::calls::SANDBOXES;
use crate::streams::{Chunks, Content, LINE, SHAPES, SHORT_LINE, Shape};
use crate::transfers::SIZE;
use crate::tunnel::{ECHO, SINK, SOURCE};

/// Answers until standard input ends.
pub(crate) fn serve() -> Outcome<()> {
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

fn connection(mut stream: TcpStream) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut head = String::new();
    loop {
        head.clear();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let target = head.split(' ').nth(1).unwrap_or_default().replace("%2D", "-");
        if target.contains("/tunnel/") {
            return tunnel(&mut stream, &mut reader, &target);
        }
        discard(&mut reader, content_length(&head))?;
        if head.starts_with("PUT ") {
            stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
        } else {
            answer(&mut stream, &target)?;
        }
    }
}

fn content_length(head: &str) -> u64 {
    let name = "content-length:";
    let mut lines = head.lines().filter_map(|line| line.split_at_checked(name.len()));
    let value = lines.find(|(start, _)| start.eq_ignore_ascii_case(name));
    value.and_then(|(_, value)| value.trim().parse().ok()).unwrap_or(0)
}

/// Reads so many bytes, or to the end when there are not that many.
fn discard(reader: &mut BufReader<TcpStream>, mut length: u64) -> Result<()> {
    if length == 0 {
        return Ok(());
    }
    let mut buffer = vec![0; 512 << 10];
    while length > 0 {
        let most = buffer.len().min(usize::try_from(length).unwrap_or(usize::MAX));
        match reader.read(&mut buffer[..most])? {
            0 => break,
            count => length -= count as u64,
        }
    }
    Ok(())
}

fn answer(stream: &mut TcpStream, target: &str) -> Result<()> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let parts: Vec<&str> = path.split('/').skip(2).collect();
    let word = parts.get(1).map_or("", |id| id.trim_start_matches("sb-"));
    let shape = SHAPES.iter().find(|shape| shape.word == word);
    match (&parts[..], shape) {
        (["sandboxes", _, "exec"] | ["sandboxes", _, "processes", _, "connect"], Some(shape)) => {
            frames(stream, shape)
        }
        (["sandboxes", _, "exec"], None) if word == "line" => one_line(stream, LINE),
        (["sandboxes", _, "exec"], None) => one_line(stream, SHORT_LINE),
        (["sandboxes", _, "files"], _) => file(stream),
        (["sandboxes", id], _) => json(stream, &view(id, 0)),
        (["sandboxes"], _) => page(stream, query),
        _ => json(
            stream,
            r#"{"user_id":"u","email":"e","stats":{"total":1,"running":1,"paused":0,"other":0}}"#,
        ),
    }
}

fn json(stream: &mut TcpStream, data: &str) -> Result<()> {
    let body = format!(r#"{{"status":"success","data":{data}}}"#);
    let length = body.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
    stream.write_all(format!("{head}{length}\r\n\r\n{body}").as_bytes())
}

fn view(id: &str, number: usize) -> String {
    format!(
        r#"{{"id":"{id}","status":"running","name":"calm-heron-{number}",
        "ip":"10.0.4.17","vcpu":1,"mem_mib":1024,"disk_mib":10240,"shape":"s-1vcpu-1gb",
        "rootfs":"devbox:1","region":"us","created_at":"2026-08-02T10:00:00Z",
        "running_at":"2026-08-02T10:00:01Z","spawn_ms":148.2,"ingress_enabled":true,
        "ingress_url_template":"https://x-<port>.example.org","envs":["STAGE"],
        "auto_pause_after_seconds":900}}"#
    )
}

fn page(stream: &mut TcpStream, query: &str) -> Result<()> {
    let number = |name: &str| {
        let value = query.split('&').find_map(|pair| pair.strip_prefix(name));
        value.and_then(|value| value.parse::<usize>().ok())
    };
    let limit = number("limit=").unwrap_or(50).min(500);
    let offset = number("offset=").unwrap_or(0);
    let row = |number| view(&format!("sb-01k4m2c9zq8v7n5t3r1p{number:06}"), number);
    let rows: Vec<_> = (offset..SANDBOXES.min(offset + limit)).map(row).collect();
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

fn frames(stream: &mut TcpStream, shape: &Shape) -> Result<()> {
    let frame = frame(shape);
    assert_eq!(frame.len(), shape.size, "{}", shape.word);
    let numbered = shape.content == Content::Process;
    let (per_chunk, mut whole) = match shape.chunks {
        Chunks::Lines(lines) => (lines, chunk(frame.repeat(lines).as_bytes())),
        Chunks::ToALine(pieces) => {
            let pieces = frame.as_bytes().chunks(shape.size.div_ceil(pieces));
            (1, pieces.flat_map(chunk).collect())
        }
    };
    let (chunks, rest) = (shape.count / per_chunk, shape.count % per_chunk);
    // Small chunks go out together: a system call for each would be the server's time.
    let at_once = if numbered { 1 } else { (64_000 / whole.len()).max(1) };
    let many = whole.repeat(at_once);
    stream.write_all(STREAM_HEAD)?;
    for chunk in 0..chunks / at_once {
        if numbered {
            number(&mut whole, &frame, chunk * per_chunk);
            stream.write_all(&whole)?;
        } else {
            stream.write_all(&many)?;
        }
    }
    stream.write_all(&many[..chunks % at_once * whole.len()])?;
    if rest > 0 {
        stream.write_all(&chunk(frame.repeat(rest).as_bytes()))?;
    }
    let end = match shape.content {
        Content::Process => "{\"type\":\"exit\",\"seq\":9999999,\"exit_code\":0}\n",
        _ => "{\"exit_code\":0}\n",
    };
    stream.write_all(&chunk(end.as_bytes()))?;
    stream.write_all(b"0\r\n\r\n")
}

const FIRST: usize = 1_000_000;

/// Gives the events of a chunk their places, from this many after the first on.
fn number(chunk: &mut [u8], frame: &str, after: usize) {
    let digits = FIRST.to_string();
    let at = frame.find(&digits).unwrap_or_default();
    let head = chunk.iter().position(|byte| *byte == b'\n').unwrap_or_default() + 1;
    for (index, line) in chunk[head..].chunks_exact_mut(frame.len()).enumerate() {
        let place = (FIRST + after + index).to_string();
        line[at..at + digits.len()].copy_from_slice(place.as_bytes());
    }
}

/// A line of exactly the shape's size, its break included.
fn frame(shape: &Shape) -> String {
    if shape.content == Content::Process {
        return process_frame(shape.size);
    }
    let unit = match shape.content {
        Content::Line | Content::Process => "x",
        Content::Text => "   Compiling some-crate v0.12.15 (/work/project/some-crate)\\n",
        Content::Colour => "\\u001b[1m\\u001b[32m   Compiling\\u001b[0m some-crate v0.12.15\\n",
        Content::Wide => "ein Täßchen Öl → 水と油 und noch etwas Text für eine Zeile",
    };
    let room = shape.size - "{\"stdout\":\"\\n\"}\n".len();
    let mut text = unit.repeat(room / unit.len());
    text.push_str(&"x".repeat(room - text.len()));
    format!("{{\"stdout\":\"{text}\\n\"}}\n")
}

fn process_frame(size: usize) -> String {
    let around = |data: &str| {
        format!(
            "{{\"type\":\"data\",\"seq\":{FIRST},\"stream\":\"stdout\",\"data_base64\":\"{data}\"}}\n"
        )
    };
    let room = size - around("").len();
    let bytes: Vec<u8> = (0..room / 4 * 3).map(|at| (at % 251) as u8).collect();
    around(&STANDARD.encode(bytes))
}

fn one_line(stream: &mut TcpStream, size: usize) -> Result<()> {
    let line = format!("{{\"stdout\":\"{}\"}}\n", "x".repeat(size - 14));
    let chunks: Vec<u8> = line.as_bytes().chunks(1024).flat_map(chunk).collect();
    stream.write_all(STREAM_HEAD)?;
    stream.write_all(&chunks)?;
    stream.write_all(&chunk(b"{\"exit_code\":0}\n"))?;
    stream.write_all(b"0\r\n\r\n")
}

fn file(stream: &mut TcpStream) -> Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: ";
    stream.write_all(format!("{head}{SIZE}\r\n\r\n").as_bytes())?;
    source(stream)
}

/// Sends the bytes of a transfer. Writing them from the processor's cache is faster here than
/// sending a file, which goes page by page.
fn source(stream: &mut TcpStream) -> Result<()> {
    let part: Vec<u8> = (0..256 << 10).map(|at| (at % 251) as u8).collect();
    for _ in 0..SIZE / part.len() {
        stream.write_all(&part)?;
    }
    Ok(())
}

fn tunnel(stream: &mut TcpStream, reader: &mut BufReader<TcpStream>, target: &str) -> Result<()> {
    let agreed = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
        Upgrade: tcp-tunnel\r\n\r\n";
    stream.write_all(agreed.as_bytes())?;
    let port = target.rsplit('/').next().and_then(|port| port.parse().ok());
    match port {
        Some(SOURCE) => {
            source(stream)?;
            stream.shutdown(Shutdown::Write)?;
            discard(reader, u64::MAX)
        }
        Some(SINK) => {
            discard(reader, u64::MAX)?;
            stream.write_all(b"!")
        }
        Some(ECHO) => {
            let mut message = [0; 64];
            while reader.read_exact(&mut message).is_ok() {
                stream.write_all(&message)?;
            }
            Ok(())
        }
        _ => Ok(()),
    }
}
