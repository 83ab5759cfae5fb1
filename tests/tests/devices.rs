//! Devices that speak WireGuard with the engine: whom they reach, who reaches them, and for how
//! long.

#[path = "devices/hostile.rs"]
mod hostile;
#[path = "devices/laptop.rs"]
mod laptop;
#[path = "networks/members.rs"]
mod members;

use createos_local::Engine;
use createos_sdk::{Client, Device, ErrorKind, Network, Sandbox};
use createos_tests::sh;

use laptop::{Laptop, wait_for};
use members::{CONNECT, address, connect, member, resume, seen_by, serve};

/// Asks a server whom it sees.
const SEEN: &str = "import socket, sys\n\
    s = socket.create_connection((sys.argv[1], 8000), 5); print(s.recv(99).decode(), end='')";

/// Answers each connection with the address it sees at the other end.
const TELL: &str = "import socket\n\
    s = socket.create_server(('0.0.0.0', 8000)); print('ready', flush=True)\n\
    while True: c, a = s.accept(); c.sendall(a[0].encode()); c.close()";

/// Sends an echo request and prints what comes back.
const PING: &str = "import socket, struct, sys\n\
    def sum(b):\n\
    \tt = 0\n\
    \tfor i in range(0, len(b), 2): t += (b[i] << 8) + (b[i + 1] if i + 1 < len(b) else 0)\n\
    \treturn ~((t & 0xffff) + (t >> 16)) & 0xffff\n\
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP); s.settimeout(5)\n\
    p = lambda c: struct.pack('!BBHHH', 8, 0, c, 9, 7) + b'hello'\n\
    s.sendto(p(sum(p(0))), (sys.argv[1], 0)); print(s.recv(99)[28:].decode(), end='')";

async fn engine_for(laptop: &Laptop) -> Engine {
    Engine::builder().ephemeral().listen(laptop.listen()).start().await.expect("the engine starts")
}

/// The laptop as a device that is attached to a network.
async fn register(client: &Client, laptop: &Laptop, network: &Network) -> Device {
    let device = client.create_device("laptop", &laptop.public).await.expect("a device");
    device.attach_network(network.id()).await.expect("attach");
    device
}

async fn serving(client: &Client, network: &Network) -> (Sandbox, String) {
    let sandbox = member(client, &[network]).await;
    serve(&sandbox).await;
    let at = address(&sandbox, network).await;
    (sandbox, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_and_the_members_of_its_network_reach_each_other() {
    let laptop = Laptop::new();
    let engine = engine_for(&laptop).await;
    let client = engine.client();
    let mesh = client.create_network("mesh").await.expect("a network");
    let other = client.create_network("other").await.expect("a network");
    let (web, at) = serving(&client, &mesh).await;
    let (stranger, elsewhere) = serving(&client, &other).await;
    let visitor = member(&client, &[&mesh]).await;
    let device = register(&client, &laptop, &mesh).await;
    let view = device.refresh().await.expect("a view");
    assert!(view.last_seen_at.is_none());
    let own = view.client_ip.clone();

    assert_eq!(connect(&web, &own).await, "ENETUNREACH", "it is not connected");
    let session = device.open_session().await.expect("a session");
    assert_eq!(connect(&web, &own).await, "EHOSTUNREACH", "it was never heard of");
    laptop.up(&session.client_config);
    assert_eq!(laptop.python(SEEN, &[&at]), own);
    let visited = address(&visitor, &mesh).await;
    assert_eq!(laptop.python(CONNECT, &[&visited, "8000"]), "ECONNREFUSED");
    laptop.serve(TELL);
    assert_eq!(seen_by(&web, &own).await, at);
    assert_eq!(seen_by(&visitor, &own).await, visited);
    assert_eq!(laptop.python(PING, &[&at]), "hello");

    // By every name of a member.
    let name = web.refresh().await.expect("a view").name.clone().expect("a name");
    for name in [
        format!("{}.fc.local", web.id()),
        format!("{name}.fc.local"),
        format!("{name}.mesh.fc.local"),
        format!("{}.MESH.FC.local", name.to_uppercase()),
        name.clone(),
    ] {
        assert_eq!(laptop.python(SEEN, &[&name]), own, "{name}");
    }
    let resolve = "import socket, sys\n\
        try: print(socket.gethostbyname(sys.argv[1]), end='')\n\
        except socket.gaierror as e: print(e.errno, end='')";
    for name in [format!("{}.fc.local", stranger.id()), "none.fc.local".to_owned()] {
        assert_eq!(laptop.python(resolve, &[&name]), "-2", "{name}");
    }

    // Nobody else.
    assert_ne!(laptop.python(CONNECT, &[&elsewhere, "8000"]), "open");
    laptop.run(["ip", "route", "add", &elsewhere, "dev", &laptop.interface()]);
    assert_ne!(laptop.python(CONNECT, &[&elsewhere, "8000"]), "open");
    assert_ne!(connect(&stranger, &own).await, "open");
    wait_for("it was seen", || laptop.has_shaken_hands()).await;
    assert!(device.refresh().await.expect("a view").last_seen_at.is_some());
    engine.shutdown().await;
}

/// What ends ends at once: the packets after the answer go nowhere.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_from_a_device_is_gone_at_once() {
    let laptop = Laptop::new();
    let engine = engine_for(&laptop).await;
    let client = engine.client();
    let mesh = client.create_network("mesh").await.expect("a network");
    let back = client.create_network("back").await.expect("a network");
    let (web, at) = serving(&client, &mesh).await;
    let (_db, there) = serving(&client, &back).await;
    let device = register(&client, &laptop, &mesh).await;
    device.attach_network("back").await.expect("attach");
    let session = device.open_session().await.expect("a session");
    laptop.up(&session.client_config);
    let own = "100.64.0.2";
    assert_eq!(laptop.python(SEEN, &[&at]), own);
    assert_eq!(laptop.python(SEEN, &[&there]), own);

    device.detach_network("mesh").await.expect("detach");
    assert_ne!(laptop.python(CONNECT, &[&at, "8000"]), "open");
    assert_ne!(connect(&web, own).await, "ECONNREFUSED");
    assert_eq!(laptop.python(SEEN, &[&there]), own);
    device.attach_network("mesh").await.expect("attach");
    assert_eq!(laptop.python(SEEN, &[&at]), own, "the session goes on");
    assert_eq!(connect(&web, own).await, "ECONNREFUSED");

    // It moves to another port, and is found again.
    laptop.run(["wg", "set", &laptop.interface(), "listen-port", "51999"]);
    assert_eq!(laptop.python(SEEN, &[&at]), own);
    assert_eq!(connect(&web, own).await, "ECONNREFUSED");

    device.close_session(&session.session_id).await.expect("close");
    assert_ne!(laptop.python(CONNECT, &[&at, "8000"]), "open");
    assert_ne!(connect(&web, own).await, "ECONNREFUSED");
    let gone = device.renew_session(&session.session_id).await.expect_err("it has ended");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    laptop.down();

    let session = device.open_session().await.expect("a session");
    laptop.up(&session.client_config);
    assert_eq!(laptop.python(SEEN, &[&at]), own);
    device.delete().await.expect("delete");
    assert_ne!(laptop.python(CONNECT, &[&at, "8000"]), "open");
    assert_eq!(sh(&web, "ip route show to 100.64.0.0/10").await, "", "no way is left");
    engine.shutdown().await;
}

/// A member that shares two networks with a device answers on the one that it is asked on; and
/// one that was paused is reached again.
#[tokio::test(flavor = "multi_thread")]
async fn members_of_two_networks_answer_on_either() {
    let laptop = Laptop::new();
    let engine = engine_for(&laptop).await;
    let client = engine.client();
    let mesh = client.create_network("mesh").await.expect("a network");
    let back = client.create_network("back").await.expect("a network");
    let web = member(&client, &[&mesh, &back]).await;
    serve(&web).await;
    let (at, there) = (address(&web, &mesh).await, address(&web, &back).await);
    let device = register(&client, &laptop, &back).await;
    let config = device.open_session().await.expect("a session").client_config;
    laptop.up(&config);
    let own = "100.64.0.2";
    assert_eq!(laptop.python(SEEN, &[&there]), own);
    laptop.serve(TELL);
    assert_eq!(seen_by(&web, own).await, there, "not by the first of its networks");

    device.attach_network("mesh").await.expect("attach");
    laptop.down();
    laptop.up(&device.open_session().await.expect("a session").client_config);
    for address in [&at, &there] {
        assert_eq!(laptop.python(SEEN, &[address]), own);
    }
    web.pause().await.expect("pause");
    resume(&web).await;
    for address in [&at, &there] {
        assert_eq!(laptop.python(SEEN, &[address]), own);
    }
    assert!([at, there].contains(&seen_by(&web, own).await));
    engine.shutdown().await;
}

/// Answers each connection with the digest of what it was sent.
const DIGEST: &str = "import hashlib, socket, sys\n\
    s = socket.create_server((sys.argv[1] if len(sys.argv) > 1 else '0.0.0.0', 8100))\n\
    open('/tmp/digest-ready', 'w').close(); print('ready', flush=True)\n\
    while True:\n\
    \tc, a = s.accept(); h = hashlib.sha256(); b = c.recv(1 << 20)\n\
    \twhile b: h.update(b); b = c.recv(1 << 20)\n\
    \tc.sendall(h.hexdigest().encode()); c.close()";

/// Sends 64 MiB and prints how many megabits a second that were, if they arrived whole.
const SEND: &str = "import hashlib, os, socket, sys, time\n\
    data = os.urandom(1 << 20); s = socket.create_connection((sys.argv[1], 8100), 60)\n\
    began = time.monotonic(); h = hashlib.sha256()\n\
    for _ in range(64): s.sendall(data); h.update(data)\n\
    s.shutdown(socket.SHUT_WR); got = s.recv(64).decode()\n\
    assert got == h.hexdigest(), got\n\
    print(int((64 << 23) / (time.monotonic() - began) / 1e6), end='')";

/// Both ways; and over the same cable without the tunnel, to compare with.
#[tokio::test(flavor = "multi_thread")]
async fn large_transfers_arrive_whole() {
    let laptop = Laptop::new();
    let near = laptop.near();
    // A device is told to come to where it asked, of all the places where the engine listens.
    let listen = (std::net::Ipv4Addr::UNSPECIFIED, 0).into();
    let builder = Engine::builder().ephemeral().listen(listen).allow_host(near.to_string());
    let engine = builder.start().await.expect("the engine starts");
    let url = format!("http://{near}:{}", engine.local_addr().port());
    let client = Client::builder().base_url(url).api_key(engine.api_key());
    let client = client.allow_insecure_http(true).build().expect("a client");
    let mesh = client.create_network("mesh").await.expect("a network");
    let web = client.create_sandbox("s-2vcpu-2gb").network(mesh.id().clone());
    let web = web.await.expect("a member");
    web.files().write("/root/digest.py", DIGEST.to_owned()).await.expect("write");
    sh(&web, "nohup python3 /root/digest.py >/dev/null 2>&1 </dev/null &").await;
    createos_tests::until(&web, "test -e /tmp/digest-ready && echo yes", "yes\n").await;
    let at = address(&web, &mesh).await;
    let device = register(&client, &laptop, &mesh).await;
    let config = device.open_session().await.expect("a session").client_config;
    assert!(config.contains(&format!("\nEndpoint = {near}:")), "{config}");
    laptop.up(&config);

    let rate = |text: String| text.parse::<u32>().unwrap_or_else(|_| panic!("{text}"));
    let up = rate(laptop.python(SEND, &[&at]));
    laptop.serve(DIGEST);
    let down = rate(members::python(&web, SEND, &["100.64.0.2"]).await);
    let mut server = std::process::Command::new("python3");
    let server = server.args(["-c", DIGEST, &near.to_string()]);
    let mut server = server.stdout(std::process::Stdio::piped()).spawn().expect("python3");
    let ready = &mut [0; 5];
    std::io::Read::read_exact(server.stdout.as_mut().expect("its output"), ready).expect("ready");
    let bare = rate(laptop.python(SEND, &[&near.to_string()]));
    server.kill().expect("kill");
    server.wait().expect("its end");
    let share = |part: u32| f64::from(part) / f64::from(bare) * 100.0;
    eprintln!(
        "to a member {up} Mbit/s ({:.0} % of the bare cable's {bare}), from it {down} ({:.0} %)",
        share(up),
        share(down)
    );
    engine.shutdown().await;
}
