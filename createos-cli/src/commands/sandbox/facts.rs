//! How single facts about a sandbox are worded.

use createos_sdk::wire::{Bandwidth, SandboxView};

use crate::output::format;
use crate::value::duration;

/// The outbound rules.
pub(super) fn firewall(rules: &[String]) -> String {
    if rules.is_empty() { "open (no rules)".to_owned() } else { rules.join(", ") }
}

/// Whether it can be reached from outside.
pub(super) fn has_address(view: &SandboxView) -> bool {
    view.ingress_enabled.unwrap_or(view.ingress_url_template.is_some())
}

/// The public address, or that there is none.
pub(super) fn address(view: &SandboxView) -> String {
    view.ingress_url_template.clone().unwrap_or_else(|| "off".to_owned())
}

/// The idle time after which it pauses by itself.
pub(super) fn auto_pause(view: &SandboxView) -> String {
    view.auto_pause_after().map_or_else(|| "off".to_owned(), duration::show)
}

/// Outbound traffic against its quota; what is left when it is little.
pub(super) fn bandwidth(facts: &Bandwidth) -> String {
    let used = format::bytes(u64::try_from(facts.used_bytes).unwrap_or(0));
    let Ok(quota) = u64::try_from(facts.quota_bytes) else {
        return format!("{used} used, unmetered");
    };
    let mut text = format!("{used} used of {}", format::bytes(quota));
    let left = u64::try_from(facts.remaining_bytes).unwrap_or(0);
    if facts.capped {
        text.push_str("   (capped: top up with \"sandbox edit\")");
    } else if left < quota / 10 {
        text.push_str(&format!("   ({} left)", format::bytes(left)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bandwidth_says_what_is_left_when_it_is_little() {
        let said = |quota, used| {
            let mut facts = Bandwidth::new("sb-1".parse().unwrap(), quota, used, 0);
            facts.capped = quota >= 0 && used >= quota;
            bandwidth(&facts)
        };
        assert_eq!(said(-1, 2048), "2.0 kB used, unmetered");
        assert_eq!(said(10 << 30, 1 << 30), "1.0 GB used of 10.0 GB");
        assert_eq!(
            said(10 << 20, 10 << 20),
            "10.0 MB used of 10.0 MB   (capped: top up with \"sandbox edit\")"
        );
        assert_eq!(said(1000 << 20, 950 << 20), "950.0 MB used of 1000.0 MB   (50.0 MB left)");
    }
}
