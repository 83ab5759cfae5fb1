//! Fork: a new sandbox with the files of a paused one (api.md 4.8, 9.25).

use std::time::SystemTime;

use createos_sdk::SandboxId;
use createos_sdk::wire::ForkSandbox;

use super::create::new_id;
use super::error::Fields;
use super::lifecycle::boot_spec;
use super::settings::ssh_keys;
use super::slot::Work;
use super::{Core, CoreError, State, outbound, validate};
use crate::runtime::Saved;
use crate::store::{Change, NewSandbox, Sandbox};

/// What the view of a child says whose source has memory that could not be copied.
const FILES_ONLY: &str = "forked from the files alone: its source was paused in memory, which \
                          cannot be copied on this machine, so it starts afresh";

/// Sources from which files can be copied: those that may come to be one meanwhile as well.
const SOURCES: [State; 2] = [State::Paused, State::Pausing];

impl Core {
    /// Makes a child of a paused sandbox. It waits for a pause, or another fork, that is under
    /// way; a resume or destroy of the source waits until the files are copied.
    pub(crate) async fn fork(
        &self,
        source: &SandboxId,
        request: ForkSandbox,
    ) -> Result<Sandbox, CoreError> {
        self.check_overrides(&request)?;
        let (core, source) = (self.clone(), source.clone());
        self.run_to_end(async move { core.begin_fork(&source, request).await })?.await
    }

    /// The sandbox, if it may be forked; this is told before what is wrong with a request.
    pub(crate) async fn forkable(&self, source: &SandboxId) -> Result<(), CoreError> {
        let sandbox = self.get(source).await?;
        if SOURCES.contains(&sandbox.state) { Ok(()) } else { Err(not_paused(&sandbox)) }
    }

    /// An empty list or map inherits (api.md 9.25), and null is none.
    fn check_overrides(&self, request: &ForkSandbox) -> Result<(), CoreError> {
        let mut wrong = Fields::new();
        let envs = request.envs.iter().flatten().map(|(key, value)| (key.as_str(), value.expose()));
        if let Err(why) = validate::envs(envs) {
            wrong.insert("envs".into(), why);
        }
        ssh_keys("ssh_pubkeys", request.ssh_pubkeys.as_deref().unwrap_or_default(), &mut wrong);
        let egress = request.egress.as_deref().unwrap_or_default();
        outbound::rules(egress, &mut wrong);
        let quota = request.bandwidth_quota_bytes.filter(|quota| *quota != 0);
        if let Some(Err(why)) = quota.map(outbound::quota) {
            wrong.insert("bandwidth_quota_bytes".into(), why);
        }
        CoreError::check(wrong)?;
        self.check_egress(egress)
    }

    async fn begin_fork(
        &self,
        source: &SandboxId,
        request: ForkSandbox,
    ) -> Result<Sandbox, CoreError> {
        let pin = self.inner.slots.get(source).work().await;
        let source = self.get(source).await?;
        if source.state != State::Paused {
            return Err(not_paused(&source));
        }
        let id = new_id()?;
        // The lock is taken before anybody else can know the id.
        let slot = self.inner.slots.get(&id);
        let work = slot.work().await;
        let start_paused = request.start_paused == Some(true);
        let quota = request.bandwidth_quota_bytes.filter(|quota| *quota != 0);
        let child = self.insert_with_name(child_of(source, id.clone(), request)?, None).await;
        let child = child.inspect_err(|_| self.inner.slots.remove(&id))?;
        if let Some(quota) = quota {
            self.inner.store.set_quota(&id, quota).await?;
        }
        let fork = self.clone().finish_fork(child.clone(), start_paused, pin, work);
        self.wait_a_moment(self.run_to_end(fork)?).await;
        Ok(child)
    }

    async fn finish_fork(
        self,
        child: Sandbox,
        start_paused: bool,
        pin: Work,
        _work: Work,
    ) -> Result<(), CoreError> {
        let next = if start_paused { State::Paused } else { State::Resuming };
        let filled = self.fill(&child, pin, next).await;
        match filled {
            Ok(Some(child)) if !start_paused => {
                let slot = self.inner.slots.get(child.id());
                self.run_again(&slot, child).await
            }
            // Paused as asked; or destroyed meanwhile, and the rest is the destroyer's work.
            Ok(_) => Ok(()),
            Err(error) => self.put_into_error(child.id(), State::Forking, &error).await,
        }
    }

    /// Copies what an earlier try did not.
    pub(super) async fn fill_again(&self, child: &Sandbox) -> Result<Option<Sandbox>, CoreError> {
        let source = child.spec.forked_from.as_ref().ok_or(CoreError::NoSandbox)?;
        let pin = match self.get(source).await {
            Ok(source) => self.inner.slots.get(source.id()).work().await,
            Err(CoreError::NoSandbox) => return Err(source_gone(source, "is gone")),
            Err(error) => return Err(error),
        };
        self.fill(child, pin, State::Resuming).await
    }

    /// Copies the source's files to the child, which is `next` then. The pin is the source's.
    async fn fill(
        &self,
        child: &Sandbox,
        pin: Work,
        next: State,
    ) -> Result<Option<Sandbox>, CoreError> {
        let source = child.spec.forked_from.as_ref().ok_or(CoreError::NoSandbox)?;
        let source = self.get(source).await?;
        // Also one that is about to be resumed or destroyed is still as it was paused.
        let saved = source.saved.or((source.state == State::Paused).then_some(Saved::Files));
        let Some(saved) = saved else {
            return Err(source_gone(source.id(), "is not paused any more"));
        };
        let kept = self.inner.runtime.fork(source.id(), saved, boot_spec(child)).await;
        let kept = kept.map_err(|error| CoreError::Internal(error.to_string()))?;
        drop(pin);
        let note = (saved == Saved::Frozen && kept == Saved::Files).then(|| FILES_ONLY.to_owned());
        let (store, from) = (&self.inner.store, [child.state]);
        Ok(store.change(child.id(), &from, next, Change::Saved(kept, note)).await?)
    }
}

fn not_paused(sandbox: &Sandbox) -> CoreError {
    CoreError::Conflict(format!("sandbox is not paused; it is {}", sandbox.state))
}

fn source_gone(source: &SandboxId, what: &str) -> CoreError {
    CoreError::Conflict(format!(
        "{source}, the files of which it should begin with, {what}; pause that one and resume \
         this one, or destroy this one and fork anew"
    ))
}

/// What the child has of its source, and what it has of its own.
fn child_of(source: Sandbox, id: SandboxId, request: ForkSandbox) -> Result<NewSandbox, CoreError> {
    let mut wrong = Fields::new();
    let keys = request.ssh_pubkeys.map(|lines| ssh_keys("ssh_pubkeys", &lines, &mut wrong));
    CoreError::check(wrong)?;
    let egress = request.egress.filter(|rules| !rules.is_empty()).map(outbound::kept);
    let forked_from = Some(source.id().clone());
    let spec = source.spec;
    Ok(NewSandbox {
        id,
        envs: request.envs.filter(|envs| !envs.is_empty()).unwrap_or(spec.envs),
        egress: egress.unwrap_or(spec.egress),
        ssh_pubkeys: keys.unwrap_or(spec.ssh_pubkeys),
        ingress_enabled: request.ingress_enabled.unwrap_or(spec.ingress_enabled),
        created_at: SystemTime::now(),
        auto_pause_seconds: None,
        forked_from,
        ..spec
    })
}
