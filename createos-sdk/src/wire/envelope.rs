//! The wrapper around every JSON answer (api.md 1.8).

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::open_enum;

open_enum! {
    /// How an answer turned out.
    pub enum EnvelopeStatus {
        /// It worked.
        Success = "success",
        /// The request was at fault.
        Fail = "fail",
        /// The server was at fault.
        Error = "error",
    }
}

/// An answer that carries data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Envelope<T> {
    /// How it turned out.
    pub status: EnvelopeStatus,
    /// What was asked for.
    pub data: T,
}

impl<T> Envelope<T> {
    /// The answer to a request that worked.
    pub fn success(data: T) -> Self {
        Self { status: EnvelopeStatus::Success, data }
    }

    /// A refusal that still carries data: readiness with 503 (api.md 3.2). For an ordinary
    /// refusal see [`Failure`].
    pub fn fail(data: T) -> Self {
        Self { status: EnvelopeStatus::Fail, data }
    }
}

/// The data of an answer that has nothing to say: `{"ok":true}`. Never `null`, which some
/// clients cannot read (api.md 8.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Ack {
    /// Always true.
    #[serde(default)]
    pub ok: bool,
}

impl Ack {
    /// The acknowledgement.
    pub fn new() -> Self {
        Self { ok: true }
    }
}

impl Default for Ack {
    fn default() -> Self {
        Self::new()
    }
}

/// The body of a refused or failed request.
///
/// Written as the union that every known client reads: `data` as the API documents it and
/// the same text once more in `message`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Failure {
    /// `fail` or `error`; in a body without it, an unknown empty text.
    pub status: EnvelopeStatus,
    /// One sentence for a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// What was wrong.
    #[serde(skip_serializing_if = "FailureData::is_absent")]
    pub data: FailureData,
    /// A number, usually the HTTP status.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
}

/// What a failure says was wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
#[non_exhaustive]
pub enum FailureData {
    /// Nothing: left out or `null`.
    Absent,
    /// A sentence.
    Text(String),
    /// Reasons by field. A value that is not text was kept as its JSON.
    Fields(BTreeMap<String, String>),
}

impl FailureData {
    fn is_absent(&self) -> bool {
        *self == Self::Absent
    }
}

impl Failure {
    /// Refuses a request, with a sentence.
    pub fn fail(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            status: EnvelopeStatus::Fail,
            message: Some(message.clone()),
            data: FailureData::Text(message),
            code: None,
        }
    }

    /// Refuses a request because of one field.
    pub fn field(field: impl Into<String>, why: impl Into<String>) -> Self {
        let (field, why) = (field.into(), why.into());
        Self {
            status: EnvelopeStatus::Fail,
            message: Some(format!("{field}: {why}")),
            data: FailureData::Fields(BTreeMap::from([(field, why)])),
            code: None,
        }
    }

    /// Reports a fault of the server, with the HTTP status it goes out under.
    pub fn error(message: impl Into<String>, status: u16) -> Self {
        Self {
            status: EnvelopeStatus::Error,
            message: Some(message.into()),
            data: FailureData::Absent,
            code: Some(i64::from(status)),
        }
    }

    /// The sentence to show: `message`, else the text of `data`, else `data.message`, else
    /// every field as `name: reason`. `None` when the body says nothing.
    pub fn text(&self) -> Option<Cow<'_, str>> {
        if let Some(message) = self.message.as_deref().filter(|text| !text.trim().is_empty()) {
            return Some(message.into());
        }
        match &self.data {
            FailureData::Text(text) if !text.trim().is_empty() => Some(text.as_str().into()),
            FailureData::Fields(fields) => match fields.get("message") {
                Some(message) if !message.is_empty() => Some(message.as_str().into()),
                _ => joined(fields).map(Cow::Owned),
            },
            _ => None,
        }
    }

    /// The machine-readable code: `data.code` when it is text, else the top-level number.
    pub fn text_code(&self) -> Option<String> {
        let in_data = match &self.data {
            FailureData::Fields(fields) => fields.get("code").filter(|code| !code.is_empty()),
            _ => None,
        };
        in_data.cloned().or_else(|| self.code.map(|code| code.to_string()))
    }
}

fn joined(fields: &BTreeMap<String, String>) -> Option<String> {
    let parts: Vec<_> = fields
        .iter()
        .filter(|(_, why)| !why.is_empty())
        .map(|(field, why)| format!("{field}: {why}"))
        .collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}

// Every form of api.md 1.8 and the forms of proxies in between must yield what they say, so
// nothing but "not a JSON object" is an error here.
impl<'de> Deserialize<'de> for Failure {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut body = serde_json::Map::deserialize(deserializer)?;
        let mut take = |field| body.remove(field).unwrap_or_default();
        Ok(Self {
            status: EnvelopeStatus::from(take("status").as_str().unwrap_or_default()),
            message: take("message").as_str().map(str::to_owned),
            data: read_data(take("data")),
            code: take("code").as_i64(),
        })
    }
}

fn read_data(data: Value) -> FailureData {
    match data {
        Value::Null => FailureData::Absent,
        Value::String(text) => FailureData::Text(text),
        Value::Object(fields) => FailureData::Fields(
            fields.into_iter().map(|(field, value)| (field, read_text(value))).collect(),
        ),
        other => FailureData::Text(other.to_string()),
    }
}

fn read_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::both_ways;
    use super::*;

    #[test]
    fn success() {
        let json = r#"{"status":"success","data":{"ok":true}}"#;
        assert_eq!(both_ways::<Envelope<Ack>>(json), Envelope::success(Ack::new()));
    }

    #[test]
    fn failures_are_written_for_every_client() {
        for (failure, json) in [
            (
                Failure::fail("sandbox not found"),
                r#"{"status":"fail","message":"sandbox not found","data":"sandbox not found"}"#,
            ),
            (
                Failure::field("shape", "unknown shape: s-9"),
                r#"{"status":"fail","message":"shape: unknown shape: s-9",
                    "data":{"shape":"unknown shape: s-9"}}"#,
            ),
            (
                Failure::error("no host with capacity", 503),
                r#"{"status":"error","message":"no host with capacity","code":503}"#,
            ),
        ] {
            assert_eq!(both_ways::<Failure>(json), failure);
        }
    }

    #[test]
    fn every_form_says_what_it_means() {
        for (json, text, code) in [
            (r#"{"status":"fail","data":{"shape":"unknown"}}"#, Some("shape: unknown"), None),
            (r#"{"status":"fail","data":"not found"}"#, Some("not found"), None),
            (r#"{"status":"fail","data":null}"#, None, None),
            (r#"{"status":"fail"}"#, None, None),
            (
                r#"{"status":"fail","data":{"code":"QUOTA","message":"too many"}}"#,
                Some("too many"),
                Some("QUOTA"),
            ),
            (r#"{"status":"error","message":"no host","code":503}"#, Some("no host"), Some("503")),
            (r#"{"status":"error","message":"zero","code":0}"#, Some("zero"), Some("0")),
            (
                r#"{"status":"fail","data":{"b":"2","a":"1","c":null,"d":[3]}}"#,
                Some("a: 1; b: 2; d: [3]"),
                None,
            ),
            (r#"{"status":"fail","message":" ","data":"real"}"#, Some("real"), None),
            (r#"{"status":7,"message":["x"],"data":[1],"code":"x"}"#, Some("[1]"), None),
            (r#"{"error":"gateway"}"#, None, None),
        ] {
            let failure: Failure = serde_json::from_str(json).unwrap();
            assert_eq!(failure.text().as_deref(), text, "{json}");
            assert_eq!(failure.text_code().as_deref(), code, "{json}");
        }
        assert!(serde_json::from_str::<Failure>("[]").is_err());
    }
}
