//! What is printed of a sandbox that was just made.

use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output;
use crate::resolve::Found;

/// Curated keys first, then everything that the server said. A curated text
/// without a value is empty.
pub(super) fn document(
    action: &str,
    found: &Found,
    keys: &[&'static str],
    extra: &[(&'static str, Value)],
    server: &Value,
) -> Result<Value, Failure> {
    let text = |key: &str| server.get(key).cloned().unwrap_or_else(|| json!(""));
    let mut curated = vec![("action", json!(action)), ("id", json!(found.id.as_str()))];
    curated.extend(keys.iter().map(|&key| (key, text(key))));
    curated.push(("ip", text("ip")));
    curated.push(("ingress_url", text("ingress_url_template")));
    curated.extend(extra.iter().cloned());
    curated.push(("shell_command", json!(format!("createos sandbox shell {}", found.id))));
    output::document(&curated, server)
}

/// The public address for people, if there is one.
pub(super) fn url(document: &Value) -> Option<String> {
    let url = word(document, "ingress_url")?;
    Some(format!("{url}   replace <port> with your service's port"))
}

/// A text of the document that is not empty.
pub(super) fn word<'a>(document: &'a Value, key: &str) -> Option<&'a str> {
    document[key].as_str().filter(|text| !text.is_empty())
}

/// The line that removes these.
pub(super) fn removal(made: &[Found]) -> String {
    let names: Vec<&str> = made.iter().map(|found| found.id.as_str()).collect();
    format!("createos sandbox rm {} --force", names.join(" "))
}
