//! Disks and where they are attached (api.md 4.17, 5.7).

use serde::{Deserialize, Serialize};

use super::{null_as_default, open_enum};
use crate::id::{DiskId, SandboxId};
use crate::secret::Secret;
use crate::time::Timestamp;

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

    /// Names the region of the service, such as `auto`.
    pub fn in_region(mut self, region: impl Into<String>) -> Self {
        self.region = Some(region.into());
        self
    }

    /// Makes the bucket part of the path instead of the host name.
    pub fn path_style(mut self) -> Self {
        self.use_path_style = true;
        self
    }
}

/// Keys of a bucket. Stored encrypted by the server and never given back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DiskCredentials {
    /// The access key.
    pub access_key: Secret,
    /// The secret key.
    pub secret_key: Secret,
}

impl DiskCredentials {
    /// A pair of keys.
    pub fn new(access_key: impl Into<Secret>, secret_key: impl Into<Secret>) -> Self {
        Self { access_key: access_key.into(), secret_key: secret_key.into() }
    }
}

/// Body that creates a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CreateDisk {
    /// Its name.
    pub name: String,
    /// What stands behind it.
    pub kind: DiskKind,
    /// Where the bucket is.
    pub config: DiskConfig,
    /// The keys of the bucket.
    pub credentials: DiskCredentials,
}

impl CreateDisk {
    /// A disk on an S3 bucket.
    pub fn new(name: impl Into<String>, config: DiskConfig, credentials: DiskCredentials) -> Self {
        Self { name: name.into(), kind: DiskKind::S3, config, credentials }
    }
}

/// Body that replaces the keys of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PatchDisk {
    /// The new keys.
    pub credentials: DiskCredentials,
}

impl PatchDisk {
    /// Sets these keys.
    pub fn new(credentials: DiskCredentials) -> Self {
        Self { credentials }
    }
}

/// A disk as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DiskView {
    /// Its id.
    pub id: DiskId,
    /// Its name.
    pub name: String,
    /// What stands behind it.
    pub kind: DiskKind,
    /// Where the bucket is.
    pub config: DiskConfig,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
}

impl DiskView {
    /// A disk on an S3 bucket.
    pub fn new(
        id: DiskId,
        name: impl Into<String>,
        config: DiskConfig,
        created_at: Timestamp,
    ) -> Self {
        let created_at = Some(created_at);
        Self { id, name: name.into(), kind: DiskKind::S3, config, created_at }
    }
}

/// Answer to an attachment, in the union that every known client reads (api.md 4.17).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AttachedDisk {
    /// The sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<SandboxId>,
    /// Always true.
    #[serde(default)]
    pub ok: bool,
}

impl AttachedDisk {
    /// The disk was attached to this sandbox.
    pub fn new(id: SandboxId) -> Self {
        Self { id: Some(id), ok: true }
    }
}

/// Answer to a detachment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DetachedDisk {
    /// Always true.
    #[serde(default)]
    pub detached: bool,
}

impl DetachedDisk {
    /// The disk was detached.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { detached: true }
    }
}

/// Answer to the removal of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DeletedDisk {
    /// Always true.
    #[serde(default)]
    pub deleted: bool,
}

impl DeletedDisk {
    /// The disk was removed.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { deleted: true }
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

    #[test]
    fn disks_go_both_ways_and_keys_do_not_show() {
        let create: CreateDisk = both_ways(
            r#"{"name":"data","kind":"s3",
            "config":{"bucket":"b","endpoint":"https://s3.example.org","region":"auto",
                      "use_path_style":true},
            "credentials":{"access_key":"AKhunter2","secret_key":"hunter2"}}"#,
        );
        let config = DiskConfig::new("b", "https://s3.example.org").in_region("auto").path_style();
        assert_eq!(create.config, config);
        assert!(!format!("{create:?}").contains("hunter2"));
        let patch: PatchDisk =
            both_ways(r#"{"credentials":{"access_key":"hunter2","secret_key":"hunter2"}}"#);
        assert!(!format!("{patch:?}").contains("hunter2"));
        both_ways::<DiskView>(
            r#"{"id":"disk_1","name":"data","kind":"s3","created_at":"2026-08-02T10:00:00Z",
            "config":{"bucket":"b","endpoint":"https://s3.example.org"}}"#,
        );
        both_ways::<AttachedDisk>(r#"{"id":"sb-1","ok":true}"#);
        assert_eq!(both_ways::<DetachedDisk>(r#"{"detached":true}"#), DetachedDisk::new());
        assert_eq!(both_ways::<DeletedDisk>(r#"{"deleted":true}"#), DeletedDisk::new());
    }
}
