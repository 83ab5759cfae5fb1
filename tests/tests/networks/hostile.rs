//! Members that lie about who they are, engines that are killed, and engines of ordinary
//! users.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use createos_local::Engine;
use createos_sdk::Client;
use createos_sdk::wire::SandboxStatus::Error;
use createos_tests::{EngineProcess, sh, until};

use crate::members::{SHAPE, address, connect, member, python, resume, seen_by, serve};

/// Writes down who sends it what.
const LISTEN: &str = "import socket\n\
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('0.0.0.0', 9000))\n\
    log = open('/root/log', 'w', buffering=1)\n\
    while True: d, a = s.recvfrom(999); log.write(a[0] + ' ' + d.decode() + '\\n')";

/// Sends datagrams in the name of others, by every way there is, and one honest one.
const FORGE: &str = r"
import socket, struct, sys
own, other, target = sys.argv[1:4]
done = []
def checksum(data):
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16: total = (total & 0xffff) + (total >> 16)
    return ~total & 0xffff
def packet(source, text):
    udp = struct.pack('!HHHH', 7, 9000, 8 + len(text), 0) + text
    def head(sum): return struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(udp), 1, 0, 64, 17, sum,
        socket.inet_aton(source), socket.inet_aton(target))
    return head(checksum(head(0))) + udp
def bound():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_IP, 19, 1); s.bind((other, 0)); s.sendto(b'bound', (target, 9000))
def raw(source, text):
    s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
    s.sendto(packet(source, text), (target, 0))
for name, way in (('bound', bound), ('raw', lambda: raw(other, b'raw')),
        ('nobody', lambda: raw('203.0.113.7', b'nobody')),
        ('router', lambda: raw(own.rsplit('.', 1)[0] + '.1', b'router'))):
    try: way(); done.append(name)
    except OSError: pass
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'honest', (target, 9000))
print(' '.join(done), end='')";

#[tokio::test]
async fn nobody_speaks_for_another() {
    let engine = Engine::builder().ephemeral().allow_nesting(true).start().await.expect("engine");
    let client = engine.client();
    let mesh = client.create_network("mesh").await.expect("a network");
    let (victim, other) = (member(&client, &[&mesh]).await, member(&client, &[&mesh]).await);
    let (target, name) = (address(&victim, &mesh).await, address(&other, &mesh).await);
    victim.files().write("/root/listen.py", LISTEN.to_owned()).await.expect("write");
    sh(&victim, "nohup python3 /root/listen.py >/dev/null 2>&1 </dev/null &").await;
    until(&victim, "test -e /root/log && echo yes", "yes\n").await;

    let locked = member(&client, &[&mesh]).await;
    // Whoever may nest has every right over its own end of the cable.
    let create = client.create_sandbox(SHAPE).node_selector("nesting", "true");
    let free = create.network(mesh.id().clone()).await.expect("create");
    let mut honest = String::new();
    for (liar, done) in [(&locked, ""), (&free, "bound raw nobody router")] {
        let own = address(liar, &mesh).await;
        assert_eq!(python(liar, FORGE, &[&own, &name, &target]).await, done);
        honest += &format!("{own} honest\n");
        until(&victim, "cat /root/log", &honest).await;
    }
    // Nor by other addresses of its own, nor as a way to elsewhere.
    sh(&free, "ip address add 10.64.0.77/22 dev net0; ip link set net0 address 02:00:0a:40:00:02")
        .await;
    assert_ne!(connect(&free, &name).await, "open", "it has cut itself off");
    // What it did to its end is gone with the cable.
    sh(&free, "ip link delete net0").await;
    free.detach_network("mesh").await.expect("detach");
    free.attach_network("mesh").await.expect("attach");
    serve(&other).await;
    assert_eq!(seen_by(&free, &name).await, address(&free, &mesh).await);
    engine.shutdown().await;
}

fn start(data_dir: &Path) -> EngineProcess {
    EngineProcess::start(Command::new(env!("CARGO_BIN_EXE_createos-tests-engine")).arg(data_dir))
}

/// Two members that reach each other.
async fn two(client: &Client) -> (createos_sdk::Sandbox, createos_sdk::Sandbox, String) {
    let mesh = client.create_network("mesh").await.expect("a network");
    let (server, visitor) = (member(client, &[&mesh]).await, member(client, &[&mesh]).await);
    let at = address(&server, &mesh).await;
    serve(&server).await;
    assert_eq!(seen_by(&visitor, &at).await, address(&visitor, &mesh).await);
    (server, visitor, at)
}

/// Processes that were started with this directory as their argument.
fn processes_of(data_dir: &Path) -> Vec<String> {
    let data_dir = data_dir.display().to_string();
    let all = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = all.filter_map(|entry| entry.file_name().into_string().ok());
    pids.filter(|pid| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).split('\0').any(|argument| argument == data_dir)
    })
    .collect()
}

fn names_in(directory: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Interfaces of the host that are called as those of networks are.
fn links_of_ours() -> Vec<String> {
    let is_numbered = |name: &str, stem| {
        let number = name.strip_prefix(stem).unwrap_or_default();
        !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let names = names_in("/sys/class/net").into_iter();
    names.filter(|name| is_numbered(name, "net") || is_numbered(name, "p")).collect()
}

#[tokio::test]
async fn networks_end_with_the_engine_and_the_warden_that_are_killed() {
    let home = tempfile::tempdir().expect("a directory");
    let data_dir = home.path().join("data");
    let named = names_in("/run/netns");
    let engine = start(&data_dir);
    let (server, visitor, at) = two(&engine.client).await;
    assert_eq!(links_of_ours(), [""; 0], "the host has no part of it");
    assert_eq!(names_in("/run/netns"), named, "and no name for it");

    // Without its warden, everything in there ends; with the next one, it begins anew.
    let engine_and_warden = processes_of(&data_dir);
    let warden = engine_and_warden.iter().find(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("warden"))
    });
    let warden = warden.expect("a warden").parse().ok().and_then(rustix::process::Pid::from_raw);
    let kill = rustix::process::Signal::KILL;
    rustix::process::kill_process(warden.expect("a number"), kill).expect("kill");
    for sandbox in [&server, &visitor] {
        sandbox.wait_until(Error).await.expect("it ends");
        resume(sandbox).await;
    }
    serve(&server).await;
    assert!(!seen_by(&visitor, &at).await.is_empty());

    engine.kill();
    for _ in 0..100 {
        if processes_of(&data_dir).is_empty() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(processes_of(&data_dir), [""; 0], "nobody holds a network any more");
    assert_eq!(links_of_ours(), [""; 0]);

    let engine = start(&data_dir);
    let (server, visitor) =
        (engine.client.sandbox(server.id().clone()), engine.client.sandbox(visitor.id().clone()));
    resume(&server).await;
    resume(&visitor).await;
    serve(&server).await;
    assert!(!seen_by(&visitor, &at).await.is_empty());
    engine.end();
}

/// It takes no right over the machine.
#[tokio::test]
async fn an_ordinary_user_has_networks_as_well() {
    const USER: u32 = 12_345;
    let home = tempfile::tempdir().expect("a directory");
    let program = home.path().join("engine");
    fs::copy(env!("CARGO_BIN_EXE_createos-tests-engine"), &program).expect("copy");
    let data_dir = home.path().join("data");
    fs::create_dir(&data_dir).expect("a directory");
    fs::set_permissions(&data_dir, fs::Permissions::from_mode(0o700)).expect("chmod");
    let mut command = Command::new(&program);
    if rustix::process::geteuid().is_root() {
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        std::os::unix::fs::chown(&data_dir, Some(USER), Some(USER)).expect("chown");
        command = Command::new("setpriv");
        command.args([format!("--reuid={USER}"), format!("--regid={USER}")]);
        command.arg("--clear-groups").arg(&program);
    }
    let engine = EngineProcess::start(command.arg(&data_dir));
    let (server, visitor, at) = two(&engine.client).await;
    let name = format!("{}.fc.local", server.id());
    assert_eq!(seen_by(&visitor, &name).await, seen_by(&visitor, &at).await);
    visitor.detach_network("mesh").await.expect("detach");
    assert_ne!(connect(&visitor, &at).await, "open");
    visitor.attach_network("mesh").await.expect("attach");
    // They stand still in memory, cables and all.
    server.pause().await.expect("pause");
    resume(&server).await;
    assert!(!seen_by(&visitor, &at).await.is_empty());
    engine.end();
}
