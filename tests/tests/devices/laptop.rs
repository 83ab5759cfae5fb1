//! A device in a network of its own, beside this machine's, with WireGuard by somebody else:
//! `wg-quick` and `wireguard-go`.

use std::ffi::OsStr;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A machine that is connected to this one by a cable.
pub(crate) struct Laptop {
    /// Keeps its network.
    holder: Child,
    number: u32,
    dir: TempDir,
    private: String,
    servers: Mutex<Vec<Child>>,
    pub(crate) public: String,
}

impl Laptop {
    pub(crate) fn new() -> Self {
        // Tests of other programs are not to meet.
        let number = std::process::id() % 1000 * 16 + NUMBER.fetch_add(1, Ordering::SeqCst);
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("resolv.conf"), "nameserver 100.64.0.1\n").expect("write");
        let hold = format!(
            "mount --bind {}/resolv.conf /etc/resolv.conf && echo ready && exec sleep 1000000",
            dir.path().display()
        );
        let mut holder = Command::new("unshare");
        holder.args(["--net", "--mount", "sh", "-c", &hold]).stdout(Stdio::piped());
        let mut holder = holder.spawn().expect("unshare");
        let ready = &mut [0; 6];
        std::io::Read::read_exact(holder.stdout.as_mut().expect("its output"), ready)
            .expect("a network of its own (this needs root)");
        let private = said(Command::new("wg").arg("genkey"));
        fs::write(dir.path().join("key"), &private).expect("write");
        let key = fs::File::open(dir.path().join("key")).expect("open");
        let public = said(Command::new("wg").arg("pubkey").stdin(key));
        let laptop = Self { holder, number, dir, private, servers: Mutex::default(), public };
        let (here, there) = (laptop.cable('h'), laptop.cable('l'));
        let pid = laptop.holder.id().to_string();
        let near = format!("{}/30", laptop.near());
        ip(&["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &pid]);
        ip(&["address", "add", &near, "dev", &here]);
        ip(&["link", "set", &here, "up"]);
        let far = format!("{}/30", laptop.address(2));
        laptop.run(["ip", "link", "set", "lo", "up"]);
        laptop.run(["ip", "address", "add", &far, "dev", &there]);
        laptop.run(["ip", "link", "set", &there, "up"]);
        laptop
    }

    fn cable(&self, end: char) -> String {
        format!("cos{end}{}", self.number)
    }

    /// What its tunnel is called.
    pub(crate) fn interface(&self) -> String {
        format!("cosw{}", self.number)
    }

    fn address(&self, last: u32) -> Ipv4Addr {
        Ipv4Addr::from_bits(0x0afa_0000 + self.number * 4 + last)
    }

    /// This machine, as the laptop sees it.
    pub(crate) fn near(&self) -> Ipv4Addr {
        self.address(1)
    }

    /// Where an engine listens that it can reach.
    pub(crate) fn listen(&self) -> SocketAddr {
        (self.near(), 0).into()
    }

    fn inside(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.holder.id().to_string(), "--net", "--mount"]);
        command.arg(program);
        command
    }

    pub(crate) fn run<const N: usize>(&self, line: [&str; N]) -> String {
        said(self.inside(line[0]).args(&line[1..]))
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join(format!("{}.conf", self.interface()))
    }

    /// Connects with a configuration as the engine gives it, and its own key.
    pub(crate) fn up(&self, config: &str) {
        self.up_with(config, &self.private);
    }

    pub(crate) fn up_with(&self, config: &str, private: &str) {
        let config =
            config.replace("[Interface]\n", &format!("[Interface]\nPrivateKey = {private}\n"));
        fs::write(self.config(), config).expect("write");
        let mut up = self.inside("wg-quick");
        up.arg("up").arg(self.config()).env("WG_QUICK_USERSPACE_IMPLEMENTATION", "wireguard-go");
        let out = up.output().expect("wg-quick");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    }

    pub(crate) fn down(&self) {
        let _ = self.inside("wg-quick").arg("down").arg(self.config()).output();
    }

    pub(crate) fn python(&self, script: &str, args: &[&str]) -> String {
        let out = self.inside("python3").args(["-c", script]).args(args).output();
        let Output { stdout, stderr, .. } = out.expect("python3");
        String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned()
    }

    /// Runs a program in the background that writes `ready` when it is.
    pub(crate) fn serve(&self, script: &str) {
        let mut command = self.inside("python3");
        let mut child =
            command.args(["-c", script]).stdout(Stdio::piped()).spawn().expect("python3");
        let ready = &mut [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().expect("its output"), ready)
            .expect("ready");
        self.servers.lock().expect("lock").push(child);
    }

    /// Whether the other side has ever answered.
    pub(crate) fn has_shaken_hands(&self) -> bool {
        let said = self.run(["wg", "show", &self.interface(), "latest-handshakes"]);
        !said.ends_with("\t0")
    }

    /// Everything that is in its network ends.
    fn end_processes(&self) {
        let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let Some(own) = namespace(&self.holder.id().to_string()) else { return };
        let all = fs::read_dir("/proc").expect("/proc").flatten();
        let pids = all.filter_map(|entry| entry.file_name().into_string().ok());
        for pid in pids.filter(|pid| namespace(pid).as_ref() == Some(&own)) {
            if let Some(pid) = pid.parse().ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

impl Drop for Laptop {
    fn drop(&mut self) {
        self.end_processes();
        let _ = self.holder.wait();
        for mut server in self.servers.lock().expect("lock").drain(..) {
            let _ = server.wait();
        }
        let socket = format!("/var/run/wireguard/{}.sock", self.interface());
        if Path::new(&socket).exists() {
            let _ = fs::remove_file(socket);
        }
    }
}

fn ip(arguments: &[&str]) {
    said(Command::new("ip").args(arguments));
}

fn said(command: &mut Command) -> String {
    let out = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim_end().to_owned()
}

/// Waits until something is so, but no longer than 20 seconds.
pub(crate) async fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
