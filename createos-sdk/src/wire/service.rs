//! Health, readiness and identity (api.md 3.1 to 3.3).

use serde::{Deserialize, Serialize};

/// Answer of `/healthz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Health {
    /// Whether the server is up.
    pub up: bool,
}

impl Health {
    /// A health answer.
    pub fn new(up: bool) -> Self {
        Self { up }
    }
}

/// Answer of `/readyz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Readiness {
    /// Whether sandboxes can be created.
    pub ready: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Milliseconds since the scheduler last worked; left out when zero.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler_last_ok_ms_ago: Option<u64>,
}

impl Readiness {
    /// A readiness answer without details.
    pub fn new(ready: bool) -> Self {
        Self { ready, reason: None, scheduler_last_ok_ms_ago: None }
    }
}

/// Answer of `/v1/whoami`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct WhoAmI {
    /// The caller.
    pub user_id: String,
    /// Counts of the caller's sandboxes.
    pub stats: SandboxStats,
}

impl WhoAmI {
    /// An identity with its counts.
    pub fn new(user_id: impl Into<String>, stats: SandboxStats) -> Self {
        Self { user_id: user_id.into(), stats }
    }
}

/// How many sandboxes a caller has. Destroyed ones do not count.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct SandboxStats {
    /// Running ones.
    pub running: u64,
    /// Paused ones.
    pub paused: u64,
    /// Those in any other state.
    pub other: u64,
    /// All of them.
    pub total: u64,
}

impl SandboxStats {
    /// Counts with their sum.
    pub fn new(running: u64, paused: u64, other: u64) -> Self {
        Self { running, paused, other, total: running + paused + other }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::both_ways;
    use super::*;

    #[test]
    fn service_answers_of_the_contract() {
        assert_eq!(both_ways::<Health>(r#"{"up":true}"#), Health::new(true));
        both_ways::<Readiness>(r#"{"ready":true}"#);
        let readiness: Readiness = both_ways(
            r#"{"ready":false,"reason":"scheduler stalled","scheduler_last_ok_ms_ago":45210}"#,
        );
        assert_eq!(readiness.reason.as_deref(), Some("scheduler stalled"));
        let me: WhoAmI = both_ways(
            r#"{"user_id":"usr_7f3c","stats":{"running":2,"paused":1,"other":0,"total":3}}"#,
        );
        assert_eq!(me, WhoAmI::new("usr_7f3c", SandboxStats::new(2, 1, 0)));
    }
}
