//! `createos sandbox tunnel` on the real engine.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::home::Home;
use crate::support::plane::{Cli, plane};
use crate::support::terminal::Terminal;
use crate::support::{Answer, signal, wait_until};

/// Answers with what it heard once that has ended; on port 7001 it ends its own side first.
const SERVER: &str = "
import socket, threading
def serve(port, handle):
    s = socket.socket(); s.bind(('127.0.0.1', port)); s.listen()
    def loop():
        while True: threading.Thread(target=handle, args=s.accept()).start()
    threading.Thread(target=loop).start()
def heard(c):
    data = b''
    while True:
        piece = c.recv(65536)
        if not piece: return data
        data += piece
def echo(c, _):
    data = heard(c); c.sendall(data[::-1]); c.close()
def first(c, _):
    c.sendall(b'bye'); c.shutdown(socket.SHUT_WR)
    open('/tmp/heard', 'wb').write(heard(c)); c.close()
serve(7000, echo); serve(7001, first)
print('serving', flush=True)
";

fn home_with_a_server() -> (Home, String) {
    let home = Home::new();
    home.ok(&["local", "start"]);
    let created = home.json(&["sandbox", "create", "--shape", "s-1vcpu-256mb", "--name", "web"]);
    std::fs::write(home.dir.path().join("server.py"), SERVER).expect("a file");
    home.ok(&["sandbox", "push", "web", "server.py", "/root/server.py"]);
    let start = "python3 /root/server.py >/tmp/log 2>&1 & until grep -q serving /tmp/log; do sleep 0.05; done";
    home.ok(&["sandbox", "exec", "web", "--", "sh", "-c", start]);
    (home, created["id"].as_str().expect("an id").to_owned())
}

/// A tunnel in the background, once it has said where it listens.
struct Running {
    child: Child,
    announced: Value,
}

impl Running {
    fn start(home: &Home, arguments: &[&str]) -> Self {
        let line = [&["-o", "json", "sandbox", "tunnel"], arguments].concat();
        let mut command = home.command(&line);
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut document = String::new();
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        while !document.ends_with("}\n") {
            let count = stdout.read_line(&mut document).expect("a line");
            if count == 0 {
                let output = child.wait_with_output().expect("an end");
                panic!("{document}{}", String::from_utf8_lossy(&output.stderr));
            }
        }
        Self { child, announced: serde_json::from_str(&document).expect("JSON") }
    }

    fn address(&self) -> &str {
        self.announced["listen_addr"].as_str().expect("an address")
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address()).expect("connected");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a limit");
        stream
    }

    fn end(self) -> Answer {
        Answer::of(self.child.wait_with_output().expect("an end"))
    }

    fn terminated(self) -> Answer {
        signal(&self.child, rustix::process::Signal::TERM);
        self.end()
    }
}

fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = Vec::new();
    stream.read_to_end(&mut heard).expect("all of it");
    heard
}

#[test]
fn each_side_may_end_first() {
    let (home, id) = home_with_a_server();
    let tunnel = Running::start(&home, &["web", "--remote", "7000", "--local", "0"]);
    assert_eq!(tunnel.announced["action"], "tunnel_started");
    assert_eq!(tunnel.announced["id"], id.as_str());
    assert_eq!(tunnel.announced["remote_port"], 7000);
    let mut streams: Vec<TcpStream> = (0..10).map(|_| tunnel.connect()).collect();
    let large: Vec<u8> = (0..3_000_000u32).map(|at| (at % 251) as u8).collect();
    for stream in &mut streams {
        stream.write_all(&large).expect("sent");
        stream.shutdown(Shutdown::Write).expect("half-closed");
    }
    let reversed: Vec<u8> = large.iter().rev().copied().collect();
    for stream in &mut streams {
        assert!(rest(stream) == reversed, "the answer comes whole after our end");
    }
    let answer = tunnel.terminated();
    assert_eq!((answer.code, answer.stderr.as_str()), (Some(0), ""));

    let tunnel = Running::start(&home, &["web", "--remote", "7001", "--local", "0"]);
    let mut stream = tunnel.connect();
    assert_eq!(rest(&mut stream), b"bye");
    stream.write_all(b"still heard").expect("the guest's end leaves ours open");
    stream.shutdown(Shutdown::Write).expect("half-closed");
    wait_until("the guest has heard it", || {
        home.ok(&["sandbox", "exec", "web", "--", "cat", "/tmp/heard"]) == "still heard"
    });
    // A live connection ends with the tunnel.
    let mut live = tunnel.connect();
    signal(&tunnel.child, rustix::process::Signal::INT);
    assert_eq!(tunnel.end().code, Some(0));
    assert!(matches!(live.read_to_end(&mut Vec::new()), Ok(0..=3) | Err(_)));
}

#[test]
fn standard_streams_are_a_connection() {
    let (home, _) = home_with_a_server();
    let mut command = home.command(&["sandbox", "tunnel", "web", "--stdio", "7000"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(b"abc").expect("sent");
    drop(stdin);
    let output = child.wait_with_output().expect("an end");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"cba"[..]));

    // The guest's end is the end, although our input is still open.
    let mut command = home.command(&["sandbox", "tunnel", "web", "--stdio", "7001"]);
    let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it runs");
    let mut child = child;
    let held = child.stdin.take();
    let output = child.wait_with_output().expect("an end");
    assert_eq!((output.status.code(), &output.stdout[..]), (Some(0), &b"bye"[..]));
    drop(held);

    let nobody = Answer::of(home.run(&["sandbox", "tunnel", "web", "--stdio", "7999"]));
    assert_eq!(nobody.code, Some(1), "{nobody:?}");
    assert!(nobody.stderr.contains("7999") && nobody.stdout.is_empty(), "{nobody:?}");
}

#[test]
fn failing_connections_are_told_and_the_end_of_the_sandbox_is_the_end() {
    let (home, _) = home_with_a_server();
    let tunnel = Running::start(&home, &["web", "--remote", "7999", "--local", "0"]);
    for _ in 0..30 {
        assert_eq!(rest(&mut tunnel.connect()), b"", "closed at once");
    }
    home.ok(&["sandbox", "rm", "web", "--force"]);
    let _ = tunnel.connect().read_to_end(&mut Vec::new());
    let answer = tunnel.end();
    assert_eq!(answer.code, Some(1), "{answer:?}");
    let told = answer.stderr.matches("a connection failed").count();
    assert!((1..=5).contains(&told), "once per second: {answer:?}");
}

#[test]
fn what_cannot_be_listened_on_is_named_with_its_cause() {
    let (home, _) = home_with_a_server();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("an address").port().to_string();
    let run = |arguments: &[&str]| {
        Answer::of(home.run(&[&["-o", "table", "sandbox", "tunnel"], arguments].concat()))
    };
    let answer = run(&["web", "--remote", "7000", "--local", &port]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(
        answer.stderr.contains(&format!("127.0.0.1:{port}: address already in use")),
        "{answer:?}"
    );
    assert!(answer.stderr.contains("--local 0"), "{answer:?}");
    let answer = run(&["web", "--remote", "7000", "--bind", "192.0.2.7"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("192.0.2.7:7000"), "{answer:?}");
    for (arguments, part) in [
        (&["web"][..], "--remote"),
        (&["web", "--remote", "0"], "0"),
        (&["web", "--remote", "65536"], "65536"),
        (&["web", "--remote", "80", "--bind", "nowhere"], "127.0.0.1"),
        (&["web", "--stdio", "22", "--remote", "80"], "--stdio"),
        (&["--remote", "80"], "sandbox"),
    ] {
        let answer = run(arguments);
        assert_eq!(answer.code, Some(2), "{arguments:?}: {answer:?}");
        assert!(answer.stderr.contains(part), "{arguments:?}: {answer:?}");
    }
    let open =
        Running::start(&home, &["web", "--remote", "7000", "--local", "0", "--bind", "0.0.0.0"]);
    let answer = open.terminated();
    assert!(answer.stderr.contains("everyone who can reach 0.0.0.0:"), "{answer:?}");
    let six = Running::start(&home, &["web", "--remote", "7000", "--local", "0", "--bind", "::1"]);
    let mut stream = six.connect();
    stream.write_all(b"xy").expect("sent");
    stream.shutdown(Shutdown::Write).expect("half-closed");
    assert_eq!(rest(&mut stream), b"yx");
    assert_eq!(six.terminated().stderr, "");

    let missing = run(&["nowhere", "--remote", "7000"]);
    assert_eq!(missing.code, Some(1), "{missing:?}");
}

#[tokio::test]
async fn a_paused_sandbox_is_not_waited_for() {
    let server = plane("paused").await;
    let cli = Cli::new(&server.uri());
    let line = ["-o", "table", "sandbox", "tunnel", "demo", "--remote", "80", "--local", "0"];
    let answer = cli.run(&line);
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""), "{answer:?}");
    assert!(answer.stderr.contains("createos sandbox resume demo"), "{answer:?}");
    let answer = cli.run(&["-o", "json", "sandbox", "tunnel", "demo", "--remote", "80"]);
    assert_eq!(answer.error()["code"], "conflict");
    assert_eq!(answer.stderr, "");
}

#[test]
fn a_person_is_asked_for_both_ports() {
    let (home, id) = home_with_a_server();
    let mut terminal = Terminal::start(&home.command(&["sandbox", "tunnel", "web"]), 100);
    terminal.expect("port inside the sandbox");
    terminal.send("7000\r");
    terminal.expect("port of this machine");
    terminal.send("0\r");
    terminal.expect("listening on 127.0.0.1:");
    let said = terminal.expect("for port 7000 of");
    let port: u16 = said.trim().parse().unwrap_or_else(|_| panic!("{said:?}"));
    terminal.expect(&format!("web ({id})"));
    terminal.expect("Ctrl+C ends the tunnel");
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connected");
    stream.write_all(b"on").expect("sent");
    stream.shutdown(Shutdown::Write).expect("half-closed");
    assert_eq!(rest(&mut stream), b"no");
    terminal.send("\x03");
    assert_eq!(terminal.end().1, Some(0));
}
