//! `createos sandbox sync` as its users run it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use wiremock::MockServer;

use crate::support::home::Home;
use crate::support::plane::{Cli, plane};
use crate::support::terminal::Terminal;
use crate::support::{Answer, wait_until};

#[tokio::test]
async fn what_must_not_be_synced_is_refused_before_anything_is_asked() {
    let server = MockServer::start().await;
    let cli = Cli::new(&server.uri());
    let home = cli.home.path();
    for dir in ["work", ".ssh/x", "p/.aws", ".config/app", "x/.gnupg", ".mozilla", "Keychains"] {
        fs::create_dir_all(home.join(dir)).expect("a directory");
    }
    fs::write(home.join("file"), "").expect("a file");
    for (name, target) in
        [("to-etc", "/etc"), ("to-root", "/"), ("to-home", "."), ("to-ssh", ".ssh")]
    {
        symlink(target, home.join(name)).expect("a link");
    }
    symlink(home, home.join("work/home")).expect("a link");
    symlink(home.join(".ssh"), home.join("work/keys")).expect("a link");
    // Never synced, whatever is said.
    for local in [
        "/",
        "~",
        ".",
        "..",
        "/etc",
        "/usr/share",
        "/bin",
        "/sbin",
        "/lib",
        "/boot",
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/var",
        "/var/lib",
        "to-etc",
        "to-root",
        "work/home",
        "work/..",
    ] {
        for force in [&[][..], &["--force"]] {
            let line = ["sandbox", "sync", "demo", "--remote", "/root/w", "--local", local];
            let answer = cli.run(&[&line[..], force].concat());
            assert_eq!(answer.code, Some(2), "{local} {force:?}: {answer:?}");
            assert!(answer.stderr.contains("not synced"), "{local}: {answer:?}");
            assert!(!answer.stderr.contains("--force\n"), "{local}: {answer:?}");
        }
    }
    // Meant, if one says so. What is outside of the home of this test is a temporary directory.
    for local in [
        ".ssh",
        ".ssh/x",
        "p/.aws",
        ".config/app",
        "x/.gnupg",
        ".mozilla",
        "Keychains",
        "work/keys",
        "/opt",
    ] {
        let line = ["sandbox", "sync", "demo", "--remote", "/root/w", "--local", local];
        let answer = cli.run(&line);
        assert_eq!(answer.code, Some(2), "{local}: {answer:?}");
        assert!(answer.stderr.contains("sync it all the same: --force"), "{local}: {answer:?}");
    }
    for (local, said) in
        [("file", "not a directory"), ("gone", "no such file"), ("", "value is required")]
    {
        let line = ["sandbox", "sync", "demo", "--remote", "/root/w", "--local", local];
        let answer = cli.run(&line);
        assert_eq!(answer.code, Some(if local.is_empty() { 2 } else { 1 }), "{local}: {answer:?}");
        assert!(answer.stderr.contains(said), "{local}: {answer:?}");
    }
    for remote in [
        "",
        "work",
        "~/work",
        "/",
        "//",
        "/x/..",
        "/etc",
        "/usr/x",
        "/bin",
        "/sbin",
        "/lib/x",
        "/lib64",
        "/boot",
        "/proc",
        "/sys",
        "/dev",
        "/run",
        "/x/../etc",
        "/root",
        "/root/.",
        "/root/.ssh",
        "/root/.ssh/x",
        "/a\nb",
    ] {
        let line = ["sandbox", "sync", "demo", "--force", "--local", "work", "--remote", remote];
        let answer = cli.run(&line);
        assert_eq!(answer.code, Some(2), "{remote:?}: {answer:?}");
        assert!(answer.stdout.is_empty() || remote.is_empty(), "{remote:?}: {answer:?}");
    }
    let whole = ["sandbox", "sync", "demo", "--local", "work", "--remote", "/root/w"];
    for (more, said) in [
        (&["--mode", "sideways"][..], "two-way"),
        (&["--user", "-oProxy"], "user"),
        (&["--user", "a b"], "letters"),
        (&["--sshd-wait", "5"], "5s"),
        (&["--engine", "rsync"], "builtin"),
        (&["--output", "json"], "no JSON"),
        (&["--nonsense"], "nonsense"),
    ] {
        let answer = cli.run(&[&whole[..], more].concat());
        assert_eq!(answer.code, Some(2), "{more:?}: {answer:?}");
        let all = format!("{}{}", answer.stdout, answer.stderr);
        assert!(all.contains(said), "{said} for {more:?}: {answer:?}");
    }
    for missing in [&whole[..5], &["sandbox", "sync", "demo", "--remote", "/root/w"][..]] {
        let answer = cli.run(missing);
        assert_eq!(answer.code, Some(2), "{answer:?}");
        assert!(answer.stderr.contains("is missing"), "{answer:?}");
    }
    assert!(server.received_requests().await.expect("recorded").is_empty());
    let help = cli.run(&["sandbox", "sync", "--help"]);
    assert!(help.code == Some(0) && help.stdout.contains("--mode"), "{help:?}");
}

#[tokio::test]
async fn a_sandbox_that_does_not_run_is_told() {
    let server = plane("paused").await;
    let cli = Cli::new(&server.uri());
    fs::create_dir(cli.home.path().join("work")).expect("a directory");
    let answer = cli.run(&["sandbox", "sync", "demo", "--local", "work", "--remote", "/root/w"]);
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("sandbox resume demo"), "{answer:?}");
    let gone = cli.run(&["sandbox", "sync", "nobody", "--local", "work", "--remote", "/root/w"]);
    assert_eq!(gone.code, Some(1), "{gone:?}");
}

/// A sync that runs, and what it prints.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let stdout = child.stdout.take().expect("a pipe");
        let (give, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = give.send(line);
            }
        });
        Self { child, lines }
    }

    fn expect(&self, part: &str) -> String {
        let until = Instant::now() + Duration::from_secs(30);
        let mut seen = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) if line.contains(part) => return line,
                Ok(line) => seen.push(line),
                Err(error) => panic!("no {part:?}: {error}; {seen:#?}"),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("a signal");
    }

    fn end(self) -> Answer {
        let rest: Vec<String> = self.lines.iter().collect();
        let mut answer = Answer::of(self.child.wait_with_output().expect("an end"));
        answer.stdout = rest.join("\n");
        answer
    }
}

struct Box_ {
    home: Home,
    work: PathBuf,
}

impl Box_ {
    fn new() -> Self {
        let home = Home::new();
        home.ok(&["local", "start"]);
        home.json(&["sandbox", "create", "--shape", "s-1vcpu-256mb", "--name", "box"]);
        let work = home.dir.path().join("work");
        fs::create_dir(&work).expect("a directory");
        Self { home, work }
    }

    fn command(&self, more: &[&str]) -> Command {
        let line = ["sandbox", "sync", "box", "--local", "work", "--remote", "/root/work"];
        let line = [&line[..], &["--engine", "builtin"], more].concat();
        self.home.command(&line)
    }

    fn inside(&self, script: &str) -> String {
        self.home.ok(&["sandbox", "exec", "box", "--", "sh", "-c", script])
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.work.join(name), content).expect("a file");
    }
}

#[test]
fn a_directory_is_synced_until_a_signal_comes() {
    let one = Box_::new();
    one.write("a", "a");
    one.write("skip.log", "x");
    let sync = Running::start(one.command(&["--exclude", "*.log", "--exclude", " "]));
    let first = sync.expect("syncing");
    assert!(first.contains("built-in engine") && first.contains("/root/work"), "{first}");
    sync.expect("in sync");
    one.write("b", "b");
    sync.expect("sent: b");
    one.inside("echo there > /root/work/c");
    sync.expect("received: c");
    fs::remove_file(one.work.join("a")).expect("removed");
    sync.expect("removed in the sandbox: a");
    assert_eq!(one.inside("ls /root/work"), "b\nc\n");

    let second = Answer::of(one.command(&[]).output().expect("it runs"));
    assert_eq!(second.code, Some(1), "{second:?}");
    assert!(second.stderr.contains("another sync"), "{second:?}");

    sync.signal(Signal::TERM);
    let answer = sync.end();
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(answer.stdout.ends_with("the sync has ended"), "{answer:?}");
    for signal in [Signal::INT, Signal::HUP] {
        let sync = Running::start(one.command(&["--quiet", "--exclude", "*.log"]));
        wait_until("the watcher runs", || one.inside("pgrep -fc '[c]ksum' || :") != "0\n");
        sync.signal(signal);
        let answer = sync.end();
        assert_eq!((answer.code, answer.stdout.as_str()), (Some(0), ""), "{signal:?}: {answer:?}");
        assert_eq!(answer.stderr, "");
    }
    wait_until("the watchers are gone", || one.inside("pgrep -fc '[c]ksum' || :") == "0\n");
    assert_eq!(one.inside("ls -A /root/work /tmp"), "/root/work:\nb\nc\n\n/tmp:\n");
}

#[test]
fn a_killed_sync_loses_nothing_and_remembers_what_was_agreed_on() {
    let one = Box_::new();
    for name in ["keep", "del-here", "del-there", "edit"] {
        one.write(name, "1");
    }
    let sync = Running::start(one.command(&[]));
    sync.expect("in sync");
    for n in 0..200 {
        one.write(&format!("many-{n}"), &"x".repeat(100_000));
    }
    std::thread::sleep(Duration::from_millis(400));
    sync.signal(Signal::KILL);
    sync.end();
    fs::remove_file(one.work.join("del-here")).expect("removed");
    one.write("edit", "here");
    one.inside("cd /root/work && rm del-there && printf there > edit");
    let sync = Running::start(one.command(&[]));
    sync.expect("1 conflict");
    assert!(!one.work.join("del-there").exists(), "a deletion is not undone");
    assert_eq!(one.inside("ls /root/work | grep -vc many"), "2\n");
    assert_eq!(one.inside("cat /root/work/edit"), "there");
    assert_eq!(fs::read_to_string(one.work.join("edit")).expect("a file"), "here");
    assert_eq!(one.inside("cat /root/work/many-* | wc -c"), "20000000\n");
    assert_eq!(one.inside("ls -A /root/work | grep createos || :"), "");

    // A sandbox that is paused ends it, and so does one that is gone.
    one.home.ok(&["sandbox", "exec", "box", "--", "true"]);
    let id = one.home.ok(&["sandbox", "list", "--quiet"]);
    one.home.ok(&["sandbox", "rm", "box", "--force"]);
    let answer = sync.end();
    assert_eq!(answer.code, Some(1), "{id}{answer:?}");
    assert!(answer.stderr.contains("destroy"), "{answer:?}");
    assert!(one.work.join("keep").exists(), "nothing is deleted with the sandbox");
}

#[test]
fn what_is_missing_is_asked_for() {
    let one = Box_::new();
    one.write("a", "a");
    let mut terminal =
        Terminal::start(&one.home.command(&["sandbox", "sync", "--engine", "builtin"]), 100);
    terminal.expect("which sandbox");
    terminal.send("\r");
    terminal.expect("directory here");
    terminal.send("/work\r");
    terminal.expect("directory in the sandbox");
    terminal.send("\r");
    terminal.expect("/root/sync");
    terminal.expect("in sync");
    assert_eq!(one.inside("cat /root/sync/a"), "a");
    terminal.send("\x03");
    let (said, code) = terminal.end();
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("the sync has ended"), "{said}");

    one.inside("ln -s /etc /root/link");
    let link = ["sandbox", "sync", "box", "--local", "work", "--remote", "/root/link"];
    let answer = Answer::of(one.home.run(&link));
    assert_eq!(answer.code, Some(2), "{answer:?}");
    assert!(answer.stderr.contains("leads to /etc"), "{answer:?}");
}
