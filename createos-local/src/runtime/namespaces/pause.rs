//! Pause, resume, fork: processes that stand still in memory, or files alone.

use std::fs;
use std::io;
use std::path::Path;
use std::time::Instant;

use createos_sdk::SandboxId;

use super::{Namespaces, agent, blocking, copy, storage};
use crate::runtime::{BootInfo, BootSpec, RuntimeError, Saved};

impl Namespaces {
    pub(super) async fn pause_machine(&self, id: &SandboxId) -> Result<Saved, RuntimeError> {
        let init = self.init_of(id)?;
        if agent::is_at_rest(&init).await {
            self.stop_machine(id).await?;
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

    /// The child has the files and boots from them.
    pub(super) async fn fork_machine(
        &self,
        source: &SandboxId,
        child: BootSpec,
    ) -> Result<Saved, RuntimeError> {
        let (data_dir, source) = (self.data_dir.clone(), source.clone());
        blocking("copy the sandbox's files", move || copy_files(&data_dir, &source, &child.id))
            .await?;
        Ok(Saved::Files)
    }
}

fn copy_files(data_dir: &Path, source: &SandboxId, child: &SandboxId) -> io::Result<()> {
    // What an earlier try left is worth nothing.
    storage::remove(data_dir, child)?;
    let from = data_dir.join(format!("sandboxes/{source}"));
    let to = data_dir.join(storage::prepare(data_dir, child)?);
    for part in ["root", "usr"] {
        let links = to.join("links");
        fs::create_dir(&links)?;
        copy::copy_tree(&from.join(part).join("upper"), &to.join(part).join("upper"), &links)?;
        fs::remove_dir_all(&links)?;
    }
    Ok(())
}
