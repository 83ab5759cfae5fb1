//! Sandbox view and state (api.md 4.0, 4.5, 7.1).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{null_as_default, open_enum};
use crate::id::SandboxId;
use crate::time::Timestamp;

open_enum! {
    /// Where a sandbox is in its life (api.md 7.1).
    pub enum SandboxStatus {
        /// Being built.
        Creating = "creating",
        /// Live: the one state in which commands run and files move.
        Running = "running",
        /// A snapshot is being taken.
        Pausing = "pausing",
        /// The snapshot is stored; nothing runs.
        Paused = "paused",
        /// Being restored.
        Resuming = "resuming",
        /// A child whose snapshot is being copied.
        Forking = "forking",
        /// A resume or fork ran out of attempts; resume may be tried again.
        Error = "error",
        /// Being removed.
        Destroying = "destroying",
        /// Gone for good.
        Destroyed = "destroyed",
        /// Unrecoverable.
        Failed = "failed",
    }
}

impl SandboxStatus {
    /// Whether the sandbox can never leave this state: destroyed and failed.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Destroyed | Self::Failed)
    }
}

/// A sandbox as the server describes it.
///
/// Only `id` and `status` are certain: servers differ in what else they send, and a field
/// that was not sent is `None` here, never a made-up value. Lists are left out by the
/// server when they are empty.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SandboxView {
    /// Its id.
    pub id: SandboxId,
    /// Its state when the server answered.
    pub status: SandboxStatus,
    /// Why it is in `error` or `failed`, why its last pause failed, or what a pause or fork does
    /// not keep; in words for a person. Only the local engine tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_reason: Option<String>,
    /// Name, unique among the caller's live sandboxes; also the hostname.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Management address. Absent while creating. Not an address on a private network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Virtual CPUs, whole even for throttled shapes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpu: Option<u32>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_mib: Option<u64>,
    /// Disk size in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<u64>,
    /// Catalog id of its shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
    /// Catalog name or template reference of its root filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<String>,
    /// Region it lives in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When it first ran.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_at: Option<Timestamp>,
    /// When it was last paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused_at: Option<Timestamp>,
    /// When it was last resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_resumed_at: Option<Timestamp>,
    /// When it was destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destroyed_at: Option<Timestamp>,
    /// Boot time in milliseconds; see [`spawn_time`](Self::spawn_time).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spawn_ms: Option<f64>,
    /// Whether ports are reachable from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_enabled: Option<bool>,
    /// Address of a port: replace the literal `<port>`. Only while ingress is on; knowing it
    /// is all a visitor needs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_url_template: Option<String>,
    /// Outbound rules; empty means open.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<String>,
    /// Names of its environment variables. Values cannot be read back.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub envs: Vec<String>,
    /// Its SSH public keys.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub ssh_pubkeys: Vec<String>,
    /// Who created it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Inbound bytes counted so far; left out when zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_ingress_bytes: Option<u64>,
    /// The sandbox it was forked from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forked_from: Option<SandboxId>,
    /// Seconds without activity until it pauses by itself; absent when off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_pause_after_seconds: Option<u64>,
}

impl SandboxView {
    /// A view with nothing but what is certain.
    pub fn new(id: SandboxId, status: SandboxStatus) -> Self {
        Self {
            id,
            status,
            status_reason: None,
            name: None,
            ip: None,
            vcpu: None,
            mem_mib: None,
            disk_mib: None,
            shape: None,
            rootfs: None,
            region: None,
            created_at: None,
            running_at: None,
            paused_at: None,
            last_resumed_at: None,
            destroyed_at: None,
            spawn_ms: None,
            ingress_enabled: None,
            ingress_url_template: None,
            egress: Vec::new(),
            envs: Vec::new(),
            ssh_pubkeys: Vec::new(),
            created_by: None,
            bandwidth_ingress_bytes: None,
            forked_from: None,
            auto_pause_after_seconds: None,
        }
    }

    /// Boot time, when the server told it.
    pub fn spawn_time(&self) -> Option<Duration> {
        self.spawn_ms.and_then(millis)
    }

    /// Idle time after which it pauses by itself, when that is on.
    pub fn auto_pause_after(&self) -> Option<Duration> {
        self.auto_pause_after_seconds.map(Duration::from_secs)
    }
}

/// Milliseconds of the wire; nonsense such as a negative number is `None`.
pub(super) fn millis(ms: f64) -> Option<Duration> {
    Duration::try_from_secs_f64(ms / 1000.0).ok()
}

/// Answer to a destroy (api.md 4.5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DestroyedSandbox {
    /// The sandbox.
    pub id: SandboxId,
    /// `destroying`, or `destroyed` when it is already gone.
    pub status: SandboxStatus,
}

impl DestroyedSandbox {
    /// An answer with both of its fields.
    pub fn new(id: SandboxId, status: SandboxStatus) -> Self {
        Self { id, status }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{both_ways, tidies};
    use super::*;

    #[test]
    fn the_view_of_the_contract_goes_both_ways() {
        let view: SandboxView = both_ways(
            r#"{"id":"sb-01k4m2c9zq8v7n5t3r1p0x6y2w","status":"running","name":"calm-heron",
            "ip":"10.0.4.17","vcpu":1,"mem_mib":1024,"disk_mib":10240,"shape":"s-1vcpu-1gb",
            "rootfs":"devbox:1","region":"us","created_at":"2026-08-02T10:00:00Z",
            "running_at":"2026-08-02T10:00:01Z","spawn_ms":148.2,"ingress_enabled":true,
            "ingress_url_template":"https://x-<port>.example.org","envs":["STAGE"],
            "auto_pause_after_seconds":900}"#,
        );
        assert_eq!(view.status, SandboxStatus::Running);
        assert_eq!(view.spawn_time(), Some(Duration::from_micros(148_200)));
        assert_eq!(view.auto_pause_after(), Some(Duration::from_secs(900)));
    }

    #[test]
    fn a_bare_or_newer_view_is_accepted() {
        let view: SandboxView = tidies(
            r#"{"id":"sb-1","status":"migrating","egress":null,"envs":null,"ssh_pubkeys":[],
                "name":null,"new_field":{"a":[1]}}"#,
            r#"{"id":"sb-1","status":"migrating"}"#,
        );
        assert_eq!(view.status, SandboxStatus::Unknown("migrating".into()));
        assert_eq!(view, SandboxView::new(view.id.clone(), view.status.clone()));
    }

    #[test]
    fn a_view_without_identity_is_refused() {
        for json in [r#"{"status":"running"}"#, r#"{"id":"a/b","status":"running"}"#, "[]", "null"]
        {
            assert!(serde_json::from_str::<SandboxView>(json).is_err(), "{json}");
        }
    }

    #[test]
    fn nonsense_durations_are_absent() {
        for ms in [-1.0, f64::NAN, f64::INFINITY, 1e300] {
            assert_eq!(millis(ms), None);
        }
    }

    #[test]
    fn destroy_answer() {
        let answer: DestroyedSandbox = both_ways(r#"{"id":"sb-1","status":"destroying"}"#);
        assert_eq!(answer.status, SandboxStatus::Destroying);
    }
}
