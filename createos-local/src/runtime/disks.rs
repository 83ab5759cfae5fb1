//! S3 disks of sandboxes: part of what a machine does.

use createos_sdk::SandboxId;
use futures::future::BoxFuture;

use crate::s3::Access;

/// A bucket, or a part of it, that is to be seen at a path of a sandbox.
#[derive(Debug, Clone)]
pub(crate) struct DiskMount {
    /// Or why there is none.
    pub(crate) access: Result<Access, String>,
    /// Absolute, without `.` and `..`.
    pub(crate) path: String,
    /// The part of the bucket; empty is all of it.
    pub(crate) sub_path: String,
}

/// How far a mount is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MountState {
    /// Nobody has tried yet, or it has not been found out how it went.
    Pending,
    Mounted,
    /// It could not be mounted, or what is behind it does not answer; for people.
    Failed(String),
    /// What was written is being saved.
    Unmounting,
}

/// Mounts buckets into running sandboxes. They end with the sandbox, and with a pause; what
/// was written is saved before, as far as that is possible within a few seconds.
pub(crate) trait Disks {
    /// Whether the bucket is there and the keys open it, within three seconds. The error is
    /// for people.
    fn check_bucket<'a>(&'a self, access: &'a Access) -> BoxFuture<'a, Result<(), String>>;

    /// Mounts a disk, whose directory is made where it is missing; one that is mounted gets
    /// the keys. How it went is told by [`Disks::mount_state`].
    fn mount_disk<'a>(&'a self, id: &'a SandboxId, mount: DiskMount) -> BoxFuture<'a, ()>;

    fn mount_state(&self, id: &SandboxId, path: &str) -> MountState;

    /// Saves what was written, and unmounts. Files that are still open are cut off.
    fn unmount_disk<'a>(&'a self, id: &'a SandboxId, path: &'a str) -> BoxFuture<'a, ()>;
}
