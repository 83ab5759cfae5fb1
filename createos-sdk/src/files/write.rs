//! Storing a file.

use std::future::IntoFuture;
use std::sync::Arc;

use reqwest::Method;

use super::{Progress, ProgressFn, Upload, check_path};
use crate::error::Result;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::sandbox::Sandbox;
use crate::transport::request::{Body, Call, Pace};
use crate::transport::{envelope, send};

/// Stores a file. Made with [`Files::write`](super::Files::write).
///
/// There is no limit on how long it may take, only on silence (the stall timeout).
///
/// # Errors
///
/// `InvalidArgument`: the path is not absolute, the source is a directory, or it holds more
/// than [`MAX_FILE_BYTES`](super::MAX_FILE_BYTES). `Io`: the source cannot be read.
/// `Conflict`: the sandbox is not running. The upload replaces the file as a whole or not
/// at all; when [`may_have_acted`](crate::Error::may_have_acted) it is safe to repeat.
#[derive(Debug)]
#[must_use = "nothing is sent until awaited"]
pub struct WriteFile {
    sandbox: Sandbox,
    path: String,
    content: Upload,
    progress: Option<ProgressFn>,
    options: RequestOptions,
}

impl WriteFile {
    pub(super) fn new(sandbox: Sandbox, path: String, content: Upload) -> Self {
        let options = RequestOptions::new();
        Self { sandbox, path, content, progress: None, options }
    }

    /// Calls `callback` for every piece handed to the connection. It must not block.
    pub fn progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(ProgressFn::new(callback));
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<()> {
        let operation = "files.write";
        check_path(&self.path).map_err(|error| error.in_operation(operation))?;
        let call = Call {
            body: Body::Upload(Arc::new(self.content), self.progress),
            pace: Pace::Stall,
            options: self.options,
            ..self.sandbox.call(operation, Method::PUT, &["files"]).query("path", &self.path)
        };
        let client = self.sandbox.client();
        send::send(client.inner(), &call, |reply| envelope::acknowledged(&reply)).await
    }
}

impl IntoFuture for WriteFile {
    type Output = Result<()>;
    type IntoFuture = Pending<()>;

    fn into_future(self) -> Pending<()> {
        Pending::new(self.run())
    }
}
