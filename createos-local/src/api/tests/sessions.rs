//! Sessions of devices, as a client that speaks WireGuard sees them.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519::{PublicKey, StaticSecret};
use serde_json::json;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use super::devices::device;
use super::rig::{Rig, SHAPE};

const MEMBER: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 9);
const SILENCE: Duration = Duration::from_millis(300);

/// The secret key of a device, and what it registers with.
fn keys(number: u8) -> (StaticSecret, String) {
    let secret = StaticSecret::from([number; 32]);
    let public = STANDARD.encode(PublicKey::from(&secret).as_bytes());
    (secret, public)
}

/// What follows a word in a configuration.
fn value<'a>(config: &'a str, name: &str) -> &'a str {
    let line = config.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
    line.unwrap_or_else(|| panic!("{name}: {config}"))
}

/// The other end of a tunnel.
struct Client {
    tunnel: Tunn,
    socket: UdpSocket,
    server: SocketAddr,
    room: Vec<u8>,
}

impl Client {
    async fn new(config: &str, secret: &StaticSecret) -> Self {
        let key: [u8; 32] =
            STANDARD.decode(value(config, "PublicKey")).unwrap().try_into().unwrap();
        let tunnel = Tunn::new(secret.clone(), PublicKey::from(key), None, None, 7, None);
        let server = value(config, "Endpoint").parse().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        Self { tunnel, socket, server, room: vec![0; 4096] }
    }

    /// Sends one packet, with a handshake before the first; false where nobody shakes hands.
    async fn send(&mut self, packet: &[u8]) -> bool {
        let TunnResult::WriteToNetwork(message) = self.tunnel.encapsulate(packet, &mut self.room)
        else {
            return false;
        };
        let is_handshake = message[0] == 1;
        self.socket.send_to(message, self.server).await.unwrap();
        if !is_handshake {
            return true;
        }
        let mut datagram = [0; 4096];
        let answer = timeout(SILENCE, self.socket.recv_from(&mut datagram)).await;
        let Ok(Ok((length, _))) = answer else { return false };
        let mut input = &datagram[..length];
        while let TunnResult::WriteToNetwork(message) =
            self.tunnel.decapsulate(None, input, &mut self.room)
        {
            self.socket.send_to(message, self.server).await.unwrap();
            input = &[];
        }
        true
    }

    /// The next packet that comes, if one does.
    async fn receive(&mut self) -> Option<Vec<u8>> {
        let mut datagram = [0; 4096];
        loop {
            let received = timeout(SILENCE, self.socket.recv_from(&mut datagram)).await;
            let (length, _) = received.ok()?.unwrap();
            let datagram = &datagram[..length];
            match self.tunnel.decapsulate(None, datagram, &mut self.room) {
                TunnResult::WriteToTunnelV4(packet, _) => return Some(packet.to_vec()),
                TunnResult::Err(error) => panic!("{error:?}"),
                _ => {}
            }
        }
    }
}

/// A packet with four bytes in it.
fn packet(from: Ipv4Addr, to: Ipv4Addr, text: &[u8; 4]) -> Vec<u8> {
    let mut packet = vec![0x45, 0, 0, 24, 0, 0, 0, 0, 64, 253, 0, 0];
    packet.extend(from.octets());
    packet.extend(to.octets());
    packet.extend(text);
    packet
}

/// What has come over a line, as text.
fn came(line: &UnixDatagram) -> Option<String> {
    let mut buffer = [0; 4096];
    line.set_read_timeout(Some(SILENCE)).unwrap();
    let length = line.recv(&mut buffer).ok()?;
    Some(String::from_utf8_lossy(&buffer[20..length]).into_owned())
}

/// A device on the network `mesh`, and the other end of the line there.
async fn connected(rig: &Rig) -> (String, String, Client, UnixDatagram) {
    let mesh = rig.call("POST", "/v1/networks", Some(json!({"name": "mesh"}))).await.data();
    let (secret, public) = keys(9);
    let laptop = device(rig, "laptop", &public).await;
    let path = format!("/v1/devices/{}", laptop["id"].as_str().unwrap());
    let body = json!({"network_id": "mesh"});
    rig.call("POST", &format!("{path}/networks"), Some(body)).await.data();
    let session = rig.call("POST", &format!("{path}/sessions"), None).await;
    assert_eq!(session.status, 201);
    let session = session.data();
    let config = session["client_config"].as_str().unwrap();
    assert_eq!(value(config, "Address"), "100.64.0.2/32");
    assert_eq!(value(config, "AllowedIPs"), "100.64.0.1/32, 10.64.0.0/22");
    let client = Client::new(config, &secret).await;
    let line = rig.fake.lines.lock().unwrap()[mesh["id"].as_str().unwrap()].try_clone().unwrap();
    let session = format!("{path}/sessions/{}", session["session_id"].as_str().unwrap());
    (path, session, client, line)
}

const OWN: Ipv4Addr = Ipv4Addr::new(100, 64, 0, 2);

#[tokio::test(flavor = "multi_thread")]
async fn packets_go_both_ways_and_only_honest_ones() {
    let rig = Rig::new().await;
    let (path, _, mut client, line) = connected(&rig).await;
    let view = rig.get(&path).await.data();
    assert_eq!(view.get("last_seen_at"), None);
    assert!(client.send(&packet(OWN, MEMBER, b"one.")).await);
    assert_eq!(came(&line).as_deref(), Some("one."));
    assert!(rig.get(&path).await.data()["last_seen_at"].is_string());
    line.send(&packet(MEMBER, OWN, b"two.")).unwrap();
    assert_eq!(client.receive().await.unwrap()[20..], *b"two.");

    let other = Ipv4Addr::new(100, 64, 0, 3);
    for (from, to) in [
        (other, MEMBER),
        (MEMBER, MEMBER),
        (OWN, Ipv4Addr::new(10, 64, 4, 9)),
        (OWN, Ipv4Addr::LOCALHOST),
        (OWN, other),
    ] {
        client.send(&packet(from, to, b"lie.")).await;
        assert_eq!(came(&line), None, "{from} to {to}");
    }
    // Nor does anybody else speak to it over the line.
    line.send(&packet(Ipv4Addr::new(10, 64, 4, 9), OWN, b"lie.")).unwrap();
    assert!(came(&line).is_some_and(|icmp| icmp.starts_with("\u{3}\u{1}")), "it is told so");
    assert_eq!(client.receive().await, None);
    line.send(&[0x45; 7]).unwrap();
    line.send(&packet(MEMBER, OWN, b"last")).unwrap();
    assert_eq!(client.receive().await.unwrap()[20..], *b"last");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_copies_and_noise_are_not_heard() {
    let rig = Rig::new().await;
    let (_, _, mut client, line) = connected(&rig).await;
    let (stranger, _) = keys(8);
    let config = format!(
        "PublicKey = {}\nEndpoint = {}\n",
        STANDARD.encode(client_server_key(&rig).await),
        client.server
    );
    assert!(!Client::new(&config, &stranger).await.send(&packet(OWN, MEMBER, b"lie.")).await);

    assert!(client.send(&packet(OWN, MEMBER, b"one.")).await);
    assert_eq!(came(&line).as_deref(), Some("one."));
    let TunnResult::WriteToNetwork(message) =
        client.tunnel.encapsulate(&packet(OWN, MEMBER, b"two."), &mut client.room)
    else {
        panic!("there is a session")
    };
    let thief = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.socket.send_to(message, client.server).await.unwrap();
    assert_eq!(came(&line).as_deref(), Some("two."));
    thief.send_to(message, client.server).await.unwrap();
    assert_eq!(came(&line), None, "a copy");
    for length in [0, 1, 4, 32, 92, 147, 148, 149, 1000, 9000] {
        for kind in 0..6 {
            let mut noise = vec![0xa5; length];
            noise.iter_mut().zip([kind, 0, 0, 0]).for_each(|(to, from)| *to = from);
            thief.send_to(&noise, client.server).await.unwrap();
        }
    }
    // What the thief has sent has not led the engine to it.
    line.send(&packet(MEMBER, OWN, b"last")).unwrap();
    assert_eq!(client.receive().await.unwrap()[20..], *b"last");
}

/// The engine's key, from another session.
async fn client_server_key(rig: &Rig) -> Vec<u8> {
    let (_, public) = keys(7);
    let other = device(rig, "other", &public).await;
    let path = format!("/v1/devices/{}/sessions", other["id"].as_str().unwrap());
    let session = rig.call("POST", &path, None).await.data();
    STANDARD.decode(value(session["client_config"].as_str().unwrap(), "PublicKey")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_moves_is_found_again() {
    let rig = Rig::new().await;
    let (_, _, mut client, line) = connected(&rig).await;
    assert!(client.send(&packet(OWN, MEMBER, b"one.")).await);
    assert_eq!(came(&line).as_deref(), Some("one."));
    client.socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    assert!(client.send(&packet(OWN, MEMBER, b"two.")).await);
    assert_eq!(came(&line).as_deref(), Some("two."));
    line.send(&packet(MEMBER, OWN, b"last")).unwrap();
    assert_eq!(client.receive().await.unwrap()[20..], *b"last");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_end_when_they_are_told_to() {
    let rig = Rig::new().await;
    let (path, session, mut client, line) = connected(&rig).await;
    assert!(client.send(&packet(OWN, MEMBER, b"one.")).await);
    assert_eq!(came(&line).as_deref(), Some("one."));
    assert_eq!(rig.call("PUT", &session, None).await.data(), json!({"ok": true}));

    // Off the network, at once; and on it again.
    let networks = format!("{path}/networks");
    rig.call("DELETE", &format!("{networks}/mesh"), None).await.data();
    assert!(rig.fake.lines.lock().unwrap().is_empty(), "a line that nobody needs");
    client.send(&packet(OWN, MEMBER, b"two.")).await;
    rig.call("POST", &networks, Some(json!({"network_id": "mesh"}))).await.data();
    let open = |rig: &Rig| {
        let lines = rig.fake.lines.lock().unwrap();
        lines.values().next().map(|line| line.try_clone().unwrap())
    };
    let line = open(&rig).unwrap();
    client.send(&packet(OWN, MEMBER, b"back")).await;
    assert_eq!(came(&line).as_deref(), Some("back"));

    // Another session ends this one; and this one cannot end that.
    let next = rig.call("POST", &format!("{path}/sessions"), None).await.data();
    client.send(&packet(OWN, MEMBER, b"late")).await;
    assert_eq!(came(&line), None);
    for method in ["PUT", "DELETE"] {
        let refused = rig.call(method, &session, None).await;
        assert_eq!(refused.status, 404);
        assert!(refused.message().contains("open another"), "{}", refused.message());
    }
    let next = format!("{path}/sessions/{}", next["session_id"].as_str().unwrap());
    assert_eq!(rig.call("DELETE", &next, None).await.data(), json!({"ok": true}));
    assert_eq!(rig.call("DELETE", &next, None).await.status, 404);
    assert!(open(&rig).is_none());
    assert!(!client.send(&packet(OWN, MEMBER, b"late")).await || came(&line).is_none());

    rig.call("POST", &format!("{path}/sessions"), None).await.data();
    assert!(open(&rig).is_some());
    rig.call("DELETE", &path, None).await.data();
    assert!(open(&rig).is_none());
    for method in ["PUT", "DELETE"] {
        assert_eq!(rig.call(method, &session, None).await.status, 404);
    }
    assert_eq!(rig.call("POST", &format!("{path}/sessions"), None).await.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_renewed_expires() {
    let life = Duration::from_secs(2);
    let rig = Rig::tuned(|tuning| tuning.session_life = life).await;
    let (path, session, mut client, line) = connected(&rig).await;
    let began = std::time::Instant::now();
    while began.elapsed() < life * 2 {
        assert_eq!(rig.call("PUT", &session, None).await.status, 200);
        tokio::time::sleep(life / 4).await;
    }
    assert!(client.send(&packet(OWN, MEMBER, b"one.")).await);
    assert_eq!(came(&line).as_deref(), Some("one."));
    let seen = rig.get(&path).await.data()["last_seen_at"].clone();
    tokio::time::sleep(life + Duration::from_millis(500)).await;
    assert_eq!(rig.call("PUT", &session, None).await.status, 404);
    client.send(&packet(OWN, MEMBER, b"late")).await;
    assert_eq!(came(&line), None);
    assert!(rig.fake.lines.lock().unwrap().is_empty());
    assert_eq!(rig.get(&path).await.data()["last_seen_at"], seen, "it is remembered");

    // The next engine knows the device, and no session.
    let rig = rig.restart(|_, _| {}).await;
    assert_eq!(rig.get(&path).await.data()["last_seen_at"], seen);
    assert_eq!(rig.call("PUT", &session, None).await.status, 404);
    assert_eq!(rig.call("POST", &format!("{path}/sessions"), None).await.status, 201);
}

#[tokio::test]
async fn where_there_are_no_tunnels_a_session_is_refused() {
    let rig = Rig::new().await;
    *rig.fake.line_error.lock().unwrap() = Some("no tunnels; get some".to_owned());
    let (_, public) = keys(9);
    let laptop = device(&rig, "laptop", &public).await;
    let path = format!("/v1/devices/{}", laptop["id"].as_str().unwrap());
    rig.call("POST", "/v1/networks", Some(json!({"name": "mesh"}))).await.data();
    for attach in [false, true] {
        if attach {
            let body = json!({"network_id": "mesh"});
            rig.call("POST", &format!("{path}/networks"), Some(body)).await.data();
        }
        let refused = rig.call("POST", &format!("{path}/sessions"), None).await;
        assert_eq!(refused.status, 501);
        assert!(refused.message().contains("no tunnels; get some"), "{}", refused.message());
    }
    for method in ["PUT", "DELETE"] {
        assert_eq!(rig.call(method, &format!("{path}/sessions/ses-1"), None).await.status, 404);
    }
    assert_eq!(rig.call("POST", "/v1/devices/dev-none/sessions", None).await.status, 404);
}

#[tokio::test]
async fn members_are_led_to_the_devices_of_their_networks() {
    const NOBODY: Vec<Ipv4Addr> = Vec::new();
    let rig = Rig::new().await;
    for name in ["mesh", "back"] {
        rig.call("POST", "/v1/networks", Some(json!({"name": name}))).await.data();
    }
    let body = json!({"shape": SHAPE, "networks": [{"id": "mesh"}, {"id": "back"}]});
    let member = rig.call("POST", "/v1/sandboxes", Some(body)).await.data();
    let id: createos_sdk::SandboxId = member["id"].as_str().unwrap().parse().unwrap();
    let led = || {
        let links = rig.fake.links.lock().unwrap();
        links[&id].iter().map(|link| link.devices.clone()).collect::<Vec<_>>()
    };
    assert_eq!(led(), [NOBODY, NOBODY]);
    let (_, public) = keys(9);
    let laptop = device(&rig, "laptop", &public).await;
    let path = format!("/v1/devices/{}", laptop["id"].as_str().unwrap());
    let networks = format!("{path}/networks");
    rig.call("POST", &networks, Some(json!({"network_id": "back"}))).await.data();
    assert_eq!(led(), [NOBODY, vec![OWN]]);
    rig.call("POST", &networks, Some(json!({"network_id": "mesh"}))).await.data();
    rig.call("DELETE", &format!("{networks}/back"), None).await.data();
    assert_eq!(led(), [vec![OWN], NOBODY]);
    rig.call("DELETE", &path, None).await.data();
    assert_eq!(led(), [NOBODY, NOBODY]);
}
