//! The size of a sandbox's disk (api.md 4.1, 4.9, 9.33).

use createos_sdk::SandboxId;

use super::{Core, CoreError, State, settings};
use crate::store::Sandbox;

/// The smallest filesystem that can be made, and a size that no machine is meant to have.
/// What is free on this machine is no bound: a disk takes what is on it.
const SMALLEST_MIB: u64 = 300;
const LARGEST_MIB: u64 = 1 << 20;

const RUNNING: [State; 1] = [State::Running];

/// Whether a disk may have this size. Breaking the lower bound is an error of the request,
/// breaking the upper one is not allowed.
fn check_size(mib: u64) -> Result<(), CoreError> {
    let field = "disk_mib";
    if mib < SMALLEST_MIB {
        let message = format!("{mib} MiB are too few; a disk has at least {SMALLEST_MIB}");
        return Err(CoreError::field(field, message));
    }
    if mib > LARGEST_MIB {
        let message = format!("{mib} MiB are too many; a disk has at most {LARGEST_MIB}");
        return Err(CoreError::Forbidden { field, message });
    }
    Ok(())
}

impl Core {
    /// The size of a new sandbox's disk: what was asked for, where that can be enforced.
    pub(super) fn disk_size(&self, asked: Option<u64>, usual: u64) -> Result<u64, CoreError> {
        match asked {
            None | Some(0) => Ok(usual),
            Some(size) if size == usual => Ok(usual),
            Some(size) => {
                check_size(size)?;
                self.require_disk_limit("a size other than the shape's cannot be enforced")?;
                Ok(size)
            }
        }
    }

    fn require_disk_limit(&self, otherwise: &str) -> Result<(), CoreError> {
        self.inner.runtime.disk_limit().map_err(|why| CoreError::NotAvailable {
            field: "disk_mib",
            message: format!("{otherwise}: {why}"),
        })
    }

    /// Makes the disk of a running sandbox larger; what runs inside goes on. A caller that
    /// goes away does not stop it half-way.
    pub(crate) async fn resize(&self, id: &SandboxId, mib: u64) -> Result<Sandbox, CoreError> {
        let (core, id) = (self.clone(), id.clone());
        self.run_to_end(async move { core.resize_in_turn(&id, mib).await })?.await
    }

    pub(super) async fn running(&self, id: &SandboxId) -> Result<Sandbox, CoreError> {
        match self.get_existing(id).await? {
            sandbox if RUNNING.contains(&sandbox.state) => Ok(sandbox),
            sandbox => Err(settings::conflict(&sandbox)),
        }
    }

    async fn resize_in_turn(&self, id: &SandboxId, mib: u64) -> Result<Sandbox, CoreError> {
        self.running(id).await?;
        let slot = self.inner.slots.get(id);
        let _work = slot.work().await;
        // Whoever had the lock may have ended or resized it.
        let sandbox = self.running(id).await?;
        if mib <= sandbox.spec.disk_mib {
            let now = sandbox.spec.disk_mib;
            let message = format!("{mib} is not more than the {now} MiB that the disk has");
            return Err(CoreError::field("disk_mib", message));
        }
        check_size(mib)?;
        self.require_disk_limit("disks cannot be resized here")?;
        // The record follows the disk: were the engine killed in between, the same resize
        // would be accepted again.
        self.inner.runtime.resize(id, mib).await?;
        settings::changed(self.inner.store.set_disk(id, &RUNNING, mib).await?)
    }
}
