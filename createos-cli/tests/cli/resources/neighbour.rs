//! A machine beside this one that serves pages, for what sandboxes may reach outside.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// It goes with its process.
pub(super) struct Neighbour {
    process: Child,
    /// Where it serves, at port 80 and at port 81.
    pub(super) address: String,
}

const SERVE: &str = "echo $$; read go
for port in 80 81; do python3 -m http.server $port >/dev/null 2>&1 & done
until curl -so/dev/null http://127.0.0.1:80/ && curl -so/dev/null http://127.0.0.1:81/
do sleep 0.05; done; echo ready; wait";

fn run(line: &str) -> String {
    let mut words = line.split_whitespace();
    let mut command = Command::new(words.next().expect("a program"));
    let output = command.args(words).output().unwrap_or_else(|error| panic!("{line}: {error}"));
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

impl Neighbour {
    /// Starts it; needs root, as the tests of networks do.
    pub(super) fn start() -> Self {
        let mut process = Command::new("unshare")
            .args(["--net", "--pid", "--kill-child", "--fork", "sh", "-c", SERVE])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a namespace");
        let mut output = BufReader::new(process.stdout.take().expect("output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line (are you root?)");
        let children =
            std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", process.id()));
        let pid = children.expect("its process").trim().to_owned();
        // One of the networks that are for documentation, which lead nowhere.
        let taken = run("ip -4 addr show");
        let free = (0..64).map(|n| format!("198.51.100.{}", n * 4));
        let mut free = free.filter(|base| {
            let last =
                base.rsplit('.').next().and_then(|n| n.parse::<u8>().ok()).expect("a number");
            !taken.contains(&format!("198.51.100.{}/", last + 1))
        });
        let base = free.next().expect("a free network");
        let last: u8 = base.rsplit('.').next().expect("a part").parse().expect("a number");
        let (own, address) =
            (format!("198.51.100.{}", last + 1), format!("198.51.100.{}", last + 2));
        let link = format!("cn{pid}");
        run(&format!("ip link add {link} type veth peer name eth0 netns {pid}"));
        run(&format!("ip addr add {own}/30 dev {link}"));
        run(&format!("ip link set {link} up"));
        for inside in
            ["link set lo up", "link set eth0 up", &format!("addr add {address}/30 dev eth0")]
        {
            run(&format!("nsenter -t {pid} -n ip {inside}"));
        }
        process.stdin.as_mut().expect("input").write_all(b"go\n").expect("go");
        line.clear();
        output.read_line(&mut line).expect("a line");
        assert_eq!(line.trim(), "ready");
        Self { process, address }
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
