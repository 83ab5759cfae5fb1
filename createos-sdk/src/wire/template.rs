//! Templates and their build logs (api.md 5.8).

use serde::{Deserialize, Serialize};

use super::{null_as_default, open_enum};
use crate::id::TemplateId;
use crate::time::Timestamp;

open_enum! {
    /// How far the build of a template is.
    pub enum TemplateStatus {
        /// Waiting to be built.
        Pending = "pending",
        /// Being built.
        Building = "building",
        /// Usable as a root filesystem.
        Ready = "ready",
        /// The build failed; the log says why.
        Failed = "failed",
        /// The build was given up. Only as the end of a log.
        Cancelled = "cancelled",
    }
}

impl TemplateStatus {
    /// Whether the build is over.
    pub fn is_final(&self) -> bool {
        matches!(self, Self::Ready | Self::Failed | Self::Cancelled)
    }
}

/// Body that creates a template.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct CreateTemplate {
    /// Its name.
    pub name: String,
    /// How it is built; at most 64 KiB.
    pub dockerfile: String,
    /// Base image of the catalog; absent is the default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
}

impl CreateTemplate {
    /// A template built from this Dockerfile.
    pub fn new(name: impl Into<String>, dockerfile: impl Into<String>) -> Self {
        Self { name: name.into(), dockerfile: dockerfile.into(), base: None }
    }
}

/// A template as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TemplateView {
    /// Its id.
    pub id: TemplateId,
    /// Its name.
    pub name: String,
    /// Base image; always sent, empty when there is none.
    #[serde(default, deserialize_with = "null_as_default")]
    pub base: String,
    /// How far its build is.
    pub status: TemplateStatus,
    /// Size of the built image in bytes; always sent, 0 until built.
    #[serde(default, deserialize_with = "null_as_default")]
    pub ext4_size_bytes: u64,
    /// When it was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Timestamp>,
    /// When it was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built_at: Option<Timestamp>,
    /// How it is built; only where it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dockerfile: Option<String>,
}

impl TemplateView {
    /// A template that waits to be built.
    pub fn new(id: TemplateId, name: impl Into<String>, created_at: Timestamp) -> Self {
        Self {
            id,
            name: name.into(),
            base: String::new(),
            status: TemplateStatus::Pending,
            ext4_size_bytes: 0,
            created_at: Some(created_at),
            built_at: None,
            dockerfile: None,
        }
    }
}

/// A line of the followed log of a build, or its end.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BuildFrame {
    /// When the line was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ts: Option<Timestamp>,
    /// How grave it is, such as `info`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The line, with or without a line break at its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<String>,
    /// Which attempt of the build it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u64>,
    /// Whether this is the end.
    #[serde(
        default,
        rename = "final",
        deserialize_with = "null_as_default",
        skip_serializing_if = "std::ops::Not::not"
    )]
    pub is_final: bool,
    /// How the build ended; with `final`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<TemplateStatus>,
}

impl BuildFrame {
    /// A line of an attempt.
    pub fn line(attempt: u64, level: impl Into<String>, line: impl Into<String>) -> Self {
        Self {
            ts: Some(Timestamp::now()),
            level: Some(level.into()),
            line: Some(line.into()),
            attempt: Some(attempt),
            ..Self::default()
        }
    }

    /// The end of the log.
    pub fn end(status: TemplateStatus) -> Self {
        Self { is_final: true, status: Some(status), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::{both_ways, tidies};
    use super::*;

    #[test]
    fn templates_go_both_ways() {
        both_ways::<CreateTemplate>(r#"{"name":"py","dockerfile":"FROM x"}"#);
        both_ways::<CreateTemplate>(r#"{"name":"py","dockerfile":"FROM x","base":"b"}"#);
        let view: TemplateView = both_ways(
            r#"{"id":"tpl_1","name":"py","base":"nodeops/sandbox:debian","status":"ready",
            "ext4_size_bytes":1048576,"created_at":"2026-08-02T10:00:00Z",
            "built_at":"2026-08-02T10:05:00Z","dockerfile":"FROM x"}"#,
        );
        assert!(view.status.is_final());
        tidies::<TemplateView>(
            r#"{"id":"tpl_1","name":"py","base":null,"status":"queued"}"#,
            r#"{"id":"tpl_1","name":"py","base":"","status":"queued","ext4_size_bytes":0}"#,
        );
    }

    #[test]
    fn frames_of_a_log() {
        let line: BuildFrame = both_ways(
            r#"{"ts":"2026-08-02T10:00:00Z","level":"info","line":"Step 1\n","attempt":1}"#,
        );
        assert_eq!(line.line.as_deref(), Some("Step 1\n"));
        let end: BuildFrame = both_ways(r#"{"final":true,"status":"cancelled"}"#);
        assert_eq!(end, BuildFrame::end(TemplateStatus::Cancelled));
    }
}
