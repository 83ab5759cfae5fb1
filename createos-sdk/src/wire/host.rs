//! Hosts (api.md 3.6).

use serde::{Deserialize, Serialize};

use super::{null_as_default, open_enum};

open_enum! {
    /// Whether a host takes sandboxes.
    pub enum HostStatus {
        /// It does.
        Active = "active",
        /// It keeps those it has and takes no more.
        Draining = "draining",
        /// It does not answer.
        Dead = "dead",
    }
}

/// A machine that runs sandboxes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Host {
    /// Its id.
    pub id: String,
    /// Whether it takes sandboxes.
    pub status: HostStatus,
    /// Free memory in MiB.
    pub free_mib: i64,
    /// Sandboxes on it.
    pub vm_count: u64,
    /// Root filesystems it holds.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub rootfses: Vec<String>,
}

impl Host {
    /// A host that holds no root filesystem.
    pub fn new(id: impl Into<String>, status: HostStatus, free_mib: i64, vm_count: u64) -> Self {
        Self { id: id.into(), status, free_mib, vm_count, rootfses: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::both_ways;
    use super::*;

    #[test]
    fn hosts_go_both_ways() {
        let host: Host =
            both_ways(r#"{"id":"h-1","status":"active","free_mib":1024,"vm_count":3}"#);
        assert_eq!(host, Host::new("h-1", HostStatus::Active, 1024, 3));
        both_ways::<Host>(
            r#"{"id":"h-1","status":"tired","free_mib":0,"vm_count":0,"rootfses":["devbox:1"]}"#,
        );
    }
}
