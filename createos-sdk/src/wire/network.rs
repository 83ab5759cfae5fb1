//! Private networks and who is on them (api.md 4.16, 5.6).

use serde::{Deserialize, Serialize};

use super::{SandboxStatus, null_as_default};
use crate::id::{NetworkId, SandboxId};
use crate::time::Timestamp;

/// Body that creates a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CreateNetwork {
    /// Its name, unique among the caller's networks.
    pub name: String,
}

impl CreateNetwork {
    /// A network of this name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }
}

/// A private network as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkView {
    /// Its id.
    pub id: NetworkId,
    /// Its name.
    pub name: String,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// How many members it has; in lists, and left out when none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_count: Option<u64>,
    /// Its members; not in lists, and left out when none.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<NetworkMember>,
}

impl NetworkView {
    /// A network without members.
    pub fn new(id: NetworkId, name: impl Into<String>, created_at: Timestamp) -> Self {
        let created_at = Some(created_at);
        Self { id, name: name.into(), created_at, member_count: None, members: Vec::new() }
    }
}

/// A sandbox on a network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkMember {
    /// The sandbox.
    pub sandbox_id: SandboxId,
    /// Its state.
    pub status: SandboxStatus,
    /// Its address on this network; absent for the first seconds. Not its management address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// Its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl NetworkMember {
    /// A member whose address is not known yet.
    pub fn new(sandbox_id: SandboxId, status: SandboxStatus) -> Self {
        Self { sandbox_id, status, ip: None, name: None }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{both_ways, tidies};
    use super::*;

    #[test]
    fn networks_go_both_ways() {
        both_ways::<CreateNetwork>(r#"{"name":"mesh"}"#);
        let row: NetworkView = both_ways(
            r#"{"id":"net-01k4","name":"mesh","created_at":"2026-08-02T10:00:00Z","member_count":2}"#,
        );
        assert_eq!(row.member_count, Some(2));
        let whole: NetworkView = both_ways(
            r#"{"id":"net-01k4","name":"mesh","created_at":"2026-08-02T10:00:00Z",
            "members":[{"sandbox_id":"sb-1","status":"running","ip":"10.64.0.2","name":"web"},
                       {"sandbox_id":"sb-2","status":"migrating"}]}"#,
        );
        assert_eq!(whole.members[0].ip.as_deref(), Some("10.64.0.2"));
        assert_eq!(whole.members[1].status, SandboxStatus::Unknown("migrating".into()));
        tidies::<NetworkView>(
            r#"{"id":"net-1","name":"mesh","members":null,"x":1}"#,
            r#"{"id":"net-1","name":"mesh"}"#,
        );
    }
}
