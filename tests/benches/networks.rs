//! What private networks cost: `cargo bench -p createos-tests --bench networks`.

mod common;

use std::time::{Duration, Instant};

use common::{Outcome, SHAPE, row, spread};
use createos_local::Engine;
use createos_sdk::{Client, Sandbox};
use futures::future::try_join_all;

/// Reads what comes until the end, once for each connection; echoes on another port.
const SERVER: &str = r"
import socket, threading
def drain(c):
    buffer = bytearray(1 << 20)
    while c.recv_into(buffer): pass
    c.sendall(b'.'); c.close()
def echo(c):
    c.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        data = c.recv(64)
        if not data: return
        c.sendall(data)
def serve(port, how):
    s = socket.create_server(('0.0.0.0', port))
    while True: threading.Thread(target=how, args=(s.accept()[0],)).start()
# Takes connections without anybody's doing.
quiet = socket.create_server(('0.0.0.0', 8002), backlog=1024)
threading.Thread(target=serve, args=(8001, echo)).start()
serve(8000, drain)";

/// Prints gigabits per second, and microseconds for a connection and for a round trip.
const CLIENT: &str = r"
import socket, sys, time
host = sys.argv[1]
s = socket.create_connection((host, 8000)); data = bytes(1 << 20)
began = time.monotonic()
for _ in range(1024): s.sendall(data)
s.shutdown(socket.SHUT_WR); s.recv(1)
rate = (8 << 30) / (time.monotonic() - began) / 1e9
began = time.monotonic()
for _ in range(200): socket.create_connection((host, 8002)).close()
connect = (time.monotonic() - began) / 200 * 1e6
s = socket.create_connection((host, 8001)); s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
began = time.monotonic()
for _ in range(2000): s.sendall(b'x'); s.recv(1)
trip = (time.monotonic() - began) / 2000 * 1e6
print(f'{rate:.1f} Gbit/s, connect {connect:.0f} us, round trip {trip:.0f} us', end='')";

#[tokio::main]
async fn main() -> Outcome<()> {
    let engine = Engine::builder().ephemeral().start().await?;
    let client = engine.client();
    client.create_network("mesh").await?;
    client.create_sandbox(SHAPE).await?.destroy().await?;
    println!("| what | result |\n|---|---|");
    creation(&client).await?;
    joining(&client).await?;
    traffic(&client).await?;
    engine.shutdown().await;
    Ok(())
}

async fn creation(client: &Client) -> Outcome<()> {
    for (what, network) in [("on no network", None), ("on a network", Some("mesh"))] {
        let mut times = vec![];
        for _ in 0..50 {
            let mut create = client.create_sandbox(SHAPE);
            if let Some(network) = network {
                create = create.network(network.parse::<createos_sdk::NetworkId>()?);
            }
            let began = Instant::now();
            let sandbox = create.await?;
            times.push(began.elapsed());
            sandbox.destroy().await?;
        }
        row(&format!("create {what}, 50"), &spread(times));
    }
    Ok(())
}

async fn joining(client: &Client) -> Outcome<()> {
    let sandbox = client.create_sandbox(SHAPE).await?;
    let (mut attach, mut detach): (Vec<Duration>, Vec<Duration>) = Default::default();
    for _ in 0..50 {
        let began = Instant::now();
        sandbox.attach_network("mesh").await?;
        attach.push(began.elapsed());
        let began = Instant::now();
        sandbox.detach_network("mesh").await?;
        detach.push(began.elapsed());
    }
    row("attach, the first member, 50", &spread(attach));
    row("detach, the last member, 50", &spread(detach));
    sandbox.destroy().await?;
    let members = try_join_all((0..20).map(|_| client.create_sandbox(SHAPE).into_future())).await?;
    let began = Instant::now();
    try_join_all(members.iter().map(|member| member.attach_network("mesh").into_future())).await?;
    row("attach 20 at once", &format!("{:.1} ms", began.elapsed().as_secs_f64() * 1000.0));
    for member in members {
        member.destroy().await?;
    }
    Ok(())
}

async fn traffic(client: &Client) -> Outcome<()> {
    let mesh: createos_sdk::NetworkId = "mesh".parse()?;
    let create = || client.create_sandbox("s-2vcpu-2gb").network(mesh.clone());
    let (server, visitor) = (create().await?, create().await?);
    server.files().write("/root/server.py", SERVER.to_owned()).await?;
    let serve = "nohup python3 /root/server.py >/dev/null 2>&1 </dev/null &";
    server.command("sh").args(["-c", serve]).output().await?;
    for port in [8000, 8001] {
        server.tunnel(port).wait_until_open().await?;
    }
    let address = server.wait_until_joined("mesh").await?.to_string();
    row("TCP between members", &measure(&visitor, &address).await?);
    row("TCP on loopback inside one", &measure(&server, "127.0.0.1").await?);
    Ok(())
}

async fn measure(from: &Sandbox, to: &str) -> Outcome<String> {
    let output = from.command("python3").args(["-c", CLIENT, to]).output().await?;
    Ok(output.ensure_success()?.stdout_str()?.to_owned())
}
