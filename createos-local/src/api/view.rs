//! Records as the wire shows them (api.md 4.0, 4.1).

use std::num::NonZeroU16;
use std::time::{Duration, SystemTime};

use createos_sdk::wire::{CreatedSandbox, SandboxStatus, SandboxView};
use createos_sdk::{SandboxId, Timestamp};

use super::{Front, ingress};
use crate::core::{CoreError, State};
use crate::net::QUOTA_BYTES;
use crate::store::Sandbox;

pub(super) fn status(state: State) -> SandboxStatus {
    SandboxStatus::from(state.as_str())
}

fn time(time: SystemTime) -> Option<Timestamp> {
    Timestamp::try_from(time).ok()
}

/// A time that an answer cannot do without.
pub(super) fn needed_time(time: SystemTime, of: &str) -> Result<Timestamp, CoreError> {
    let message = || format!("the time of the {of} cannot be shown");
    Timestamp::try_from(time).map_err(|_| CoreError::Internal(message()))
}

/// Milliseconds with at most three digits after the point.
pub(super) fn millis(time: Duration) -> f64 {
    time.as_micros() as f64 / 1000.0
}

fn spawn_ms(sandbox: &Sandbox) -> Option<f64> {
    sandbox.spawn.map(millis)
}

impl Front {
    /// The full view.
    pub(super) fn view(&self, sandbox: Sandbox) -> SandboxView {
        let template = self.url_template(&sandbox);
        let received = self.core().received(&sandbox);
        let mut view = view(sandbox);
        view.ingress_url_template = template;
        view.bandwidth_ingress_bytes = (received > 0).then_some(received);
        view
    }

    /// The answer to a create: a running sandbox and its quota.
    pub(super) fn created(&self, sandbox: Sandbox) -> CreatedSandbox {
        let template = self.url_template(&sandbox);
        let mut created = created(sandbox);
        created.ingress_url_template = template;
        created
    }

    /// Where the sandbox's ports are, while they are published.
    fn url_template(&self, sandbox: &Sandbox) -> Option<String> {
        let published = sandbox.spec.ingress_enabled && !sandbox.state.is_terminal();
        let port = self.0.ingress.filter(|_| published)?;
        Some(ingress::url_template(sandbox.id(), port))
    }

    /// Where visitors find a port of a published sandbox.
    pub(super) fn url_of_port(&self, id: &SandboxId, port: NonZeroU16) -> Option<String> {
        let template = ingress::url_template(id, self.0.ingress?);
        Some(template.replace("<port>", &port.to_string()))
    }

    /// Whether ports can be published, where a request asks for it.
    pub(super) fn check_ingress(&self, asked: Option<bool>) -> Result<(), CoreError> {
        if asked != Some(true) || self.0.ingress.is_some() {
            return Ok(());
        }
        let message = "ports are published on this machine's loopback, and the engine does not \
                       listen there; start it with 127.0.0.1 among its addresses";
        Err(CoreError::NotAvailable { field: "ingress_enabled", message: message.to_owned() })
    }
}

fn view(sandbox: Sandbox) -> SandboxView {
    let spawn_ms = spawn_ms(&sandbox);
    let Sandbox { spec, state, ip, .. } = sandbox;
    let mut view = SandboxView::new(spec.id, status(state));
    view.status_reason = sandbox.reason;
    view.name = Some(spec.name);
    view.ip = (state != State::Creating).then(|| ip.to_string());
    view.vcpu = Some(spec.vcpu);
    view.mem_mib = Some(spec.mem_mib);
    view.disk_mib = Some(spec.disk_mib);
    view.shape = Some(spec.shape);
    view.rootfs = Some(spec.rootfs);
    view.region = Some(spec.region);
    view.created_at = time(spec.created_at);
    view.paused_at = sandbox.paused_at.and_then(time);
    view.forked_from = spec.forked_from;
    view.auto_pause_after_seconds = spec.auto_pause_seconds;
    view.running_at = sandbox.running_at.and_then(time);
    view.last_resumed_at = sandbox.last_resumed_at.and_then(time);
    if state == State::Destroyed {
        view.destroyed_at = sandbox.ended_at.and_then(time);
    }
    view.spawn_ms = spawn_ms;
    view.ingress_enabled = Some(spec.ingress_enabled);
    view.egress = spec.egress;
    view.envs = spec.envs.into_keys().collect();
    view.ssh_pubkeys = spec.ssh_pubkeys;
    view
}

fn created(sandbox: Sandbox) -> CreatedSandbox {
    let spawn_ms = spawn_ms(&sandbox).unwrap_or(0.0);
    let Sandbox { spec, state, ip, .. } = sandbox;
    let mut created = CreatedSandbox::new(spec.id, status(state));
    created.name = Some(spec.name);
    created.ip = Some(ip.to_string());
    created.shape = Some(spec.shape);
    created.rootfs = Some(spec.rootfs);
    created.vcpu = Some(spec.vcpu);
    created.mem_mib = Some(spec.mem_mib);
    created.disk_mib = Some(spec.disk_mib);
    created.spawn_ms = Some(spawn_ms);
    created.egress = spec.egress;
    created.bandwidth_quota_bytes = Some(QUOTA_BYTES);
    created.created_at = time(spec.created_at);
    created.auto_pause_after_seconds = spec.auto_pause_seconds;
    created.ingress_enabled = Some(spec.ingress_enabled);
    created.region = Some(spec.region);
    created
}
