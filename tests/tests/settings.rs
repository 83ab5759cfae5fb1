//! Settings of a real sandbox: keys, delegated tokens, measurements.

use std::time::Duration;

use createos_sdk::{Client, ErrorKind};
use createos_tests::{Fixture, sh};

const KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0jbyYn0Qq6AvS4oPmtjPYqUYuhNPhPwoKvP1VWG0Jw";

#[tokio::test]
async fn ssh_keys_are_where_a_server_inside_looks_for_them() {
    let fixture = Fixture::start().await;
    let create = fixture.client.create_sandbox("s-1vcpu-256mb").ssh_pubkey(KEY);
    let sandbox = create.await.expect("create");
    let file = "cat /root/.ssh/authorized_keys";
    assert_eq!(sh(&sandbox, file).await, format!("{KEY}\n"));
    sh(&sandbox, "echo '# mine' >> /root/.ssh/authorized_keys").await;
    let second = format!("{KEY} second");
    let count = sandbox.add_ssh_pubkeys([KEY, &second]).await.expect("add");
    assert_eq!(count, 2);
    assert_eq!(sh(&sandbox, file).await, format!("{KEY}\n# mine\n{second}\n"));
    assert_eq!(sh(&sandbox, "stat -c %a /root/.ssh /root/.ssh/*").await, "755\n644\n");
    let view = sandbox.refresh().await.expect("view");
    assert_eq!(view.ssh_pubkeys, [KEY.to_owned(), second]);
    // A guest that makes the file impossible gets told, and goes on.
    sh(&sandbox, "rm -rf /root/.ssh; echo > /root/.ssh").await;
    let refused = sandbox.add_ssh_pubkeys([format!("{KEY} third")]).await.expect_err("no room");
    assert_eq!(refused.kind(), ErrorKind::InvalidArgument, "{refused}");
    fixture.end().await;
}

#[tokio::test]
async fn a_delegated_handle_works_until_it_is_revoked() {
    let fixture = Fixture::start().await;
    let (own, other) = (fixture.sandbox().await, fixture.sandbox().await);
    let token = own.access_token().create().await.expect("token");
    let delegated = own.with_token(token.token.clone()).expect("handle");
    assert_eq!(sh(&delegated, "echo works").await, "works\n");
    delegated.files().write("/f", "x").await.expect("files");
    let key = token.token;
    let client = Client::builder().base_url(fixture.engine.url()).api_key(key).build().expect("c");
    let foreign = client.sandbox(other.id()).command("true").output().await.expect_err("foreign");
    assert_eq!(foreign.kind(), ErrorKind::NotFound);
    let account = client.whoami().await.expect_err("account");
    assert_eq!(account.kind(), ErrorKind::PermissionDenied, "{account}");
    own.access_token().disable().await.expect("revoke");
    let revoked = delegated.command("true").output().await.expect_err("revoked");
    assert_eq!(revoked.kind(), ErrorKind::NotAuthenticated);
    fixture.end().await;
}

#[tokio::test]
async fn metrics_follow_what_happens_inside() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let idle = sandbox.metrics().await.expect("metrics");
    assert_eq!(idle.mem_total_bytes(), Some(256 << 20));
    let script = "x = bytearray(80 << 20)\nprint(1, flush=True)\nwhile True: pass";
    let mut busy = sandbox.command("python3").args(["-c", script]).stream().await.expect("busy");
    futures::StreamExt::next(&mut busy).await.expect("begun").expect("output");
    // The machine may be busy with something else for a while.
    let mut seen = idle;
    for _ in 0..50 {
        seen = sandbox.metrics().await.expect("metrics");
        if seen.cpu_pct() > Some(20.0) && seen.mem_used_bytes() > Some(80 << 20) {
            return fixture.end().await;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the work does not show: {}", seen.to_json());
}
