//! Programs without a runtime.

use createos_sdk::blocking::{Iterate, Wait};
use createos_sdk::{ErrorKind, ExecEvent, Result};
use serde_json::json;

use super::server::{RawServer, STREAM_HEAD};
use super::{answering, sandbox, success, view};

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
