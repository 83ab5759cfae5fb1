//! Room for what is being written, until it is an object.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use fuser::Errno;

/// Most bytes that are staged at once.
const MOST: u64 = 64 << 30;
/// What must stay free on the disk under it.
const RESERVE: u64 = 512 << 20;
/// How much is taken between two looks at that disk.
const STEP: u64 = 16 << 20;

pub(super) struct Staging {
    directory: PathBuf,
    taken: AtomicU64,
}

impl Staging {
    pub(super) fn new(directory: &Path) -> std::io::Result<Self> {
        std::fs::create_dir_all(directory)?;
        Ok(Self { directory: directory.to_owned(), taken: AtomicU64::new(0) })
    }

    /// A file without a name: it goes with its last descriptor.
    pub(super) fn file(&self) -> Result<File, Errno> {
        tempfile::tempfile_in(&self.directory).map_err(|error| errno(&error))
    }

    /// Takes room for a file that grows.
    pub(super) fn take(&self, bytes: u64) -> Result<(), Errno> {
        let before = self.taken.fetch_add(bytes, Ordering::Relaxed);
        let after = before.saturating_add(bytes);
        let looks = bytes > 0 && (before / STEP != after / STEP || bytes >= STEP);
        if after > MOST || looks && self.free() < RESERVE.saturating_add(bytes.min(STEP)) {
            self.give_back(bytes);
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    pub(super) fn give_back(&self, bytes: u64) {
        self.taken.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn free(&self) -> u64 {
        let status = rustix::fs::statvfs(&self.directory);
        status.map_or(0, |status| status.f_bavail.saturating_mul(status.f_frsize))
    }
}

pub(super) fn errno(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_i32)
}
