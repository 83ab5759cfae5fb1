//! Bytes of a program or file, passed on unchanged.

use std::io;

use tokio::io::{AsyncWrite, AsyncWriteExt};

use crate::failure::Failure;

/// Writes payload; a full pipe does not keep Ctrl+C from being heard.
pub(crate) struct Payload {
    stdout: tokio::io::Stdout,
    stderr: tokio::io::Stderr,
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Payload")
    }
}

impl Payload {
    pub(crate) fn new() -> Self {
        Self { stdout: tokio::io::stdout(), stderr: tokio::io::stderr() }
    }

    /// Writes to standard output and flushes.
    pub(crate) async fn stdout(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        write(&mut self.stdout, bytes).await.map_err(|error| Failure::stdout(&error))
    }

    /// Writes to standard error and flushes.
    pub(crate) async fn stderr(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        let written = write(&mut self.stderr, bytes).await;
        written.map_err(|error| Failure::io("cannot write to standard error", &error))
    }
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.flush().await
}
