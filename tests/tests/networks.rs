//! Private networks between real sandboxes: who reaches whom, by what, and for how long.

#[path = "networks/hostile.rs"]
mod hostile;
#[path = "networks/members.rs"]
mod members;

use std::time::Duration;

use createos_sdk::wire::SandboxStatus::{Destroyed, Paused, Running};
use createos_sdk::{ErrorKind, Sandbox};
use createos_tests::{Fixture, sh, until};

use members::{CONNECT, address, connect, member, python, resume, seen_by, serve};

#[tokio::test]
async fn members_reach_each_other_and_nobody_else_does() {
    let fixture = Fixture::start().await;
    let client = &fixture.client;
    let mesh = client.create_network("mesh").await.expect("a network");
    let other = client.create_network("other").await.expect("a network");
    let (server, visitor) = (member(client, &[&mesh]).await, member(client, &[&mesh]).await);
    let (outsider, loner) = (member(client, &[&other]).await, member(client, &[]).await);
    let both = member(client, &[&mesh, &other]).await;
    for sandbox in [&server, &visitor, &outsider, &both] {
        serve(sandbox).await;
    }
    let (at, from) = (address(&server, &mesh).await, address(&visitor, &mesh).await);
    assert_eq!(seen_by(&visitor, &at).await, from);
    assert_eq!(seen_by(&server, &from).await, at);
    assert_eq!(seen_by(&visitor, &from).await, from, "its own address, too");

    for stranger in [&outsider, &loner] {
        assert_ne!(connect(stranger, &at).await, "open");
    }
    let outside = address(&outsider, &other).await;
    assert_ne!(connect(&visitor, &outside).await, "open");
    // Whoever is on two is on both, and is no way from one to the other.
    assert_eq!(seen_by(&both, &at).await, address(&both, &mesh).await);
    assert_eq!(seen_by(&both, &outside).await, address(&both, &other).await);

    // Absence is told at once, and so is a closed port.
    let absent = at.rsplit_once('.').expect("an address").0.to_owned() + ".200";
    assert_eq!(connect(&visitor, &absent).await, "EHOSTUNREACH");
    assert_eq!(python(&visitor, CONNECT, &[&at, "8001"]).await, "ECONNREFUSED");
    // A member's own address, that its ports and tunnels are at, is none of the network's.
    let view = server.refresh().await.expect("a view");
    assert_ne!(connect(&visitor, view.ip.as_deref().expect("an address")).await, "open");
    fixture.end().await;
}

#[tokio::test]
async fn rules_for_the_way_out_do_not_concern_members() {
    let fixture = Fixture::start().await;
    let client = &fixture.client;
    let mesh = client.create_network("mesh").await.expect("a network");
    let server = member(client, &[&mesh]).await;
    serve(&server).await;
    let at = address(&server, &mesh).await;
    let create = client.create_sandbox(members::SHAPE).network(mesh.id().clone());
    let visitor = create.egress(["allowed.test:443"]).await.expect("a member with rules");
    let from = address(&visitor, &mesh).await;
    assert_eq!(seen_by(&visitor, &at).await, from, "it is no way out");
    assert_ne!(python(&visitor, CONNECT, &["192.0.2.1", "80"]).await, "open");
    // And no traffic that is counted.
    let used = visitor.bandwidth().await.expect("bandwidth");
    assert_eq!((used.used_bytes, used.ingress_bytes), (0, 0));
    // Somebody who lists the member as well changes nothing.
    visitor.set_egress(["allowed.test:443".to_owned(), at.clone()]).await.expect("rules");
    assert_eq!(seen_by(&visitor, &at).await, from);
    fixture.end().await;
}

/// The addresses that a name has for a sandbox.
async fn resolve(sandbox: &Sandbox, name: &str) -> Vec<String> {
    let look = "import socket, sys\n\
        try: print(*sorted({a[4][0] for a in socket.getaddrinfo(sys.argv[1], 8000)}), end='')\n\
        except socket.gaierror: pass";
    let found = python(sandbox, look, &[name]).await;
    found.split_whitespace().map(str::to_owned).collect()
}

#[tokio::test]
async fn every_form_of_a_name_leads_to_a_member() {
    let fixture = Fixture::start().await;
    let client = &fixture.client;
    let mesh = client.create_network("mesh").await.expect("a network");
    let back = client.create_network("Back").await.expect("a network");
    let create = client.create_sandbox("s-1vcpu-256mb").name("web");
    let create = create.network(mesh.id().clone()).network(back.id().clone());
    let server = create.await.expect("create");
    let (visitor, outsider) = (member(client, &[&mesh]).await, member(client, &[]).await);
    serve(&server).await;
    let (at, from) = (address(&server, &mesh).await, address(&visitor, &mesh).await);
    let whole = format!("{}.fc.local", server.id());
    for name in ["web.fc.local", "web.mesh.fc.local", "WEB.Mesh.FC.local", &whole, "web"] {
        assert_eq!(resolve(&visitor, name).await, [at.as_str()], "{name}");
        assert_eq!(seen_by(&visitor, name).await, from, "{name}");
        assert_eq!(resolve(&outsider, name).await, [""; 0], "{name}");
    }
    for name in ["web.back.fc.local", "web.none.fc.local", "none.fc.local", "a.web.mesh.fc.local"] {
        assert_eq!(resolve(&visitor, name).await, [""; 0], "{name}");
    }

    // Whoever shares two networks with it is told of both.
    visitor.attach_network("back").await.expect("attach");
    let other = address(&server, &back).await;
    let mut both = vec![at.clone(), other.clone()];
    both.sort();
    assert_eq!(resolve(&visitor, "web.fc.local").await, both);
    assert_eq!(resolve(&visitor, "web.back.fc.local").await, [other.as_str()]);
    server.detach_network("mesh").await.expect("detach");
    assert_eq!(resolve(&visitor, "web").await, [other.as_str()]);

    server.pause().await.expect("pause");
    resume(&server).await;
    assert_eq!(seen_by(&visitor, "web").await, address(&visitor, &back).await);
    server.destroy().await.expect("destroy");
    server.wait_until(Destroyed).await.expect("its end");
    assert_eq!(resolve(&visitor, "web.fc.local").await, [""; 0]);
    fixture.end().await;
}

#[tokio::test]
async fn datagrams_and_echo_requests_pass() {
    let fixture = Fixture::start().await;
    let mesh = fixture.client.create_network("mesh").await.expect("a network");
    let server = member(&fixture.client, &[&mesh]).await;
    let visitor = member(&fixture.client, &[&mesh]).await;
    let at = address(&server, &mesh).await;
    let serve = "nohup python3 -c 'import socket\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind((\"0.0.0.0\", 9000))\n\
        open(\"/root/ready\", \"w\").close()\n\
        while True: d, a = s.recvfrom(65535); s.sendto(d[::-1], a)' >/dev/null 2>&1 </dev/null &";
    sh(&server, serve).await;
    until(&server, "test -e /root/ready && echo yes", "yes\n").await;
    // The large one comes in pieces.
    let ask = "import socket, sys\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)\n\
        for data in (b'ab', bytes(range(250)) * 200):\n\
        \ts.sendto(data, (sys.argv[1], 9000)); assert s.recv(65535) == data[::-1]\n\
        print('ok', end='')";
    assert_eq!(python(&visitor, ask, &[&at]).await, "ok");
    let ping = "import socket, struct, sys\n\
        s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP); s.settimeout(5)\n\
        s.sendto(struct.pack('!BBHHH', 8, 0, 0, 0, 7) + b'hello', (sys.argv[1], 0))\n\
        answer, who = s.recvfrom(99); print(who[0], answer[8:].decode(), end='')";
    assert_eq!(python(&visitor, ping, &[&at]).await, format!("{at} hello"));
    fixture.end().await;
}

#[tokio::test]
async fn running_sandboxes_join_and_leave() {
    let fixture = Fixture::start().await;
    let client = &fixture.client;
    let mesh = client.create_network("mesh").await.expect("a network");
    let (server, visitor) = (member(client, &[]).await, member(client, &[&mesh]).await);
    serve(&server).await;
    server.attach_network("mesh").await.expect("attach");
    server.attach_network(mesh.id()).await.expect("twice is harmless");
    let at = address(&server, &mesh).await;
    assert_eq!(seen_by(&visitor, &at).await, address(&visitor, &mesh).await);
    let conflict = mesh.delete().await.expect_err("it has members");
    assert_eq!(conflict.kind(), ErrorKind::Conflict);

    server.detach_network("mesh").await.expect("detach");
    assert_eq!(mesh.refresh().await.expect("a view").members.len(), 1);
    assert_eq!(connect(&visitor, &at).await, "EHOSTUNREACH");
    assert_eq!(sh(&server, "cat /proc/net/dev | grep -c net0").await, "0\n");
    assert_ne!(connect(&server, &at).await, "open", "the address is nobody's");
    let gone = server.detach_network("mesh").await.expect_err("it is off");
    assert_eq!(gone.kind(), ErrorKind::NotFound);
    for _ in 0..5 {
        server.attach_network("mesh").await.expect("attach");
        let now = address(&server, &mesh).await;
        assert_eq!(seen_by(&visitor, &now).await, address(&visitor, &mesh).await);
        server.detach_network("mesh").await.expect("detach");
    }

    visitor.destroy().await.expect("destroy");
    client
        .network("mesh".parse::<createos_sdk::NetworkId>().expect("a name"))
        .delete()
        .await
        .expect("nobody is on it");
    fixture.end().await;
}

/// With its processes, its address comes back, in whatever way they were kept.
#[tokio::test]
async fn addresses_stay_across_pauses() {
    let fixture = Fixture::start().await;
    let client = &fixture.client;
    let mesh = client.create_network("mesh").await.expect("a network");
    let (server, visitor) = (member(client, &[&mesh]).await, member(client, &[&mesh]).await);
    let at = address(&server, &mesh).await;
    let from = address(&visitor, &mesh).await;
    serve(&server).await;
    // Bound to the very address, and connected over the network, when it is paused.
    let bind = format!(
        "nohup python3 -c 'import socket, time\n\
         s = socket.create_server((\"{at}\", 8002))\n\
         open(\"/root/ready\", \"w\").close()\n\
         while True: c, a = s.accept(); c.sendall(a[0].encode()); c.close()' >/dev/null 2>&1 </dev/null &"
    );
    sh(&server, &bind).await;
    until(&server, "test -e /root/ready && echo yes", "yes\n").await;
    let hold = format!(
        "nohup python3 -c 'import socket, time\n\
         c = socket.create_connection((\"{at}\", 8002)); c.recv(9)\n\
         d = socket.create_connection((\"{at}\", 8000))\n\
         open(\"/root/ready\", \"w\").close()\n\
         time.sleep(1000)' >/dev/null 2>&1 </dev/null &"
    );
    sh(&visitor, &hold).await;
    until(&visitor, "test -e /root/ready && echo yes", "yes\n").await;

    for sandbox in [&server, &visitor] {
        sandbox.pause().await.expect("pause");
        let paused = sandbox.refresh().await.expect("a view");
        assert_eq!(paused.status, Paused);
        let on_disk = paused.status_reason.is_none();
        eprintln!("{} is paused {}", sandbox.id(), if on_disk { "to disk" } else { "in memory" });
        let members = &mesh.refresh().await.expect("a view").members;
        assert_eq!(members.len(), 2);
        let refused = sandbox.attach_network("mesh").await.expect_err("paused");
        assert_eq!(refused.kind(), ErrorKind::Conflict);
        resume(sandbox).await;
        assert_eq!(sandbox.refresh().await.expect("a view").status, Running);
        let port = "import socket, sys; \
            s = socket.create_connection((sys.argv[1], 8002), 5); print(s.recv(99).decode(), end='')";
        assert_eq!(python(&visitor, port, &[&at]).await, from);
        assert_eq!(seen_by(&visitor, &at).await, from);
    }

    // A fork has the memory, and no place on the network.
    server.pause().await.expect("pause");
    let fork = server.fork().await.expect("fork");
    resume(&server).await;
    assert_eq!(mesh.refresh().await.expect("a view").members.len(), 2);
    assert_ne!(connect(&fork, &from).await, "open");
    assert_eq!(sh(&fork, &format!("grep -c {at} /proc/net/fib_trie")).await, "0\n");
    assert_eq!(seen_by(&visitor, &at).await, from);
    fork.attach_network("mesh").await.expect("attach");
    let second = address(&fork, &mesh).await;
    assert_ne!(second, at);
    assert_eq!(seen_by(&visitor, &second).await, from);

    // One that has left comes back with sockets that still have its address, and so does the
    // fork with those of its source.
    visitor.detach_network("mesh").await.expect("detach");
    visitor.pause().await.expect("pause");
    eprintln!("{:?}", visitor.refresh().await.expect("a view").status_reason);
    resume(&visitor).await;
    assert_eq!(sh(&visitor, "pgrep -c -f 'sleep.100[0]'").await, "1\n", "it goes on");
    assert_eq!(sh(&visitor, &format!("grep -c {from} /proc/net/fib_trie")).await, "0\n");
    visitor.attach_network("mesh").await.expect("attach");
    assert_eq!(seen_by(&visitor, &second).await, address(&visitor, &mesh).await);

    // It leaves while it is paused.
    fork.pause().await.expect("pause");
    fork.detach_network("mesh").await.expect("detach");
    resume(&fork).await;
    assert_eq!(connect(&visitor, &second).await, "EHOSTUNREACH");
    fixture.end().await;
}

#[tokio::test]
async fn the_next_engine_puts_sandboxes_on_their_networks_again() {
    let dir = tempfile::tempdir().expect("a directory");
    let start = async || {
        let engine = createos_local::Engine::builder().data_dir(dir.path()).start().await;
        engine.expect("the engine starts")
    };
    let engine = start().await;
    let client = engine.client();
    let mesh = client.create_network("mesh").await.expect("a network");
    let (server, visitor) = (member(&client, &[&mesh]).await, member(&client, &[&mesh]).await);
    let (at, from) = (address(&server, &mesh).await, address(&visitor, &mesh).await);
    engine.shutdown().await;

    let engine = start().await;
    let client = engine.client();
    for id in [server.id(), visitor.id()] {
        client.sandbox(id.clone()).resume().await.expect("resume");
    }
    let (server, visitor) =
        (client.sandbox(server.id().clone()), client.sandbox(visitor.id().clone()));
    serve(&server).await;
    assert_eq!(seen_by(&visitor, &at).await, from);
    engine.shutdown().await;
}

#[tokio::test]
async fn twenty_members_and_what_is_left_of_them() {
    const MEMBERS: usize = 20;
    let fixture = Fixture::start().await;
    let client = &fixture.client;
    let mesh = client.create_network("mesh").await.expect("a network");
    let began = std::time::Instant::now();
    let on = [&mesh];
    let creates = (0..MEMBERS).map(|_| member(client, &on));
    let members = futures::future::join_all(creates).await;
    eprintln!("{MEMBERS} members in {:?}", began.elapsed());
    let view = mesh.refresh().await.expect("a view");
    let addresses: Vec<String> =
        view.members.iter().filter_map(|member| member.ip.clone()).collect();
    assert_eq!(addresses.len(), MEMBERS);
    serve(&members[7]).await;
    let at = address(&members[7], &mesh).await;
    let seen = members.iter().map(|member| seen_by(member, &at));
    let mut seen = futures::future::join_all(seen).await;
    let mut expected = addresses.clone();
    seen.sort();
    expected.sort();
    assert_eq!(seen, expected);

    let ends = members.iter().map(async |member| {
        member.destroy().await.expect("destroy");
        member.wait_until(Destroyed).await.expect("its end");
    });
    futures::future::join_all(ends).await;
    mesh.delete().settling(Duration::ZERO).await.expect("nobody is on it");
    fixture.end().await;
}
