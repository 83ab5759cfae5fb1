//! `createos sandbox sync` by Mutagen. Mutagen itself is not here: a stand-in records how it is
//! called, and runs real commands through the `ssh` and `scp` that it is given, against the real
//! OpenSSH of a real sandbox.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use wiremock::matchers::method;
use wiremock::{Mock, MockServer, ResponseTemplate};

use crate::support::home::Home;
use crate::support::terminal::Terminal;
use crate::support::{Answer, wait_until};

const STAND_IN: &str = r#"#!/bin/sh
{ printf '%s' "$1 $2"; shift 2; for word; do printf ' [%s]' "$word"; done; echo; } >> "$HOME/calls"
case $(tail -n 1 "$HOME/calls") in
"daemon start"*) mkdir -p "$MUTAGEN_DATA_DIRECTORY"; stat -c %a "$(dirname "$MUTAGEN_DATA_DIRECTORY")" > "$HOME/mode"
  echo "$MUTAGEN_DATA_DIRECTORY" > "$HOME/private" ;;
"sync create"*)
  for last; do :; done
  at=${last%%:*}; rest=${last#*:}; port=${rest%%:*}; dir=${rest#*:}
  [ -e "$HOME/fail" ] && { echo "no such endpoint" >&2; exit 1; }
  "$MUTAGEN_SSH_PATH/ssh" -p "$port" "$at" "id -un; cat > $dir/through-ssh" < "$HOME/work/a" > "$HOME/said" 2>&1 || exit
  "$MUTAGEN_SSH_PATH/scp" -q -P "$port" "$HOME/work/a" "$at:$dir/through-scp" >> "$HOME/said" 2>&1 || exit ;;
"sync monitor"*) echo watching; exec sleep 60 ;;
esac
"#;

fn home() -> Home {
    let home = Home::new();
    home.ok(&["local", "start"]);
    home.json(&["sandbox", "create", "--shape", "s-1vcpu-256mb", "--name", "box"]);
    fs::create_dir(home.dir.path().join("work")).expect("a directory");
    fs::write(home.dir.path().join("work/a"), "content").expect("a file");
    let bin = home.dir.path().join("bin");
    fs::create_dir(&bin).expect("a directory");
    fs::write(bin.join("mutagen"), STAND_IN).expect("a program");
    fs::set_permissions(bin.join("mutagen"), fs::Permissions::from_mode(0o755)).expect("a mode");
    home
}

fn command(home: &Home, more: &[&str]) -> Command {
    let line = ["sandbox", "sync", "box", "--local", "work", "--remote", "/root/work"];
    let mut command = home.command(&[&line[..], more].concat());
    let path = std::env::var("PATH").expect("a path");
    command.env("PATH", format!("{}:{path}", home.dir.path().join("bin").display()));
    command
}

fn inside(home: &Home, script: &str) -> String {
    home.ok(&["sandbox", "exec", "box", "--", "sh", "-c", script])
}

fn make_key(path: &Path, passphrase: &str) {
    fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", passphrase, "-C", "me", "-f"]).arg(path);
    assert!(command.status().expect("ssh-keygen").success());
}

fn read(home: &Home, name: &str) -> String {
    fs::read_to_string(home.dir.path().join(name)).unwrap_or_default()
}

/// Runs a sync until its monitor does, ends it with a signal, and says how that went.
fn until_watching(home: &Home, mut command: Command, signal: Signal) -> Answer {
    let _ = fs::remove_file(home.dir.path().join("calls"));
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    wait_until("the monitor runs", || read(home, "calls").contains("sync monitor"));
    kill_process(Pid::from_child(&child), signal).expect("a signal");
    Answer::of(child.wait_with_output().expect("an end"))
}

#[test]
fn mutagen_gets_a_way_of_its_own_into_the_sandbox_and_leaves_nothing() {
    let home = home();
    let more = ["--mode", "one-way", "--exclude", "a,b", "--exclude", "*.log", "--exclude", " "];
    let answer = until_watching(&home, command(&home, &more), Signal::TERM);
    assert_eq!(answer.code, Some(0), "{answer:?} {}", read(&home, "said"));
    assert!(
        answer.stdout.contains("(Mutagen)") && answer.stdout.contains("watching"),
        "{answer:?}"
    );
    assert!(answer.stdout.ends_with("the sync has ended\n"), "{answer:?}");
    assert_eq!(read(&home, "said"), "root\n");
    assert_eq!(
        inside(&home, "cat /root/work/through-ssh /root/work/through-scp"),
        "contentcontent"
    );

    let id = home.ok(&["sandbox", "list", "--quiet"]).trim().to_owned();
    let calls = read(&home, "calls");
    let calls: Vec<&str> = calls.lines().collect();
    assert_eq!(calls.len(), 5, "{calls:?}");
    assert_eq!((calls[0], calls[4]), ("daemon start", "daemon stop"));
    let name = calls[2].strip_prefix("sync monitor [").expect("a name").trim_end_matches(']');
    assert!(name.starts_with(&format!("createos-{id}-")), "{name}");
    assert_eq!(calls[3], format!("sync terminate [{name}]"));
    let work = home.dir.path().join("work");
    let wanted = format!(
        "sync create [--name={name}] [-m] [one-way-safe] [--no-global-configuration] \
         [--ignore-vcs] [--ignore=\"a,b\"] [--ignore=*.log] [{}] [root@127.0.0.1:",
        work.display()
    );
    assert!(calls[1].starts_with(&wanted), "{}\n{wanted}", calls[1]);
    assert!(calls[1].ends_with(":/root/work]"), "{}", calls[1]);

    // A private directory that is gone; a key that was made for this and is gone on both sides.
    assert_eq!(read(&home, "mode"), "700\n");
    let private = read(&home, "private");
    assert!(!Path::new(private.trim()).parent().expect("a parent").exists(), "{private}");
    assert_eq!(inside(&home, "cat /root/.ssh/authorized_keys"), "");
    let keys = fs::read_dir(home.dir.path().join(".config/createos/keys")).expect("keys").count();
    assert_eq!(keys, 0);

    // What Mutagen refuses is told, also when little is said, and nothing is left then either.
    fs::write(home.dir.path().join("fail"), "").expect("a file");
    let failed = Answer::of(command(&home, &["--quiet"]).output().expect("it runs"));
    assert_eq!((failed.code, failed.stdout.as_str()), (Some(1), ""), "{failed:?}");
    assert!(failed.stderr.contains("no such endpoint"), "{failed:?}");
    assert!(read(&home, "calls").ends_with("daemon stop\n"));
}

#[test]
fn the_users_key_is_asked_for_and_a_passphrase_too() {
    let home = home();
    let key = home.dir.path().join("k/id");
    make_key(&key, "");
    let key = key.to_str().expect("text");
    let refused = Answer::of(command(&home, &["-i", key]).output().expect("it runs"));
    assert_eq!(refused.code, Some(2), "{refused:?}");
    assert!(refused.stderr.contains("--yes"), "{refused:?}");
    let answer = until_watching(&home, command(&home, &["-i", key, "--yes"]), Signal::INT);
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(answer.stderr.contains("it stays there"), "{answer:?}");
    let public = fs::read_to_string(format!("{key}.pub")).expect("a key");
    assert_eq!(inside(&home, "cat /root/.ssh/authorized_keys"), public);

    let secret = home.dir.path().join("k/secret");
    make_key(&secret, "open sesame");
    let before = fs::read(&secret).expect("a key");
    let secret = secret.to_str().expect("text");
    let answer = Answer::of(command(&home, &["-i", secret, "--yes"]).output().expect("it runs"));
    assert_eq!(answer.code, Some(1), "{answer:?}");
    assert!(
        answer.stderr.contains("passphrase") && answer.stderr.contains("-i <key>"),
        "{answer:?}"
    );
    for (passphrase, good) in [("wrong", false), ("open sesame", true)] {
        let _ = fs::remove_file(home.dir.path().join("calls"));
        let mut terminal = Terminal::start(&command(&home, &["-i", secret, "--yes"]), 120);
        terminal.expect("passphrase of");
        terminal.send(&format!("{passphrase}\r"));
        if good {
            terminal.expect("watching");
            terminal.send("\x03");
        }
        let (said, code) = terminal.end();
        assert_eq!(code, Some(if good { 0 } else { 1 }), "{said}");
        assert!(good || said.contains("not the passphrase"), "{said}");
        assert!(!said.contains("sesame"), "{said}");
    }
    assert_eq!(fs::read(secret).expect("a key"), before, "the key itself keeps its passphrase");
}

#[tokio::test]
async fn a_download_is_checked_before_it_is_used() {
    let server = MockServer::start().await;
    let bytes = ResponseTemplate::new(200).set_body_bytes(b"something else".to_vec());
    Mock::given(method("GET")).respond_with(bytes).mount(&server).await;
    let home = home();
    let run = |mirror: &str, more: &[&str]| {
        let line = [&["--engine", "mutagen"][..], more].concat();
        let mut command = command(&home, &line);
        // Without the stand-in.
        command.env("PATH", std::env::var("PATH").expect("a path"));
        Answer::of(command.env("CREATEOS_MUTAGEN_MIRROR", mirror).output().expect("it runs"))
    };
    let unasked = run(&server.uri(), &[]);
    assert_eq!(unasked.code, Some(1), "{unasked:?}");
    assert!(unasked.stderr.contains("nobody can be asked"), "{unasked:?}");
    assert!(server.received_requests().await.expect("recorded").is_empty());
    let wrong = run(&server.uri(), &["--yes"]);
    assert_eq!(wrong.code, Some(1), "{wrong:?}");
    assert!(wrong.stderr.contains("SHA-256"), "{wrong:?}");
    let asked = server.received_requests().await.expect("recorded");
    let path = asked[0].url.path();
    assert!(path.starts_with("/mutagen_linux_") && path.ends_with("_v0.18.1.tar.gz"), "{path}");
    let offline = run("http://127.0.0.1:1", &["--yes"]);
    assert_eq!(offline.code, Some(1), "{offline:?}");
    assert!(offline.stderr.contains(".config/createos/bin"), "{offline:?}");
    assert!(offline.stderr.contains("--engine builtin"), "{offline:?}");
    assert!(!home.dir.path().join(".config/createos/bin/mutagen").exists());
}
