//! Pause, resume, fork: processes that stand still in memory, or files alone.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use createos_sdk::SandboxId;

use super::storage::Own;
use super::{Namespaces, agent, blocking, copy};
use crate::runtime::{BootInfo, BootSpec, RuntimeError, Saved};

impl Namespaces {
    pub(super) async fn pause_machine(&self, id: &SandboxId) -> Result<Saved, RuntimeError> {
        let init = self.init_of(id)?;
        if agent::is_at_rest(&init).await {
            self.stop_machine(id, false).await?;
            return Ok(Saved::Files);
        }
        self.settle_volumes(id).await;
        let volumes = self.volumes_of(id);
        match self.trial().await {
            Ok(_) if self.lay_volumes_down(id).await => {
                // A saved network has no cables to others that live on.
                self.unplug(id, &init).await?;
                match self.dump(id).await {
                    Ok(()) => return Ok(Saved::Memory),
                    Err(error) => tracing::info!(sandbox = %id, %error, "paused in memory instead"),
                }
                self.plug_in_again(id, &init).await?;
                self.take_up(id, volumes).await;
            }
            Ok(_) => tracing::info!(sandbox = %id, "paused in memory: it uses an S3 disk"),
            Err(error) => tracing::info!(sandbox = %id, %error, "paused in memory instead"),
        }
        self.warden().await?.freeze(id.as_str()).await?;
        Ok(Saved::Frozen)
    }

    pub(super) async fn resume_machine(
        &self,
        spec: BootSpec,
        saved: Saved,
    ) -> Result<BootInfo, RuntimeError> {
        match saved {
            // An earlier try has used it, or given it up.
            Saved::Memory if !self.has_image(&spec.id) => self.boot_machine(spec).await,
            Saved::Memory => self.restore_machine(spec).await,
            Saved::Frozen => self.thaw_machine(&spec.id).await,
            Saved::Files => self.boot_machine(spec).await,
        }
    }

    async fn restore_machine(&self, spec: BootSpec) -> Result<BootInfo, RuntimeError> {
        let mut failure = match self.restore(spec.clone()).await {
            Err(RuntimeError::NotRestored(failure)) => failure,
            outcome => return outcome,
        };
        // A machine that is short of something may have it a moment later.
        if self.has_image(&spec.id) {
            match self.restore(spec.clone()).await {
                Err(RuntimeError::NotRestored(again)) => failure = again,
                outcome => return outcome,
            }
        }
        if self.has_image(&spec.id) {
            self.give_image_up(&spec.id).await?;
        }
        let advice = "its files are kept, and it starts from them the next time it is resumed";
        Err(RuntimeError::NotRestored(format!("{failure}; {advice}")))
    }

    async fn thaw_machine(&self, id: &SandboxId) -> Result<BootInfo, RuntimeError> {
        let began = Instant::now();
        let ended = |_| {
            let message = "its processes ended while they stood still; its files are kept";
            RuntimeError::Unreachable(message.to_owned())
        };
        let init = self.init_of(id).map_err(ended)?;
        self.wake_volumes(id);
        self.warden().await?.thaw(id.as_str()).await?;
        agent::greet(&init).await?;
        Ok(BootInfo { spawn: began.elapsed() })
    }

    /// The child has the files, and the memory where that is on disk. The files of a sandbox
    /// that stands still are in use and are copied; others are shared from then on.
    pub(super) async fn fork_machine(
        &self,
        source: &SandboxId,
        saved: Saved,
        child: BootSpec,
    ) -> Result<Saved, RuntimeError> {
        // What an earlier try left is worth nothing.
        self.remove_machine(&child.id).await?;
        let (storage, from, to) = (Arc::clone(&self.storage), source.clone(), child.id.clone());
        let own = blocking("share the sandbox's files", move || {
            if saved != Saved::Frozen && storage.can_share(&from)? {
                return storage.fork(&from, &to).map(|()| Own::Nothing);
            }
            storage.inherit(&from, &to)
        });
        match own.await? {
            Own::Nothing => {}
            Own::Disk { from, to } => self.warden().await?.copy_disk(from, to).await?,
            Own::Directories { from, to } => {
                blocking("copy the sandbox's files", move || copy_directories(&from, &to)).await?;
            }
        }
        if saved != Saved::Memory || !self.has_image(source) {
            return Ok(Saved::Files);
        }
        self.share_image(source, &child.id).await?;
        Ok(Saved::Memory)
    }
}

fn copy_directories(from: &Path, to: &Path) -> io::Result<()> {
    for part in ["root", "usr"] {
        let links = to.join("links");
        fs::create_dir(&links)?;
        copy::copy_tree(&from.join(part).join("upper"), &to.join(part).join("upper"), &links)?;
        fs::remove_dir_all(&links)?;
    }
    Ok(())
}
