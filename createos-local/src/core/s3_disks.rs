//! S3 disks: buckets that sandboxes can mount (api.md 5.7).

use createos_sdk::DiskId;
use createos_sdk::wire::{CreateDisk, DiskConfig, DiskCredentials, DiskKind};
use ulid::Ulid;

use super::error::Fields;
use super::{Core, CoreError, validate};
use crate::s3::Access;
use crate::store::{DiskRemoval, S3Disk};

impl Core {
    /// Keeps a disk, once its bucket has shown that it is there and that the keys open it.
    pub(crate) async fn create_s3_disk(&self, request: CreateDisk) -> Result<S3Disk, CoreError> {
        let CreateDisk { name, kind, config, credentials, .. } = request;
        let mut wrong = Fields::new();
        note(&mut wrong, "name", validate::disk_name(&name));
        if kind != DiskKind::S3 {
            let kind = validate::shown(kind.as_str()).into_owned();
            wrong.insert("kind".into(), format!("unknown kind: {kind}; known is [s3]"));
        }
        check_config(&config, &mut wrong);
        check_keys(&credentials, &mut wrong);
        CoreError::check(wrong)?;
        // Asked before the bucket is; whoever comes first meanwhile is told of below.
        if self.inner.store.s3_disk(&name).await?.is_some() {
            return Err(name_taken(&name));
        }
        let access = Access { config, keys: credentials };
        self.try_bucket(&access).await?;
        let id = format!("disk_{}", Ulid::new().to_string().to_lowercase()).parse::<DiskId>();
        let id = id.map_err(|_| CoreError::Internal("no id could be made".to_owned()))?;
        let Access { config, keys } = access;
        let inserted = self.inner.store.insert_s3_disk(id, name.clone(), config, &keys).await?;
        inserted.ok_or_else(|| name_taken(&name))
    }

    pub(crate) async fn s3_disks(&self) -> Result<Vec<S3Disk>, CoreError> {
        Ok(self.inner.store.s3_disks().await?)
    }

    /// The disk with this id or name.
    pub(crate) async fn s3_disk(&self, key: &str) -> Result<S3Disk, CoreError> {
        let found = self.inner.store.s3_disk(key).await?;
        found.ok_or_else(|| no_disk("disk", key))
    }

    /// Replaces the keys of a disk. They are not tried: a bucket may come to know them later.
    /// Sandboxes that run use them after their next resume.
    pub(crate) async fn rotate_s3_keys(
        &self,
        key: &str,
        keys: DiskCredentials,
    ) -> Result<S3Disk, CoreError> {
        let disk = self.s3_disk(key).await?;
        let mut wrong = Fields::new();
        check_keys(&keys, &mut wrong);
        CoreError::check(wrong)?;
        let rotated = self.inner.store.set_s3_keys(&disk.id, &keys).await?;
        rotated.ok_or_else(|| no_disk("disk", key))
    }

    /// Removes a disk; the bucket stays as it is.
    pub(crate) async fn delete_s3_disk(&self, key: &str) -> Result<(), CoreError> {
        let disk = self.s3_disk(key).await?;
        match self.inner.store.remove_s3_disk(&disk.id).await? {
            DiskRemoval::Removed => Ok(()),
            DiskRemoval::Attached(sandbox) => Err(CoreError::Conflict(format!(
                "the disk is attached to the sandbox {sandbox:?}; detach it there, or destroy the \
                 sandbox"
            ))),
            DiskRemoval::Unknown => Err(no_disk("disk", key)),
        }
    }

    async fn try_bucket(&self, access: &Access) -> Result<(), CoreError> {
        let tried = self.inner.runtime.check_bucket(access).await;
        tried.map_err(|why| {
            let bucket = validate::shown(&access.config.bucket);
            CoreError::field("config", format!("the bucket {bucket:?} cannot be used: {why}"))
        })
    }
}

pub(super) fn no_disk(field: &'static str, key: &str) -> CoreError {
    CoreError::NoSuch { field, message: format!("disk not found: {}", validate::shown(key)) }
}

fn name_taken(name: &str) -> CoreError {
    CoreError::Conflict(format!("the name {name:?} is taken by another disk"))
}

fn note(wrong: &mut Fields, field: &str, check: Result<(), String>) {
    if let Err(why) = check {
        wrong.insert(field.to_owned(), why);
    }
}

fn check_config(config: &DiskConfig, wrong: &mut Fields) {
    note(wrong, "config.bucket", validate::bucket(&config.bucket));
    note(wrong, "config.endpoint", validate::endpoint(&config.endpoint));
    if let Some(region) = config.region.as_deref().filter(|region| !region.is_empty()) {
        note(wrong, "config.region", validate::s3_region(region));
    }
}

fn check_keys(keys: &DiskCredentials, wrong: &mut Fields) {
    let access = validate::s3_key(keys.access_key.expose());
    note(wrong, "credentials.access_key", access);
    note(wrong, "credentials.secret_key", validate::s3_key(keys.secret_key.expose()));
}
