//! What can be changed of a sandbox that is there (api.md 4.4, 4.10, 7.3).

use std::collections::BTreeSet;

use createos_sdk::SandboxId;
use createos_sdk::wire::PatchSandbox;

use super::error::Fields;
use super::{Core, CoreError, State, validate};
use crate::store::{Sandbox, Setting};

/// States in which ports and auto-pause can be set.
const PATCHABLE: [State; 2] = [State::Running, State::Paused];

/// States in which keys can be added: a sandbox that does not run gets them when it does.
const KEYABLE: [State; 6] =
    [State::Running, State::Pausing, State::Paused, State::Resuming, State::Forking, State::Error];

impl Core {
    /// Changes what the patch names and leaves the rest.
    pub(crate) async fn patch(
        &self,
        id: &SandboxId,
        patch: PatchSandbox,
    ) -> Result<Sandbox, CoreError> {
        let sandbox = self.get_existing(id).await?;
        if !PATCHABLE.contains(&sandbox.state) {
            return Err(conflict(&sandbox));
        }
        // Disabling wins over a number (api.md 4.4).
        let auto_pause = match (patch.disable_auto_pause, patch.auto_pause_after_seconds) {
            (Some(true), _) => Some(None),
            (_, Some(seconds)) => Some(Some(seconds)),
            (_, None) => None,
        };
        if let Some(Some(Err(why))) = auto_pause.map(|it| it.map(validate::auto_pause)) {
            return Err(CoreError::field("auto_pause_after_seconds", why));
        }
        let mut sandbox = sandbox;
        if let Some(enabled) = patch.ingress_enabled {
            sandbox = changed(self.inner.store.set_ingress(id, &PATCHABLE, enabled).await?)?;
            if let Some(slot) = self.inner.slots.get_existing(id).filter(|_| !enabled) {
                slot.show_visitors_out();
            }
        }
        if let Some(seconds) = auto_pause {
            sandbox = self.set_auto_pause(id, seconds).await?;
        }
        Ok(sandbox)
    }

    /// Sets or clears the idle time after which a sandbox pauses by itself. It begins anew.
    async fn set_auto_pause(
        &self,
        id: &SandboxId,
        seconds: Option<u64>,
    ) -> Result<Sandbox, CoreError> {
        // One at a time, so that what is counted is what is written.
        let slot = self.inner.slots.get(id);
        let _work = slot.work().await;
        let sandbox = changed(self.inner.store.set_auto_pause(id, &PATCHABLE, seconds).await?)?;
        self.begin_idle_time(&sandbox);
        Ok(sandbox)
    }

    /// Adds SSH keys, in one spelling and each once, and puts them where the sandbox's SSH
    /// server looks for them. Returns how many it has now.
    pub(crate) async fn add_ssh_pubkeys(
        &self,
        id: &SandboxId,
        lines: &[String],
    ) -> Result<usize, CoreError> {
        let known = self.get_existing(id).await?;
        if !KEYABLE.contains(&known.state) {
            return Err(conflict(&known));
        }
        let mut wrong = Fields::new();
        let keys = ssh_keys("keys", lines, &mut wrong);
        CoreError::check(wrong)?;
        let store = &self.inner.store;
        let sandbox = changed(store.add_ssh_pubkeys(id, &KEYABLE, keys).await?)?;
        if sandbox.state == State::Running {
            // One at a time: the file is read, changed and written.
            let slot = self.inner.slots.get(id);
            let _work = slot.work().await;
            // One that was paused meanwhile gets them when it is resumed.
            if self.get(id).await?.state == State::Running {
                self.install_ssh_pubkeys(&sandbox).await?;
            }
        }
        Ok(sandbox.spec.ssh_pubkeys.len())
    }
}

pub(super) fn changed(setting: Setting) -> Result<Sandbox, CoreError> {
    match setting {
        Setting::Changed(sandbox) => Ok(sandbox),
        Setting::Refused(sandbox) => Err(conflict(&sandbox)),
        Setting::Unknown => Err(CoreError::NoSandbox),
    }
}

pub(super) fn conflict(sandbox: &Sandbox) -> CoreError {
    CoreError::Conflict(format!("sandbox is {}; this cannot be changed now", sandbox.state))
}

/// The keys in one spelling, without duplicates, in their order.
pub(super) fn ssh_keys(field: &str, lines: &[String], wrong: &mut Fields) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let mut keys = Vec::new();
    for line in lines {
        match validate::ssh_key(line) {
            Ok(key) if seen.insert(key.clone()) => keys.push(key),
            Ok(_) => {}
            Err(why) => {
                wrong.entry(field.to_owned()).or_insert(why);
            }
        }
    }
    keys
}
