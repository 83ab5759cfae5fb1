//! The way out of real sandboxes: names, connections, datagrams, rules and counters.

#[path = "egress/hostile.rs"]
mod hostile;
#[path = "egress/world.rs"]
mod world;

use std::time::Duration;

use createos_sdk::ErrorKind;
use createos_sdk::wire::SandboxStatus;
use createos_tests::{sh, until};
use world::{World, code, curl, sandbox};

/// A connection that is refused looks like one that breaks off.
const BROKEN: [i32; 3] = [7, 52, 56];

/// Sends words by UDP and prints what comes back within a second.
const ASK: &str = r#"
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(1)
s.connect((sys.argv[1], int(sys.argv[2])))
s.send(sys.argv[3].encode())
try: print(s.recv(65535).decode())
except OSError as e: print(type(e).__name__)
"#;

async fn ask(sandbox: &createos_sdk::Sandbox, address: &str, port: u16, words: &str) -> String {
    let python = sandbox.command("/usr/bin/python3");
    let port = port.to_string();
    let output = python.args(["-c", ASK, address, &port, words]).output().await.expect("exec");
    output.stdout_str().expect("text").trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn builds_of_templates_reach_them_too() {
    let world = World::start();
    let fixture = world.engine().await;
    let dockerfile = "FROM nodeops/sandbox:debian\nRUN curl -sS http://allowed.test/ >/root/page\n";
    let template = fixture.client.create_template("fetched", dockerfile).await.expect("template");
    if let Err(error) = template.wait_until_ready().await {
        panic!("{error}\n{}", template.logs().await.expect("log"));
    }
    let creating = fixture.client.create_sandbox("s-1vcpu-256mb").rootfs("fetched");
    let sandbox = creating.await.expect("a sandbox");
    let page = sh(&sandbox, "cat /root/page").await;
    assert!(page.starts_with("hello from allowed.test"), "{page}");
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_and_pages_outside_are_reached() {
    let world = World::start();
    let fixture = world.engine().await;
    let sandbox = sandbox(&fixture.client, &[]).await;
    let first = world.first;
    assert_eq!(sh(&sandbox, "cat /etc/resolv.conf").await, "nameserver 10.0.0.1\n");
    let page = curl(&sandbox, &format!("http://{first}/")).await;
    assert_eq!(page, Ok(format!("hello from {first}")));
    for url in ["http://allowed.test/", "https://allowed.test/", "http://allowed.test:8080/"] {
        let page = curl(&sandbox, url).await.expect(url);
        assert!(page.starts_with("hello from allowed.test"), "{page}");
    }
    // No such name; and nobody on the port.
    assert_eq!(curl(&sandbox, "http://missing.test/").await, Err(6));
    let nobody = curl(&sandbox, &format!("http://{first}:9/")).await.expect_err("nobody");
    assert!(BROKEN.contains(&nobody), "{nobody}");
    // Whoever is asked for a name, and however: the engine answers, and leaves IPv6 out.
    let who = "getent ahosts allowed.test | cut -d' ' -f1 | sort -u";
    assert_eq!(sh(&sandbox, who).await, format!("{first}\n"));
    sh(&sandbox, "echo 'nameserver 9.9.9.9\noptions use-vc' >/etc/resolv.conf").await;
    assert_eq!(sh(&sandbox, who).await, format!("{first}\n"));
    // What is inside stays inside.
    let ip = sandbox.refresh().await.expect("view").ip.clone().expect("an address");
    let own = format!(
        "cd /usr/share; nohup python3 -m http.server 8000 >/dev/null 2>&1 &
         for try in $(seq 100); do curl -s {ip}:8000 >/dev/null && break; sleep 0.1; done
         curl -s -o /dev/null -w '%{{http_code}}' 127.0.0.1:8000"
    );
    assert_eq!(sh(&sandbox, &own).await, "200");
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_direction_of_a_connection_ends_by_itself() {
    let world = World::start();
    let fixture = world.engine().await;
    let sandbox = sandbox(&fixture.client, &[]).await;
    let script = format!(
        "import socket
s = socket.create_connection(('{}', 7003))
s.sendall(b'x' * 10_000_000)
s.shutdown(socket.SHUT_WR)
print(s.recv(100).decode(), s.recv(100))",
        world.first
    );
    let output = sandbox.command("/usr/bin/python3").args(["-c", &script]).output().await;
    assert_eq!(output.expect("exec").stdout_str().expect("text"), "10000000 bytes b''\n");
    let bandwidth = sandbox.bandwidth().await.expect("bandwidth");
    assert_eq!((bandwidth.used_bytes, bandwidth.ingress_bytes), (10_000_000, 14));
    // Who speaks first does not matter.
    let first = format!("exec 3<>/dev/tcp/{}/7004; read -u3 line; echo $line", world.first);
    assert_eq!(code(&sandbox, &first).await.0, "220 welcome\n");
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn datagrams_come_back_from_where_they_went() {
    let world = World::start();
    let fixture = world.engine().await;
    let sandbox = sandbox(&fixture.client, &[]).await;
    let (first, second) = (world.first.to_string(), world.second.to_string());
    assert_eq!(ask(&sandbox, &first, 7001, "hello").await, "hello");
    assert_eq!(ask(&sandbox, &second, 443, "quick").await, "quick");
    let large = "x".repeat(60_000);
    assert_eq!(ask(&sandbox, &first, 7001, &large).await, large);
    assert_eq!(ask(&sandbox, "127.0.0.1", 7001, "hello").await, "ConnectionRefusedError");
    // One that is not connected, to two others.
    let script = format!(
        "import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(2)
for place in [('{first}', 7001), ('{second}', 7001)] * 2:
    s.sendto(place[0].encode(), place)
    data, peer = s.recvfrom(100)
    assert peer == place and data.decode() == place[0], (peer, data)
print('fine')"
    );
    let output = sandbox.command("/usr/bin/python3").args(["-c", &script]).output().await;
    assert_eq!(output.expect("exec").stdout_str().expect("text"), "fine\n");
    let bandwidth = sandbox.bandwidth().await.expect("bandwidth");
    assert_eq!(bandwidth.used_bytes, bandwidth.ingress_bytes);
    assert_eq!(bandwidth.used_bytes, 60_010 + 2 * (first.len() + second.len()) as i64);
    fixture.end().await;
}

/// Nothing that listens on this machine, and nothing near it, is reached, whatever it is
/// called; and a ping is not answered by somebody else.
#[tokio::test(flavor = "multi_thread")]
async fn this_machine_and_its_neighbours_are_out_of_reach() {
    let world = World::start();
    let fixture = world.engine().await;
    let listener = std::net::TcpListener::bind("0.0.0.0:0").expect("listen");
    let port = listener.local_addr().expect("address").port();
    let own = world.own();
    let everything = ["0.0.0.0/0", "127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/8"];
    for rules in [&[][..], &everything, &["*.test"]] {
        let sandbox = sandbox(&fixture.client, rules).await;
        for place in
            ["169.254.169.254", "metadata.test", "0.0.0.0", "zero.test", "10.9.9.9", "private.test"]
        {
            let refused = curl(&sandbox, &format!("http://{place}/")).await.expect_err(place);
            assert!(BROKEN.contains(&refused), "{rules:?} {place} {refused}");
        }
        let api = fixture.engine.local_addr().port();
        for (place, port) in [(own, port), (own, api)] {
            let refused =
                curl(&sandbox, &format!("http://{place}:{port}/")).await.expect_err("own");
            assert!(BROKEN.contains(&refused), "{rules:?} {place}:{port} {refused}");
        }
        // This is the sandbox's own.
        for place in ["127.0.0.1", "loop.test"] {
            assert_eq!(curl(&sandbox, &format!("http://{place}:{port}/")).await, Err(7), "{place}");
        }
        let v6 = curl(&sandbox, "'http://[2606:4700:4700::1111]/'").await;
        assert_eq!(v6, Err(7), "there is no way to IPv6");
        assert_eq!(ask(&sandbox, "169.254.169.254", 80, "x").await, "TimeoutError");
    }
    listener.set_nonblocking(true).expect("no wait");
    assert!(listener.accept().is_err(), "nobody came");
    // A rule can list this machine's own address, but not the engine.
    let listed = sandbox(&fixture.client, &[&own.to_string()]).await;
    let reached = code(&listed, &format!("exec 3<>/dev/tcp/{own}/{port}; echo hello >&3")).await;
    assert_eq!(reached.1, 0);
    until_some(|| listener.accept().ok()).await;
    let api = fixture.engine.local_addr().port();
    let refused = curl(&listed, &format!("http://{own}:{api}/healthz")).await.expect_err("api");
    assert!(BROKEN.contains(&refused), "{refused}");
    fixture.end().await;
}

async fn until_some<T>(look: impl Fn() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("it never happened");
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_for_addresses_act_at_once_and_cut_what_they_forbid() {
    let world = World::start();
    let fixture = world.engine().await;
    let (first, second) = (world.first.to_string(), world.second.to_string());
    let sandbox = sandbox(&fixture.client, &[]).await;
    let hold = format!(
        "nohup bash -c 'exec 3<>/dev/tcp/{first}/7000; echo on >&3; read -u3 line; echo $line >/tmp/held;
         cat <&3 >/dev/null; echo cut >/tmp/held' >/dev/null 2>&1 &"
    );
    sh(&sandbox, &hold).await;
    until(&sandbox, "cat /tmp/held", "on\n").await;

    let rules = [format!("{second}:8080"), format!("{first}:80")];
    assert_eq!(sandbox.set_egress(rules.clone()).await.expect("rules"), rules);
    until(&sandbox, "cat /tmp/held", "cut\n").await;
    for (place, port, allowed) in [
        (&first, 80, true),
        (&first, 8080, false),
        (&second, 8080, true),
        (&second, 80, false),
        (&second, 443, false),
    ] {
        let page = curl(&sandbox, &format!("http://{place}:{port}/")).await;
        assert_eq!(page.is_ok(), allowed, "{place}:{port} {page:?}");
    }
    assert_eq!(ask(&sandbox, &first, 7001, "x").await, "TimeoutError");
    // Names are looked up all the same.
    let looked = sh(&sandbox, "getent hosts elsewhere.test").await;
    assert!(looked.starts_with(&second), "{looked}");

    sandbox.set_egress([format!("{first}/31")]).await.expect("rules");
    assert_eq!(ask(&sandbox, &first, 7001, "x").await, "x");
    assert!(curl(&sandbox, &format!("http://{first}:8080/")).await.is_ok());
    sandbox.set_egress(["*"]).await.expect("open");
    assert!(curl(&sandbox, &format!("http://{second}/")).await.is_ok());
    let bad = sandbox.set_egress(["10.0.0.0/33"]).await.expect_err("no network");
    assert_eq!(bad.kind(), ErrorKind::InvalidArgument);
    assert!(bad.to_string().contains("10.0.0.0/33"), "{bad}");
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_for_names_hold_against_every_other_way_there() {
    let world = World::start();
    let fixture = world.engine().await;
    let (first, second) = (world.first, world.second);
    let rules = ["allowed.test:443", "allowed.test:80", "allowed.test:7000", "*.wild.test"];
    let sandbox = sandbox(&fixture.client, &rules).await;
    for allowed in ["https://allowed.test/", "http://allowed.test/", "https://a.wild.test:8443/"] {
        assert!(curl(&sandbox, allowed).await.is_ok(), "{allowed}");
    }
    let echo = "exec 3<>/dev/tcp/allowed.test/7000; echo hello >&3; read -t 5 -u3 l; echo $l";
    assert_eq!(code(&sandbox, echo).await.0, "hello\n");
    // TLS connections break off in their handshake.
    for refused in [
        "https://other.test/".to_owned(),
        "https://wild.test/".to_owned(),
        "https://elsewhere.test/".to_owned(),
        format!("https://{first}/"),
        format!("https://{second}/"),
        // An allowed name that is said to be elsewhere.
        format!("--resolve allowed.test:443:{second} https://allowed.test/"),
        // An allowed address with another name.
        format!("--connect-to other.test:443:{first}:443 https://other.test/"),
        "https://allowed.test:8443/".to_owned(),
        format!("--resolve other.test:8443:{first} https://other.test:8443/"),
    ] {
        assert_eq!(curl(&sandbox, &refused).await, Err(35), "{refused}");
    }
    for refused in [
        "http://other.test/".to_owned(),
        format!("http://{first}/"),
        format!("-H 'Host: allowed.test' http://{second}/"),
        format!("-H 'Host: other.test' http://{first}/"),
        "http://allowed.test:8080/".to_owned(),
    ] {
        let code = curl(&sandbox, &refused).await.expect_err(&refused);
        assert!(BROKEN.contains(&code), "{refused} {code}");
    }
    // Neither names that are not said, nor what hides them, nor QUIC.
    let nameless = "openssl s_client -connect allowed.test:443 -noservername </dev/null 2>&1 | grep -c CERTIFICATE";
    assert_eq!(code(&sandbox, nameless).await.0, "0\n");
    let plain = "exec 3<>/dev/tcp/allowed.test/443; echo x >&3; timeout 5 cat <&3 | wc -c";
    assert_eq!(code(&sandbox, plain).await.0, "0\n");
    assert_eq!(ask(&sandbox, "allowed.test", 443, "x").await, "TimeoutError");
    // What says something else on a port for any protocol is cut when it does.
    let other = format!(
        "curl -sk --max-time 5 --connect-to other.test:7000:{first}:7000 https://other.test:7000/"
    );
    assert_eq!(code(&sandbox, &other).await.1, 35);
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sandbox_has_its_way_out_again_however_it_was_paused() {
    let world = World::start();
    let fixture = world.engine().await;
    let first = world.first;
    let sandbox = sandbox(&fixture.client, &[&format!("{first}:80"), "allowed.test"]).await;
    let page = || async { curl(&sandbox, &format!("http://{first}/")).await.is_ok() };
    let named = || async { curl(&sandbox, "https://allowed.test/").await.is_ok() };
    assert!(page().await && named().await);
    // Booted again.
    sandbox.pause().await.expect("pause");
    sandbox.resume().await.expect("resume");
    assert!(page().await && named().await, "after a boot");
    // With its memory, and a connection that is open.
    let hold = format!(
        "nohup bash -c 'exec 3<>/dev/tcp/{first}/80; echo up >/tmp/state; cat <&3; echo cut >/tmp/state; sleep 1000' >/dev/null 2>&1 &"
    );
    sh(&sandbox, &hold).await;
    until(&sandbox, "cat /tmp/state", "up\n").await;
    sandbox.pause().await.expect("pause");
    let view = sandbox.refresh().await.expect("view");
    assert_eq!(view.status, SandboxStatus::Paused);
    assert_eq!(view.status_reason, None, "its memory is on disk");
    let fork = sandbox.fork().await.expect("fork");
    sandbox.resume().await.expect("resume");
    assert!(page().await && named().await, "after a restore");
    until(&sandbox, "cat /tmp/state", "cut\n").await;
    // The fork has another address, and the rules.
    let ip = |sandbox: &createos_sdk::Sandbox| sandbox.view().and_then(|view| view.ip.clone());
    assert_ne!(ip(&fork), ip(&sandbox));
    assert!(curl(&fork, "https://allowed.test/").await.is_ok());
    assert_eq!(curl(&fork, "https://other.test/").await, Err(35));
    assert_eq!(fork.egress().await.expect("rules"), sandbox.egress().await.expect("rules"));
    fixture.end().await;
}
