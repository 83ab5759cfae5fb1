//! What the way out of sandboxes costs: `cargo bench -p createos-tests --bench egress`, as root.
//!
//! Every row has its peer in the same run: the same program on this machine itself, against the
//! same server in a network namespace beside it.

mod common;
#[allow(dead_code, missing_debug_implementations, reason = "the tests use the rest of it")]
#[path = "../tests/egress/world.rs"]
mod world;

use std::process::Command;

use common::{Outcome, row};
use world::{World, sandbox};

const ROUNDS: usize = 3;

/// Prints microseconds of opening a connection, and of a byte there and back; then MB/s in and
/// out.
const CLIENT: &str = r#"
import socket, sys, time
host = sys.argv[1]
opened, echoed = [], []
for _ in range(300):
    began = time.perf_counter()
    s = socket.create_connection((host, 7000))
    s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    opened.append(time.perf_counter() - began)
    s.sendall(b'x'); s.recv(1)
    began = time.perf_counter()
    s.sendall(b'x'); s.recv(1)
    echoed.append(time.perf_counter() - began)
    s.close()
def median(times): return sorted(times)[len(times) // 2] * 1e6
SIZE = 512
s = socket.create_connection((host, 7006)); s.sendall(b'%020d' % SIZE)
buffer, got, began = bytearray(1 << 20), 0, time.perf_counter()
while got < SIZE << 20: got += s.recv_into(buffer)
down = got / (time.perf_counter() - began) / 1e6
s = socket.create_connection((host, 7003)); began = time.perf_counter()
for _ in range(SIZE): s.sendall(buffer)
s.shutdown(socket.SHUT_WR); assert s.recv(100) == b'%d bytes' % (SIZE << 20)
up = (SIZE << 20) / (time.perf_counter() - began) / 1e6
print(median(opened), median(echoed), down, up)
"#;

#[tokio::main]
async fn main() -> Outcome<()> {
    let world = World::start();
    let fixture = world.engine().await;
    let open = sandbox(&fixture.client, &[]).await;
    let rule = format!("{}/32", world.first);
    let ruled = sandbox(&fixture.client, &[&rule]).await;
    let server = world.first.to_string();
    let (mut here, mut inside, mut by_rule) = (Vec::new(), Vec::new(), Vec::new());
    // One after the other, so that what else the machine does meets all.
    for _ in 0..ROUNDS {
        let peer = Command::new("/usr/bin/python3").args(["-c", CLIENT, &server]).output()?;
        here.push(numbers(&String::from_utf8(peer.stdout)?)?);
        for (sandbox, times) in [(&open, &mut inside), (&ruled, &mut by_rule)] {
            let command = sandbox.command("/usr/bin/python3").args(["-c", CLIENT, &server]);
            times.push(numbers(command.output().await?.stdout_str()?)?);
        }
    }
    println!("| what | this machine, sandbox, sandbox with a rule |\n|---|---|");
    let whats =
        ["open, µs", "one byte there and back, µs", "512 MiB in, MB/s", "512 MiB out, MB/s"];
    for (place, what) in whats.into_iter().enumerate() {
        let median = |runs: &[[f64; 4]]| {
            let mut values: Vec<f64> = runs.iter().map(|run| run[place]).collect();
            values.sort_by(f64::total_cmp);
            values[values.len() / 2]
        };
        let results = [&here, &inside, &by_rule].map(|runs| format!("{:.0}", median(runs)));
        row(what, &results.join(", "));
    }
    fixture.end().await;
    Ok(())
}

fn numbers(line: &str) -> Outcome<[f64; 4]> {
    let numbers: Result<Vec<f64>, _> = line.split_whitespace().map(str::parse).collect();
    numbers?.try_into().map_err(|_| format!("not four numbers: {line:?}").into())
}
