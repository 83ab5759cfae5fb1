//! Downloads in constant memory.

use std::future::IntoFuture;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use reqwest::Method;
use tokio::io::{AsyncRead, AsyncWriteExt, BufWriter, ReadBuf};

use super::{Progress, ProgressFn, check_path};
use crate::error::{Error, ErrorKind, Result};
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::sandbox::Sandbox;
use crate::transport::incoming::Incoming;
use crate::transport::request::Call;
use crate::transport::send;

/// Local writes are collected up to this size: each one is a trip to another thread.
const WRITE_BUFFER: usize = 512 << 10;

/// Opens a file as a stream. Made with [`Files::download`](super::Files::download).
///
/// # Errors
///
/// `InvalidArgument`: the path is not absolute, or names a directory. `NotFound`: no such
/// file or sandbox. `Conflict`: the sandbox is not running.
#[derive(Debug)]
#[must_use = "nothing is sent until awaited"]
pub struct DownloadFile {
    sandbox: Sandbox,
    path: String,
    progress: Option<ProgressFn>,
    options: RequestOptions,
}

impl DownloadFile {
    pub(super) fn new(sandbox: Sandbox, path: String) -> Self {
        Self { sandbox, path, progress: None, options: RequestOptions::new() }
    }

    /// Calls `callback` for every piece taken from the stream. It must not block.
    pub fn progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(ProgressFn::new(callback));
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<Download> {
        let operation = "files.download";
        check_path(&self.path).map_err(|error| error.in_operation(operation))?;
        let call = Call {
            accept: "application/octet-stream",
            options: self.options,
            ..self.sandbox.call(operation, Method::GET, &["files"]).query("path", &self.path)
        };
        let incoming = send::open(self.sandbox.client().inner(), &call).await?;
        Ok(Download { incoming, progress: self.progress, rest: Bytes::new() })
    }
}

impl IntoFuture for DownloadFile {
    type Output = Result<Download>;
    type IntoFuture = Pending<Download>;

    fn into_future(self) -> Pending<Download> {
        Pending::new(self.run())
    }
}

/// A file on its way here: a [`Stream`] of its pieces, in order, and an [`AsyncRead`].
///
/// It ends after the last byte. A transfer that breaks off, or is shorter than announced, is
/// an error of kind [`StreamLost`](crate::ErrorKind::StreamLost); one that stays silent for
/// the stall timeout is a [`Timeout`](crate::ErrorKind::Timeout). Dropping it ends the
/// transfer.
#[derive(Debug)]
#[must_use = "a stream does nothing until polled"]
pub struct Download {
    incoming: Incoming,
    progress: Option<ProgressFn>,
    /// What a reader had no room for.
    rest: Bytes,
}

impl Download {
    /// Size of the file in bytes, when the server announced it.
    pub fn len(&self) -> Option<u64> {
        self.incoming.announced()
    }

    /// Whether the file is known to be empty.
    pub fn is_empty(&self) -> bool {
        self.len() == Some(0)
    }
}

impl Stream for Download {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.rest))));
        }
        let polled = self.incoming.poll_next_unpin(cx);
        if let (Poll::Ready(Some(Ok(_))), Some(progress)) = (&polled, &self.progress) {
            progress.report(Progress { bytes: self.incoming.received(), total: self.len() });
        }
        polled
    }
}

/// The same bytes for what takes a reader. Its errors hold an [`Error`] as their inner error.
impl AsyncRead for Download {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut piece = loop {
            match ready!(self.as_mut().poll_next(cx)) {
                Some(Ok(piece)) if piece.is_empty() => {}
                Some(Ok(piece)) => break piece,
                Some(Err(error)) => return Poll::Ready(Err(io::Error::other(error))),
                None => return Poll::Ready(Ok(())),
            }
        };
        let count = piece.len().min(buffer.remaining());
        buffer.put_slice(&piece.split_to(count));
        self.rest = piece;
        Poll::Ready(Ok(()))
    }
}

/// Stores a file of the sandbox locally. Made with
/// [`Files::download_to`](super::Files::download_to); yields the number of bytes.
///
/// The bytes go to a temporary file beside the target, which takes the target's name when it
/// is complete. A failure, or dropping the future, removes the temporary file and leaves the
/// target as it was. A symbolic link is replaced, not followed.
///
/// # Errors
///
/// As [`DownloadFile`] and [`Download`]; `Io` when the local file cannot be written.
#[derive(Debug)]
#[must_use = "nothing is sent until awaited"]
pub struct DownloadTo {
    download: DownloadFile,
    local: PathBuf,
}

impl DownloadTo {
    pub(super) fn new(download: DownloadFile, local: PathBuf) -> Self {
        Self { download, local }
    }

    /// Calls `callback` for every piece that arrived. It must not block.
    pub fn progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.download = self.download.progress(callback);
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.download = self.download.with(options);
        self
    }

    async fn run(self) -> Result<u64> {
        let local = &self.local;
        let failed = |error| local_error(local, error);
        // Found out now rather than after the transfer.
        if tokio::fs::metadata(local).await.is_ok_and(|meta| meta.is_dir()) {
            let why = format!("{} is a directory; name the file", local.display());
            return Err(Error::invalid_argument("local path", why).in_operation("files.download"));
        }
        let mut download = self.download.await?;
        let (file, part) = create_part(local.clone()).await.map_err(failed)?;
        let mut file = BufWriter::with_capacity(WRITE_BUFFER, tokio::fs::File::from_std(file));
        while let Some(piece) = download.next().await {
            file.write_all(&piece?).await.map_err(failed)?;
        }
        file.flush().await.map_err(failed)?;
        drop(file);
        let target = local.clone();
        blocking(move || part.persist(target).map_err(|error| error.error))
            .await
            .map_err(failed)?;
        Ok(download.incoming.received())
    }
}

impl IntoFuture for DownloadTo {
    type Output = Result<u64>;
    type IntoFuture = Pending<u64>;

    fn into_future(self) -> Pending<u64> {
        Pending::new(self.run())
    }
}

/// Creates the temporary file `.<name>.<random>.part` beside the target, with the mode that
/// an ordinary new file would have.
async fn create_part(target: PathBuf) -> std::io::Result<(std::fs::File, tempfile::TempPath)> {
    blocking(move || {
        let name = target.file_name().unwrap_or_default().to_string_lossy();
        let prefix = format!(".{name}.");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(".part");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let directory = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        Ok(builder.tempfile_in(directory)?.into_parts())
    })
    .await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other)?
}

fn local_error(local: &Path, error: std::io::Error) -> Error {
    let message = format!("cannot write {}: {error}", local.display());
    Error::new(ErrorKind::Io, message).in_operation("files.download").with_source(error)
}
