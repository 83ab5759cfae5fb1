//! What can be uploaded.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::{Error, ErrorKind, Result};

pub(crate) type ByteStream = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// How much is handed to the connection at a time.
const PIECE: usize = 256 << 10;

/// The content of an upload.
///
/// Bytes, text and local paths can be sent again when an attempt fails; a path is opened
/// anew for each attempt. Readers and streams are sent once.
///
/// ```
/// use createos_sdk::Upload;
///
/// let text: Upload = "hello".into();
/// let file = Upload::file("Cargo.toml");
/// let reader = Upload::reader(tokio::io::empty()).with_len(0);
/// ```
pub struct Upload(Source);

enum Source {
    Bytes(Bytes),
    File(PathBuf),
    Once { stream: Mutex<Option<ByteStream>>, len: Option<u64> },
}

impl Upload {
    /// The content of a local file. It must be a regular file; for a pipe use
    /// [`reader`](Self::reader).
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Source::File(path.into()))
    }

    /// What a reader yields until its end.
    pub fn reader(reader: impl AsyncRead + Send + 'static) -> Self {
        Self::stream(pieces(Box::pin(reader)))
    }

    /// What a stream yields until its end. An error of the stream aborts the upload, and the
    /// file in the sandbox stays as it was.
    pub fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self(Source::Once { stream: Mutex::new(Some(Box::pin(stream))), len: None })
    }

    /// Announces how many bytes a reader or stream will yield. More or fewer abort the
    /// upload. Without it the body is sent in chunks, which some servers do not take.
    /// Bytes and files know their length; for them this changes nothing.
    pub fn with_len(mut self, bytes: u64) -> Self {
        if let Source::Once { len, .. } = &mut self.0 {
            *len = Some(bytes);
        }
        self
    }

    pub(crate) fn is_replayable(&self) -> bool {
        !matches!(self.0, Source::Once { .. })
    }

    /// The content from its beginning, and its length where that is known.
    pub(crate) async fn open(&self) -> Result<(ByteStream, Option<u64>)> {
        match &self.0 {
            Source::Bytes(bytes) => {
                let len = bytes.len() as u64;
                Ok((Box::pin(stream::iter(cut(bytes.clone())).map(Ok)), Some(len)))
            }
            Source::File(path) => open_file(path).await,
            Source::Once { stream, len } => {
                let taken = stream.lock().unwrap_or_else(PoisonError::into_inner).take();
                let source = taken.ok_or_else(|| {
                    Error::new(ErrorKind::Io, "the source of the upload was already used")
                })?;
                Ok((source, *len))
            }
        }
    }
}

/// Cuts bytes into pieces without copying, so that progress can be seen and silence noticed.
fn cut(mut bytes: Bytes) -> impl Iterator<Item = Bytes> + Send {
    std::iter::from_fn(move || {
        let piece = bytes.split_to(bytes.len().min(PIECE));
        (!piece.is_empty()).then_some(piece)
    })
}

fn pieces<R: AsyncRead + Send + 'static>(
    reader: Pin<Box<R>>,
) -> impl Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold((reader, BytesMut::new()), |(mut reader, mut buffer)| async move {
        buffer.reserve(PIECE);
        match reader.read_buf(&mut buffer).await? {
            0 => Ok(None),
            _ => Ok(Some((buffer.split().freeze(), (reader, buffer)))),
        }
    })
}

async fn open_file(path: &Path) -> Result<(ByteStream, Option<u64>)> {
    let unreadable = |error: io::Error| {
        Error::new(ErrorKind::Io, format!("cannot read {}: {error}", path.display()))
            .with_source(error)
    };
    // Asked before opening, because opening a pipe waits for its writer.
    let meta = tokio::fs::metadata(path).await.map_err(unreadable)?;
    if !meta.is_file() {
        let what = if meta.is_dir() { "a directory" } else { "not a regular file" };
        let why = format!("{} is {what}", path.display());
        return Err(Error::invalid_argument("upload", why));
    }
    let file = tokio::fs::File::open(path).await.map_err(unreadable)?;
    let len = file.metadata().await.map_err(unreadable)?.len();
    // What is appended while we read belongs to the next upload.
    Ok((Box::pin(pieces(Box::pin(file.take(len)))), Some(len)))
}

impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Source::Bytes(bytes) => write!(f, "Upload({} bytes)", bytes.len()),
            Source::File(path) => write!(f, "Upload({})", path.display()),
            Source::Once { len, .. } => write!(f, "Upload(stream, length {len:?})"),
        }
    }
}

impl From<Bytes> for Upload {
    fn from(bytes: Bytes) -> Self {
        Self(Source::Bytes(bytes))
    }
}

impl From<Vec<u8>> for Upload {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&[u8]> for Upload {
    fn from(bytes: &[u8]) -> Self {
        Bytes::copy_from_slice(bytes).into()
    }
}

impl<const N: usize> From<&[u8; N]> for Upload {
    fn from(bytes: &[u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl From<String> for Upload {
    fn from(text: String) -> Self {
        Bytes::from(text).into()
    }
}

/// The text itself, not a file of that name.
impl From<&str> for Upload {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}

/// The content of the file at this path.
impl From<PathBuf> for Upload {
    fn from(path: PathBuf) -> Self {
        Self::file(path)
    }
}

/// The content of the file at this path.
impl From<&Path> for Upload {
    fn from(path: &Path) -> Self {
        Self::file(path)
    }
}
