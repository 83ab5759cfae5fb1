//! Tunnels, beside plain TCP connections to the same server.

use createos_sdk::SandboxId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::transfers::SIZE;
use crate::{Best, Clock, Outcome, Plan, Server, Time, heading, row};

/// The port that sends the bytes of a transfer.
pub(crate) const SOURCE: u16 = 1;
/// The port that takes them, and answers with one byte when they have ended.
pub(crate) const SINK: u16 = 2;
/// The port that sends every 64 bytes back.
pub(crate) const ECHO: u16 = 3;

const BUFFER: usize = 256 << 10;
const TRIPS: usize = 10_000;

pub(crate) async fn run(server: &Server, plan: &Plan<'_>) -> Outcome<()> {
    if plan.wants("tunnel") {
        heading(&["tunnel, one connection", "ours", "plain TCP", "ratio", "of work"]);
        one(server, plan, "1 GiB from the sandbox", SOURCE).await?;
        one(server, plan, "1 GiB to the sandbox", SINK).await?;
        one(server, plan, "round trip of 64 B", ECHO).await?;
    }
    if plan.wants("listener") {
        heading(&["tunnel, local port", "ours", "plain relay", "ratio", "of work"]);
        local(server, plan, "1 GiB from the sandbox", SOURCE).await?;
        local(server, plan, "1 GiB to the sandbox", SINK).await?;
        local(server, plan, "round trip of 64 B", ECHO).await?;
    }
    Ok(())
}

fn show(time: Best, port: u16) -> String {
    if port == ECHO { time.micros_each(TRIPS) } else { time.rate(SIZE) }
}

fn print(what: &str, port: u16, ours: Best, plain: Best) {
    let (ratio, work) = (ours.ahead_of(plain), ours.less_work_than(plain));
    row(&[what, &show(ours, port), &show(plain, port), &ratio, &work]);
}

async fn one(server: &Server, plan: &Plan<'_>, what: &str, port: u16) -> Outcome<()> {
    let tunnel = server.ours()?.sandbox("sb-t".parse::<SandboxId>()?).tunnel(port);
    let (mut ours, mut plain) = (Best::new(), Best::new());
    for _ in 0..plan.rounds {
        if plan.side("ours") {
            ours.saw(transfer(tunnel.connect().await?, port).await?);
        }
        if plan.side("bare") {
            plain.saw(transfer(dial(server.address(), port).await?, port).await?);
        }
    }
    print(what, port, ours, plain);
    Ok(())
}

/// Whoever uses the local port lives in this process too, and so does the relay that it is
/// compared with: tokio's copying between two plain connections.
async fn local(server: &Server, plan: &Plan<'_>, what: &str, port: u16) -> Outcome<()> {
    let tunnel = server.ours()?.sandbox("sb-t".parse::<SandboxId>()?).tunnel(port);
    let listener = tunnel.listen("127.0.0.1:0").await?;
    let relay = TcpListener::bind("127.0.0.1:0").await?;
    let relay_address = relay.local_addr()?;
    let address = server.address().to_owned();
    let relaying = tokio::spawn(async move {
        while let Ok((mut here, _)) = relay.accept().await {
            let address = address.clone();
            tokio::spawn(async move {
                here.set_nodelay(true).expect("an option");
                let mut there = dial(&address, port).await.expect("a connection");
                let copied =
                    tokio::io::copy_bidirectional_with_sizes(&mut here, &mut there, BUFFER, BUFFER);
                copied.await.expect("a copy");
            });
        }
    });
    let (mut ours, mut plain) = (Best::new(), Best::new());
    for _ in 0..plan.rounds {
        if plan.side("ours") {
            let stream = TcpStream::connect(listener.local_addr()).await?;
            stream.set_nodelay(true)?;
            ours.saw(transfer(stream, port).await?);
        }
        if plan.side("bare") {
            let stream = TcpStream::connect(relay_address).await?;
            stream.set_nodelay(true)?;
            plain.saw(transfer(stream, port).await?);
        }
    }
    relaying.abort();
    print(what, port, ours, plain);
    Ok(())
}

/// A plain connection on which the server was asked for the same as through a tunnel.
async fn dial(address: &str, port: u16) -> Outcome<TcpStream> {
    let mut stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let head = format!("POST /v1/sandboxes/sb-t/tunnel/{port} HTTP/1.1\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut seen = Vec::new();
    while !seen.ends_with(b"\r\n\r\n") {
        seen.push(stream.read_u8().await?);
    }
    Ok(stream)
}

/// Moves the bytes, all of which are counted, from when the connection stands to their end.
async fn transfer(mut stream: impl AsyncRead + AsyncWrite + Unpin, port: u16) -> Outcome<Time> {
    let mut buffer = vec![7; BUFFER];
    let clock = Clock::start();
    match port {
        SOURCE => {
            let mut bytes = 0;
            loop {
                match stream.read(&mut buffer).await? {
                    0 => break,
                    count => bytes += count,
                }
            }
            assert_eq!(bytes, SIZE);
        }
        SINK => {
            for _ in 0..SIZE / BUFFER {
                stream.write_all(&buffer).await?;
            }
            stream.shutdown().await?;
            // The sink answers when it has everything.
            stream.read_u8().await?;
        }
        _ => {
            for _ in 0..TRIPS {
                stream.write_all(&buffer[..64]).await?;
                stream.read_exact(&mut buffer[..64]).await?;
            }
        }
    }
    Ok(clock.stop())
}
