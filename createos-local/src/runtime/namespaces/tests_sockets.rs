//! Ports of a sandbox and the process that makes their sockets, on the real kernel.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::tests::{Machine, signal, spec};
use super::*;

/// Answers every connection with the word `hello` and where it came from.
const SERVER: &str = "
import socket, sys
family = socket.AF_INET6 if ':' in sys.argv[1] else socket.AF_INET
server = socket.socket(family, socket.SOCK_STREAM)
server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
server.bind((sys.argv[1], int(sys.argv[2])))
server.listen()
print('ready', flush=True)
while True:
    stream, peer = server.accept()
    stream.sendall(b'hello ' + peer[0].encode())
    stream.close()
";

impl Machine {
    /// Runs a server inside and returns when it listens.
    async fn serve(&self, address: &str, port: u16) {
        let mut file = self.runtime.write_file(&self.id, b"/root/server.py").await.expect("open");
        file.write(SERVER.into()).await.expect("write");
        file.commit().await.expect("commit");
        let script = format!(
            "nohup /usr/bin/python3 /root/server.py {address} {port} >/root/{port} 2>&1 &
             timeout 20 sh -c 'until grep -q . /root/{port}; do sleep 0.01; done'
             cat /root/{port}"
        );
        assert_eq!(self.run(&script).await.0, "ready\n");
    }

    async fn ask(&self, address: SocketAddr) -> String {
        let mut stream = self.runtime.connect(&self.id, address).await.expect("connect");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("an answer");
        text
    }

    fn pid(&self) -> i32 {
        self.runtime.init_of(&self.id).expect("running").pid
    }

    /// The processes of the machine whose network is the sandbox's, without those inside.
    fn makers(&self) -> Vec<i32> {
        let (warden, pid) = (self.warden(), self.pid());
        children(warden).into_iter().filter(|child| *child != pid).collect()
    }

    async fn maker(&self) -> i32 {
        let loopback = (Ipv4Addr::LOCALHOST, 1).into();
        let refused = self.runtime.connect(&self.id, loopback).await;
        assert!(matches!(refused, Err(RuntimeError::PortClosed)), "{refused:?}");
        let makers = self.makers();
        assert_eq!(makers.len(), 1, "{makers:?}");
        makers[0]
    }
}

fn children(parent: i32) -> Vec<i32> {
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
    list.expect("children").split_whitespace().map(|pid| pid.parse().expect("a pid")).collect()
}

fn status_of(pid: i32, field: &str) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    line.unwrap_or_else(|| panic!("no {field} in {status}")).trim_start_matches(':').trim().into()
}

async fn until_gone(pid: i32) {
    for _ in 0..1000 {
        if !Path::new(&format!("/proc/{pid}")).exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("process {pid} is still there");
}

#[tokio::test]
async fn ports_inside_are_reached_as_from_inside() {
    let machine = Machine::boot().await;
    let own: SocketAddr = "10.0.4.17:8000".parse().expect("address");
    machine.serve("127.0.0.1", 8000).await;
    assert_eq!(machine.ask((Ipv4Addr::LOCALHOST, 8000).into()).await, "hello 127.0.0.1");
    let outside = machine.runtime.connect(&machine.id, own).await;
    assert!(matches!(outside, Err(RuntimeError::PortClosed)), "{outside:?}");

    machine.serve("::1", 8001).await;
    assert_eq!(machine.ask((Ipv6Addr::LOCALHOST, 8001).into()).await, "hello ::1");
    let v4 = machine.runtime.connect(&machine.id, (Ipv4Addr::LOCALHOST, 8001).into()).await;
    assert!(matches!(v4, Err(RuntimeError::PortClosed)), "{v4:?}");

    machine.serve("0.0.0.0", 8002).await;
    assert_eq!(machine.ask("10.0.4.17:8002".parse().expect("address")).await, "hello 10.0.4.17");

    machine.runtime.stop(&machine.id).await.expect("stop");
    let stopped = machine.runtime.connect(&machine.id, own).await;
    assert!(matches!(stopped, Err(RuntimeError::Unreachable(_))), "{stopped:?}");
    machine.runtime.boot(spec(&machine.id)).await.expect("boot again");
    machine.maker().await;
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn the_engine_listens_inside() {
    let machine = Machine::boot().await;
    let listener = machine.runtime.listen(&machine.id, 1029).await.expect("listen");
    let again = machine.runtime.listen(&machine.id, 1029).await.expect_err("taken");
    assert!(again.to_string().contains("in use"), "{again}");
    let server = tokio::spawn(async move {
        let (mut stream, peer) = listener.accept().await.expect("accept");
        stream.write_all(peer.ip().to_string().as_bytes()).await.expect("write");
    });
    let said = machine.run("bash -c 'cat < /dev/tcp/127.0.0.1/1029'").await;
    assert_eq!(said.0, "127.0.0.1", "{said:?}");
    server.await.expect("server");
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_socket_maker_has_nothing_and_is_not_seen_inside() {
    let machine = Machine::boot().await;
    let maker = machine.maker().await;
    // The agent, this shell and its supervisor.
    assert_eq!(machine.run("set -- /proc/[0-9]*; echo $#").await.0, "3\n");

    let none = "0000000000000000";
    for (field, value) in [
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("CapEff", none),
        ("CapPrm", none),
        ("CapInh", none),
    ] {
        assert_eq!(status_of(maker, field), value, "{field}");
    }
    let network = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/net"));
    if machine.runtime.facts().privileged {
        assert_ne!(status_of(maker, "Uid").split('\t').next(), Some("0"));
        assert_eq!(network(maker).expect("network"), network(machine.pid()).expect("network"));
        let open = std::fs::read_dir(format!("/proc/{maker}/fd")).expect("descriptors");
        let mut open: Vec<_> =
            open.map(|fd| fd.expect("entry").file_name().into_string().expect("number")).collect();
        open.sort();
        // The engine, the sandbox, and what leaves it.
        assert_eq!(open, ["0", "1", "2", "3", "4"]);
    }
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_socket_maker_takes_no_process_from_the_guest() {
    let machine = Machine::boot().await;
    /// Starts as many processes as it may, and says how many those were.
    const COUNT: &str = "
import os, signal
started = []
try:
    while len(started) < 1000:
        pid = os.fork()
        if pid == 0:
            signal.pause()
        started.append(pid)
except BlockingIOError:
    pass
for pid in started:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print(len(started))
";
    let count = async || {
        let (out, err, _) =
            machine.exec("/usr/bin/python3", &["-c", COUNT], None).await.expect("run");
        out.trim().parse::<u32>().unwrap_or_else(|_| panic!("{out:?} {err:?}"))
    };
    machine.maker().await;
    // The agent, the program that counts and its supervisor are the others.
    assert_eq!(count().await + 3, spec(&machine.id).limits.max_processes);
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_socket_maker_ends_with_its_sandbox_and_is_made_again_when_it_is_lost() {
    let machine = Machine::boot().await;
    let first = machine.maker().await;
    signal(first, rustix::process::Signal::KILL);
    until_gone(first).await;
    let second = machine.maker().await;
    assert_ne!(first, second);
    assert_eq!(machine.maker().await, second, "one maker serves all");

    let connected = {
        machine.serve("127.0.0.1", 8000).await;
        machine.runtime.connect(&machine.id, (Ipv4Addr::LOCALHOST, 8000).into()).await
    };
    let mut connected = connected.expect("connect");
    machine.runtime.remove(&machine.id).await.expect("remove");
    until_gone(second).await;
    let mut rest = Vec::new();
    // The end or a reset, but an end.
    let _ = connected.read_to_end(&mut rest).await;
    machine.runtime.shutdown().await;
}

#[tokio::test]
async fn a_socket_maker_does_not_outlive_the_warden() {
    let machine = Machine::boot().await;
    let maker = machine.maker().await;
    signal(machine.warden(), rustix::process::Signal::KILL);
    until_gone(maker).await;
    machine.runtime.shutdown().await;
}
