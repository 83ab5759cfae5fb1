//! Programs without a runtime.

use std::io::{self, Read, Write};

use createos_sdk::blocking::{self, Bridge, Iterate, Wait};
use createos_sdk::{ErrorKind, ExecEvent, Result};
use serde_json::json;

use super::server::{RawServer, STREAM_HEAD};
use super::{answering, fail, sandbox, success, view};

/// The servers' own runtime, which the calls do not use.
fn servers() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn calls_lists_and_streams_work_without_a_runtime() -> Result<()> {
    let servers = servers();
    let server = servers.block_on(answering(success(view("running"))));
    let sandbox = sandbox(&server.uri());
    assert_eq!(sandbox.refresh().wait()?.status.as_str(), "running");
    let list = servers.block_on(answering(success(json!([view("running"), view("paused")]))));
    let rows = super::client(&list.uri()).sandboxes().stream().iterate();
    assert_eq!(rows.collect::<Result<Vec<_>>>()?.len(), 2);

    let server = servers.block_on(RawServer::start(|_, mut connection| async move {
        connection.read_request().await?;
        connection.write(STREAM_HEAD).await?;
        connection.chunk("{\"stdout\":\"a\"}\n{\"exit_code\":0}\n").await?;
        connection.chunk("").await
    }));
    let stream = super::sandbox(&server.url()).command("x").stream().wait()?;
    let events = stream.iterate().collect::<Result<Vec<_>>>()?;
    assert_eq!(events[0], ExecEvent::Stdout("a".into()));
    let error = super::sandbox("http://127.0.0.1:1").refresh().wait().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connection);
    Ok(())
}

#[tokio::test]
async fn within_a_runtime_it_panics_instead_of_halting_it() {
    let sandbox = sandbox("http://127.0.0.1:1");
    let again = sandbox.clone();
    let waiting = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _ = sandbox.refresh().wait();
    }));
    let panic = waiting.unwrap_err();
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap();
    assert!(text.contains("within a runtime"), "{text}");
    let elsewhere = tokio::task::spawn_blocking(move || again.refresh().wait());
    assert_eq!(elsewhere.await.unwrap().unwrap_err().kind(), ErrorKind::Connection);
}

#[test]
fn a_tunnel_is_read_and_written_and_half_closed() {
    let servers = servers();
    let server = servers.block_on(RawServer::start(|_, mut connection| async move {
        connection.read_head().await?;
        connection.switch("tcp-tunnel", b"hello ").await?;
        let heard = connection.read_to_end().await?;
        connection.write(heard).await?;
        connection.end_writing().await
    }));
    let mut tunnel = sandbox(&server.url()).tunnel(80).connect().wait().unwrap().bridge();
    tunnel.write_all(b"world").unwrap();
    tunnel.flush().unwrap();
    tunnel.shutdown().unwrap();
    let mut heard = String::new();
    tunnel.read_to_string(&mut heard).unwrap();
    assert_eq!(heard, "hello world");
}

/// Yields its bytes in small pieces, then ends in its own way.
struct Source(usize, fn() -> io::Result<usize>);

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.0.min(buffer.len()).min(70_000);
        buffer[..length].fill(b'x');
        self.0 -= length;
        if length == 0 { (self.1)() } else { Ok(length) }
    }
}

#[test]
fn a_reader_is_uploaded_whole_or_not_at_all() {
    let servers = servers();
    let server = servers.block_on(answering(success(json!({"bytes": 1, "path": "/f"}))));
    let files = sandbox(&server.uri()).files();
    files.write("/f", blocking::upload(Source(1 << 20, || Ok(0)))).wait().unwrap();
    let requests = servers.block_on(server.received_requests()).unwrap();
    assert_eq!(requests[0].body.len(), 1 << 20);

    let fails: [fn() -> io::Result<usize>; 2] =
        [|| Err(io::Error::other("the tape tore")), || panic!("a bug in the reader")];
    for end in fails {
        let error = files.write("/f", blocking::upload(Source(9, end))).wait().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    }
    assert_eq!(servers.block_on(server.received_requests()).unwrap().len(), 1);
}

#[test]
fn a_reader_is_not_touched_before_it_is_needed_and_sent_once() {
    let servers = servers();
    let server = servers.block_on(answering(fail(503, "busy")));
    let untouched = blocking::upload(Source(1, || panic!("read although nothing was sent")));
    drop(sandbox(&server.uri()).files().write("/f", untouched));
    let once = blocking::upload(Source(1, || Ok(0)));
    let error = sandbox(&server.uri()).files().write("/f", once).wait().unwrap_err();
    assert_eq!((error.kind(), error.attempts()), (ErrorKind::Unavailable, 1));
}
