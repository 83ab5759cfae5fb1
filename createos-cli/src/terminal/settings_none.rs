//! Where terminals have no settings of this kind.

use std::io;

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Settings;

impl Settings {
    pub(super) fn read() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn raw(&self) -> Self {
        Self
    }

    pub(super) fn keys(&self) -> Self {
        Self
    }

    pub(super) fn apply(&self) -> io::Result<()> {
        Ok(())
    }
}
