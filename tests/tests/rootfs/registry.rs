//! Registries to pull from: a real one, and one that misbehaves.

use std::fs;
use std::net::TcpListener as StdListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::pack::{config, gzip, layers, zstd};

/// `hunter2` for `ann`, as htpasswd files keep it.
const ACCOUNTS: &str = "ann:$2b$05$qDvvxAT5GR4mzeJd7K6o0eJyA0WuI2n4UB/0O.WYdYLl70uzj5eIi\n";
/// The same in the form of the Basic scheme.
pub(crate) const ANN: &str = "YW5uOmh1bnRlcjI=";

pub(crate) fn digest_of(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// An image as a registry has it.
pub(crate) struct Image {
    pub(crate) config: Vec<u8>,
    pub(crate) layers: Vec<Vec<u8>>,
    pub(crate) manifest: Vec<u8>,
}

impl Image {
    /// Two layers, one compressed by gzip and one by zstd.
    pub(crate) fn new() -> Self {
        let plain = layers();
        let config = config(&plain);
        Self::of(config, vec![gzip(&plain[0]), zstd(&plain[1])])
    }

    pub(crate) fn of(config: Vec<u8>, layers: Vec<Vec<u8>>) -> Self {
        let described: Vec<_> = layers
            .iter()
            .map(|layer| format!(r#"{{"digest":"{}","size":{}}}"#, digest_of(layer), layer.len()))
            .collect();
        let manifest = format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.v2+json",
            "config":{{"mediaType":"application/vnd.docker.container.image.v1+json","digest":"{}","size":{}}},
            "layers":[{}]}}"#,
            digest_of(&config),
            config.len(),
            described.join(",").replace(
                r#"{"digest""#,
                r#"{"mediaType":"application/vnd.docker.image.rootfs.diff.tar.gzip","digest""#
            )
        );
        Self { config, layers, manifest: manifest.into_bytes() }
    }
}

/// An index of images for several platforms.
pub(crate) fn index(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let entries: Vec<_> = entries
        .iter()
        .map(|(platform, manifest)| {
            let (os, architecture) = platform.split_once('/').unwrap();
            format!(
                r#"{{"mediaType":"application/vnd.docker.distribution.manifest.v2+json",
                "digest":"{}","size":{},"platform":{{"os":"{os}","architecture":"{architecture}"}}}}"#,
                digest_of(manifest),
                manifest.len()
            )
        })
        .collect();
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests":[{}]}}"#,
        entries.join(",")
    )
    .into_bytes()
}

/// Docker's own registry, on a port of this machine.
pub(crate) struct Registry {
    process: Child,
    pub(crate) host: String,
    account: bool,
    _dir: TempDir,
}

impl Registry {
    /// Starts one; with an account, only `ann` is served.
    pub(crate) async fn start(account: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let port = StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let files = dir.path().display();
        let accounts = format!("auth: {{htpasswd: {{realm: test, path: {files}/accounts}}}}\n");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '{host}'}}\n\
             storage: {{filesystem: {{rootdirectory: {files}/blobs}}}}\n{}",
            if account { &accounts } else { "" }
        );
        fs::write(dir.path().join("accounts"), ACCOUNTS).unwrap();
        fs::write(dir.path().join("config.yml"), config).unwrap();
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.path().join("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry (Debian: apt install docker-registry)");
        let registry = Self { process, host, account, _dir: dir };
        for _ in 0..500 {
            if TcpStream::connect(&registry.host).await.is_ok() {
                return registry;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("docker-registry does not serve");
    }

    /// Puts an image there as clients do, and names it.
    pub(crate) async fn push(&self, repository: &str, tag: &str, image: &Image) {
        for blob in image.layers.iter().chain([&image.config]) {
            let begun = self.send("POST", &format!("/v2/{repository}/blobs/uploads/"), b"").await;
            let place = header(&begun, "location").expect("where to upload");
            let place = place.split_once(&self.host).map_or(&*place, |(_, path)| path);
            let place = format!("{place}&digest={}", digest_of(blob));
            assert_eq!(status(&self.send("PUT", &place, blob).await), 201);
        }
        self.put_manifest(repository, tag, &image.manifest).await;
    }

    pub(crate) async fn put_manifest(&self, repository: &str, tag: &str, manifest: &[u8]) {
        let answer = self.send("PUT", &format!("/v2/{repository}/manifests/{tag}"), manifest).await;
        assert_eq!(status(&answer), 201, "{answer}");
    }

    async fn send(&self, method: &str, path: &str, body: &[u8]) -> String {
        let mut stream = TcpStream::connect(&self.host).await.unwrap();
        let kind = String::from_utf8_lossy(body);
        let kind = kind.split("\"mediaType\":\"").nth(1).and_then(|rest| rest.split('"').next());
        let kind = kind.unwrap_or("application/octet-stream");
        let account =
            if self.account { format!("Authorization: Basic {ANN}\r\n") } else { String::new() };
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n{account}\
             Content-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.host,
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status")
}

fn header(answer: &str, name: &str) -> Option<String> {
    let mut lines = answer.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned())
}

/// What a misbehaving registry does with a request.
#[derive(Clone)]
pub(crate) enum Act {
    /// Answers with a status, more headers and a body.
    Say(u16, String, Vec<u8>),
    /// Promises the whole body, sends so many bytes of it and closes the connection.
    Cut(Vec<u8>, usize),
    /// The same, and sends nothing more.
    Stall(Vec<u8>, usize),
}

/// A server whose answers a test chooses by the head of the request.
pub(crate) struct Script {
    pub(crate) host: String,
    /// Heads of all requests, in order.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Script {
    pub(crate) async fn start(act: impl Fn(&str, &str) -> Act + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (act, own, heads) = (Arc::new(act), host.clone(), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (act, own, heads) = (Arc::clone(&act), own.clone(), Arc::clone(&heads));
                tokio::spawn(async move {
                    let _ = serve(stream, &own, &*act, &heads).await;
                });
            }
        });
        Self { host, asked, task }
    }

    pub(crate) fn count(&self, part: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|head| head.contains(part)).count()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    mut stream: TcpStream,
    host: &str,
    act: &(dyn Fn(&str, &str) -> Act + Send + Sync),
    heads: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    heads.lock().unwrap().push(head.clone());
    let from = header(&head, "range")
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let (status, more, body, sent) = match act(host, &head) {
        Act::Say(status, more, body) => (status, more, body.clone(), None),
        Act::Cut(body, sent) => (200, String::new(), body, Some((sent, false))),
        Act::Stall(body, sent) => (200, String::new(), body, Some((sent, true))),
    };
    let (status, skipped) = match from {
        Some(from) if status == 200 && from <= body.len() => (206, from),
        _ => (status, 0),
    };
    let body = &body[skipped..];
    let answer = format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n{more}\r\n",
        body.len()
    );
    stream.write_all(answer.as_bytes()).await?;
    let (length, stalls) = sent.unwrap_or((body.len(), false));
    stream.write_all(&body[..length.min(body.len())]).await?;
    stream.flush().await?;
    if stalls {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    Ok(())
}
