//! Measurements, whose fields no source names (api.md 5.10, 9.13).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Measurements as a server chose to send them: any JSON object, kept whole.
///
/// **Unofficial**: the API does not say what is in it. The named getters read what the local
/// engine sends.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Metrics(Map<String, Value>);

impl Metrics {
    /// Measurements without any.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a number; one that is not finite is left out.
    pub fn set_number(&mut self, name: impl Into<String>, value: f64) {
        if let Some(number) = serde_json::Number::from_f64(value) {
            self.0.insert(name.into(), Value::Number(number));
        }
    }

    /// Adds a count.
    pub fn set_count(&mut self, name: impl Into<String>, value: u64) {
        self.0.insert(name.into(), value.into());
    }

    /// Adds a text.
    pub fn set_text(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.insert(name.into(), Value::String(value.into()));
    }

    /// The number in a field, when there is one.
    pub fn number(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.as_f64()
    }

    /// The count in a field, when there is one.
    pub fn count(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_u64()
    }

    /// The text in a field, when there is one.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// The names of all fields.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// Everything, as JSON.
    pub fn to_json(&self) -> String {
        Value::Object(self.0.clone()).to_string()
    }

    /// Use of the CPU in percent of one.
    pub fn cpu_pct(&self) -> Option<f64> {
        self.number("cpu_pct")
    }

    /// Memory in use, in bytes.
    pub fn mem_used_bytes(&self) -> Option<u64> {
        self.count("mem_used_bytes")
    }

    /// Memory there is, in bytes.
    pub fn mem_total_bytes(&self) -> Option<u64> {
        self.count("mem_total_bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::super::golden::both_ways;
    use super::*;

    #[test]
    fn any_object_is_kept_whole() {
        let json = r#"{"id":"sb-1","cpu_pct":12.5,"mem_used_bytes":1024,"mem_total_bytes":4096,
            "ts":"2026-08-02T10:00:00Z","disks":[{"a":null}]}"#;
        let metrics: Metrics = both_ways(json);
        assert_eq!(metrics.cpu_pct(), Some(12.5));
        assert_eq!((metrics.mem_used_bytes(), metrics.mem_total_bytes()), (Some(1024), Some(4096)));
        assert_eq!((metrics.text("id"), metrics.number("id")), (Some("sb-1"), None));
        assert_eq!(metrics.names().count(), 6);
        let again: Metrics = serde_json::from_str(&metrics.to_json()).unwrap();
        assert_eq!(again, metrics);
        assert!(serde_json::from_str::<Metrics>("[1]").is_err());
    }

    #[test]
    fn made_by_hand() {
        let mut metrics = Metrics::new();
        metrics.set_text("id", "sb-1");
        metrics.set_number("cpu_pct", 0.5);
        metrics.set_number("nonsense", f64::NAN);
        metrics.set_count("mem_used_bytes", 7);
        // As a value: a program around us may ask serde_json to keep another order.
        let json: serde_json::Value = serde_json::from_str(&metrics.to_json()).unwrap();
        let expected = serde_json::json!({"cpu_pct": 0.5, "id": "sb-1", "mem_used_bytes": 7});
        assert_eq!(json, expected);
    }
}
