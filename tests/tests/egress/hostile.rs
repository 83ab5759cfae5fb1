//! Guests and neighbours that mean no good, quotas, and engines of ordinary users.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use createos_sdk::wire::SandboxStatus;
use createos_sdk::{Client, Sandbox};
use createos_tests::{EngineProcess, sh};

use crate::world::{World, code, curl, sandbox};

async fn python(sandbox: &Sandbox, script: &str) -> String {
    let output = sandbox.command("/usr/bin/python3").args(["-c", script]).output().await;
    let output = output.expect("exec");
    format!("{}{}", output.stdout_str().expect("text"), String::from_utf8_lossy(&output.stderr))
}

/// Sends many megabytes by TCP and prints how far it came.
fn send(world: &World, megabytes: usize, seconds: u32) -> String {
    format!(
        "import socket
s = socket.create_connection(('{}', 7003)); s.settimeout({seconds})
sent = 0
try:
    while sent < {megabytes} << 20: sent += s.send(b'x' * 65536)
    s.shutdown(socket.SHUT_WR); print(s.recv(100).decode())
except TimeoutError: print('stuck')
except OSError: print('cut')",
        world.first
    )
}

/// Another quota for a fork: only one client has a name for it, so it is sent as it is.
async fn metered(client: &Client, url: &str, key: &str, quota: i64) -> Sandbox {
    let source = sandbox(client, &[]).await;
    source.pause().await.expect("pause");
    let body = format!("{{\"bandwidth_quota_bytes\":{quota}}}");
    let url = format!("{url}/v1/sandboxes/{}/fork", source.id());
    let output = Command::new("curl")
        .args(["-sf", "-H", &format!("X-Api-Key: {key}"), "-d", &body, &url])
        .args(["-H", "Content-Type: application/json"])
        .output()
        .expect("curl");
    let text = String::from_utf8(output.stdout).expect("text");
    let id = text.split("\"id\":\"").nth(1).and_then(|rest| rest.split('"').next());
    let id: createos_sdk::SandboxId = id.unwrap_or_else(|| panic!("{text}")).parse().expect("id");
    let fork = client.sandbox(id);
    fork.wait_until(SandboxStatus::Running).await.expect("running");
    fork
}

#[tokio::test(flavor = "multi_thread")]
async fn a_used_up_quota_stops_what_goes_out_until_it_is_recharged() {
    const QUOTA: i64 = 3_000_000;
    let world = World::start();
    let fixture = world.engine().await;
    let (url, key) = (fixture.engine.url(), fixture.engine.api_key().expose());
    let sandbox = metered(&fixture.client, url, key, QUOTA).await;
    let before = sandbox.bandwidth().await.expect("bandwidth");
    assert_eq!((before.quota_bytes, before.used_bytes, before.capped), (QUOTA, 0, false));
    assert_eq!(python(&sandbox, &send(&world, 20, 2)).await, "stuck\n");
    let capped = sandbox.bandwidth().await.expect("bandwidth");
    assert!(capped.capped && capped.used_bytes >= QUOTA, "{capped:?}");
    // What a connection sends is let go byte by byte; only questions for names come in one.
    assert!(capped.used_bytes < QUOTA + 1000, "{capped:?}");
    assert_eq!(capped.remaining_bytes, QUOTA - capped.used_bytes);
    assert!(curl(&sandbox, &format!("http://{}/", world.first)).await.is_err());
    assert_eq!(code(&sandbox, "getent hosts allowed.test").await.1, 2);
    // What the engine carries in is not its traffic.
    assert_eq!(sh(&sandbox, "echo fine").await, "fine\n");
    sandbox.files().write("/root/x", "x".repeat(100_000)).await.expect("write");
    let same = sandbox.bandwidth().await.expect("bandwidth");
    assert_eq!(same.used_bytes, capped.used_bytes);

    // A connection that waits goes on with the recharge.
    sandbox.recharge_bandwidth(64 << 20).await.expect("recharge");
    // What the first one had handed over already goes out now.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let left = sandbox.bandwidth().await.expect("bandwidth").remaining_bytes;
    let megabytes = usize::try_from(left >> 20).expect("something is left") + 20;
    let script = send(&world, megabytes, 20).replace('\n', "\n  ");
    let waits = format!("nohup /usr/bin/python3 -c \"if True:\n  {script}\" >/tmp/sent 2>&1 &");
    sh(&sandbox, &waits).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(sandbox.bandwidth().await.expect("bandwidth").capped);
    let began = Instant::now();
    let lifted = sandbox.recharge_bandwidth(1 << 30).await.expect("recharge");
    assert!(!lifted.capped);
    createos_tests::until(&sandbox, "cat /tmp/sent", &format!("{} bytes\n", megabytes << 20)).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert!(curl(&sandbox, &format!("http://{}/", world.first)).await.is_ok());
    fixture.end().await;
}

/// Requests on one connection: each prints what it is answered, or how it ends.
const REQUESTS: &str = r#"
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)
f = s.makefile('rb')
def answer():
    status = f.readline()
    if not status: return 'cut'
    length = 0
    while (line := f.readline()) != b'\r\n':
        if line.lower().startswith(b'content-length:'): length = int(line.split(b':')[1])
    return f.read(length).decode()
def ask(host, method='GET', fields='', body=b''):
    head = f'{method} / HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n'
    try:
        s.sendall(head.encode() + body)
        print(answer())
    except OSError: print('cut')
"#;

#[tokio::test(flavor = "multi_thread")]
async fn each_request_of_a_connection_must_be_for_an_allowed_host() {
    let world = World::start();
    let fixture = world.engine().await;
    let rules = ["allowed.test:80", "allowed.test:8080", "allowed.test:7007", "also.wild.test"];
    let sandbox = sandbox(&fixture.client, &rules).await;
    let run = async |port: &str, asks: &str| {
        let python = sandbox.command("/usr/bin/python3");
        let script = format!("{REQUESTS}{asks}");
        let output = python.args(["-c", &script, "allowed.test", port]).output().await.unwrap();
        format!("{}{}", output.stdout_str().unwrap(), output.stderr_lossy())
    };
    // Port 80 names the host first; elsewhere who speaks first is not known before.
    for port in ["80", "8080"] {
        let asks = "ask('allowed.test')\nask('also.wild.test')\nask('allowed.test')\n\
                    ask('other.test')\nask('allowed.test')";
        let wanted = "hello from allowed.test\nhello from also.wild.test\n\
                      hello from allowed.test\ncut\ncut\n";
        assert_eq!(run(port, asks).await, wanted, "{port}");
        // Behind bodies of both kinds, one of which looks like a request for another host.
        let asks = "fake = b'GET / HTTP/1.1\\r\\nHost: other.test\\r\\n\\r\\n'\n\
            ask('allowed.test', 'POST', f'Content-Length: {len(fake)}\\r\\n', fake)\n\
            ask('allowed.test', 'POST', 'Transfer-Encoding: chunked\\r\\n', b'3\\r\\nabc\\r\\n0\\r\\n\\r\\n')\n\
            ask('allowed.test', 'POST', 'Content-Length: 5000000\\r\\n', b'x' * 5000000)\n\
            ask('allowed.test', 'POST', 'Content-Length: 3\\r\\n', b'abc' + fake)\n\
            ask('allowed.test')";
        let length = "GET / HTTP/1.1\r\nHost: other.test\r\n\r\n".len();
        let wanted = format!(
            "hello from allowed.test after {length} bytes\nhello from allowed.test after 3 bytes\n\
             hello from allowed.test after 5000000 bytes\n"
        );
        let said = run(port, asks).await;
        let rest = said.strip_prefix(&wanted).unwrap_or_else(|| panic!("{port}: {said}"));
        assert!(!rest.contains("other.test") && rest.ends_with("cut\n"), "{port}: {rest}");
        // Two readings of one request are none.
        let both = "ask('allowed.test', 'POST', 'Content-Length: 3\\r\\nTransfer-Encoding: chunked\\r\\n', b'0\\r\\n\\r\\n')";
        assert_eq!(run(port, both).await, "cut\n", "{port}");
    }
    // A web socket speaks another protocol once both sides have agreed.
    let asks = "ask('allowed.test', 'GET', 'Upgrade: websocket\\r\\n')\n\
        s.sendall(b'\\x81\\x03GET / HTTP/1.1')\nprint(f.read(16))";
    assert_eq!(run("7007", asks).await, "\nb'\\x81\\x03GET / HTTP/1.1'\n");
    // What came in is shown with the sandbox.
    let view = sandbox.refresh().await.unwrap();
    assert!(view.bandwidth_ingress_bytes.is_some_and(|bytes| bytes > 500), "{view:?}");
    let bandwidth = sandbox.bandwidth().await.unwrap();
    assert_eq!(view.bandwidth_ingress_bytes, u64::try_from(bandwidth.ingress_bytes).ok());
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_thousand_connections_and_floods_trouble_nobody_else() {
    let world = World::start();
    let fixture = world.engine().await;
    let (crowd, other) = (sandbox(&fixture.client, &[]).await, sandbox(&fixture.client, &[]).await);
    let many = format!(
        "import resource, socket
resource.setrlimit(resource.RLIMIT_NOFILE, (8192, 8192))
streams = [socket.create_connection(('{}', 7000), 60) for _ in range(2000)]
for n, s in enumerate(streams): s.sendall(b'%05d' % n)
for n, s in enumerate(streams):
    s.settimeout(60)
    assert s.recv(5, socket.MSG_WAITALL) == b'%05d' % n, n
print('fine')",
        world.first
    );
    assert_eq!(python(&crowd, &many).await, "fine\n");
    // Datagrams to thousands of places, nonsense for the resolver, and a peer that never reads.
    let flood = format!(
        "import os, socket, time
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
stalled = [socket.create_connection(('{first}', 7005)) for _ in range(50)]
for s in stalled: s.setblocking(False)
end = time.time() + 6
n = 0
while time.time() < end:
    n += 1
    u.sendto(b'x' * 1000, ('{first}', 10000 + n % 50000))
    u.sendto(os.urandom(n % 600), ('10.0.0.1', 53))
    u.sendto(b'\\x00\\x01\\x01\\x00\\x00\\x01' + bytes(6) + b'\\x03bad\\x04test\\x00\\x00\\x01\\x00\\x01', ('9.9.9.9', 53))
    try: stalled[n % 50].send(b'x' * 65536)
    except OSError: pass
print('fine')",
        first = world.first
    );
    let flooding = async { assert_eq!(python(&crowd, &flood).await, "fine\n") };
    let beside = async {
        for _ in 0..10 {
            let page = curl(&other, "http://allowed.test/").await;
            assert_eq!(page.as_deref(), Ok("hello from allowed.test"));
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    tokio::join!(flooding, beside);
    // And it is itself well afterwards.
    assert!(curl(&crowd, "http://allowed.test/").await.is_ok());
    crowd.destroy().await.expect("destroy");
    assert!(curl(&other, "http://allowed.test/").await.is_ok());
    fixture.end().await;
}

/// What a guest can say about names, and do to its network, as root inside.
#[tokio::test(flavor = "multi_thread")]
async fn tricks_with_names_lead_nowhere() {
    let world = World::start();
    let fixture = world.engine().await;
    let sandbox = sandbox(&fixture.client, &["allowed.test:443"]).await;
    let first = world.first;
    // Names in a file of its own, at an address that it never got in an answer.
    sh(&sandbox, &format!("echo '{} allowed.test' >>/etc/hosts", world.second)).await;
    assert_eq!(curl(&sandbox, "https://allowed.test/").await, Err(35));
    sh(&sandbox, "sed -i /allowed.test/d /etc/hosts").await;
    assert!(curl(&sandbox, "https://allowed.test/").await.is_ok());
    // The name servers outside are not reached themselves, and long answers come by TCP.
    let asks = "
import socket, struct
q = b'\\x12\\x34\\x01\\x00\\x00\\x01' + bytes(6) + b'\\x03big\\x04test\\x00\\x00\\x10\\x00\\x01'
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(5)
u.sendto(q, ('8.8.8.8', 53)); short, peer = u.recvfrom(65535)
assert peer == ('8.8.8.8', 53) and short[:2] == b'\\x12\\x34' and short[2] & 2, short
t = socket.create_connection(('8.8.8.8', 53)); t.settimeout(5)
t.sendall(struct.pack('>H', len(q)) + q)
length, = struct.unpack('>H', t.recv(2, socket.MSG_WAITALL))
print(length > 8000, len(t.recv(length, socket.MSG_WAITALL)) == length)";
    assert_eq!(python(&sandbox, asks).await, "True True\n");
    // No right to change the network, as root.
    let rights = "import socket
for kind in (socket.SOCK_RAW,):
    try: socket.socket(socket.AF_INET, kind, 255); print('raw')
    except PermissionError: print('refused')
s = socket.socket()
try: s.setsockopt(0, 19, 1); print('transparent')
except PermissionError: print('refused')";
    assert_eq!(python(&sandbox, rights).await, "refused\nrefused\n");
    assert_ne!(code(&sandbox, "ip route flush table 100 2>/dev/null").await.1, 0);
    assert_eq!(curl(&sandbox, &format!("https://{first}/")).await, Err(35));
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ordinary_user_has_a_way_out_and_rules_and_counters_outlive_the_engine() {
    const USER: u32 = 12_346;
    let world = World::start();
    let home = tempfile::tempdir().expect("a directory");
    let program = home.path().join("engine");
    fs::copy(env!("CARGO_BIN_EXE_createos-tests-engine"), &program).expect("copy");
    let data_dir = home.path().join("data");
    fs::create_dir(&data_dir).expect("a directory");
    for path in [home.path(), &data_dir] {
        let mode = if path == data_dir { 0o700 } else { 0o755 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("chmod");
    }
    std::os::unix::fs::chown(&data_dir, Some(USER), Some(USER)).expect("chown");
    let start = || {
        let mut command = Command::new("setpriv");
        command.args([format!("--reuid={USER}"), format!("--regid={USER}")]);
        EngineProcess::start(command.arg("--clear-groups").arg(&program).arg(&data_dir))
    };
    let engine = start();
    let rule = format!("{}:80", world.first);
    let sandbox = sandbox(&engine.client, &[&rule]).await;
    let page = format!("http://{}/", world.first);
    assert!(curl(&sandbox, &page).await.is_ok());
    assert!(curl(&sandbox, &format!("http://{}/", world.second)).await.is_err());
    // It stands still in memory, and goes on.
    let busy = "nohup sleep 1000 >/dev/null 2>&1 </dev/null &";
    sh(&sandbox, busy).await;
    sandbox.pause().await.expect("pause");
    sandbox.resume().await.expect("resume");
    assert!(curl(&sandbox, &page).await.is_ok());
    sandbox.set_egress([format!("{}:80", world.second), rule.clone()]).await.expect("rules");
    let counted = sandbox.bandwidth().await.expect("bandwidth");
    assert!(counted.used_bytes > 100 && counted.ingress_bytes > 100, "{counted:?}");
    // Counters are written down every two seconds.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let id = sandbox.id().clone();
    engine.kill();
    let engine = start();
    let sandbox = engine.client.sandbox(id);
    assert_eq!(sandbox.bandwidth().await.expect("bandwidth"), counted);
    sandbox.resume().await.expect("resume");
    assert!(curl(&sandbox, &format!("http://{}/", world.second)).await.is_ok());
    assert!(curl(&sandbox, &format!("http://{}:8080/", world.second)).await.is_err());
    engine.end();
}
