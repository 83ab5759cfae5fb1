//! Reading a file into memory.

use std::future::IntoFuture;

use bytes::Bytes;
use reqwest::Method;

use super::{MAX_FILE_BYTES, check_path};
use crate::error::{Error, ErrorKind, Result};
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::sandbox::Sandbox;
use crate::transport::request::{Call, Pace};
use crate::transport::send;

/// Reads a whole file. Made with [`Files::read`](super::Files::read).
///
/// # Errors
///
/// `InvalidArgument`: the path is not absolute, or names a directory. `NotFound`: no such
/// file or sandbox. `Conflict`: the sandbox is not running. `Protocol`: the file is larger
/// than the limit.
#[derive(Debug)]
#[must_use = "nothing is sent until awaited"]
pub struct ReadFile {
    sandbox: Sandbox,
    path: String,
    limit: u64,
    options: RequestOptions,
}

impl ReadFile {
    pub(super) fn new(sandbox: Sandbox, path: String) -> Self {
        Self { sandbox, path, limit: MAX_FILE_BYTES, options: RequestOptions::new() }
    }

    /// Refuses a file of more than `bytes` bytes. Default is
    /// [`MAX_FILE_BYTES`](super::MAX_FILE_BYTES).
    pub fn limit(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<Bytes> {
        let operation = "files.read";
        check_path(&self.path).map_err(|error| error.in_operation(operation))?;
        let call = Call {
            accept: "application/octet-stream",
            limit: self.limit,
            pace: Pace::Stall,
            options: self.options,
            ..self.sandbox.call(operation, Method::GET, &["files"]).query("path", &self.path)
        };
        send::send(self.sandbox.client().inner(), &call, |reply| Ok(reply.body)).await
    }
}

impl IntoFuture for ReadFile {
    type Output = Result<Bytes>;
    type IntoFuture = Pending<Bytes>;

    fn into_future(self) -> Pending<Bytes> {
        Pending::new(self.run())
    }
}

/// Reads a whole file as text. Made with [`Files::read_string`](super::Files::read_string).
///
/// # Errors
///
/// As [`ReadFile`], and `Protocol` when the file is not UTF-8: read it as bytes instead.
#[derive(Debug)]
#[must_use = "nothing is sent until awaited"]
pub struct ReadText(ReadFile);

impl ReadText {
    pub(super) fn new(read: ReadFile) -> Self {
        Self(read)
    }

    /// Refuses a file of more than `bytes` bytes.
    pub fn limit(self, bytes: u64) -> Self {
        Self(self.0.limit(bytes))
    }

    /// Sets options of this call.
    pub fn with(self, options: RequestOptions) -> Self {
        Self(self.0.with(options))
    }
}

impl IntoFuture for ReadText {
    type Output = Result<String>;
    type IntoFuture = Pending<String>;

    fn into_future(self) -> Pending<String> {
        Pending::new(async move {
            let path = self.0.path.clone();
            let bytes = self.0.run().await?;
            String::from_utf8(bytes.into()).map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                let message = format!("{path} is not UTF-8 text at byte {at}; read it as bytes");
                Error::new(ErrorKind::Protocol, message)
                    .in_operation("files.read")
                    .with_source(error.utf8_error())
            })
        })
    }
}
