//! What is outside: a network namespace with servers, beside this machine.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use createos_local::Engine;
use createos_sdk::{Client, Sandbox};
use createos_tests::Fixture;
use tempfile::TempDir;

/// `python3 -c WORLD CERTIFICATE FIRST SECOND`
const WORLD: &str = include_str!("world.py");

/// A neighbour of this machine with two addresses. It goes with its process.
pub(crate) struct World {
    process: Child,
    pub(crate) first: Ipv4Addr,
    pub(crate) second: Ipv4Addr,
    _directory: TempDir,
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

fn ip(arguments: &str) -> String {
    run("ip", &arguments.split_whitespace().collect::<Vec<_>>())
}

/// A certificate that nobody trusts.
fn certificate(directory: &Path) -> String {
    let path = directory.join("certificate.pem").display().to_string();
    let key = format!("{path}.key");
    let request = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 \
                   -subj /CN=test -out";
    let mut arguments: Vec<&str> = request.split_whitespace().collect();
    arguments.extend([&*path, "-keyout", &key]);
    run("openssl", &arguments);
    let both = [&path, &key].map(|part| std::fs::read(part).expect("certificate"));
    std::fs::write(&path, both.concat()).expect("write");
    path
}

/// A network of eight addresses that this machine does not know yet.
fn free_network() -> Ipv4Addr {
    let taken = ip("-4 addr show");
    loop {
        // Of the networks that are for documentation, which lead nowhere.
        let network = Ipv4Addr::new(198, 51, 100, fastrand::u8(0..32) * 8);
        let own = Ipv4Addr::from(u32::from(network) + 1);
        if !taken.contains(&format!("{own}/")) {
            return network;
        }
    }
}

impl World {
    /// Starts it. Needs root, like what is tested with it.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let network = free_network();
        let [own, first, second] = [1, 2, 3].map(|n| Ipv4Addr::from(u32::from(network) + n));
        let mut process = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo $$; read go; exec /usr/bin/python3 -c \"$0\" \"$@\""])
            .args([WORLD, &certificate(directory.path())])
            .args([first.to_string(), second.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a namespace");
        let mut output = BufReader::new(process.stdout.take().expect("output"));
        let mut line = || {
            let mut line = String::new();
            output.read_line(&mut line).expect("a line");
            line.trim().to_owned()
        };
        let pid: u32 = line().parse().expect("a namespace (are you root?)");
        let link = format!("cw{pid}");
        ip(&format!("link add {link} type veth peer name eth0 netns {pid}"));
        ip(&format!("addr add {own}/29 dev {link}"));
        ip(&format!("link set {link} up"));
        let inside = |arguments: &str| {
            let arguments = format!("-t {pid} -n ip {arguments}");
            run("nsenter", &arguments.split_whitespace().collect::<Vec<_>>());
        };
        inside("link set lo up");
        inside("link set eth0 up");
        inside(&format!("addr add {first}/29 dev eth0"));
        inside(&format!("addr add {second}/29 dev eth0"));
        inside(&format!("route add default via {own}"));
        process.stdin.as_mut().expect("input").write_all(b"go\n").expect("go");
        assert_eq!(line(), "ready");
        Self { process, first, second, _directory: directory }
    }

    /// This machine's own address beside it.
    pub(crate) fn own(&self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.first) - 1)
    }

    /// An engine that asks it for names.
    pub(crate) async fn engine(&self) -> Fixture {
        let server = SocketAddr::from((self.first, 53));
        let engine = Engine::builder().ephemeral().name_server(server).start().await;
        let engine = engine.unwrap_or_else(|error| panic!("the engine does not start: {error}"));
        let client = engine.client();
        Fixture { engine, client }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // It is ours, and it has nothing to lose.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A sandbox with these rules.
pub(crate) async fn sandbox(client: &Client, rules: &[&str]) -> Sandbox {
    let create = client.create_sandbox("s-1vcpu-256mb").egress(rules.iter().copied());
    create.await.unwrap_or_else(|error| panic!("no sandbox: {error}"))
}

/// What a command prints in the sandbox, and its exit code.
pub(crate) async fn code(sandbox: &Sandbox, script: &str) -> (String, i32) {
    let output = sandbox.command("bash").args(["-c", script]).output().await.expect("exec");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (text, output.status.code())
}

/// What curl prints of a page, or its exit code.
pub(crate) async fn curl(sandbox: &Sandbox, arguments: &str) -> Result<String, i32> {
    match code(sandbox, &format!("curl -sk --max-time 20 {arguments}")).await {
        (page, 0) => Ok(page),
        (_, code) => Err(code),
    }
}
