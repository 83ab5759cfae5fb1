//! Why an engine did not start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// An engine that could not be started. Each variant says what is wrong and what to do.
/// Nothing keeps running after an error, and no sandbox was changed unless the variant says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// There is no home directory to keep the state in.
    #[error(
        "there is no place for the engine's state: neither HOME nor XDG_DATA_HOME is an absolute \
         path; set one of them or name a data directory"
    )]
    NoDataDir,

    /// The data directory cannot be made, read or written.
    #[error("the data directory {} cannot be used ({action}): {source}", path.display())]
    DataDir {
        /// The directory, or the file in it.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },

    /// The data directory holds files of somebody else and other users may enter it.
    #[error(
        "the data directory {} is open to other users (mode {mode:03o}) and not empty; name an \
         empty or private directory, or run `chmod 700` on it if it holds nothing but the \
         engine's state",
        path.display()
    )]
    DataDirNotPrivate {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },

    /// Another engine uses this data directory.
    #[error(
        "another engine{} uses {}; stop it with `createos local stop`, or give this one a \
         different data directory",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(),
        path.display()
    )]
    AlreadyRunning {
        /// The directory.
        path: PathBuf,
        /// The other engine's process, when it is known.
        pid: Option<u32>,
    },

    /// The key is empty or has characters that cannot stand in a header.
    #[error(
        "the access key{} is not usable: it must be 1 to 512 visible ASCII characters; {}",
        path.as_ref().map(|path| format!(" in {}", path.display())).unwrap_or_default(),
        if path.is_some() { "delete the file, and the next start makes a new key" }
        else { "give another key" }
    )]
    BadKey {
        /// The file it came from; `None` when it came from the program.
        path: Option<PathBuf>,
    },

    /// The address to listen on is taken or not ours.
    #[error("cannot listen on {addr}: {source}; choose another address, or port 0 for a free one")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },

    /// Another program holds the state database locked.
    #[error(
        "the state database {} is locked by another program; close that program and try again",
        path.display()
    )]
    StateLocked {
        /// The database file.
        path: PathBuf,
    },

    /// The state database is damaged.
    #[error(
        "the state database {} is damaged ({reason}); move it away to start afresh: files of \
         sandboxes it knew are then removed, so copy the `sandboxes` directory first if they \
         matter",
        path.display()
    )]
    StateCorrupt {
        /// The database file.
        path: PathBuf,
        /// What SQLite said.
        reason: String,
    },

    /// The state was written by a newer version of this program.
    #[error(
        "the state database {} has version {found}, but this program knows only {supported}; \
         start the newer program again or name another data directory",
        path.display()
    )]
    StateTooNew {
        /// The database file.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The newest version this program can read.
        supported: usize,
    },

    /// The state could not be read or written for another reason. Some sandboxes may already
    /// have been marked as ended.
    #[error("the state database {} cannot be used: {reason}", path.display())]
    State {
        /// The database file.
        path: PathBuf,
        /// What went wrong.
        reason: String,
    },

    /// The client for [`Engine::client`](crate::Engine::client) could not be made.
    #[error("a client of the engine could not be made: {reason}")]
    Client {
        /// What is wrong, in the environment for example.
        reason: String,
    },

    /// This machine cannot isolate sandboxes, or what isolates them did not start.
    #[error("sandboxes cannot run on this machine: {reason}")]
    Runtime {
        /// What is missing and how to get it.
        reason: String,
    },
}
