//! What of a sandbox can be changed and read besides its life.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;

use super::Sandbox;
use crate::check;
use crate::error::Error;
use crate::operation::Operation;
use crate::wire::{
    AddSshPubkeys, Bandwidth, Egress, Metrics, PatchSandbox, RechargeBandwidth, ResizeSandbox,
    ResizedSandbox, SandboxView, SetEgress, SshPubkeyCount,
};

impl Sandbox {
    fn patch(
        &self,
        operation: &'static str,
        change: impl FnOnce(&mut PatchSandbox) -> Result<(), Error>,
    ) -> Operation<Arc<SandboxView>> {
        let mut patch = PatchSandbox::new();
        let checked = change(&mut patch);
        self.viewing(self.call(operation, Method::PATCH, &[])).json(&patch).checked(checked)
    }

    /// Changes several settings in one call: all of them, or none (api.md 4.4).
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: a time that [`set_auto_pause`](Self::set_auto_pause) does not take.
    /// `Conflict` in a state in which they cannot be changed. Safe to repeat.
    pub fn update(&self, change: PatchSandbox) -> Operation<Arc<SandboxView>> {
        self.patch("sandbox.update", |patch| {
            if let Some(seconds) = change.auto_pause_after_seconds {
                check::auto_pause(Duration::from_secs(seconds))?;
            }
            *patch = change;
            Ok(())
        })
    }

    /// Makes its ports reachable from outside, or not (api.md 4.4). The address is in
    /// [`SandboxView::ingress_url_template`] of the answer.
    ///
    /// # Errors
    ///
    /// `Conflict` in a state in which that cannot be changed. Safe to repeat.
    pub fn set_ingress(&self, enabled: bool) -> Operation<Arc<SandboxView>> {
        self.patch("sandbox.set_ingress", |patch| {
            patch.ingress_enabled = Some(enabled);
            Ok(())
        })
    }

    /// Pauses it after this time without activity, whole seconds from 60 s to 24 h, or never
    /// with `None` (api.md 4.4).
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for another time, before any traffic. `Conflict` in a state in which
    /// that cannot be changed. Safe to repeat.
    pub fn set_auto_pause(&self, idle: Option<Duration>) -> Operation<Arc<SandboxView>> {
        self.patch("sandbox.set_auto_pause", |patch| {
            match idle {
                Some(idle) => patch.auto_pause_after_seconds = Some(check::auto_pause(idle)?),
                None => patch.disable_auto_pause = Some(true),
            }
            Ok(())
        })
    }

    /// Grows its disk to this many MiB, while it runs (api.md 4.9). A disk cannot shrink.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: not larger than now. `PermissionDenied`: more than the plan allows.
    /// `Conflict`: it does not run. A repeat after an unclear failure is refused as "not
    /// larger" when the first was carried out.
    pub fn resize(&self, disk_mib: u64) -> Operation<ResizedSandbox> {
        let call = self.call("sandbox.resize", Method::POST, &["resize"]);
        let checked = match disk_mib {
            0 => Err(Error::invalid_argument("disk_mib", "must be larger than 0")),
            _ => Ok(()),
        };
        Operation::data(self.client().clone(), call)
            .json(&ResizeSandbox::new(disk_mib))
            .checked(checked)
    }

    /// Admits OpenSSH public keys (api.md 4.10) and gives how many it has then. Keys it has
    /// already are not added twice; a key cannot be removed.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: no key, or what is not one. Safe to repeat.
    pub fn add_ssh_pubkeys<K: Into<String>>(
        &self,
        keys: impl IntoIterator<Item = K>,
    ) -> Operation<u64> {
        let keys: Vec<String> = keys.into_iter().map(Into::into).collect();
        let checked = match keys.is_empty() {
            true => Err(Error::invalid_argument("ssh_pubkeys", "no key was given")),
            false => check::ssh_pubkeys(&keys),
        };
        let call = self.call("sandbox.add_ssh_pubkeys", Method::POST, &["ssh-pubkeys"]);
        Operation::<SshPubkeyCount>::data(self.client().clone(), call)
            .json(&AddSshPubkeys::new(keys))
            .checked(checked)
            .map(|answer| answer.count)
    }

    /// Its outbound rules (api.md 4.14). None means that everything may be reached.
    pub fn egress(&self) -> Operation<Vec<String>> {
        let call = self.call("sandbox.egress", Method::GET, &["egress"]);
        Operation::<Egress>::data(self.client().clone(), call).map(|answer| answer.egress)
    }

    /// Replaces its outbound rules, at once and without a restart (api.md 4.14, 6.4), and
    /// gives those that hold now. Rules for names can take half a minute to act. Without any,
    /// everything may be reached.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: a rule that cannot be read. `Conflict`: it does not run.
    pub fn set_egress<R: Into<String>>(
        &self,
        rules: impl IntoIterator<Item = R>,
    ) -> Operation<Vec<String>> {
        let rules: Vec<String> = rules.into_iter().map(Into::into).collect();
        let checked = check::egress(&rules);
        let call = self.call("sandbox.set_egress", Method::PUT, &["egress"]);
        Operation::<Egress>::data(self.client().clone(), call)
            .json(&SetEgress::new(rules))
            .checked(checked)
            .map(|answer| answer.egress)
    }

    /// Its traffic (api.md 4.15).
    pub fn bandwidth(&self) -> Operation<Bandwidth> {
        let call = self.call("sandbox.bandwidth", Method::GET, &["bandwidth"]);
        Operation::data(self.client().clone(), call)
    }

    /// Adds bytes to its quota of outbound traffic (api.md 4.15). One that was cut off comes
    /// back within seconds. An unmetered sandbox stays as it is.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: 0, or more than fits. `PaymentRequired`: out of credit. Not
    /// idempotent: after an error that [may have acted](Error::may_have_acted) look at
    /// [`bandwidth`](Self::bandwidth) first.
    pub fn recharge_bandwidth(&self, bytes: u64) -> Operation<Bandwidth> {
        let call =
            self.call("sandbox.recharge_bandwidth", Method::POST, &["bandwidth", "recharge"]);
        let (add, checked) = match i64::try_from(bytes) {
            Ok(add) if add > 0 => (add, Ok(())),
            _ => (0, Err(Error::invalid_argument("bytes", format!("cannot add {bytes}")))),
        };
        Operation::data(self.client().clone(), call)
            .json(&RechargeBandwidth::new(add))
            .checked(checked)
    }

    /// What it uses now (api.md 4.18). **Unofficial**: the API does not say what is in the
    /// answer, so any JSON object is taken as it comes.
    ///
    /// # Errors
    ///
    /// `Unsupported` or `NotFound` from a server that has no metrics.
    pub fn metrics(&self) -> Operation<Metrics> {
        let call = self.call("sandbox.metrics", Method::GET, &["metrics"]);
        Operation::data(self.client().clone(), call)
    }
}
