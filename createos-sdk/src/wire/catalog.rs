//! Shapes and root filesystems (api.md 3.4, 3.5).

use serde::{Deserialize, Serialize};

use super::null_as_default;

/// A size of sandbox that can be ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Shape {
    /// Catalog id, such as `s-1vcpu-1gb`.
    pub id: String,
    /// Virtual CPUs, whole even for throttled shapes.
    pub vcpu: u32,
    /// Memory in MiB.
    pub mem_mib: u64,
    /// Disk size in MiB unless a create asks for another.
    pub default_disk_mib: u64,
    /// Share of one CPU in percent; only on throttled shapes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_quota_pct: Option<u32>,
}

impl Shape {
    /// A shape without throttling.
    pub fn new(id: impl Into<String>, vcpu: u32, mem_mib: u64, default_disk_mib: u64) -> Self {
        Self { id: id.into(), vcpu, mem_mib, default_disk_mib, cpu_quota_pct: None }
    }
}

/// The root filesystems a sandbox can start from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RootfsCatalog {
    /// Names that can be ordered.
    #[serde(deserialize_with = "null_as_default")]
    pub rootfs: Vec<String>,
    /// The one used when a create names none.
    pub default: String,
    /// Details; may be missing.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub entries: Vec<RootfsEntry>,
}

impl RootfsCatalog {
    /// A catalog without details.
    pub fn new(rootfs: Vec<String>, default: impl Into<String>) -> Self {
        Self { rootfs, default: default.into(), entries: Vec::new() }
    }
}

/// Details of one root filesystem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RootfsEntry {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether it should no longer be used.
    #[serde(
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub deprecated: bool,
    /// What to use instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub successor: Option<String>,
}

impl RootfsEntry {
    /// An entry with a name alone.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), description: None, deprecated: false, successor: None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{both_ways, tidies};
    use super::*;

    #[test]
    fn shapes() {
        let plain: Shape =
            both_ways(r#"{"id":"s-1vcpu-1gb","vcpu":1,"mem_mib":1024,"default_disk_mib":10240}"#);
        assert_eq!(plain, Shape::new("s-1vcpu-1gb", 1, 1024, 10240));
        let quarter: Shape = both_ways(
            r#"{"id":"s-0.25vcpu-512mb","vcpu":1,"mem_mib":512,"default_disk_mib":10240,
                "cpu_quota_pct":25}"#,
        );
        assert_eq!(quarter.cpu_quota_pct, Some(25));
    }

    #[test]
    fn rootfs_catalog() {
        let catalog: RootfsCatalog = both_ways(
            r#"{"rootfs":["devbox:1","desktop:1","debian:13"],"default":"devbox:1",
            "entries":[{"name":"devbox:1","description":"general development image"},
                       {"name":"node","deprecated":true,"successor":"devbox:1"}]}"#,
        );
        assert!(catalog.entries[1].deprecated);
        tidies::<RootfsCatalog>(
            r#"{"rootfs":null,"default":"","entries":null}"#,
            r#"{"rootfs":[],"default":""}"#,
        );
    }
}
