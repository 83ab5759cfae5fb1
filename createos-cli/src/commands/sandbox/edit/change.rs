//! The changes: what is sent, and what is said about it.

use createos_sdk::Sandbox;
use createos_sdk::wire::{PatchSandbox, SandboxView};
use serde_json::{Value, json};

use crate::commands::sandbox::facts;
use crate::failure::Failure;
use crate::output::{self, format};
use crate::resolve::Found;
use crate::value::duration::{self, AutoPause};

/// One call.
pub(super) enum Change {
    /// Settings that go together.
    Settings { ingress: Option<bool>, auto_pause: Option<AutoPause> },
    /// Public keys to add.
    Keys(Vec<String>),
    /// Rules in place of those that hold.
    Egress(Vec<String>),
    /// Bytes to add to the quota.
    Bandwidth(u64),
}

/// A change that was made.
pub(super) struct Done {
    pub(super) line: String,
    pub(super) document: Value,
}

impl Change {
    pub(super) async fn apply(
        self,
        sandbox: &Sandbox,
        found: &Found,
    ) -> Result<Vec<Done>, Failure> {
        let explain = |error| found.explain(error);
        let done = match self {
            Self::Settings { ingress, auto_pause } => {
                let view = sandbox.update(patch(ingress, auto_pause)).await.map_err(explain)?;
                let done = [
                    ingress.map(|_| address(found, &view)),
                    auto_pause.map(|_| idle(found, &view)),
                ];
                return Ok(done.into_iter().flatten().collect());
            }
            Self::Keys(keys) => add_keys(sandbox, found, keys).await.map_err(explain)?,
            Self::Egress(rules) => {
                let rules = sandbox.set_egress(rules).await.map_err(explain)?;
                Done {
                    line: format!("firewall: {}", facts::firewall(&rules)),
                    document: json!({ "action": "egress_updated", "id": found.id.as_str(),
                                      "egress": rules }),
                }
            }
            Self::Bandwidth(bytes) => {
                let now = sandbox.recharge_bandwidth(bytes).await.map_err(explain)?;
                let curated = [
                    ("action", json!("bandwidth_added")),
                    ("id", json!(found.id.as_str())),
                    ("added_bytes", json!(bytes)),
                ];
                Done {
                    line: format!("added {}: {}", format::bytes(bytes), facts::bandwidth(&now)),
                    document: output::document(&curated, &now)?,
                }
            }
        };
        Ok(vec![done])
    }
}

fn patch(ingress: Option<bool>, auto_pause: Option<AutoPause>) -> PatchSandbox {
    let mut patch = PatchSandbox::new();
    patch.ingress_enabled = ingress;
    match auto_pause {
        Some(AutoPause::Off) => patch.disable_auto_pause = Some(true),
        Some(AutoPause::After(idle)) => patch.auto_pause_after_seconds = Some(idle.as_secs()),
        None => {}
    }
    patch
}

/// What the server says it is now.
fn address(found: &Found, view: &SandboxView) -> Done {
    let url = view.ingress_url_template.as_deref().unwrap_or_default();
    let on = facts::has_address(view);
    let line = match (on, url) {
        (false, _) => "public url off".to_owned(),
        (true, "") => "public url on".to_owned(),
        (true, url) => format!("public url on: {url}"),
    };
    let document = json!({ "action": "ingress_updated", "id": found.id.as_str(), "ingress": on,
                           "ingress_url": url });
    Done { line, document }
}

fn idle(found: &Found, view: &SandboxView) -> Done {
    let after = view.auto_pause_after();
    let word = after.map_or_else(|| "off".to_owned(), duration::show);
    let document = json!({ "action": "auto_pause_updated", "id": found.id.as_str(),
                           "auto_pause_after_seconds": after.map(|after| after.as_secs()) });
    Done { line: format!("auto-pause {word}"), document }
}

/// Keys that are there already are not added again, so the difference counts.
async fn add_keys(
    sandbox: &Sandbox,
    found: &Found,
    keys: Vec<String>,
) -> createos_sdk::Result<Done> {
    let before = sandbox.refresh().await?.ssh_pubkeys.len() as u64;
    let total = sandbox.add_ssh_pubkeys(keys).await?;
    let added = total.saturating_sub(before);
    let plural = if added == 1 { "" } else { "s" };
    let document = json!({ "action": "ssh_keys_added", "id": found.id.as_str(),
                           "keys_added": added, "total_keys": total });
    Ok(Done { line: format!("added {added} key{plural}, {total} in all"), document })
}
