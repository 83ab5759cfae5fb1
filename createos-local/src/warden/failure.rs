//! Errors of the warden: what was being done, and what the kernel said.

use crate::codec::Malformed;
use std::io;

pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// One sentence for people: the engine passes it on as it is.
#[derive(Debug)]
pub(crate) struct Failure(String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&str> for Failure {
    fn from(message: &str) -> Self {
        Self(message.to_owned())
    }
}

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self(message)
    }
}

impl From<Malformed> for Failure {
    fn from(error: Malformed) -> Self {
        Self(error.to_string())
    }
}

pub(crate) trait Context<T> {
    /// Says what was being done.
    fn context(self, doing: &str) -> Result<T>;
}

impl<T> Context<T> for io::Result<T> {
    fn context(self, doing: &str) -> Result<T> {
        self.map_err(|error| Failure(format!("cannot {doing}: {error}")))
    }
}
