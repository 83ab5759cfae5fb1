//! Devices that lie, strangers, and engines that are killed.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::sync::{Arc, Mutex};

use createos_sdk::ErrorKind;
use createos_tests::{EngineProcess, sh, until};

use super::laptop::Laptop;
use super::members::{address, connect, member, resume, serve};
use super::{CONNECT, SEEN, engine_for, register, serving};

/// Writes down who sends it what.
const LISTEN: &str = "import socket\n\
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 9000))\n\
    log = open('/root/log', 'w', buffering=1)\n\
    while True: d, a = s.recvfrom(999); log.write(a[0] + ' ' + d.decode() + '\\n')";

/// Sends a text in a datagram.
const TELL: &str = "import socket, sys\n\
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n\
    if len(sys.argv) > 3: s.bind((sys.argv[3], 0))\n\
    s.sendto(sys.argv[2].encode(), (sys.argv[1], 9000))";

#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_with_the_address_of_a_device_but_itself() {
    let laptop = Laptop::new();
    let engine = engine_for(&laptop).await;
    let client = engine.client();
    let mesh = client.create_network("mesh").await.expect("a network");
    let web = member(&client, &[&mesh]).await;
    let other = member(&client, &[&mesh]).await;
    let (at, name) = (address(&web, &mesh).await, address(&other, &mesh).await);
    web.files().write("/root/listen.py", LISTEN.to_owned()).await.expect("write");
    sh(&web, "nohup python3 /root/listen.py >/dev/null 2>&1 </dev/null &").await;
    until(&web, "test -e /root/log && echo yes", "yes\n").await;
    let device = register(&client, &laptop, &mesh).await;
    let session = device.open_session().await.expect("a session");
    laptop.up(&session.client_config);

    // With addresses of others: a member, another device, the router, itself elsewhere.
    let router = at.rsplit_once('.').expect("an address").0.to_owned() + ".1";
    let mut said = String::new();
    for (number, forged) in [&name, "100.64.0.3", &router, "203.0.113.7"].into_iter().enumerate() {
        laptop.run(["ip", "address", "add", forged, "dev", &laptop.interface()]);
        laptop.python(TELL, &[&at, "forged", forged]);
        laptop.run(["ip", "address", "del", forged, "dev", &laptop.interface()]);
        let honest = format!("honest{number}");
        assert_eq!(laptop.python(TELL, &[&at, &honest, "100.64.0.2"]), "");
        said += &format!("100.64.0.2 {honest}\n");
        until(&web, "cat /root/log", &said).await;
    }

    // A stranger who knows everything but the key.
    let stranger = Laptop::new();
    let config =
        session.client_config.replace(&laptop.near().to_string(), &stranger.near().to_string());
    let relay = Relay::start(stranger.near().into(), laptop.near().into(), &config);
    stranger.up(&relay.config);
    stranger.python(TELL, &[&at, "stranger"]);
    assert!(!stranger.has_shaken_hands());
    assert!(relay.passed() > 0, "it has tried");
    stranger.down();

    // Whoever can listen in sends everything once more, and noise.
    let relay = Relay::start(laptop.near().into(), laptop.near().into(), &session.client_config);
    laptop.down();
    laptop.up(&relay.config);
    assert_eq!(laptop.python(TELL, &[&at, "once"]), "");
    said += "100.64.0.2 once\n";
    until(&web, "cat /root/log", &said).await;
    relay.repeat();
    assert_eq!(laptop.python(TELL, &[&at, "last"]), "");
    said += "100.64.0.2 last\n";
    until(&web, "cat /root/log", &said).await;
    engine.shutdown().await;
}

/// Somebody between a device and the engine, who keeps what the device sends.
struct Relay {
    config: String,
    heard: Arc<Mutex<Vec<Vec<u8>>>>,
    server: SocketAddr,
}

impl Relay {
    fn start(near: std::net::IpAddr, far: std::net::IpAddr, config: &str) -> Self {
        let endpoint = config.lines().find_map(|line| line.strip_prefix("Endpoint = "));
        let endpoint: SocketAddr = endpoint.expect("an endpoint").parse().expect("an address");
        let server = SocketAddr::new(far, endpoint.port());
        let (front, back) = (UdpSocket::bind((near, 0)), UdpSocket::bind((far, 0)));
        let (front, back) = (front.expect("a socket"), back.expect("a socket"));
        let own = front.local_addr().expect("its address");
        back.connect(server).expect("connect");
        let heard = Arc::new(Mutex::new(Vec::<Vec<u8>>::new()));
        let device = Arc::new(Mutex::new(None));
        let (up, kept, known) =
            (front.try_clone().expect("a socket"), Arc::clone(&heard), Arc::clone(&device));
        let out = back.try_clone().expect("a socket");
        std::thread::spawn(move || {
            let mut buffer = [0; 65_535];
            while let Ok((length, from)) = up.recv_from(&mut buffer) {
                *known.lock().expect("lock") = Some(from);
                kept.lock().expect("lock").push(buffer[..length].to_vec());
                let _ = out.send(&buffer[..length]);
            }
        });
        std::thread::spawn(move || {
            let mut buffer = [0; 65_535];
            loop {
                // A port that is closed is told as an error of the next call.
                let Ok(length) = back.recv(&mut buffer) else { continue };
                if let Some(device) = *device.lock().expect("lock") {
                    let _ = front.send_to(&buffer[..length], device);
                }
            }
        });
        let config = config.replace(&endpoint.to_string(), &own.to_string());
        Self { config, heard, server }
    }

    fn passed(&self) -> usize {
        self.heard.lock().expect("lock").len()
    }

    /// Sends everything again from elsewhere, whole, cut, and damaged.
    fn repeat(&self) {
        let thief = UdpSocket::bind((self.server.ip(), 0)).expect("a socket");
        for message in self.heard.lock().expect("lock").iter() {
            thief.send_to(message, self.server).expect("send");
            thief.send_to(&message[..message.len() / 2], self.server).expect("send");
            for at in (0..message.len()).step_by(7) {
                let mut damaged = message.clone();
                damaged[at] ^= 0x40;
                thief.send_to(&damaged, self.server).expect("send");
            }
        }
        for length in (0..2000).step_by(13) {
            thief.send_to(&vec![4; length], self.server).expect("send");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_engine_or_its_warden_sessions_end_or_go_on() {
    let laptop = Laptop::new();
    let home = tempfile::tempdir().expect("a directory");
    let data_dir = home.path().join("data");
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_createos-tests-engine"));
        EngineProcess::start(command.arg(&data_dir).arg(laptop.listen().to_string()))
    };
    let engine = start();
    let mesh = engine.client.create_network("mesh").await.expect("a network");
    let (web, at) = serving(&engine.client, &mesh).await;
    let device = register(&engine.client, &laptop, &mesh).await;
    let session = device.open_session().await.expect("a session");
    laptop.up(&session.client_config);
    assert_eq!(laptop.python(SEEN, &[&at]), "100.64.0.2");

    // The warden takes the networks with it. The next one makes them anew, lines included.
    // Its children are called alike.
    let warden = processes_of(&data_dir.display().to_string(), "warden").into_iter().min();
    let warden = warden.and_then(rustix::process::Pid::from_raw).expect("a warden");
    rustix::process::kill_process(warden, rustix::process::Signal::KILL).expect("kill");
    web.wait_until(createos_sdk::wire::SandboxStatus::Error).await.expect("it ends");
    resume(&web).await;
    serve(&web).await;
    assert_eq!(laptop.python(SEEN, &[&at]), "100.64.0.2");
    device.renew_session(&session.session_id).await.expect("it goes on");

    engine.kill();
    let _ = laptop.python(CONNECT, &[&at, "8000"]);
    let tunnels = || fs::read_dir("/sys/class/net").expect("interfaces").flatten();
    let left = tunnels().filter(|entry| entry.file_name().to_string_lossy().starts_with("line"));
    assert_eq!(left.count(), 0, "nothing is left on this machine");

    let engine = start();
    let device = engine.client.device(device.id().clone());
    let gone = device.renew_session(&session.session_id).await.expect_err("it ended");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    assert_eq!(device.networks().await.expect("networks").len(), 1);
    assert!(device.refresh().await.expect("a view").last_seen_at.is_some());
    let web = engine.client.sandbox(web.id().clone());
    resume(&web).await;
    serve(&web).await;
    assert_ne!(laptop.python(CONNECT, &[&at, "8000"]), "open", "with the old configuration");
    laptop.down();
    let session = device.open_session().await.expect("another session");
    laptop.up(&session.client_config);
    assert_eq!(laptop.python(SEEN, &[&at]), "100.64.0.2");
    assert_eq!(connect(&web, "100.64.0.2").await, "ECONNREFUSED");
    engine.end();
}

/// An engine of an ordinary user on a machine that has tunnels, for users with these rights.
fn of_user(home: &std::path::Path, laptop: &Laptop, rights: u32) -> EngineProcess {
    const USER: u32 = 12_345;
    let program = home.join("engine");
    fs::copy(env!("CARGO_BIN_EXE_createos-tests-engine"), &program).expect("copy");
    let data_dir = home.join("data");
    fs::create_dir_all(&data_dir).expect("a directory");
    for (path, mode) in [(&data_dir, 0o700), (&home.to_owned(), 0o755)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }
    std::os::unix::fs::chown(&data_dir, Some(USER), Some(USER)).expect("chown");
    let script = format!(
        "cd {home} && rm -f tun && mknod tun c 10 200 && chmod {rights:o} tun && \
         mount --bind tun /dev/net/tun && \
         exec setpriv --reuid={USER} --regid={USER} --clear-groups ./engine {data} {listen}",
        home = home.display(),
        data = data_dir.display(),
        listen = laptop.listen(),
    );
    EngineProcess::start(Command::new("unshare").args(["--mount", "sh", "-c", &script]))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_has_sessions_where_it_may_open_tunnels() {
    let laptop = Laptop::new();
    let home = tempfile::tempdir().expect("a directory");
    let engine = of_user(home.path(), &laptop, 0o600);
    let mesh = engine.client.create_network("mesh").await.expect("a network");
    let device = register(&engine.client, &laptop, &mesh).await;
    let refused = device.open_session().await.expect_err("no tunnels");
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let text = refused.to_string();
    for part in ["/dev/net/tun", "ermission denied", "chmod 0666 /dev/net/tun"] {
        assert!(text.contains(part), "{text}");
    }
    engine.end();

    let engine = of_user(home.path(), &laptop, 0o666);
    let (web, at) = serving(&engine.client, &mesh_of(&engine, &mesh)).await;
    let device = engine.client.device(device.id().clone());
    laptop.up(&device.open_session().await.expect("a session").client_config);
    assert_eq!(laptop.python(SEEN, &[&at]), "100.64.0.2");
    assert_eq!(connect(&web, "100.64.0.2").await, "ECONNREFUSED");
    engine.end();
}

/// The same network, of another engine's life.
fn mesh_of(engine: &EngineProcess, mesh: &createos_sdk::Network) -> createos_sdk::Network {
    engine.client.network(mesh.id().clone())
}

/// Processes of this name that were started with this argument.
fn processes_of(argument: &str, name: &str) -> Vec<i32> {
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        comm.starts_with(name) && String::from_utf8_lossy(&line).split('\0').any(|a| a == argument)
    })
    .collect()
}
