//! Why a root filesystem was not imported.

use std::io;
use std::path::PathBuf;

/// An image that could not be imported, listed or removed. Nothing of it stays, and what was
/// there before is as it was.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The name cannot be one.
    #[error("the name {name:?} cannot be used: {why}")]
    Name {
        /// As it was given.
        name: String,
        /// What a name is.
        why: String,
    },
    /// There is no image of this name.
    #[error("there is no image {0}")]
    NotFound(String),
    /// The file cannot be opened or read.
    #[error("{} cannot be read: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is of a kind that is not understood here; the text says what is.
    #[error("{0}")]
    Unsupported(String),
    /// It is broken, or not what it says it is.
    #[error("the image is damaged: {0}")]
    Damaged(String),
    /// It is larger than images may be, or than this machine's disk has room for.
    #[error("the image is too large: {0}")]
    TooLarge(String),
    /// The data directory cannot be used.
    #[error("{context}: {source}")]
    Io {
        /// What was tried.
        context: String,
        /// What the system said.
        source: io::Error,
    },
}

impl ImageError {
    pub(super) fn io(context: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let context = context.into();
        move |source| Self::Io { context, source }
    }
}
