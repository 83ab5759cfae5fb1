//! Creating a sandbox (api.md 4.1).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::sandbox::millis;
use super::{SandboxStatus, null_as_default};
use crate::id::SandboxId;
use crate::secret::Secret;
use crate::time::Timestamp;

/// Body of a create request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CreateSandbox {
    /// Catalog id of the shape.
    pub shape: String,
    /// Catalog name, template id or template name; absent is the catalog's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<String>,
    /// Name; absent lets the server choose one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Disk size in MiB; absent or 0 is the shape's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<u64>,
    /// Private networks joined at boot.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<NetworkRef>,
    /// Disks mounted at boot.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<DiskMount>,
    /// Outbound rules; empty means open.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<String>,
    /// Environment of every command.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub envs: BTreeMap<String, Secret>,
    /// OpenSSH public keys.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub ssh_pubkeys: Vec<String>,
    /// Whether ports are reachable from outside; absent is off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_enabled: Option<bool>,
    /// Seconds without activity until it pauses by itself, 60 to 86400; absent is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_pause_after_seconds: Option<u64>,
    /// Region; must be the server's own when given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Placement labels.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub node_selector: BTreeMap<String, String>,
    /// Servers refuse a value other than 0. Read so that they can; this client never sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_quota_bytes: Option<i64>,
}

impl CreateSandbox {
    /// A request for a sandbox of this shape, with every default.
    pub fn new(shape: impl Into<String>) -> Self {
        Self {
            shape: shape.into(),
            rootfs: None,
            name: None,
            disk_mib: None,
            networks: Vec::new(),
            disks: Vec::new(),
            egress: Vec::new(),
            envs: BTreeMap::new(),
            ssh_pubkeys: Vec::new(),
            ingress_enabled: None,
            auto_pause_after_seconds: None,
            region: None,
            node_selector: BTreeMap::new(),
            bandwidth_quota_bytes: None,
        }
    }
}

/// A network named in a create request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkRef {
    /// Network id or name.
    pub id: String,
}

impl NetworkRef {
    /// Names a network by id or name.
    pub fn new(id: impl Into<String>) -> Self {
        Self { id: id.into() }
    }
}

/// A disk to mount, in a create or attach request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct DiskMount {
    /// Disk id. Some servers drop a name silently (api.md 9.5).
    pub disk_id: String,
    /// Absolute path in the sandbox.
    pub mount_path: String,
    /// Part of the bucket to mount; relative, without `..`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sub_path: Option<String>,
}

impl DiskMount {
    /// Mounts the whole disk at a path.
    pub fn new(disk_id: impl Into<String>, mount_path: impl Into<String>) -> Self {
        Self { disk_id: disk_id.into(), mount_path: mount_path.into(), sub_path: None }
    }
}

/// Answer to a create: less than a view, and with the traffic quota.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CreatedSandbox {
    /// The new sandbox.
    pub id: SandboxId,
    /// Its state; older servers leave it out and mean `running` (api.md 9.2).
    #[serde(default = "running")]
    pub status: SandboxStatus,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Management address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Catalog id of its shape.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shape: Option<String>,
    /// Its root filesystem.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rootfs: Option<String>,
    /// Virtual CPUs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vcpu: Option<u32>,
    /// Memory in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mem_mib: Option<u64>,
    /// Disk size in MiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_mib: Option<u64>,
    /// Boot time in milliseconds. Servers send it even when it is 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spawn_ms: Option<f64>,
    /// Outbound rules; empty means open.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<String>,
    /// Outbound traffic allowed in total, in bytes; -1 means unmetered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_quota_bytes: Option<i64>,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// Whether ports are reachable from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_enabled: Option<bool>,
    /// Address of a port: replace the literal `<port>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_url_template: Option<String>,
    /// Region it lives in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Seconds without activity until it pauses by itself; absent when off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_pause_after_seconds: Option<u64>,
}

fn running() -> SandboxStatus {
    SandboxStatus::Running
}

impl CreatedSandbox {
    /// An answer with nothing but what is certain.
    pub fn new(id: SandboxId, status: SandboxStatus) -> Self {
        Self {
            id,
            status,
            name: None,
            ip: None,
            shape: None,
            rootfs: None,
            vcpu: None,
            mem_mib: None,
            disk_mib: None,
            spawn_ms: None,
            egress: Vec::new(),
            bandwidth_quota_bytes: None,
            created_at: None,
            ingress_enabled: None,
            ingress_url_template: None,
            region: None,
            auto_pause_after_seconds: None,
        }
    }

    /// Boot time, when the server told it.
    pub fn spawn_time(&self) -> Option<Duration> {
        self.spawn_ms.and_then(millis)
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{both_ways, tidies};
    use super::*;

    #[test]
    fn the_smallest_request_is_the_shape_alone() {
        let request = CreateSandbox::new("s-1vcpu-1gb");
        assert_eq!(serde_json::to_string(&request).unwrap(), r#"{"shape":"s-1vcpu-1gb"}"#);
    }

    #[test]
    fn a_full_request_goes_both_ways() {
        let request: CreateSandbox = both_ways(
            r#"{"shape":"s-1vcpu-1gb","rootfs":"devbox:1","name":"demo","disk_mib":20480,
            "networks":[{"id":"mesh"}],
            "disks":[{"disk_id":"disk_1","mount_path":"/mnt/d","sub_path":"a"}],
            "egress":["api.example.org:443"],"envs":{"STAGE":"dev"},
            "ssh_pubkeys":["ssh-ed25519 AAAA me"],"ingress_enabled":false,
            "auto_pause_after_seconds":600,"region":"us","node_selector":{"zone":"a"},
            "bandwidth_quota_bytes":0}"#,
        );
        assert_eq!(request.envs["STAGE"].expose(), "dev");
    }

    #[test]
    fn null_lists_and_unknown_fields_are_accepted() {
        let request: CreateSandbox = tidies(
            r#"{"shape":"s","networks":null,"disks":null,"egress":null,"envs":null,
                "ssh_pubkeys":null,"node_selector":null,"host_id":"h-1","mode":"x"}"#,
            r#"{"shape":"s"}"#,
        );
        assert_eq!(request, CreateSandbox::new("s"));
    }

    #[test]
    fn env_values_do_not_show_in_debug() {
        let mut request = CreateSandbox::new("s");
        request.envs.insert("TOKEN".into(), "hunter2".into());
        assert!(!format!("{request:?}").contains("hunter2"));
    }

    #[test]
    fn the_answer_of_the_contract_goes_both_ways() {
        let answer: CreatedSandbox = tidies(
            r#"{"id":"sb-01k4m2c9zq8v7n5t3r1p0x6y2w","status":"running","name":"calm-heron",
            "ip":"10.0.4.17","shape":"s-1vcpu-1gb","rootfs":"devbox:1","vcpu":1,"mem_mib":1024,
            "disk_mib":10240,"spawn_ms":148.2,"egress":[],"bandwidth_quota_bytes":5368709120,
            "created_at":"2026-08-02T10:00:00Z","ingress_enabled":false,"region":"us"}"#,
            r#"{"id":"sb-01k4m2c9zq8v7n5t3r1p0x6y2w","status":"running","name":"calm-heron",
            "ip":"10.0.4.17","shape":"s-1vcpu-1gb","rootfs":"devbox:1","vcpu":1,"mem_mib":1024,
            "disk_mib":10240,"spawn_ms":148.2,"bandwidth_quota_bytes":5368709120,
            "created_at":"2026-08-02T10:00:00Z","ingress_enabled":false,"region":"us"}"#,
        );
        assert_eq!(answer.bandwidth_quota_bytes, Some(5_368_709_120));
    }

    #[test]
    fn an_old_answer_without_status_means_running() {
        let answer: CreatedSandbox = serde_json::from_str(r#"{"id":"sb-1"}"#).unwrap();
        assert_eq!(answer.status, SandboxStatus::Running);
    }
}
