//! A server that does exactly what a test tells it, byte by byte: late, cut, never.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) struct RawServer {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl RawServer {
    /// Runs `script` for every connection, with the number of the connection from 0.
    pub(crate) async fn start<F, S>(script: S) -> Self
    where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
        S: Fn(usize, Connection) -> F + Send + Sync + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                // A client that goes away is part of many tests.
                tokio::spawn(script(number, Connection { stream, buffer: Vec::new() }));
            }
        });
        Self { address, connections, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Reads a request's head and leaves its body.
    pub(crate) async fn read_head(&mut self) -> std::io::Result<String> {
        loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                let rest = self.buffer.split_off(end + 4);
                let head = std::mem::replace(&mut self.buffer, rest);
                return Ok(String::from_utf8_lossy(&head).to_ascii_lowercase());
            }
            self.fill().await?;
        }
    }

    /// Reads a request that announces its length, and gives its body.
    pub(crate) async fn read_request(&mut self) -> std::io::Result<Vec<u8>> {
        let head = self.read_head().await?;
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "))
            .map_or(0, |length| length.parse().unwrap());
        while self.buffer.len() < length {
            self.fill().await?;
        }
        let rest = self.buffer.split_off(length);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Waits until the client has closed the connection.
    pub(crate) async fn read_to_end(&mut self) -> std::io::Result<Vec<u8>> {
        let mut rest = std::mem::take(&mut self.buffer);
        self.stream.read_to_end(&mut rest).await?;
        Ok(rest)
    }

    async fn fill(&mut self) -> std::io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    pub(crate) async fn write(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.stream.write_all(bytes.as_ref()).await?;
        self.stream.flush().await
    }

    /// Takes exactly this many bytes.
    pub(crate) async fn read_exact(&mut self, count: usize) -> std::io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill().await?;
        }
        let rest = self.buffer.split_off(count);
        Ok(std::mem::replace(&mut self.buffer, rest))
    }

    /// Agrees to go on with another protocol; `early` comes in the same segment.
    pub(crate) async fn switch(&mut self, token: &str, early: &[u8]) -> std::io::Result<()> {
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {token}\r\n\r\n"
        );
        self.write([head.as_bytes(), early].concat()).await
    }

    /// What was read can be read again.
    pub(crate) fn put_back(&mut self, bytes: &str) {
        self.buffer.splice(0..0, bytes.bytes());
    }

    /// The connection itself. Nothing may have been read ahead.
    pub(crate) fn into_stream(self) -> TcpStream {
        assert!(self.buffer.is_empty());
        self.stream
    }

    /// Ends the writing side alone.
    pub(crate) async fn end_writing(&mut self) -> std::io::Result<()> {
        self.stream.shutdown().await
    }

    /// Writes one chunk of a chunked body.
    pub(crate) async fn chunk(&mut self, bytes: impl AsRef<[u8]>) -> std::io::Result<()> {
        let bytes = bytes.as_ref();
        let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
        framed.extend_from_slice(bytes);
        framed.extend_from_slice(b"\r\n");
        self.write(framed).await
    }

    /// Writes a whole JSON answer.
    pub(crate) async fn json(&mut self, status: u16, body: &str) -> std::io::Result<()> {
        let length = body.len();
        self.write(format!(
            "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        ))
        .await
    }
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

pub(crate) const STREAM_HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\n\
     Transfer-Encoding: chunked\r\nX-Request-Id: req-7\r\n\r\n";
