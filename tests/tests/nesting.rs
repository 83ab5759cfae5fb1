//! Containers inside a sandbox, where the engine allows it: a real Docker daemon.

use std::time::Duration;

use createos_local::Engine;
use createos_sdk::{ErrorKind, Sandbox};
use createos_tests::Fixture;

async fn sh(sandbox: &Sandbox, script: &str) -> Result<String, String> {
    let output = sandbox.command("sh").args(["-c", script]).output().await.expect("exec");
    let stdout = output.stdout_lossy().into_owned();
    if output.status.success() {
        return Ok(stdout);
    }
    Err(format!("{:?}: {stdout}{}", output.status, output.stderr_lossy()))
}

/// Docker works on what a user namespace offers: no overlay on an overlay, no bridge.
const DAEMON: &str = "mkdir -p /var/lib/docker && \
    nohup setsid dockerd --storage-driver=vfs --iptables=false --ip6tables=false --bridge=none \
    --ip-forward=false >/var/log/dockerd.log 2>&1 </dev/null & \
    for i in $(seq 300); do docker version >/dev/null 2>&1 && exit 0; sleep 0.1; done; \
    tail -20 /var/log/dockerd.log; exit 1";

/// An image out of one static program, without any registry.
const IMAGE: &str = "cd $(mktemp -d) && mkdir -p bin && cp $(command -v busybox) bin/busybox && \
    ln -s busybox bin/sh && tar -c . | docker import - tiny >/dev/null";

#[tokio::test]
async fn docker_runs_a_container_inside() {
    let engine = Engine::builder().ephemeral().allow_nesting(true).start().await.expect("engine");
    let client = engine.client();
    let create = client.create_sandbox("s-1vcpu-1gb").node_selector("nesting", "true");
    let sandbox = create.await.expect("create");
    sh(&sandbox, DAEMON).await.expect("the daemon starts (Debian packages docker.io, busybox)");
    sh(&sandbox, IMAGE).await.expect("an image");
    let run = "docker run --rm --network=host tiny /bin/sh -c 'echo in $$; busybox id -u'";
    assert_eq!(sh(&sandbox, run).await.expect("a container"), "in 1\n0\n");

    // What it holds stays within its own limits, and goes with it.
    let nested = sh(&sandbox, "cat /sys/fs/cgroup/cgroup.max.descendants").await;
    assert_eq!(nested.expect("a tree of its own"), "1024\n");
    sh(&sandbox, "docker run -d --network=host tiny /bin/busybox sleep 1000").await.expect("lasts");
    tokio::time::timeout(Duration::from_secs(20), sandbox.destroy())
        .await
        .expect("in time")
        .expect("destroy");
    engine.shutdown().await;
}

#[tokio::test]
async fn it_is_off_unless_both_sides_ask_for_it() {
    let fixture = Fixture::start().await;
    let create = fixture.client.create_sandbox("s-1vcpu-256mb").node_selector("nesting", "true");
    let refused = create.await.expect_err("not allowed");
    assert_eq!(refused.kind(), ErrorKind::PermissionDenied);
    assert!(refused.to_string().contains("allow_nesting"), "{refused}");
    let plain = fixture.sandbox().await;
    let mount = sh(&plain, "unshare -Ur true; mount -t tmpfs none /mnt").await;
    assert!(mount.is_err(), "{mount:?}");
    fixture.end().await;

    let engine = Engine::builder().ephemeral().allow_nesting(true).start().await.expect("engine");
    let plain = engine.client().create_sandbox("s-1vcpu-256mb").await.expect("create");
    let mount = sh(&plain, "mount -t tmpfs none /mnt").await;
    assert!(mount.is_err(), "{mount:?}");
    engine.shutdown().await;
}

#[tokio::test]
async fn interfaces_that_it_makes_are_not_in_the_way_of_networks() {
    let engine = Engine::builder().ephemeral().allow_nesting(true).start().await.expect("engine");
    let client = engine.client();
    let mesh = client.create_network("mesh").await.expect("a network");
    let create = client.create_sandbox("s-1vcpu-256mb").node_selector("nesting", "true");
    let sandbox = create.await.expect("create");
    let other = client.create_sandbox("s-1vcpu-256mb").network(mesh.id().clone());
    let other = other.await.expect("create");
    let to = other.wait_until_joined(mesh.id()).await.expect("an address");
    sh(&sandbox, "ip link add net0 type veth peer name net1").await.expect("links");
    sandbox.attach_network(mesh.id()).await.expect("it joins");
    sandbox.wait_until_joined(mesh.id()).await.expect("an address");
    // Nobody listens there, which the other one's own kernel says.
    let knock = format!("(exec 3<>/dev/tcp/{to}/9) 2>&1 | grep -o refused | head -n 1");
    let knock = format!("timeout 5 bash -c '{knock}'");
    assert_eq!(sh(&sandbox, &knock).await.expect("bash"), "refused\n");
    sandbox.detach_network(mesh.id()).await.expect("it leaves");
    assert!(sh(&sandbox, "ip -br link").await.expect("links").contains("net0"), "its own stay");
    engine.shutdown().await;
}
