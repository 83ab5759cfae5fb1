//! Outbound rules and traffic (api.md 4.14, 4.15).

use serde::{Deserialize, Serialize};

use super::null_as_default;
use crate::id::SandboxId;

/// Outbound rules of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Egress {
    /// The sandbox.
    pub id: SandboxId,
    /// The rules; always sent, empty means open.
    #[serde(default, deserialize_with = "null_as_default")]
    pub egress: Vec<String>,
}

impl Egress {
    /// The rules of a sandbox.
    pub fn new(id: SandboxId, egress: Vec<String>) -> Self {
        Self { id, egress }
    }
}

/// Body that replaces the outbound rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SetEgress {
    /// The rules; empty, `null`, absent and `["*"]` all mean open.
    #[serde(default, deserialize_with = "null_as_default")]
    pub egress: Vec<String>,
}

impl SetEgress {
    /// Sets these rules.
    pub fn new(egress: Vec<String>) -> Self {
        Self { egress }
    }
}

/// Body that adds to the traffic quota. Read also from `{"gib": n}`, which one client sends
/// (api.md 9.19).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AnyRecharge")]
#[non_exhaustive]
pub struct RechargeBandwidth {
    /// Bytes to add.
    pub add_bytes: i64,
}

impl RechargeBandwidth {
    /// Adds so many bytes.
    pub fn new(add_bytes: i64) -> Self {
        Self { add_bytes }
    }
}

#[derive(Deserialize)]
struct AnyRecharge {
    #[serde(default)]
    add_bytes: Option<i64>,
    #[serde(default)]
    gib: Option<i64>,
}

impl TryFrom<AnyRecharge> for RechargeBandwidth {
    type Error = &'static str;

    fn try_from(read: AnyRecharge) -> Result<Self, Self::Error> {
        let gib = || read.gib.map(|gib| gib.checked_mul(1 << 30).ok_or("gib is too large"));
        match read.add_bytes {
            Some(add_bytes) => Ok(Self { add_bytes }),
            None => Ok(Self { add_bytes: gib().ok_or("missing field `add_bytes`")?? }),
        }
    }
}

/// Traffic of a sandbox. Exec, file, tunnel and shell traffic does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Bandwidth {
    /// The sandbox.
    pub id: SandboxId,
    /// Outbound bytes allowed in total; -1 means unmetered.
    pub quota_bytes: i64,
    /// Outbound bytes started by the sandbox.
    pub used_bytes: i64,
    /// Inbound bytes, observed only; some servers leave it out.
    #[serde(default, deserialize_with = "null_as_default")]
    pub ingress_bytes: i64,
    /// Quota minus used; may be negative.
    pub remaining_bytes: i64,
    /// Whether outbound traffic is cut off now.
    pub capped: bool,
}

impl Bandwidth {
    /// Counters of a sandbox; what remains and whether it is capped follow from them.
    pub fn new(id: SandboxId, quota_bytes: i64, used_bytes: i64, ingress_bytes: i64) -> Self {
        let metered = quota_bytes >= 0;
        Self {
            id,
            quota_bytes,
            used_bytes,
            ingress_bytes,
            remaining_bytes: if metered { quota_bytes.saturating_sub(used_bytes) } else { -1 },
            capped: metered && used_bytes >= quota_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{both_ways, tidies};
    use super::*;

    #[test]
    fn egress_is_always_an_array() {
        both_ways::<Egress>(r#"{"id":"sb-1","egress":["api.example.org:443"]}"#);
        tidies::<Egress>(r#"{"id":"sb-1","egress":null}"#, r#"{"id":"sb-1","egress":[]}"#);
    }

    #[test]
    fn bandwidth_of_the_contract() {
        let read: Bandwidth = both_ways(
            r#"{"id":"sb-1","quota_bytes":5368709120,"used_bytes":1048576,"ingress_bytes":20480,
                "remaining_bytes":5367660544,"capped":false}"#,
        );
        assert_eq!(read, Bandwidth::new(read.id.clone(), 5_368_709_120, 1_048_576, 20_480));
        assert!(Bandwidth::new(read.id.clone(), 10, 12, 0).capped);
        assert!(!Bandwidth::new(read.id, -1, 12, 0).capped);
    }

    #[test]
    fn rules_to_set() {
        both_ways::<SetEgress>(r#"{"egress":["*"]}"#);
        for open in ["{}", r#"{"egress":null}"#, r#"{"egress":[]}"#] {
            tidies::<SetEgress>(open, r#"{"egress":[]}"#);
        }
    }

    #[test]
    fn recharges() {
        both_ways::<RechargeBandwidth>(r#"{"add_bytes":1073741824}"#);
        tidies::<RechargeBandwidth>(r#"{"gib":2}"#, r#"{"add_bytes":2147483648}"#);
        tidies::<RechargeBandwidth>(r#"{"gib":2,"add_bytes":1}"#, r#"{"add_bytes":1}"#);
        for bad in ["{}", r#"{"gib":9223372036854775807}"#, r#"{"add_bytes":"1"}"#] {
            assert!(serde_json::from_str::<RechargeBandwidth>(bad).is_err(), "{bad}");
        }
    }
}
