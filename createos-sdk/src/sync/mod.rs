//! Keeping a directory of this machine and one of a sandbox the same (on Unix).
//!
//! ```no_run
//! # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
//! use createos_sdk::sync::SyncEvent;
//! use futures::TryStreamExt;
//!
//! let mut sync = sandbox.sync("project", "/work/project").exclude("target/").await?;
//! while let Some(event) = sync.try_next().await? {
//!     match event {
//!         SyncEvent::Changed { side, path, .. } => println!("{path} was changed {side}"),
//!         SyncEvent::Conflict { path, reason } => println!("{path} is left alone: {reason}"),
//!         SyncEvent::Settled(report) if report.is_clean() => println!("all is the same"),
//!         _ => {}
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! # What is safe
//!
//! - Both directories are compared with what they had when they were last the same. A file
//!   that only one side changed goes to the other; one that both changed is left alone on both
//!   and reported as a [conflict](SyncEvent::Conflict), unless the content is the same.
//! - A deletion travels only where the other side still has what was agreed on. Otherwise the
//!   changed file comes back. Without a memory of an agreement nothing is deleted.
//! - When a directory vanishes, is replaced by another one or cannot be listed, the sync ends
//!   with an error or a [problem](SyncEvent::Problem), and deletes nothing.
//! - New content is written under a name of its own, checked and then renamed. What it replaces
//!   is looked at in the same moment: here names are exchanged atomically; in the sandbox, as
//!   far as a shell can, the old file is taken away first and put back when it is not what was
//!   expected, so for a moment of milliseconds the name may be missing there. A version that
//!   cannot be put back is kept under a name that begins with `createos-sync-saved-`.
//! - Links are copied as links and never followed. Permissions travel (without set-user-id and
//!   the like), owners and times do not. Devices, pipes and sockets are left alone.
//! - Names are any bytes. Names that begin with `.createos-sync-` are the sync's own.
//!
//! A change is noticed by size, modification time, inode and permissions. A program that
//! changes a file in place, keeps its size and sets its old time again is not seen.
//!
//! The sandbox needs a POSIX shell, `find`, `tar`, `stat`, `sha256sum` and `base64`, as coreutils
//! or busybox have them. One file can have at most [`MAX_FILE_BYTES`](crate::MAX_FILE_BYTES).

mod change;
mod event;
mod fetch;
mod filter;
mod local;
mod pack;
mod plan;
mod remote;
mod round;
mod script;
mod session;
mod start;
mod state;
mod tree;
mod watch;

pub use self::event::{SyncAction, SyncEvent, SyncPath, SyncReport, SyncSide};
pub use self::session::{StopSync, SyncSession};
pub use self::start::{StartSync, SyncMode};
