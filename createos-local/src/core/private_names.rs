//! Names of sandboxes on private networks (api.md 6.6): for each, by what others know it,
//! and where. Whoever shares no network with it does not know it.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{PoisonError, RwLock};

use createos_sdk::SandboxId;

use crate::net::Zone;
use crate::vpn::Directory;

/// The domain of these names.
const DOMAIN: &str = "fc.local";

/// Who is on which network. What is in it is what the store says.
#[derive(Debug, Default)]
pub(crate) struct PrivateNames(RwLock<HashMap<SandboxId, Known>>);

/// A sandbox that is on some network.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) name: String,
    pub(crate) places: Vec<Place>,
}

/// Its place on one.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) network: String,
    pub(crate) network_name: String,
    pub(crate) ip: Ipv4Addr,
}

impl PrivateNames {
    /// From now on, a sandbox is known so; without places, not at all.
    pub(crate) fn set(&self, sandbox: &SandboxId, known: Known) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.places.is_empty() {
            all.remove(sandbox);
        } else {
            all.insert(sandbox.clone(), known);
        }
    }

    pub(crate) fn remove(&self, sandbox: &SandboxId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(sandbox);
    }

    /// The addresses that a name, in lower case, means to a sandbox.
    fn find(&self, sandbox: &SandboxId, name: &str) -> Option<Vec<IpAddr>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let own = &all.get(sandbox)?.places;
        find_on(&all, name, |network| own.iter().any(|own| own.network == network))
    }

    /// Whether a name is of this domain, whoever has it.
    fn is_private(name: &str) -> bool {
        name.strip_suffix(DOMAIN).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    }
}

impl Zone for PrivateNames {
    fn lookup(&self, sandbox: &SandboxId, name: &str) -> Option<Vec<IpAddr>> {
        self.find(sandbox, name)
    }

    fn owns(&self, name: &str) -> bool {
        Self::is_private(name)
    }
}

/// Of a name, the addresses on networks that whoever asks is on.
fn find_on(
    all: &HashMap<SandboxId, Known>,
    name: &str,
    is_on: impl Fn(&str) -> bool,
) -> Option<Vec<IpAddr>> {
    let (peer, network) = split(name)?;
    let is_it = |id: &SandboxId, known: &Known| known.name == peer || id.as_str() == peer;
    let is_shared = |place: &&Place| {
        network.is_none_or(|name| place.network_name.eq_ignore_ascii_case(name))
            && is_on(&place.network)
    };
    let peers = all.iter().filter(|(id, known)| is_it(id, known));
    let places = peers.flat_map(|(_, known)| known.places.iter().filter(is_shared));
    let found: Vec<IpAddr> = places.map(|place| place.ip.into()).collect();
    (!found.is_empty()).then_some(found)
}

impl Directory for PrivateNames {
    fn find(&self, networks: &[String], name: &str) -> Option<Option<Vec<IpAddr>>> {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        match find_on(&all, name, |network| networks.iter().any(|own| own == network)) {
            Some(found) => Some(Some(found)),
            None => Self::is_private(name).then_some(None),
        }
    }
}

/// The sandbox that a name names, and the network if it does. A bare label may be one.
fn split(name: &str) -> Option<(&str, Option<&str>)> {
    let Some(labels) = name.strip_suffix(DOMAIN) else {
        return (!name.contains('.')).then_some((name, None));
    };
    let labels = labels.strip_suffix('.')?;
    match labels.split_once('.') {
        None => Some((labels, None)),
        Some((_, network)) if network.contains('.') => None,
        Some((peer, network)) => Some((peer, Some(network))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SandboxId {
        text.parse().unwrap()
    }

    fn known(name: &str, places: &[(&str, u8)]) -> Known {
        let place = |(network, last): &(&str, u8)| Place {
            network: format!("net-{network}"),
            network_name: (*network).to_owned(),
            ip: Ipv4Addr::new(10, 64, 0, *last),
        };
        Known { name: name.to_owned(), places: places.iter().map(place).collect() }
    }

    #[test]
    fn every_form_of_a_name_is_known_to_members_alone() {
        let names = PrivateNames::default();
        names.set(&id("sb-web"), known("web", &[("mesh", 2), ("Back", 9)]));
        names.set(&id("sb-db"), known("db", &[("mesh", 3), ("Back", 8)]));
        names.set(&id("sb-far"), known("far", &[("other", 2)]));
        names.set(&id("sb-none"), known("none", &[]));
        let find = |who: &str, name: &str| {
            let found = names.find(&id(who), name).unwrap_or_default();
            let last = |ip: IpAddr| ip.to_string().rsplit_once('.').unwrap().1.parse().unwrap();
            let mut found: Vec<u8> = found.into_iter().map(last).collect();
            found.sort_unstable();
            found
        };
        assert_eq!(find("sb-db", "web.fc.local"), [2, 9]);
        assert_eq!(find("sb-db", "web.mesh.fc.local"), [2]);
        assert_eq!(find("sb-db", "web.back.fc.local"), [9]);
        assert_eq!(find("sb-db", "sb-web.fc.local"), [2, 9]);
        assert_eq!(find("sb-db", "web"), [2, 9]);
        assert_eq!(find("sb-db", "db"), [3, 8], "itself, too");
        for name in
            ["far.fc.local", "far", "web.other.fc.local", "a.web.mesh.fc.local", "fc.local", ""]
        {
            assert!(find("sb-db", name).is_empty(), "{name}");
        }
        for name in [".fc.local", "..fc.local", "web.example.org", "web.local", "webfc.local"] {
            assert!(find("sb-db", name).is_empty(), "{name}");
        }
        for who in ["sb-far", "sb-none", "sb-unheard"] {
            assert!(find(who, "web.fc.local").is_empty(), "{who}");
        }
        names.remove(&id("sb-web"));
        assert!(find("sb-db", "web").is_empty());
    }

    #[test]
    fn the_domain_is_nobody_else_s() {
        for name in ["fc.local", "x.fc.local", "a.b.c.fc.local"] {
            assert!(PrivateNames::is_private(name), "{name}");
        }
        for name in ["local", "xfc.local", "fc.local.org", "web"] {
            assert!(!PrivateNames::is_private(name), "{name}");
        }
    }
}
