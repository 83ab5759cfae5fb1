//! The way out of running sandboxes: their rules and their counters (api.md 4.14, 4.15).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use createos_sdk::SandboxId;
use tokio_util::sync::CancellationToken;

use super::error::Fields;
use super::settings::{changed, conflict};
use super::slot::Slot;
use super::{Core, CoreError, State};
use crate::net::{Account, Meter, Rules, Traffic, UNMETERED, Uplink};
use crate::retry::again;
use crate::runtime::{Outlet, RuntimeError};
use crate::store::Sandbox;

/// When to try again to take over what leaves a sandbox: what an earlier life of it had may
/// take a moment to go.
const AGAIN: [Duration; 19] = [Duration::from_millis(10); 19];
/// How long a pause waits for connections to be closed.
const CLOSING: Duration = Duration::from_secs(2);

/// Reads rules; a wrong one is named by its field.
pub(super) fn rules(rules: &[String], wrong: &mut Fields) -> Rules {
    Rules::parse(rules).unwrap_or_else(|why| {
        wrong.insert("egress".into(), why);
        Rules::default()
    })
}

/// Rules as they are kept and shown: open is the empty list.
pub(super) fn kept(rules: Vec<String>) -> Vec<String> {
    if rules == ["*"] { Vec::new() } else { rules }
}

impl Core {
    /// Whether rules can be enforced here.
    pub(super) fn check_egress(&self, rules: &[String]) -> Result<(), CoreError> {
        let mut wrong = Fields::new();
        let open = self::rules(rules, &mut wrong).are_open();
        CoreError::check(wrong)?;
        match self.inner.runtime.can_reach_out() {
            Err(why) if !open => {
                let message = format!("outbound rules cannot be enforced on this machine: {why}");
                Err(CoreError::NotAvailable { field: "egress", message })
            }
            _ => Ok(()),
        }
    }

    /// Connects a sandbox that has just been booted or resumed. One that cannot be connected
    /// runs all the same, and reaches nothing.
    pub(super) async fn connect_out(&self, sandbox: &Sandbox, slot: &Slot) {
        if self.inner.runtime.can_reach_out().is_err() {
            return;
        }
        if let Err(error) = self.try_connect_out(sandbox, slot).await {
            let id = sandbox.id();
            tracing::warn!(sandbox = %id, %error, "the sandbox has no way out");
        }
    }

    async fn try_connect_out(&self, sandbox: &Sandbox, slot: &Slot) -> Result<(), CoreError> {
        let account = self.account(sandbox, slot).await?;
        let outlet = self.outlet(sandbox.id()).await?;
        let (id, outside) = (sandbox.id().clone(), Arc::clone(&self.inner.outside));
        let end = slot.end_of_life().child_token();
        let uplink = Uplink::open(id, outlet, account, outside, end);
        let internal = |error: io::Error| CoreError::Internal(error.to_string());
        slot.set_uplink(uplink.map_err(internal)?);
        Ok(())
    }

    /// Opens the way out for a sandbox that has no record, without rules, for as long as the
    /// value lives. Where there is none on this machine, it reaches nothing.
    pub(super) async fn connect_builder(
        &self,
        id: &SandboxId,
    ) -> Result<Option<Uplink>, CoreError> {
        if self.inner.runtime.can_reach_out().is_err() {
            return Ok(None);
        }
        let account = Arc::new(Account::new(
            Rules::default(),
            Meter::new(Traffic { quota: UNMETERED, sent: 0, received: 0 }),
        ));
        let (outlet, outside) = (self.outlet(id).await?, Arc::clone(&self.inner.outside));
        let end = CancellationToken::new();
        let uplink = Uplink::open(id.clone(), outlet, account, outside, end);
        uplink.map(Some).map_err(|error| CoreError::Internal(error.to_string()))
    }

    async fn outlet(&self, id: &SandboxId) -> Result<Outlet, RuntimeError> {
        let may_pass = |error: &RuntimeError| matches!(error, RuntimeError::Unreachable(_));
        again(AGAIN, may_pass, || self.inner.runtime.outlet(id)).await
    }

    /// Closes every connection of a sandbox that is about to stand still.
    pub(super) async fn disconnect_out(&self, slot: &Slot) {
        if let Some(uplink) = slot.take_uplink() {
            let _ = tokio::time::timeout(CLOSING, uplink.close()).await;
        }
    }

    async fn account(&self, sandbox: &Sandbox, slot: &Slot) -> Result<Arc<Account>, CoreError> {
        if let Some(account) = slot.account() {
            return Ok(account);
        }
        let traffic = self.inner.store.traffic(sandbox.id()).await?;
        // The store has checked ones; an open sandbox must not come of a damaged one.
        let rules = Rules::parse(&sandbox.spec.egress).map_err(CoreError::Internal)?;
        Ok(slot.keep_account(Account::new(rules, Meter::new(traffic))))
    }

    /// Replaces the rules of a running sandbox; what they forbid ends at once.
    pub(crate) async fn set_egress(
        &self,
        id: &SandboxId,
        rules: Vec<String>,
    ) -> Result<Sandbox, CoreError> {
        let known = self.get_existing(id).await?;
        self.check_egress(&rules)?;
        if known.state != State::Running {
            return Err(conflict(&known));
        }
        let slot = self.inner.slots.get(id);
        // One at a time, so that what holds is what is written.
        let _work = slot.work().await;
        let parsed = Rules::parse(&rules).map_err(|why| CoreError::field("egress", why))?;
        let store = &self.inner.store;
        let sandbox = changed(store.set_egress(id, &[State::Running], kept(rules)).await?)?;
        if let Some(account) = slot.account() {
            account.set_rules(parsed);
        }
        Ok(sandbox)
    }

    /// What a sandbox has sent and received.
    pub(crate) async fn traffic(&self, id: &SandboxId) -> Result<Traffic, CoreError> {
        self.get_existing(id).await?;
        let account = self.inner.slots.get_existing(id).and_then(|slot| slot.account());
        match account {
            Some(account) => Ok(account.meter.read()),
            None => Ok(self.inner.store.traffic(id).await?),
        }
    }

    /// Bytes that have come to a sandbox from outside until now.
    pub(crate) fn received(&self, sandbox: &Sandbox) -> u64 {
        let slot = self.inner.slots.get_existing(sandbox.id());
        let account = slot.and_then(|slot| slot.account());
        account.map_or(sandbox.received, |account| account.meter.read().received)
    }

    /// Adds to what a sandbox may send. One without a limit stays as it is.
    pub(crate) async fn recharge(&self, id: &SandboxId, bytes: i64) -> Result<Traffic, CoreError> {
        self.get_existing(id).await?;
        if bytes <= 0 {
            return Err(CoreError::field("add_bytes", "must be larger than 0"));
        }
        let quota = self.inner.store.recharge(id, bytes).await?;
        let account = self.inner.slots.get_existing(id).and_then(|slot| slot.account());
        if let Some(account) = account {
            account.meter.set_quota(quota);
        }
        self.traffic(id).await
    }

    /// Writes the counters down that have changed.
    pub(super) async fn keep_counters(&self) -> Result<(), CoreError> {
        for (id, slot) in self.inner.slots.all() {
            let Some(account) = slot.account() else { continue };
            let now = account.meter.read();
            if slot.note_kept(now) {
                self.inner.store.keep_traffic(&id, now.sent, now.received).await?;
            }
        }
        Ok(())
    }
}

/// A quota for a new sandbox, if it is one.
pub(super) fn quota(bytes: i64) -> Result<i64, String> {
    match bytes {
        UNMETERED => Ok(bytes),
        1.. => Ok(bytes),
        _ => Err(format!("{bytes} is no quota; give a number of bytes, or -1 for no limit")),
    }
}
