//! `POST /v1/sandboxes/:id/tunnel/:port`.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::rig::{KEY, Rig};
use crate::core::fake::Port;

/// Reads to the end of a head and returns it.
pub(super) async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).expect("text")
}

impl Rig {
    /// Makes an address of every sandbox lead to a listener of the test.
    pub(super) async fn open_port(&self, inside: &str) -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let real = listener.local_addr().unwrap();
        self.set_port(inside, Port::Open(real));
        listener
    }

    pub(super) fn set_port(&self, inside: &str, port: Port) {
        let inside: SocketAddr = inside.parse().unwrap();
        self.fake.ports.lock().unwrap().insert(inside, port);
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.engine.local_addr()).await.unwrap()
    }

    /// Asks for a tunnel, with `early` in the same segment.
    async fn ask(&self, id: &str, port: &str, early: &str) -> TcpStream {
        let mut stream = self.connect().await;
        let request = format!(
            "POST /v1/sandboxes/{id}/tunnel/{port} HTTP/1.1\r\nHost: localhost\r\n\
             X-Api-Key: {KEY}\r\nConnection: Upgrade\r\nUpgrade: tcp-tunnel\r\n\
             Content-Length: 0\r\n\r\n{early}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn tunnel(&self, id: &str, port: &str) -> TcpStream {
        let mut stream = self.ask(id, port, "").await;
        let head = head(&mut stream).await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        stream
    }

    /// The status and text of a refusal, which must end the connection.
    async fn refusal(&self, id: &str, port: &str) -> (u16, String) {
        let mut stream = self.ask(id, port, "").await;
        let head = head(&mut stream).await;
        assert!(head.contains("\r\nConnection: close\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: application/json\r\n"), "{head}");
        let mut body = String::new();
        stream.read_to_string(&mut body).await.unwrap();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, body["message"].as_str().unwrap().to_owned())
    }
}

#[tokio::test]
async fn the_answer_is_exact_and_nothing_early_is_lost() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let inside = rig.open_port("127.0.0.1:5432").await;
    let mut client = rig.ask(&id.as_str().replace('-', "%2D"), "5432", "first words").await;
    let (mut server, _) = inside.accept().await.unwrap();
    // Before the client has read even the head.
    server.write_all(b"greeting").await.unwrap();
    let head = head(&mut client).await;
    let (first, rest) = head.split_once("\r\n").unwrap();
    assert_eq!(first, "HTTP/1.1 101 Switching Protocols");
    let mut lines: Vec<_> = rest.trim_end().split("\r\n").collect();
    lines.sort();
    assert_eq!(lines[..1], ["Connection: Upgrade"]);
    assert_eq!(lines[2], "Upgrade: tcp-tunnel");
    assert!(lines[1].starts_with("Date: ") && lines[3].starts_with("X-Request-Id: "), "{head}");
    assert_eq!(lines.len(), 4, "{head}");

    let mut heard = [0; 11];
    server.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"first words");
    let mut heard = [0; 8];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"greeting");
}

#[tokio::test]
async fn each_side_may_end_first_and_still_hear_the_other() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let inside = rig.open_port("127.0.0.1:80").await;
    for client_first in [true, false] {
        let client = rig.tunnel(id.as_str(), "80").await;
        let server = inside.accept().await.unwrap().0;
        let (mut first, mut second) =
            if client_first { (client, server) } else { (server, client) };
        first.write_all(b"question").await.unwrap();
        first.shutdown().await.unwrap();
        let mut heard = String::new();
        second.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "question");
        let answer = "answer ".repeat(200_000);
        let (sent, heard) = tokio::join!(
            async {
                second.write_all(answer.as_bytes()).await.unwrap();
                second.shutdown().await.unwrap();
            },
            async {
                let mut heard = String::new();
                first.read_to_string(&mut heard).await.unwrap();
                heard
            }
        );
        let () = sent;
        assert!(heard == answer);
    }
}

#[tokio::test]
async fn refusals_come_before_the_101_and_end_the_connection() {
    let rig = Rig::tuned(|tuning| tuning.connect_limit = Duration::from_millis(50)).await;
    let id = rig.sandbox().await;
    let id = id.as_str();
    let (status, text) = rig.refusal(id, "81").await;
    assert_eq!((status, text.as_str()), (502, "nothing listens on port 81 inside the sandbox"));
    rig.set_port("127.0.0.1:82", Port::Silent);
    assert_eq!(rig.refusal(id, "82").await.0, 502);
    rig.set_port("127.0.0.1:83", Port::Exhausted);
    assert_eq!(rig.refusal(id, "83").await, (503, "no descriptor left".to_owned()));
    for bad in ["0", "65536", "-1", "+80", "x", "8%200"] {
        let (status, text) = rig.refusal(id, bad).await;
        assert_eq!((status, text.as_str()), (400, "port: must be from 1 to 65535"), "{bad}");
    }
    let unknown = "sb-01k4m2c9zq8v7n5t3r1p0x6y2w";
    // That there is no such sandbox comes first.
    assert_eq!(rig.refusal(unknown, "0").await.0, 404);
    rig.force(&id.parse().unwrap(), "paused");
    assert_eq!(rig.refusal(id, "0").await.0, 400);
    assert_eq!(rig.refusal(id, "80").await.0, 409);
}

#[tokio::test]
async fn a_port_of_ipv6_alone_is_reached_too() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let inside = rig.open_port("[::1]:80").await;
    let mut client = rig.tunnel(id.as_str(), "80").await;
    let mut server = inside.accept().await.unwrap().0;
    server.write_all(b"6").await.unwrap();
    assert_eq!(client.read_u8().await.unwrap(), b'6');
}

#[tokio::test]
async fn a_request_that_asks_for_no_upgrade_is_told_so() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let _inside = rig.open_port("127.0.0.1:80").await;
    let path = format!("/v1/sandboxes/{id}/tunnel/80");
    let key = ("x-api-key", KEY);
    for headers in [
        vec![key],
        vec![key, ("upgrade", "tcp-tunnel")],
        vec![key, ("connection", "upgrade"), ("upgrade", "websocket")],
        vec![key, ("connection", "upgrade, http2-settings"), ("upgrade", "h2c")],
    ] {
        let reply = rig.send("POST", &path, &headers, "").await;
        assert_eq!(
            (reply.status, &reply.headers["upgrade"]),
            (426, &"tcp-tunnel".parse().unwrap())
        );
        assert_eq!(reply.headers["connection"], "close");
    }
    assert_eq!(rig.send("POST", &path, &[], "").await.status, 401);
    assert_eq!(rig.get(&path).await.status, 405);
}

#[tokio::test]
async fn tunnels_end_with_the_sandbox_and_not_as_if_all_had_been_said() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let inside = rig.open_port("127.0.0.1:80").await;
    let mut client = rig.tunnel(id.as_str(), "80").await;
    let mut server = inside.accept().await.unwrap().0;
    server.write_all(b"part").await.unwrap();
    let mut heard = [0; 4];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(rig.call("DELETE", &format!("/v1/sandboxes/{id}"), None).await.status, 200);
    for mut end in [client, server] {
        let error = end.read_to_end(&mut Vec::new()).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn more_connections_than_there_is_room_for_are_refused_with_the_cause() {
    let rig = Rig::tuned(|tuning| tuning.max_connections = 2).await;
    let id = rig.sandbox().await;
    let inside = rig.open_port("127.0.0.1:80").await;
    let first = rig.tunnel(id.as_str(), "80").await;
    let _second = rig.tunnel(id.as_str(), "80").await;
    let (status, text) = rig.refusal(id.as_str(), "80").await;
    assert_eq!(status, 503);
    assert!(text.contains("ulimit -n"), "{text}");
    drop((first, inside.accept().await.unwrap()));
    rig.eventually(async || {
        let mut stream = rig.ask(id.as_str(), "80", "").await;
        let head = head(&mut stream).await;
        head.starts_with("HTTP/1.1 101").then_some(()).ok_or(head)
    })
    .await;
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_connection_along() {
    let rig = Rig::new().await;
    let id = rig.sandbox().await;
    let inside = rig.open_port("127.0.0.1:80").await;
    let client = rig.tunnel(id.as_str(), "80").await;
    let mut server = inside.accept().await.unwrap().0;
    drop(client);
    assert_eq!(server.read_to_end(&mut Vec::new()).await.unwrap(), 0);
}
