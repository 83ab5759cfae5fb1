//! Keys and servers of SSH, in real sandboxes.

use createos_sdk::{ErrorKind, SshPublicKey};
use createos_tests::{Fixture, sh, until};

const ONE: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0jbyYn0Qq6AvS4oPmtjPYqUYuhNPhPwoKvP1VWG0Jw";
const OTHER: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0jbyYn0Qq6AvS4oPmtjPYqUYuhNPhPwoKvP1VWG0Jx";
const FILE: &str = "/root/.ssh/authorized_keys";

fn key(line: &str) -> SshPublicKey {
    line.parse().expect("a key")
}

#[tokio::test]
async fn keys_are_added_to_what_is_there_and_taken_out_alone() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let ssh = sandbox.ssh();
    assert_eq!(ssh.authorized_keys().await.expect("none"), []);
    assert!(!ssh.revoke(&key(ONE)).await.expect("nothing to take out"));

    assert!(ssh.authorize(&key(&format!("{ONE} it's \"me\" $HOME"))).await.expect("new"));
    assert!(!ssh.authorize(&key(&format!("{ONE} me again"))).await.expect("there"));
    assert_eq!(sh(&sandbox, &format!("cat {FILE}")).await, format!("{ONE} it's \"me\" $HOME\n"));
    assert_eq!(
        sh(&sandbox, &format!("stat -c %a%U /root/.ssh {FILE}")).await,
        "700root\n600root\n"
    );

    // A file whose last line is not ended, with a key that was switched off.
    let text = format!("# {ONE}\nno-pty {OTHER} other");
    sandbox.files().write(FILE, text.clone()).await.expect("write");
    assert!(ssh.authorize(&key(ONE)).await.expect("new"));
    assert_eq!(sh(&sandbox, &format!("cat {FILE}")).await, format!("{text}\n{ONE}\n"));
    assert_eq!(ssh.authorized_keys().await.expect("two"), [key(OTHER), key(ONE)]);
    assert!(ssh.revoke(&key(OTHER)).await.expect("there"));
    assert_eq!(ssh.authorized_keys().await.expect("one"), [key(ONE)]);
    assert!(ssh.revoke(&key(ONE)).await.expect("there"));
    assert_eq!(ssh.authorized_keys().await.expect("none"), []);
    assert_eq!(sh(&sandbox, "ls /root/.ssh").await, "authorized_keys\n");

    let missing = sandbox.ssh().user("nobody-here").authorize(&key(ONE)).await;
    assert_eq!(missing.expect_err("no user").kind(), ErrorKind::NotFound);
    let bad = sandbox.ssh().user("../root").start().await.expect_err("no name");
    assert_eq!(bad.kind(), ErrorKind::InvalidArgument);
    fixture.end().await;
}

#[tokio::test]
async fn the_server_is_started_once_and_again_when_it_is_gone() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    sh(&sandbox, "useradd -m web").await;
    let ssh = sandbox.ssh().user("web");
    ssh.authorize(&key(ONE)).await.expect("authorized");
    ssh.start().await.expect("started");
    let owner = "stat -c %a%U /home/web/.ssh /home/web/.ssh/authorized_keys";
    assert_eq!(sh(&sandbox, owner).await, "700web\n600web\n");
    let keys = "cat /etc/ssh/ssh_host_*_key | sha256sum";
    let before = sh(&sandbox, keys).await;
    let servers = "pgrep -c -f '^sshd: .*listener'";
    assert_eq!(sh(&sandbox, servers).await, "1\n");
    ssh.start().await.expect("there already");
    assert_eq!(sh(&sandbox, servers).await, "1\n");

    use tokio::io::AsyncReadExt;
    let mut greeting = [0; 8];
    let mut stream = sandbox.tunnel(22).connect().await.expect("connected");
    stream.read_exact(&mut greeting).await.expect("a greeting");
    assert_eq!(&greeting, b"SSH-2.0-");
    drop(stream);

    sh(&sandbox, "pkill sshd; rm -r /run/sshd").await;
    until(&sandbox, "pgrep -c sshd", "0\n").await;
    ssh.start().await.expect("started again");
    assert_eq!(sh(&sandbox, servers).await, "1\n");
    assert_eq!(sh(&sandbox, keys).await, before, "host keys stay");
    fixture.end().await;
}

#[tokio::test]
async fn an_image_without_a_server_is_named_as_the_cause() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    sh(&sandbox, "rm /usr/sbin/sshd").await;
    let error = sandbox.ssh().start().await.expect_err("no server");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.message().contains("/usr/sbin/sshd"), "{error}");
    fixture.end().await;
}
