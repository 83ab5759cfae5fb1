//! `createos sandbox shell --ssh`: OpenSSH's client against the sandbox's own OpenSSH.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::home::{Home, Served};
use crate::support::terminal::Terminal;
use crate::support::{Answer, wait_until};

const OTHER: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0jbyYn0Qq6AvS4oPmtjPYqUYuhNPhPwoKvP1VWG0Jw other";
const KEYS: &str = "/root/.ssh/authorized_keys";

/// A home with a key and an engine with a sandbox called `box`.
fn home() -> (Home, String) {
    let home = Home::new();
    std::fs::create_dir(home.dir.path().join(".ssh")).expect("a directory");
    make_key(&home.dir.path().join(".ssh/id_ed25519"));
    home.ok(&["local", "start"]);
    let created = home.json(&["sandbox", "create", "--shape", "s-1vcpu-256mb", "--name", "box"]);
    (home, created["id"].as_str().expect("an id").to_owned())
}

fn make_key(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-C", "me", "-f"]).arg(path);
    assert!(command.status().expect("ssh-keygen").success());
}

fn fingerprint(path: &Path) -> String {
    let output = Command::new("ssh-keygen").arg("-lf").arg(path).output().expect("ssh-keygen");
    let text = String::from_utf8(output.stdout).expect("text");
    text.split(' ').nth(1).expect("a fingerprint").to_owned()
}

fn inside(home: &Home, script: &str) -> String {
    home.ok(&["sandbox", "exec", "box", "--", "sh", "-c", script])
}

/// Runs lines in a shell of `createos sandbox shell box …`, without a terminal.
fn piped(home: &Home, arguments: &[&str], lines: &str) -> Answer {
    let mut command = home.command(&[&["sandbox", "shell", "box"], arguments].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it runs");
    // It may refuse before it reads.
    let _ = child.stdin.take().expect("a pipe").write_all(lines.as_bytes());
    Answer::of(child.wait_with_output().expect("an end"))
}

#[test]
fn the_key_is_added_when_its_owner_agrees_and_the_exit_code_is_the_shells() {
    let (home, id) = home();
    let line = ["sandbox", "shell", "box", "--ssh"];
    let public = home.dir.path().join(".ssh/id_ed25519.pub");
    inside(&home, &format!("mkdir -p /root/.ssh; printf '{OTHER}' > {KEYS}"));

    let mut refused = Terminal::around(&home.command(&line), 200);
    let before = refused.settings();
    let question = refused.expect("1 other key is there");
    assert!(question.contains(&fingerprint(&public)), "{question}");
    refused.send("n\r");
    let (said, code) = refused.restored(&before);
    assert!(code == 0 && said.contains("nothing was changed"), "{code}: {said}");
    assert_eq!(inside(&home, &format!("cat {KEYS}; pgrep -c sshd || :")), format!("{OTHER}0\n"));

    let mut terminal = Terminal::around(&home.command(&line), 200);
    let before = terminal.settings();
    terminal.expect("other key is there");
    terminal.send("\r");
    terminal.expect("it stays there");
    terminal.send("stty size; echo $USER@$(uname -n) $(tty)\r");
    terminal.expect("24 200\r\nroot@box /dev/pts/");
    terminal.resize(33, 99);
    terminal.send("sleep 0.5; stty size\r");
    terminal.expect("33 99\r\n");
    terminal.send("exit 7\r");
    let (said, code) = terminal.restored(&before);
    assert_eq!(code, 7, "{said}");
    let key = std::fs::read_to_string(&public).expect("a key");
    assert_eq!(inside(&home, &format!("cat {KEYS}")), format!("{OTHER}\n{key}"));
    let hosts = home.dir.path().join(".config/createos/known_hosts");
    assert!(std::fs::read_to_string(hosts.join(&id)).expect("host keys").contains(&id));

    // Known from now on: nothing is asked, not even for without a terminal.
    let answer = piped(&home, &["--ssh"], "uname -n; exit 3\n");
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(3), "box\n"), "{answer:?}");
    assert_eq!(answer.stderr, "");
    assert_eq!(inside(&home, &format!("wc -l < {KEYS}")), "2\n");

    // Another server under the same name is refused.
    inside(&home, "pkill sshd; rm /etc/ssh/ssh_host_*; while pgrep -x sshd; do sleep 0.1; done");
    let answer = piped(&home, &["--ssh"], "uname -n\n");
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(255), ""), "{answer:?}");
    assert!(answer.stderr.contains("HOST IDENTIFICATION HAS CHANGED"), "{answer:?}");
}

#[test]
fn nobody_to_ask_means_yes_has_to_be_said() {
    let (home, _) = home();
    let answer = piped(&home, &["--ssh"], "uname -n\n");
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(2), ""), "{answer:?}");
    assert!(
        answer.stderr.contains("--yes") && answer.stderr.contains("id_ed25519.pub"),
        "{answer:?}"
    );
    assert_eq!(inside(&home, &format!("cat {KEYS} 2>/dev/null; :")), "");

    // Another key and another user; a name with blanks, per cent and quotes.
    let path = home.dir.path().join("my %h 'key'");
    make_key(&path);
    inside(&home, "useradd -m -s /bin/bash web");
    let named = path.to_str().expect("text");
    let answer = piped(&home, &["-i", named, "-u", "web", "--yes"], "id -un; pwd; exit 4\n");
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(4), "web\n/home/web\n"), "{answer:?}");
    assert!(answer.stderr.contains(&fingerprint(&path)), "{answer:?}");
    let missing = piped(&home, &["-i", named, "-u", "nobody-here", "--yes"], "");
    assert_eq!(missing.code, Some(1), "{missing:?}");
    assert!(missing.stderr.contains("nobody-here"), "{missing:?}");
    let relative = piped(&home, &["-i", "~/.ssh/id_ed25519", "-y"], "exit 5\n");
    assert_eq!(relative.code, Some(5), "a tilde is the home: {relative:?}");
}

#[test]
fn what_is_missing_is_named_with_what_helps() {
    let (home, _) = home();
    for (arguments, code, part) in [
        (&["-i", "nowhere"][..], 1, "nowhere: no such file"),
        (&["-i", "~/.ssh/id_ed25519.pub"], 2, "public half"),
        (&["--ssh", "--user", "a b"], 2, "user name"),
    ] {
        let answer = piped(&home, arguments, "");
        assert_eq!(answer.code, Some(code), "{arguments:?}: {answer:?}");
        assert!(answer.stderr.contains(part), "{arguments:?}: {answer:?}");
    }
    let mut without = home.command(&["sandbox", "shell", "box", "--ssh", "--yes"]);
    let answer = Answer::of(without.env("PATH", "/nowhere").output().expect("it runs"));
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("openssh-client"), "{answer:?}");

    inside(&home, "rm /usr/sbin/sshd; pkill sshd; :");
    let answer = piped(&home, &["--ssh", "--yes"], "");
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("devbox:1") && answer.stderr.contains("sshd"), "{answer:?}");

    std::fs::remove_file(home.dir.path().join(".ssh/id_ed25519.pub")).expect("removed");
    let answer = piped(&home, &["--ssh", "--yes"], "");
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(answer.stderr.contains("ssh-keygen -t ed25519"), "{answer:?}");
}

#[test]
fn a_signal_ends_ssh_as_well() {
    let (home, _) = home();
    let line = ["sandbox", "shell", "box", "--ssh", "--yes"];
    let mut terminal = Terminal::around(&home.command(&line), 200);
    let before = terminal.settings();
    terminal.expect("it stays there");
    terminal.send("echo rea''dy\r");
    terminal.expect("ready\r\n");
    terminal.signal(rustix::process::Signal::TERM);
    let (said, code) = terminal.restored(&before);
    assert_eq!(code, 143, "{said}");
    wait_until("the session inside has ended", || {
        inside(&home, "pgrep -c -f '^-bash' || :") == "0\n"
    });
}

#[test]
fn a_gateway_that_is_named_is_the_way() {
    let (home, id) = home();
    // A second server in the sandbox plays the gateway: it knows the sandbox's id as a user.
    let key = std::fs::read_to_string(home.dir.path().join(".ssh/id_ed25519.pub")).expect("a key");
    let gateway = format!(
        "useradd -m {id} && mkdir -p /run/sshd /home/{id}/.ssh && ssh-keygen -A >/dev/null &&
         echo '{key}' > /home/{id}/.ssh/authorized_keys && chown -R {id} /home/{id}/.ssh &&
         /usr/sbin/sshd -p 2222 -E /tmp/gateway.log -o LogLevel=VERBOSE"
    );
    inside(&home, &gateway);
    let mut tunnel = home
        .command(&["-o", "json", "sandbox", "tunnel", "box", "--remote", "2222", "--local", "0"]);
    let mut tunnel = Served(tunnel.stdout(Stdio::piped()).spawn().expect("it runs"));
    let stdout = BufReader::new(tunnel.0.stdout.take().expect("a pipe"));
    let document: String = stdout.lines().map_while(Result::ok).take(6).collect();
    let document: Value = serde_json::from_str(&document).expect("JSON");
    let address = document["listen_addr"].as_str().expect("an address");

    let named = ["--ssh", "--yes", "--sandbox-gateway", address];
    let answer = piped(&home, &named, "echo $USER; exit 6\n");
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(6), "root\n"), "{answer:?}");
    let log = inside(&home, "cat /tmp/gateway.log");
    assert!(log.contains(&format!("Accepted publickey for {id}")), "{log}");
    let shown = home.json(&["sandbox", "get", "box"]);
    let registered = shown["ssh_pubkeys"][0].as_str().expect("a key");
    assert_eq!(registered, key.trim(), "the gateway looks there");

    let mut by_environment = home.command(&["sandbox", "shell", "box", "--ssh"]);
    by_environment.env("CREATEOS_SANDBOX_GATEWAY", address);
    assert_eq!(by_environment.output().expect("it runs").status.code(), Some(0));
    assert_eq!(inside(&home, "grep -c 'Accepted publickey for sb-' /tmp/gateway.log"), "2\n");
    by_environment.env("CREATEOS_SANDBOX_GATEWAY", "-oProxyCommand=x");
    assert_eq!(by_environment.output().expect("it runs").status.code(), Some(2));

    drop(tunnel);
    let answer = piped(&home, &named, "");
    assert_eq!(answer.code, Some(255), "no way, no shell: {answer:?}");
}

#[test]
fn plain_ssh_works_with_the_tunnel_as_its_proxy() {
    let (home, _) = home();
    assert_eq!(piped(&home, &["--ssh", "--yes"], "exit\n").code, Some(0));
    let program = env!("CARGO_BIN_EXE_createos");
    let ssh = home.command(&[]);
    let mut command = Command::new("ssh");
    command.args(["-F", "none", "-i", ".ssh/id_ed25519", "-o", "StrictHostKeyChecking=no"]);
    command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o"]);
    command.arg(format!("ProxyCommand={program} sandbox tunnel box --stdio 22"));
    command.args(["root@box", "head -c 3000000 /dev/zero | tee /dev/stderr | wc -c; exit 9"]);
    let ssh = ssh.get_envs().fold(&mut command, |command, (name, value)| match value {
        Some(value) => command.env(name, value),
        None => command,
    });
    let output = ssh.current_dir(home.dir.path()).stdin(Stdio::null()).output().expect("ssh");
    assert_eq!(output.status.code(), Some(9));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "3000000\n");
    assert_eq!(output.stderr.len(), 3_000_000);
}
