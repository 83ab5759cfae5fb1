//! What ports of sandboxes cost: `cargo bench -p createos-tests --bench ports`.
//!
//! Every row has its peer in the same run: the same server program on this machine's own
//! loopback, reached by the same client code.

mod common;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{Outcome, Server, rate, row, spread};
use createos_sdk::Sandbox;

const BYTES: usize = 4 << 30;
const CHUNK: usize = 128 << 10;
const ROUNDS: usize = 5;

/// Reads everything and says how much it was, or sends as much as it is asked for, or echoes.
const SERVER: &str = r#"
import socket, sys, threading
def serve(stream):
    with stream:
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        kind = stream.recv(1)
        buffer = bytearray(131072)
        if kind == b'e':
            while data := stream.recv(4096):
                stream.sendall(data)
        elif kind == b'd':
            left = int(stream.recv(20))
            while left > 0:
                left -= stream.send(memoryview(buffer)[:min(left, len(buffer))])
        else:
            total = 0
            while got := stream.recv_into(buffer):
                total += got
            stream.sendall(b'%020d' % total)
with socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=1024) as server:
    print('ready', flush=True)
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"#;

/// A server of this machine itself, beside which the one inside is measured.
struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        // It is ours, and it has nothing to lose.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where a connection leads.
enum Way<'a> {
    Loopback(u16),
    Tunnel(&'a Server, &'a Sandbox),
}

impl Way<'_> {
    fn connect(&self) -> Outcome<TcpStream> {
        let Self::Tunnel(server, sandbox) = self else {
            let Self::Loopback(port) = self else { unreachable!() };
            let stream = TcpStream::connect(("127.0.0.1", *port))?;
            stream.set_nodelay(true)?;
            return Ok(stream);
        };
        let host = server.url.strip_prefix("http://").ok_or("no plain HTTP")?;
        let mut stream = TcpStream::connect(host)?;
        stream.set_nodelay(true)?;
        write!(
            stream,
            "POST /v1/sandboxes/{}/tunnel/7000 HTTP/1.1\r\nHost: {host}\r\nX-Api-Key: {}\r\n\
             Connection: Upgrade\r\nUpgrade: tcp-tunnel\r\n\r\n",
            sandbox.id(),
            server.key
        )?;
        let (mut head, mut byte) = (Vec::new(), [0]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        if !head.starts_with(b"HTTP/1.1 101 ") {
            return Err(String::from_utf8_lossy(&head).into());
        }
        Ok(stream)
    }

    fn send(&self) -> Outcome<Duration> {
        let mut stream = self.connect()?;
        stream.write_all(b"u")?;
        let (chunk, began) = (vec![7; CHUNK], Instant::now());
        for _ in 0..BYTES / CHUNK {
            stream.write_all(&chunk)?;
        }
        stream.shutdown(Shutdown::Write)?;
        let mut total = String::new();
        stream.read_to_string(&mut total)?;
        assert_eq!(total.parse(), Ok(BYTES));
        Ok(began.elapsed())
    }

    fn receive(&self) -> Outcome<Duration> {
        let mut stream = self.connect()?;
        let began = Instant::now();
        stream.write_all(format!("d{BYTES:020}").as_bytes())?;
        let (mut chunk, mut total) = (vec![0; CHUNK], 0);
        loop {
            match stream.read(&mut chunk)? {
                0 => break,
                read => total += read,
            }
        }
        assert_eq!(total, BYTES);
        Ok(began.elapsed())
    }

    /// Times of opening a connection, and of one byte there and back.
    fn small(&self) -> Outcome<(Vec<Duration>, Vec<Duration>)> {
        let (mut opened, mut echoed) = (Vec::new(), Vec::new());
        for _ in 0..300 {
            let began = Instant::now();
            let mut stream = self.connect()?;
            opened.push(began.elapsed());
            stream.write_all(b"e")?;
            for _ in 0..10 {
                let began = Instant::now();
                stream.write_all(b"x")?;
                stream.read_exact(&mut [0])?;
                echoed.push(began.elapsed());
            }
        }
        Ok((opened, echoed))
    }
}

#[tokio::main]
async fn main() -> Outcome<()> {
    match std::env::args().nth(1).as_deref() {
        Some("engine") => common::serve().await,
        _ => measure().await,
    }
}

async fn measure() -> Outcome<()> {
    let server = Server::start()?;
    let sandbox = server.client()?.create_sandbox("s-2vcpu-2gb").await?;
    sandbox.files().write("/root/server.py", SERVER).await?;
    let script = "nohup /usr/bin/python3 /root/server.py 127.0.0.1 7000 >/root/log 2>&1 &
                  until grep -q ready /root/log; do sleep 0.01; done";
    sandbox.command("sh").args(["-c", script]).output().await?;
    let peer = Command::new("/usr/bin/python3")
        .args(["-c", SERVER, "127.0.0.1", "7077"])
        .stdout(Stdio::piped())
        .spawn()?;
    let mut peer = Peer(peer);
    let mut ready = [0; 6];
    peer.0.stdout.take().ok_or("no output")?.read_exact(&mut ready)?;

    let (raw, tunnel) = (Way::Loopback(7077), Way::Tunnel(&server, &sandbox));
    println!("| what | result |\n|---|---|");
    for (what, inward) in [("4 GiB in", true), ("4 GiB out", false)] {
        let transfer = |way: &Way<'_>| if inward { way.send() } else { way.receive() };
        // One after the other, so that what else the machine does meets both.
        let (mut plain, mut through) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            plain.push(transfer(&raw)?);
            through.push(transfer(&tunnel)?);
        }
        plain.sort();
        through.sort();
        let (plain, through) = (plain[ROUNDS / 2], through[ROUNDS / 2]);
        row(&format!("{what}, tunnel"), &rate(BYTES as u64, through));
        row(&format!("{what}, plain loopback"), &rate(BYTES as u64, plain));
        row("ratio", &format!("{:.2}x", plain.as_secs_f64() / through.as_secs_f64()));
    }
    for (what, way) in [("tunnel", tunnel), ("plain loopback", raw)] {
        let (opened, echoed) = way.small()?;
        row(&format!("open, {what}, 300"), &spread(opened));
        row(&format!("one byte there and back, {what}, 3,000"), &spread(echoed));
    }
    sandbox.destroy().await?;
    server.end()?;
    Ok(())
}
