//! Why the core did not do what was asked.

use std::collections::BTreeMap;

use crate::runtime::RuntimeError;
use crate::store::StoreError;

/// What is wrong with a request, by field.
pub(crate) type Fields = BTreeMap<String, String>;

/// A refusal or a fault, in the words of the domain. The HTTP front turns it into a status.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum CoreError {
    /// The request breaks a rule.
    #[error("{}", join(.0))]
    Invalid(Fields),
    /// No sandbox with this id or address.
    #[error("sandbox not found")]
    NoSandbox,
    /// The request names something else that does not exist.
    #[error("{field}: {message}")]
    NoSuch { field: &'static str, message: String },
    /// The sandbox is in the wrong state, or the name is taken.
    #[error("{0}")]
    Conflict(String),
    /// The desktop is still starting, or an action on it failed.
    #[error("desktop_unavailable: {0}")]
    Desktop(String),
    /// The file is larger than a transfer may be.
    #[error("{0}")]
    TooLarge(String),
    /// Possible, and not allowed.
    #[error("{field}: {message}")]
    Forbidden { field: &'static str, message: String },
    /// Understood, but this engine cannot do it.
    #[error("{field}: {message}")]
    NotAvailable { field: &'static str, message: String },
    /// Too much of it is under way already.
    #[error("{message}")]
    Busy { message: String, retry_seconds: u64 },
    /// The sandbox itself said no: permission, no space, too many processes.
    #[error("{0}")]
    Refused(String),
    /// This machine has no room for it.
    #[error("{0}")]
    NoCapacity(String),
    /// The sandbox went away while it was at work; the work may have been done.
    #[error("{0}")]
    Lost(String),
    /// Nothing takes connections on the port; nothing was done.
    #[error("{0}")]
    NoListener(String),
    /// A fault of the engine or the machine; the source stays in the log and in the text.
    #[error("{0}")]
    Internal(String),
}

impl CoreError {
    /// One wrong field.
    pub(crate) fn field(name: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid(Fields::from([(name.into(), message.into())]))
    }

    /// `Ok` when no field is wrong.
    pub(crate) fn check(fields: Fields) -> Result<(), Self> {
        if fields.is_empty() { Ok(()) } else { Err(Self::Invalid(fields)) }
    }

    /// A runtime error of a call that took `path`.
    pub(crate) fn from_file(error: RuntimeError, path: &[u8]) -> Self {
        match error {
            RuntimeError::NoSuchFile(_) => {
                let path = String::from_utf8_lossy(path);
                Self::NoSuch { field: "path", message: format!("no such file: {path}") }
            }
            RuntimeError::BadPath(why) => Self::field("path", why),
            other => other.into(),
        }
    }
}

impl From<RuntimeError> for CoreError {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::NotStarted { message, .. } | RuntimeError::Refused(message) => {
                Self::Refused(message)
            }
            RuntimeError::NoSuchFile(path) => {
                Self::NoSuch { field: "path", message: format!("no such file: {path}") }
            }
            RuntimeError::BadPath(why) => Self::field("path", why),
            error @ RuntimeError::PortClosed => Self::NoListener(error.to_string()),
            RuntimeError::Exhausted(why) => Self::NoCapacity(why),
            error @ RuntimeError::NoSuchProcess => {
                Self::NoSuch { field: "process_id", message: error.to_string() }
            }
            RuntimeError::WrongState(why) => Self::Conflict(why),
            RuntimeError::Full(why) => Self::NoCapacity(why),
            RuntimeError::Unreachable(why) => Self::Lost(why),
            RuntimeError::Unsupported(message) => Self::NotAvailable { field: "machine", message },
            error @ (RuntimeError::NotSaved(_) | RuntimeError::NotRestored(_)) => {
                Self::Refused(error.to_string())
            }
            error @ RuntimeError::Io { .. } => Self::Internal(error.to_string()),
        }
    }
}

impl From<StoreError> for CoreError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Full => Self::NoCapacity(
                "the disk that holds the engine's state is full; free some space and try again"
                    .to_owned(),
            ),
            error => {
                tracing::error!(%error, "the state database failed");
                Self::Internal(format!("the engine's state could not be used: {error}"))
            }
        }
    }
}

fn join(fields: &Fields) -> String {
    let parts: Vec<_> = fields.iter().map(|(name, text)| format!("{name}: {text}")).collect();
    parts.join("; ")
}
