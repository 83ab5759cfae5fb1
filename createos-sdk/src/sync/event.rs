//! What a sync tells.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

/// One of the two directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SyncSide {
    /// The one on this machine.
    Local,
    /// The one in the sandbox.
    Remote,
}

impl SyncSide {
    pub(super) fn other(self) -> Self {
        match self {
            Self::Local => Self::Remote,
            Self::Remote => Self::Local,
        }
    }
}

impl fmt::Display for SyncSide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Local => "here",
            Self::Remote => "in the sandbox",
        })
    }
}

/// What was done to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SyncAction {
    /// A file or link was created or replaced.
    Written,
    /// A directory was created.
    DirectoryCreated,
    /// A file, link or directory was removed.
    Removed,
    /// Its permissions were changed.
    ModeChanged,
}

/// A path relative to the synced directories: any bytes but NUL.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SyncPath(Bytes);

impl SyncPath {
    pub(super) fn new(path: &[u8]) -> Self {
        Self(Bytes::copy_from_slice(path))
    }

    /// Exactly as it is.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As text, with `U+FFFD` for what is not UTF-8.
    pub fn to_string_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.0)
    }
}

impl fmt::Debug for SyncPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.to_string_lossy(), f)
    }
}

/// As one line: control characters are escaped.
impl fmt::Display for SyncPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.to_string_lossy().chars() {
            match c.is_control() {
                true => write!(f, "{}", c.escape_default())?,
                false => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}

/// Something a sync did or found.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncEvent {
    /// A path was changed to be as on the other side.
    Changed {
        /// The side that was changed.
        side: SyncSide,
        /// What was done.
        action: SyncAction,
        /// Where.
        path: SyncPath,
        /// Bytes of content that were written.
        bytes: u64,
    },
    /// A path differs and nobody can say which side is right: both are left alone.
    Conflict {
        /// Where.
        path: SyncPath,
        /// Why, in words.
        reason: String,
    },
    /// A conflict is over.
    Resolved {
        /// Where.
        path: SyncPath,
    },
    /// Something could not be done. It is tried again, at longer and longer intervals.
    Problem {
        /// Where; `None` when it is about a whole side.
        path: Option<SyncPath>,
        /// What went wrong, and what helps.
        message: String,
    },
    /// The sandbox cannot be reached. The sync goes on when it can.
    Lost {
        /// What went wrong.
        message: String,
    },
    /// The sandbox can be reached again.
    Restored,
    /// Everything that can be the same is the same. It comes after the first comparison and
    /// after everything that was done since.
    Settled(SyncReport),
}

/// How things are when everything that can be the same is the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SyncReport {
    /// Files, links and directories that take part here.
    pub local_entries: u64,
    /// Those in the sandbox.
    pub remote_entries: u64,
    /// Changes made here since the sync began.
    pub local_changes: u64,
    /// Changes made in the sandbox since the sync began.
    pub remote_changes: u64,
    /// Bytes of content written on either side since the sync began.
    pub bytes: u64,
    /// Paths that differ and are left alone.
    pub conflicts: Vec<SyncPath>,
    /// Whether something could not be done; the [`SyncEvent::Problem`]s said what.
    pub has_problems: bool,
}

impl SyncReport {
    /// Whether both sides are the same.
    pub fn is_clean(&self) -> bool {
        self.conflicts.is_empty() && !self.has_problems
    }
}
