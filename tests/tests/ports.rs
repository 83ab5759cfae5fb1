//! Ports of real sandboxes: tunnels, web addresses, and signals from inside.

mod guest {
    //! Servers that run inside.

    use createos_sdk::Sandbox;

    /// `python3 server.py MODE ADDRESS PORT`
    const SERVER: &str = include_str!("ports/server.py");

    /// Starts a server inside and returns when it listens.
    pub(crate) async fn serve(sandbox: &Sandbox, mode: &str, address: &str, port: u16) {
        sandbox.files().write("/root/server.py", SERVER).await.expect("write");
        let script = format!(
            "nohup /usr/bin/python3 /root/server.py {mode} {address} {port} >/root/{port} 2>&1 &
             timeout 20 sh -c 'until grep -q . /root/{port}; do sleep 0.01; done'
             cat /root/{port}"
        );
        let said = sandbox.command("sh").args(["-c", &script]).output().await.expect("exec");
        assert_eq!(said.stdout_str().expect("text"), "ready\n");
    }
}

use std::process::Command;
use std::time::Duration;

use createos_sdk::wire::SandboxStatus;
use createos_sdk::{ErrorKind, Sandbox, TunnelStream};
use createos_tests::{Fixture, sh};
use futures::{SinkExt as _, StreamExt as _, TryStreamExt as _};
use guest::serve;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.expect("the end");
    rest
}

async fn echo(stream: &mut TunnelStream, word: &[u8]) {
    stream.write_all(word).await.expect("write");
    let mut heard = vec![0; word.len()];
    stream.read_exact(&mut heard).await.expect("an echo");
    assert_eq!(heard, word);
}

#[tokio::test]
async fn a_tunnel_reaches_loopback_of_either_version_and_nothing_is_lost_at_its_ends() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    serve(&sandbox, "echo", "127.0.0.1", 7000).await;
    serve(&sandbox, "echo", "::1", 7001).await;
    for port in [7000, 7001] {
        let mut stream = sandbox.tunnel(port).connect().await.expect("connect");
        echo(&mut stream, b"hello").await;
        // Our end, then what is still to come, then its end.
        stream.write_all(b"last words").await.expect("write");
        stream.shutdown().await.expect("shutdown");
        assert_eq!(rest(&mut stream).await, b"last words");
    }
    // The server ends first and still hears us.
    serve(&sandbox, "first", "127.0.0.1", 7002).await;
    let mut stream = sandbox.tunnel(7002).connect().await.expect("connect");
    assert_eq!(rest(&mut stream).await, b"that is all");
    stream.write_all(b"but I have more").await.expect("write");
    stream.shutdown().await.expect("shutdown");
    drop(stream);
    let heard = "until grep -q more /root/7002; do sleep 0.01; done";
    let heard = sandbox.command("timeout").args(["10", "sh", "-c", heard]).output().await;
    assert_eq!(heard.expect("exec").status.code(), 0);

    let refused = sandbox.tunnel(7003).connect().await.expect_err("nothing listens");
    assert_eq!((refused.kind(), refused.status()), (ErrorKind::Server, Some(502)));
    assert!(refused.to_string().contains("nothing listens on port 7003"), "{refused}");
    fixture.end().await;
}

/// The next of bytes that look like nothing in particular.
fn noise(state: &mut u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    for byte in &mut bytes {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *byte = *state as u8;
    }
    bytes
}

#[tokio::test]
async fn large_transfers_in_both_directions_at_once_arrive_whole() {
    const PIECES: usize = 64;
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    serve(&sandbox, "echo", "127.0.0.1", 7000).await;
    let stream = sandbox.tunnel(7000).connect().await.expect("connect");
    let (mut reader, mut writer) = tokio::io::split(stream);
    let sending = async {
        let (mut sent, mut state) = (Sha256::new(), 1);
        for _ in 0..PIECES {
            let piece = noise(&mut state, 1 << 20);
            writer.write_all(&piece).await.expect("write");
            sent.update(&piece);
        }
        writer.shutdown().await.expect("shutdown");
        sent.finalize()
    };
    let receiving = async {
        let (mut received, mut length, mut chunk) = (Sha256::new(), 0, vec![0; 1 << 20]);
        loop {
            match reader.read(&mut chunk).await.expect("read") {
                0 => return (length, received.finalize()),
                read => received.update(&chunk[..read]),
            }
            length += 1;
        }
    };
    let (sent, (reads, received)) = tokio::join!(sending, receiving);
    assert!(reads > 0);
    assert_eq!(sent, received);
    fixture.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_thousand_connections_live_side_by_side() {
    const COUNT: usize = 3000;
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    serve(&sandbox, "echo", "127.0.0.1", 7000).await;
    let tunnel = sandbox.tunnel(7000);
    let mut streams: Vec<TunnelStream> = futures::stream::iter(0..COUNT)
        .map(|_| tunnel.connect())
        .buffer_unordered(64)
        .try_collect()
        .await
        .expect("connect");
    let talks = streams.iter_mut().enumerate().map(|(number, stream)| async move {
        echo(stream, number.to_string().as_bytes()).await;
    });
    futures::stream::iter(talks).buffer_unordered(COUNT).collect::<Vec<()>>().await;
    // Everything else goes on beside them.
    let beside = sandbox.command("echo").arg("fine").output().await.expect("exec");
    assert_eq!(beside.stdout_str().expect("text"), "fine\n");
    for stream in &mut streams {
        stream.shutdown().await.expect("shutdown");
        assert!(rest(stream).await.is_empty());
    }
    fixture.end().await;
}

#[tokio::test]
async fn a_local_port_leads_inside_and_http_goes_through() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    serve(&sandbox, "web", "127.0.0.1", 8000).await;
    let answer = sandbox.http(8000).get("/hello").await.expect("answer");
    assert_eq!((answer.status(), answer.text().await.expect("text")), (200, "hello\n".to_owned()));

    let listener = sandbox.tunnel(8000).listen("127.0.0.1:0").await.expect("listen");
    let mut stream = TcpStream::connect(listener.local_addr()).await.expect("connect");
    stream.write_all(b"GET /hello HTTP/1.0\r\n\r\n").await.expect("write");
    assert!(rest(&mut stream).await.ends_with(b"\r\n\r\nhello\n"));
    fixture.end().await;
}

#[tokio::test]
async fn a_destroy_cuts_what_is_open() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    serve(&sandbox, "echo", "127.0.0.1", 7000).await;
    let mut stream = sandbox.tunnel(7000).connect().await.expect("connect");
    echo(&mut stream, b"hello").await;
    sandbox.destroy().await.expect("destroy");
    let mut left = Vec::new();
    let cut = stream.read_to_end(&mut left).await.expect_err("cut");
    assert_eq!(cut.kind(), std::io::ErrorKind::ConnectionReset);
    let gone = sandbox.tunnel(7000).connect().await.expect_err("destroyed");
    assert_eq!(gone.kind(), ErrorKind::Conflict);
    fixture.end().await;
}

#[tokio::test]
async fn the_official_client_sees_the_address_of_a_published_port() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let official = createos::Client::builder().base_url(fixture.engine.url());
    let official = official.api_key(fixture.engine.api_key().expose()).build().expect("client");
    let theirs = official.sandbox(sandbox.id().as_str()).await.expect("view");
    theirs.preview_url(8000).expect_err("ingress is off");
    theirs.set_ingress(true).await.expect("patch");
    let url = theirs.preview_url(8000).expect("ingress is on");
    assert_eq!(url.to_string(), format!("http://{}/", authority(&sandbox, 8000).await));
    fixture.end().await;
}

/// A sandbox with ingress on and its web server, and where that is.
struct Site {
    fixture: Fixture,
    sandbox: Sandbox,
    /// `name:port` of the web server.
    authority: String,
}

impl Site {
    async fn start() -> Self {
        let fixture = Fixture::start().await;
        let created = fixture.client.create_sandbox("s-1vcpu-256mb").ingress(true).await;
        let sandbox = created.expect("create");
        serve(&sandbox, "web", "0.0.0.0", 8000).await;
        let authority = authority(&sandbox, 8000).await;
        Self { fixture, sandbox, authority }
    }

    /// What curl prints for a path, told where the name leads.
    async fn curl(&self, address: &str, arguments: &[&str], path: &str) -> String {
        let resolve = format!("{}:{address}", self.authority);
        let url = format!("http://{}{path}", self.authority);
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--noproxy", "*", "--max-time", "20", "--resolve", &resolve]);
        curl.args(arguments).arg(url);
        let run = tokio::task::spawn_blocking(move || curl.output());
        let output = run.await.expect("task").expect("curl runs; it is a package of its own");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }
}

async fn authority(sandbox: &Sandbox, port: u16) -> String {
    let view = sandbox.refresh().await.expect("view");
    let template = view.ingress_url_template.as_deref().expect("ingress is on");
    let url = template.replace("<port>", &port.to_string());
    url.strip_prefix("http://").expect("plain HTTP").to_owned()
}

#[tokio::test]
async fn curl_reads_a_published_port_by_its_name() {
    let site = Site::start().await;
    for address in ["127.0.0.1", "[::1]"] {
        assert_eq!(site.curl(address, &[], "/hello").await, "hello\n", "{address}");
    }
    let secret = ["-H", "X-Api-Key: skp_x", "-u", "me:secret", "-H", "X-Seen: yes"];
    let headers = site.curl("127.0.0.1", &secret, "/headers").await.to_ascii_lowercase();
    assert!(headers.contains("host: localhost:8000\n"), "{headers}");
    assert!(headers.contains("x-seen: yes\n"), "{headers}");
    assert!(!headers.contains("authorization") && !headers.contains("skp_x"), "{headers}");

    // A large body in both directions, of a length that is not announced.
    let file = tempfile::NamedTempFile::new().expect("file");
    let body = noise(&mut 3, 20 << 20);
    std::fs::write(file.path(), &body).expect("write");
    let upload = format!("@{}", file.path().display());
    let chunked = ["--data-binary", &upload, "-H", "Transfer-Encoding: chunked", "-H", "Expect:"];
    let digest = site.curl("127.0.0.1", &chunked, "/digest").await;
    assert_eq!(digest, format!("{:x}\n", Sha256::digest(&body)));
    let out = tempfile::NamedTempFile::new().expect("file");
    let save = ["-o", out.path().to_str().expect("text")];
    site.curl("127.0.0.1", &save, "/large").await;
    assert_eq!(std::fs::metadata(out.path()).expect("file").len(), 20 << 20);

    serve(&site.sandbox, "web", "127.0.0.1", 8001).await;
    let private = authority(&site.sandbox, 8001).await;
    let site = Site { authority: private, ..site };
    let status = ["-o", "/dev/null", "-w", "%{http_code}"];
    assert_eq!(site.curl("127.0.0.1", &status, "/hello").await, "502");
    site.sandbox.set_ingress(false).await.expect("patch");
    assert_eq!(site.curl("127.0.0.1", &status, "/hello").await, "404");
    site.fixture.end().await;
}

#[tokio::test]
async fn events_come_as_they_happen() {
    let site = Site::start().await;
    let address = site.authority.rsplit_once(':').expect("a port").1;
    let mut stream = TcpStream::connect(format!("127.0.0.1:{address}")).await.expect("connect");
    let request = format!("GET /events HTTP/1.1\r\nHost: {}\r\n\r\n", site.authority);
    stream.write_all(request.as_bytes()).await.expect("write");
    // Each event is sent only after the one before was asked for.
    for number in 0..3 {
        let event = format!("data: {number}\n\n");
        let mut heard = String::new();
        while !heard.contains(&event) {
            let mut chunk = [0; 1024];
            let read = stream.read(&mut chunk).await.expect("read");
            assert_ne!(read, 0, "the stream ended after {heard:?}");
            heard.push_str(std::str::from_utf8(&chunk[..read]).expect("text"));
        }
        assert_eq!(site.curl("127.0.0.1", &["-X", "POST"], "/next").await, "ok\n");
    }
    site.fixture.end().await;
}

#[tokio::test]
async fn a_web_socket_talks_both_ways_and_ends_with_the_sandbox() {
    let site = Site::start().await;
    let port = site.authority.rsplit_once(':').expect("a port").1;
    let stream = TcpStream::connect(format!("127.0.0.1:{port}")).await.expect("connect");
    let url = format!("ws://{}/socket", site.authority);
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.expect("handshake");
    for word in ["hello", "", &"long ".repeat(20_000)] {
        socket.send(Message::text(word)).await.expect("send");
        let heard = socket.next().await.expect("an answer").expect("a message");
        assert_eq!(heard, Message::text(word));
    }
    site.sandbox.destroy().await.expect("destroy");
    let end = tokio::time::timeout(Duration::from_secs(20), socket.next()).await;
    assert!(matches!(end, Ok(None | Some(Err(_)))), "{end:?}");
    site.fixture.end().await;
}

#[tokio::test]
async fn hundreds_of_visits_in_a_row_leave_nothing_behind() {
    let site = Site::start().await;
    let port = site.authority.rsplit_once(':').expect("a port").1.to_owned();
    let visit = || async {
        let mut stream = TcpStream::connect(format!("127.0.0.1:{port}")).await.expect("connect");
        let request =
            format!("GET /hello HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", site.authority);
        stream.write_all(request.as_bytes()).await.expect("write");
        assert!(rest(&mut stream).await.ends_with(b"hello\n"));
    };
    futures::stream::iter(0..500).map(|_| visit()).buffer_unordered(16).collect::<Vec<()>>().await;
    // Were it the engine that closes first, each visit would keep one of the ports from
    // which it connects for a minute.
    let kept = "awk '$4 == \"06\" && $2 !~ /:1F40$/' /proc/net/tcp | wc -l";
    let output = site.sandbox.command("sh").args(["-c", kept]).output().await.expect("exec");
    let text = output.stdout_str().expect("text");
    let ours: u32 = text.trim().parse().expect("a number");
    assert!(ours < 50, "{text}");
    site.fixture.end().await;
}

/// Runs twice: as a test, and inside the sandbox that this test makes, where the SDK signals.
#[tokio::test]
async fn the_sdk_lets_its_own_sandbox_go() {
    const NAME: &str = "the_sdk_lets_its_own_sandbox_go";
    if std::env::var("INSIDE").is_ok_and(|inside| inside == "yes") {
        assert!(createos_sdk::local::is_available().await.expect("probe"));
        createos_sdk::local::delete().reason("all done").await.expect("delete");
        return;
    }
    assert!(!createos_sdk::local::is_available().await.expect("probe"), "not here, outside");
    let fixture = Fixture::start().await;
    let created = fixture.client.create_sandbox("s-1vcpu-1gb").env("INSIDE", "no").await;
    let sandbox = created.expect("create");
    let program = std::fs::read(std::env::current_exe().expect("this program")).expect("read");
    sandbox.files().write("/root/test", program).await.expect("write");
    let inside = sandbox.command("sh").env("INSIDE", "yes");
    let script = format!("chmod +x /root/test && /root/test --exact {NAME} >/root/log 2>&1");
    // The sandbox goes while the command runs, or right after it.
    let _ = inside.args(["-c", &script]).output().await;
    let mut status = None;
    for _ in 0..200 {
        let view = sandbox.refresh().await.expect("view");
        if view.status == SandboxStatus::Destroyed {
            return fixture.end().await;
        }
        status = Some(view.status.clone());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = sandbox.files().read("/root/log").await;
    panic!("it is still {status:?}: {log:?}");
}

#[tokio::test]
async fn the_signal_port_cannot_be_taken_and_says_what_it_takes() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let script = "
import socket, urllib.error, urllib.request
try:
    socket.create_server(('127.0.0.1', 1029))
    print('taken')
except OSError as error:
    print('in use')
def ask(method, path):
    request = urllib.request.Request('http://127.0.0.1:1029' + path, method=method)
    try:
        return urllib.request.urlopen(request, timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code
print(ask('GET', '/self/pause'), ask('GET', '/'), ask('POST', '/self/nothing'))
print(ask('POST', '/self/delete?reason=all+done'))
";
    let output = sandbox.command("/usr/bin/python3").args(["-c", script]).stream().await;
    let mut text = Vec::new();
    let mut events = output.expect("stream");
    // The last line may be lost with the sandbox.
    while let Some(Ok(event)) = events.next().await {
        if let createos_sdk::ExecEvent::Stdout(bytes) = event {
            text.extend_from_slice(&bytes);
        }
    }
    let text = String::from_utf8(text).expect("text");
    assert!(text.is_empty() || text.starts_with("in use\n"), "{text}");
    for _ in 0..200 {
        if sandbox.refresh().await.expect("view").status == SandboxStatus::Destroyed {
            return fixture.end().await;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("it is still there after {text:?}");
}

#[tokio::test]
async fn a_word_in_the_pipe_pauses_or_ends_the_sandbox() {
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    // Nobody waits for whoever writes, and what is no word is nothing.
    let noise = "head -c 100000 /dev/zero > /run/self; echo parked > /run/self; \
                 setpriv --reuid 1000 --clear-groups sh -c 'echo > /run/self' && echo done";
    assert_eq!(sh(&sandbox, noise).await, "done\n");
    for (word, status) in [("park", SandboxStatus::Paused), ("retire", SandboxStatus::Destroyed)] {
        let script = format!("(sleep 0.2; echo {word} > /run/self) >/dev/null 2>&1 &");
        assert_eq!(sh(&sandbox, &script).await, "");
        let met = sandbox.wait_until(status.clone()).budget(Duration::from_secs(20)).await;
        met.unwrap_or_else(|error| panic!("{word}: {error}"));
        if status == SandboxStatus::Paused {
            sandbox.resume().await.expect("resume");
        }
    }
    fixture.end().await;
}
