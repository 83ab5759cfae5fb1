//! Disks and where they are attached (api.md 4.17, 5.7).

use serde::{Deserialize, Serialize};

use super::{null_as_default, open_enum};
use crate::id::DiskId;

open_enum! {
    /// What stands behind a disk.
    pub enum DiskKind {
        /// An S3 bucket.
        S3 = "s3",
    }
}

open_enum! {
    /// How far a mount is.
    pub enum MountStatus {
        /// Not mounted yet.
        Pending = "pending",
        /// Usable.
        Mounted = "mounted",
        /// Failed; `mount_error` says why.
        Error = "error",
        /// Being flushed and removed.
        Unmounting = "unmounting",
    }
}

/// Where a bucket is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DiskConfig {
    /// Bucket name.
    pub bucket: String,
    /// Address of the S3 service.
    pub endpoint: String,
    /// Region of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Whether the bucket is part of the path instead of the host name.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub use_path_style: bool,
}

impl DiskConfig {
    /// A bucket at an endpoint.
    pub fn new(bucket: impl Into<String>, endpoint: impl Into<String>) -> Self {
        Self {
            bucket: bucket.into(),
            endpoint: endpoint.into(),
            region: None,
            use_path_style: false,
        }
    }
}

/// A disk attached to a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DiskAttachment {
    /// The disk.
    pub disk_id: DiskId,
    /// Its name.
    pub name: String,
    /// What stands behind it.
    pub kind: DiskKind,
    /// Where the bucket is.
    pub config: DiskConfig,
    /// Where it is mounted.
    pub mount_path: String,
    /// The part of the bucket that is mounted; absent is all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_path: Option<String>,
    /// How far the mount is.
    pub mount_status: MountStatus,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount_error: Option<String>,
}

impl DiskAttachment {
    /// An attachment that is not mounted yet.
    pub fn new(
        disk_id: DiskId,
        name: impl Into<String>,
        config: DiskConfig,
        mount_path: impl Into<String>,
    ) -> Self {
        Self {
            disk_id,
            name: name.into(),
            kind: DiskKind::S3,
            config,
            mount_path: mount_path.into(),
            sub_path: None,
            mount_status: MountStatus::Pending,
            mount_error: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::both_ways;
    use super::*;

    #[test]
    fn attachment_rows_go_both_ways() {
        let row: DiskAttachment = both_ways(
            r#"{"disk_id":"disk_1","name":"data","kind":"s3",
            "config":{"bucket":"b","endpoint":"https://s3.example.org","region":"auto",
                      "use_path_style":true},
            "mount_path":"/mnt/data","sub_path":"a","mount_status":"error","mount_error":"denied"}"#,
        );
        assert_eq!(row.mount_status, MountStatus::Error);
        let newer: DiskAttachment = both_ways(
            r#"{"disk_id":"disk_1","name":"data","kind":"gcs",
            "config":{"bucket":"b","endpoint":"https://s3.example.org"},
            "mount_path":"/mnt/data","mount_status":"failed"}"#,
        );
        assert_eq!(newer.mount_status, MountStatus::Unknown("failed".into()));
        assert_eq!(newer.kind, DiskKind::Unknown("gcs".into()));
    }
}
