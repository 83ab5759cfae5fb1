//! Why a sign-in did not happen.

use std::error::Error as StdError;
use std::fmt;

/// What the functions of this module return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An address or the client id cannot be used: not a URL, neither HTTPS nor this machine.
    Config,
    /// The provider does not offer this way to sign in.
    Unsupported,
    /// The provider cannot be reached, or the connection broke.
    Connection,
    /// The provider answered something that is not this protocol, redirects elsewhere, or
    /// answers more than 1 MiB.
    Protocol,
    /// The person said no (`access_denied`).
    Denied,
    /// The code ran out before the person used it, or nobody came in time.
    Expired,
    /// The code or refresh token does not count any more (`invalid_grant`): used, revoked, too
    /// old.
    InvalidGrant,
    /// The provider does not know this client or does not let it do this (`invalid_client`,
    /// `unauthorized_client`).
    ClientRefused,
    /// What came back from the browser does not belong to this sign-in.
    ForeignAnswer,
    /// The port that the browser comes back to is taken on this machine.
    PortTaken,
    /// Something on this machine failed.
    Local,
    /// The provider refused with another code; the message holds it.
    Refused,
}

/// A sign-in or renewal that failed. `Display` is one line for a person; neither it nor
/// `Debug` holds a code or token.
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub(super) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    pub(super) fn protocol(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Protocol, message)
    }

    pub(super) fn with_source(
        mut self,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("oauth::Error")
            .field("kind", &self.kind)
            .field("message", &self.message)
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}
