//! Files of a real sandbox: every name, every kind, links that lead anywhere, and a disk that
//! says no.

use createos_sdk::{ErrorKind, Sandbox};
use createos_tests::Fixture;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn sh(sandbox: &Sandbox, script: &str) -> String {
    let output = sandbox.command("sh").args(["-c", script]).output().await.expect("exec");
    let output = output.ensure_success().expect("success");
    output.stdout_str().expect("text").to_owned()
}

/// One raw request: the SDK has text for paths, the wire has bytes.
async fn raw(fixture: &Fixture, head: &str, body: &[u8]) -> Vec<u8> {
    let addr = fixture.engine.local_addr();
    let mut stream = TcpStream::connect(addr).await.expect("connect");
    let key = fixture.engine.api_key().expose().to_owned();
    let length = body.len();
    let head = format!(
        "{head} HTTP/1.1\r\nHost: {addr}\r\nX-Api-Key: {key}\r\nConnection: close\r\n\
         Content-Length: {length}\r\n\r\n"
    );
    stream.write_all(&[head.as_bytes(), body].concat()).await.expect("request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.expect("answer");
    answer
}

#[tokio::test]
async fn any_byte_makes_a_name() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let path = format!("/v1/sandboxes/{}/files?path=/work/%FF%0A%22%5C%20%C3", sandbox.id());
    let answer = raw(&fixture, &format!("PUT {path}"), b"odd").await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    let listed = sandbox.files().list("/work").await.expect("list");
    assert_eq!(&listed[0].name[..], b"\xff\n\"\\ \xc3");
    let answer = raw(&fixture, &format!("GET {path}"), b"").await;
    assert!(answer.ends_with(b"\r\n\r\nodd"), "{}", String::from_utf8_lossy(&answer));

    let files = sandbox.files();
    for name in ["ä ö", "a\nb", "-rf", "*", "'", "..x", "日本", &"n".repeat(255)] {
        let path = format!("/work/{name}");
        files.write(&path, name).await.expect(name);
        assert_eq!(files.read_string(&path).await.expect(name), name);
    }
    let long = files.write(format!("/work/{}", "n".repeat(256)), "x").await.expect_err("too long");
    assert_eq!(long.kind(), ErrorKind::InvalidArgument, "{long}");
    fixture.end().await;
}

#[tokio::test]
async fn links_lead_around_inside_and_never_out() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let files = sandbox.files();
    let host = tempfile::tempdir().expect("directory");
    let secret = host.path().join("secret");
    std::fs::write(&secret, "of the host").expect("file");
    let outside = secret.to_str().expect("UTF-8");

    let up = "../".repeat(40);
    sh(
        &sandbox,
        &format!(
            "mkdir /w; ln -s {outside} /w/absolute; ln -s {up}{outside} /w/up; \
         ln -s /proc/1/root{outside} /w/proc; ln -s {} /w/dir",
            host.path().display()
        ),
    )
    .await;
    for link in ["/w/absolute", "/w/up", "/w/proc", "/w/dir/secret"] {
        let read = files.read(link).await.expect_err(link);
        assert!(matches!(read.kind(), ErrorKind::NotFound | ErrorKind::InvalidArgument), "{read}");
    }
    for link in ["/w/absolute", "/w/up", "/w/proc", "/w/dir/secret"] {
        // A write goes where the link leads inside, or is refused.
        let _ = files.write(link, "from inside").await;
    }
    assert_eq!(std::fs::read_to_string(&secret).expect("file"), "of the host");
    assert_eq!(std::fs::read_dir(host.path()).expect("directory").count(), 1);

    sh(&sandbox, "echo old > /w/real; ln -s real /w/link; ln -s link /w/chain; ln -s gone /w/new")
        .await;
    files.write("/w/chain", "new").await.expect("through two links");
    assert_eq!(sh(&sandbox, "cat /w/real; readlink /w/chain /w/link").await, "newlink\nreal\n");
    files.write("/w/new", "made").await.expect("through a link to nothing");
    assert_eq!(sh(&sandbox, "cat /w/gone").await, "made");
    fixture.end().await;
}

#[tokio::test]
async fn what_is_no_file_is_refused_and_nothing_hangs() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let files = sandbox.files();
    sh(
        &sandbox,
        "mkdir -p /w/dir; mkfifo /w/fifo; ln -s loop /w/loop; \
        python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"/w/sock\")'",
    )
    .await;
    for path in ["/w/dir", "/w/fifo", "/w/sock", "/dev/null", "/dev/zero", "/w/fifo/below"] {
        let read = files.read(path).await.expect_err(path);
        assert_eq!(read.kind(), ErrorKind::InvalidArgument, "{path}: {read}");
        let write = files.write(path, "x").await.expect_err(path);
        assert_eq!(write.kind(), ErrorKind::InvalidArgument, "{path}: {write}");
    }
    for error in [
        files.read("/w/loop").await.expect_err("a loop"),
        files.write("/w/loop", "x").await.expect_err("a loop"),
        files.write("/proc/version", "x").await.expect_err("read-only"),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
    }
    assert_eq!(files.read("/w/none").await.expect_err("none").kind(), ErrorKind::NotFound);
    assert!(!files.read("/proc/self/status").await.expect("unsized").is_empty());
    fixture.end().await;
}

#[tokio::test]
async fn empty_sparse_and_open_files_are_files() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let files = sandbox.files();
    files.write("/w/deep/er/empty", "").await.expect("empty, with parents");
    assert!(files.read("/w/deep/er/empty").await.expect("empty").is_empty());

    sh(&sandbox, "truncate -s 3000000 /w/sparse; echo end >> /w/sparse").await;
    let sparse = files.read("/w/sparse").await.expect("sparse");
    assert_eq!(sparse.len(), 3_000_004);
    assert!(sparse[..3_000_000].iter().all(|byte| *byte == 0) && sparse.ends_with(b"end\n"));

    // Whoever has the old file open keeps the old file: the new one takes its place whole.
    let script = "echo old > /w/f; exec 3</w/f; echo ready; sleep 1; cat <&3; cat /w/f";
    let reading = sandbox.command("sh").args(["-c", script]).output();
    let reading = tokio::spawn(reading);
    while files.read("/w/f").await.map_or(true, |content| content != "old\n") {
        tokio::task::yield_now().await;
    }
    files.write("/w/f", "new\n").await.expect("replace");
    let seen = reading.await.expect("task").expect("exec");
    assert!(["ready\nold\nnew\n", "ready\nnew\nnew\n"].contains(&seen.stdout_str().expect("text")));
    let left = sh(&sandbox, "ls -A /w | grep -c upload || true").await;
    assert_eq!(left, "0\n", "nothing half-written stays");
    fixture.end().await;
}
