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
        self.warden().await?.freeze(id.as_str()).await?;
        Ok(Saved::Frozen)
    }

    pub(super) async fn resume_machine(
        &self,
        spec: BootSpec,
        saved: Saved,
    ) -> Result<BootInfo, RuntimeError> {
        match saved {
            Saved::Memory => Err(RuntimeError::Unsupported(
                "its memory was saved by an engine that can do that; this one cannot read it"
                    .to_owned(),
            )),
            Saved::Frozen => self.thaw_machine(&spec.id).await,
            Saved::Files => self.boot_machine(spec).await,
        }
    }

    async fn thaw_machine(&self, id: &SandboxId) -> Result<BootInfo, RuntimeError> {
        let began = Instant::now();
        let ended = |_| {
            let message = "its processes ended while they stood still; its files are kept";
            RuntimeError::Unreachable(message.to_owned())
        };
        let init = self.init_of(id).map_err(ended)?;
        self.warden().await?.thaw(id.as_str()).await?;
        agent::greet(&init).await?;
        Ok(BootInfo { spawn: began.elapsed() })
    }

    /// The child has the files and boots from them. Those of a sandbox that stands still are
    /// in use and are copied; others are shared from then on.
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
        Ok(Saved::Files)
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
