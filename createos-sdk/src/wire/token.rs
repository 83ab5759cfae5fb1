//! Access tokens delegated to one sandbox (api.md 4.12).

use serde::{Deserialize, Serialize};

use crate::secret::Secret;
use crate::time::Timestamp;

/// A token just made; the only time it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccessToken {
    /// The token itself.
    pub token: Secret,
    /// Whether it is accepted.
    pub enabled: bool,
    /// When the first token was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When it last took the place of another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Timestamp>,
}

impl AccessToken {
    /// A token that is accepted.
    pub fn new(token: impl Into<Secret>, created_at: Timestamp) -> Self {
        let created_at = Some(created_at);
        Self { token: token.into(), enabled: true, created_at, rotated_at: None }
    }
}

/// What can be known about a token later.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct AccessTokenView {
    /// Whether there is one that is accepted.
    pub enabled: bool,
    /// Its beginning and its end, to recognise it by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_hint: Option<String>,
    /// When the first token was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When it last took the place of another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Timestamp>,
}

impl AccessTokenView {
    /// No token.
    pub fn none() -> Self {
        Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::both_ways;
    use super::*;

    #[test]
    fn tokens_go_both_ways_and_do_not_show() {
        let token: AccessToken = both_ways(
            r#"{"token":"skp_sb_hunter2","enabled":true,"created_at":"2026-08-02T10:00:00Z",
                "rotated_at":"2026-08-02T11:00:00Z"}"#,
        );
        assert!(!format!("{token:?}").contains("hunter2"));
        assert_eq!(both_ways::<AccessTokenView>(r#"{"enabled":false}"#), AccessTokenView::none());
        both_ways::<AccessTokenView>(
            r#"{"enabled":true,"token_hint":"skp_sb_AbCd...wXyZ",
                "created_at":"2026-08-02T10:00:00Z","rotated_at":"2026-08-02T11:00:00Z"}"#,
        );
    }
}
