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
    /// The text is no reference to an image in a registry.
    #[error("{reference:?} is no image in a registry: {why}")]
    Reference {
        /// As it was given.
        reference: String,
        /// What is wrong with it.
        why: String,
    },
    /// The registry has no such image.
    #[error("there is no image {0}")]
    Missing(String),
    /// The registry wants an account, or another one.
    #[error("{registry} refuses {reference}, or has none: {said}")]
    Denied {
        /// The image, in full.
        reference: String,
        /// The registry, as it is given to `docker login`.
        registry: String,
        /// What it said.
        said: String,
    },
    /// The registry cannot be reached, broke off, was silent for too long, or answered
    /// something else than registries do.
    #[error("the registry {registry}: {why}")]
    Registry {
        /// Which one.
        registry: String,
        /// What happened.
        why: String,
    },
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
    /// A program that is needed is not installed.
    #[error("{tool} is not installed; {remedy}")]
    NoTool {
        /// What it is called.
        tool: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// The program that builds a system has failed.
    #[error("the system cannot be built: mmdebstrap ended with {status} and said:\n{said}")]
    Build {
        /// How it ended.
        status: String,
        /// The end of what it said.
        said: String,
    },
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
