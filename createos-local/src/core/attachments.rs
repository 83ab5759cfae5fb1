//! S3 disks in sandboxes: attached at create or later, mounted whenever the sandbox runs
//! (api.md 4.17, 6.7).

use createos_sdk::SandboxId;
use createos_sdk::wire::DiskMount as Wanted;
use futures::future::join_all;

use super::error::Fields;
use super::s3_disks::no_disk;
use super::{Core, CoreError, State, settings, validate};
use crate::runtime::{DiskMount, MountState};
use crate::s3::Access;
use crate::store::{Attached, Attachment, Sandbox, overlap};

/// Most disks of one sandbox.
const MOST: usize = 16;

/// An attachment, and how far its mount is.
pub(crate) struct Seen {
    pub(crate) attachment: Attachment,
    pub(crate) state: MountState,
}

impl Core {
    /// What is attached to a sandbox.
    pub(crate) async fn attachments(&self, id: &SandboxId) -> Result<Vec<Seen>, CoreError> {
        let sandbox = self.get_existing(id).await?;
        let attachments = self.inner.store.attachments(id).await?;
        let seen = |attachment: Attachment| {
            let state = match sandbox.state {
                State::Running | State::Pausing => {
                    self.inner.runtime.mount_state(id, &attachment.mount_path)
                }
                _ => MountState::Pending,
            };
            Seen { attachment, state }
        };
        Ok(attachments.into_iter().map(seen).collect())
    }

    /// Attaches a disk to a running sandbox. Mounting goes on by itself.
    pub(crate) async fn attach_disk(
        &self,
        id: &SandboxId,
        wanted: Wanted,
    ) -> Result<(), CoreError> {
        self.running(id).await?;
        let attachment = self.attachment_of(&wanted, "").await?;
        self.insert_attachment(id, &[State::Running], attachment.clone()).await?;
        let (core, id) = (self.clone(), id.clone());
        let mount = self.run_to_end(async move {
            let slot = core.inner.slots.get(&id);
            let _work = slot.work().await;
            let sandbox = core.get(&id).await?;
            // Whoever had the lock may have ended, paused or detached it.
            let attachments = core.inner.store.attachments(&id).await?;
            let is_it = |one: &&Attachment| one.mount_path == attachment.mount_path;
            if let (State::Running, Some(one)) = (sandbox.state, attachments.iter().find(is_it)) {
                core.mount(&id, one).await;
            }
            Ok(())
        })?;
        self.wait_a_moment(mount).await;
        Ok(())
    }

    /// Detaches what is attached at a path, once what was written is saved.
    pub(crate) async fn detach_disk(
        &self,
        id: &SandboxId,
        disk: &str,
        mount_path: Option<&str>,
    ) -> Result<(), CoreError> {
        self.get_existing(id).await?;
        let given = mount_path.ok_or_else(|| {
            CoreError::field("mount_path", "is missing; say which mount of the disk is meant")
        })?;
        let path =
            validate::mount_path(given).map_err(|why| CoreError::field("mount_path", why))?;
        let (core, id, disk) = (self.clone(), id.clone(), disk.to_owned());
        self.run_to_end(async move { core.detach_disk_in_turn(&id, &disk, &path).await })?.await
    }

    async fn detach_disk_in_turn(
        &self,
        id: &SandboxId,
        disk: &str,
        path: &str,
    ) -> Result<(), CoreError> {
        let slot = self.inner.slots.get(id);
        let _work = slot.work().await;
        let sandbox = self.get_existing(id).await?;
        let changing = [State::Creating, State::Pausing, State::Resuming, State::Forking];
        if changing.contains(&sandbox.state) {
            return Err(settings::conflict(&sandbox));
        }
        let attachments = self.inner.store.attachments(id).await?;
        let is_it = |one: &Attachment| {
            one.mount_path == path && (one.disk.id.as_str() == disk || one.disk.name == disk)
        };
        if !attachments.iter().any(is_it) {
            let message = format!("no disk {} is attached at {path}", validate::shown(disk));
            return Err(CoreError::NoSuch { field: "disk", message });
        }
        self.inner.runtime.unmount_disk(id, path).await;
        Ok(self.inner.store.detach_disks(id, Some(path)).await?)
    }

    /// What is wanted at create, with every disk looked up. Broken rules first.
    pub(super) async fn plan_attachments(
        &self,
        wanted: &[Wanted],
    ) -> Result<Vec<Attachment>, CoreError> {
        if wanted.len() > MOST {
            let message = format!("{} are too many; at most {MOST}", wanted.len());
            return Err(CoreError::field("disks", message));
        }
        let mut planned: Vec<Attachment> = Vec::with_capacity(wanted.len());
        for (index, one) in wanted.iter().enumerate() {
            let one = self.attachment_of(one, &format!("disks[{index}].")).await?;
            let path = &one.mount_path;
            if let Some(other) = planned.iter().find(|other| overlap(&other.mount_path, path)) {
                let other = &other.mount_path;
                let message = format!("{path} and {other} are the same, or one is below the other");
                return Err(CoreError::Conflict(message));
            }
            planned.push(one);
        }
        Ok(planned)
    }

    /// Writes what a new sandbox is to have. It is being created, so nothing is mounted yet.
    pub(super) async fn insert_attachments(
        &self,
        id: &SandboxId,
        planned: Vec<Attachment>,
    ) -> Result<(), CoreError> {
        for attachment in planned {
            self.insert_attachment(id, &[State::Creating], attachment).await?;
        }
        Ok(())
    }

    async fn attachment_of(&self, wanted: &Wanted, of: &str) -> Result<Attachment, CoreError> {
        let mut wrong = Fields::new();
        let mut check = |field: &str, checked: Result<String, String>| {
            checked.unwrap_or_else(|why| {
                wrong.insert(format!("{of}{field}"), why);
                String::new()
            })
        };
        let mount_path = check("mount_path", validate::mount_path(&wanted.mount_path));
        let sub_path = wanted.sub_path.as_deref().unwrap_or_default();
        let sub_path = check("sub_path", validate::sub_path(sub_path));
        CoreError::check(wrong)?;
        let key = wanted.disk_id.as_str();
        let disk = self.inner.store.s3_disk(key).await?;
        let disk = disk.ok_or_else(|| no_disk("disk_id", key))?;
        Ok(Attachment { disk, mount_path, sub_path })
    }

    async fn insert_attachment(
        &self,
        id: &SandboxId,
        states: &[State],
        attachment: Attachment,
    ) -> Result<(), CoreError> {
        let path = attachment.mount_path.clone();
        match self.inner.store.attach_disk(id, states, attachment, MOST).await? {
            Attached::Done => Ok(()),
            Attached::Refused(sandbox) => Err(settings::conflict(&sandbox)),
            Attached::Taken(other) if other == path => {
                Err(CoreError::Conflict(format!("a disk is attached at {path} already")))
            }
            Attached::Taken(other) => Err(CoreError::Conflict(format!(
                "{path} is above or below {other}, where a disk is attached"
            ))),
            Attached::TooMany => {
                Err(CoreError::Conflict(format!("the sandbox has {MOST} disks, which is the most")))
            }
            Attached::NoSandbox => Err(CoreError::NoSandbox),
        }
    }

    /// Mounts everything that is attached to a sandbox that has just begun to run; the caller
    /// works on it. What is mounted still gets the keys as they are now.
    pub(super) async fn mount_all(&self, sandbox: &Sandbox) {
        let id = sandbox.id();
        match self.inner.store.attachments(id).await {
            Ok(attachments) => {
                join_all(attachments.iter().map(|one| self.mount(id, one))).await;
            }
            Err(error) => {
                tracing::error!(sandbox = %id, %error, "what is attached cannot be read");
            }
        }
    }

    async fn mount(&self, id: &SandboxId, attachment: &Attachment) {
        let Attachment { disk, mount_path, sub_path } = attachment;
        let (path, sub_path) = (mount_path.clone(), sub_path.clone());
        let access = match self.inner.store.s3_keys(disk) {
            Ok(keys) => Ok(Access { config: disk.config.clone(), keys }),
            Err(error) => Err(format!(
                "the keys of the disk {:?} cannot be read: {error}; give it its keys again (PATCH)",
                disk.name
            )),
        };
        self.inner.runtime.mount_disk(id, DiskMount { access, path, sub_path }).await;
    }
}
