//! What of a sandbox can be changed (api.md 4.4, 4.8 to 4.10).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::null_as_default;
use crate::id::SandboxId;
use crate::secret::Secret;

/// Body of a patch. What is absent stays as it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PatchSandbox {
    /// Whether ports are reachable from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_enabled: Option<bool>,
    /// Seconds without activity until it pauses by itself, 60 to 86400.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_pause_after_seconds: Option<u64>,
    /// `true` ends auto-pause, and wins over a number; `false` means nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disable_auto_pause: Option<bool>,
}

impl PatchSandbox {
    /// A patch that changes nothing.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Body of a fork. What is absent the child inherits.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ForkSandbox {
    /// Whether the child stays paused instead of being resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_paused: Option<bool>,
    /// Its SSH public keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh_pubkeys: Option<Vec<String>>,
    /// Its outbound rules. Servers may take an empty list as absent; `["*"]` opens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Vec<String>>,
    /// Whether its ports are reachable from outside.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ingress_enabled: Option<bool>,
    /// Its environment, instead of the inherited one. Servers may take an empty one as absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub envs: Option<BTreeMap<String, Secret>>,
    /// Sent by one older client; this one never sends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth_quota_bytes: Option<i64>,
}

impl ForkSandbox {
    /// A fork that inherits everything.
    pub fn new() -> Self {
        Self::default()
    }
}

/// Body of a resize.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResizeSandbox {
    /// New disk size in MiB; larger than before.
    pub disk_mib: u64,
}

impl ResizeSandbox {
    /// A resize to this size.
    pub fn new(disk_mib: u64) -> Self {
        Self { disk_mib }
    }
}

/// Answer to a resize.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ResizedSandbox {
    /// The sandbox.
    pub id: SandboxId,
    /// Its disk size in MiB now.
    pub disk_mib: u64,
}

impl ResizedSandbox {
    /// The size of a sandbox's disk.
    pub fn new(id: SandboxId, disk_mib: u64) -> Self {
        Self { id, disk_mib }
    }
}

/// Body that adds SSH public keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AddSshPubkeys {
    /// OpenSSH lines.
    #[serde(default, deserialize_with = "null_as_default")]
    pub keys: Vec<String>,
}

impl AddSshPubkeys {
    /// Adds these keys.
    pub fn new(keys: Vec<String>) -> Self {
        Self { keys }
    }
}

/// How many SSH public keys there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SshPubkeyCount {
    /// All of them, without duplicates.
    pub count: u64,
}

impl SshPubkeyCount {
    /// So many keys.
    pub fn new(count: u64) -> Self {
        Self { count }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{both_ways, tidies};
    use super::*;

    #[test]
    fn patches() {
        assert_eq!(both_ways::<PatchSandbox>("{}"), PatchSandbox::new());
        let patch: PatchSandbox = both_ways(
            r#"{"ingress_enabled":false,"auto_pause_after_seconds":600,"disable_auto_pause":false}"#,
        );
        assert_eq!(patch.auto_pause_after_seconds, Some(600));
        tidies::<PatchSandbox>(r#"{"ingress_enabled":null,"name":"x"}"#, "{}");
    }

    #[test]
    fn forks_tell_absent_from_empty() {
        assert_eq!(both_ways::<ForkSandbox>("{}"), ForkSandbox::new());
        let fork: ForkSandbox = both_ways(
            r#"{"start_paused":true,"ssh_pubkeys":[],"egress":["*"],"ingress_enabled":false,
                "envs":{"SEED":"hunter2"},"bandwidth_quota_bytes":0}"#,
        );
        assert_eq!(fork.ssh_pubkeys, Some(vec![]));
        assert!(!format!("{fork:?}").contains("hunter2"));
        tidies::<ForkSandbox>(r#"{"egress":null,"envs":null,"ssh_pubkeys":null}"#, "{}");
    }

    #[test]
    fn sizes_and_keys() {
        assert_eq!(both_ways::<ResizeSandbox>(r#"{"disk_mib":20480}"#), ResizeSandbox::new(20480));
        both_ways::<ResizedSandbox>(r#"{"id":"sb-1","disk_mib":20480}"#);
        both_ways::<AddSshPubkeys>(r#"{"keys":["ssh-ed25519 AAAA me"]}"#);
        tidies::<AddSshPubkeys>(r#"{"keys":null}"#, r#"{"keys":[]}"#);
        assert_eq!(both_ways::<SshPubkeyCount>(r#"{"count":2}"#), SshPubkeyCount::new(2));
    }
}
