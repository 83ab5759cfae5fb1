//! Which names an address had in the answers that a sandbox got: where a rule allows a name,
//! it is allowed there.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;

/// Addresses that are remembered; the one that ends first makes room.
const MOST: usize = 4096;
/// Names of one address.
const MOST_NAMES: usize = 64;
/// Programs keep addresses for longer than answers say.
const SHORTEST: Duration = Duration::from_secs(600);
const LONGEST: Duration = Duration::from_secs(86_400);

#[derive(Debug, Default)]
pub(crate) struct Pins {
    names: HashMap<IpAddr, Vec<(String, Instant)>>,
}

impl Pins {
    /// Remembers that a name was answered with this address.
    pub(crate) fn add(&mut self, ip: IpAddr, name: &str, ttl: Duration) {
        let now = Instant::now();
        let until = now + ttl.clamp(SHORTEST, LONGEST);
        if self.names.len() >= MOST && !self.names.contains_key(&ip) {
            self.make_room(now);
        }
        let names = self.names.entry(ip).or_default();
        names.retain(|(own, end)| own != name && *end > now);
        if names.len() >= MOST_NAMES {
            names.remove(0);
        }
        names.push((name.to_owned(), until));
    }

    fn make_room(&mut self, now: Instant) {
        let end = |names: &[(String, Instant)]| names.iter().map(|(_, end)| *end).max();
        self.names.retain(|_, names| end(names).is_some_and(|end| end > now));
        if self.names.len() >= MOST {
            let first = self.names.iter().min_by_key(|(_, names)| end(names)).map(|(ip, _)| *ip);
            first.and_then(|first| self.names.remove(&first));
        }
    }

    /// Whether the address has a name for which this holds.
    pub(crate) fn any(&self, ip: IpAddr, holds: impl Fn(&str) -> bool) -> bool {
        let now = Instant::now();
        let names = self.names.get(&ip).into_iter().flatten();
        names.into_iter().any(|(name, end)| *end > now && holds(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn names_are_kept_for_a_while_and_their_number_is_bounded() {
        let mut pins = Pins::default();
        let ip: IpAddr = [203, 0, 113, 7].into();
        pins.add(ip, "a.test", Duration::ZERO);
        assert!(pins.any(ip, |name| name == "a.test"));
        assert!(!pins.any(ip, |name| name == "b.test"));
        tokio::time::advance(SHORTEST).await;
        assert!(!pins.any(ip, |_| true));
        for number in 0..1000 {
            pins.add(ip, &format!("{number}.test"), Duration::ZERO);
        }
        assert_eq!(pins.names[&ip].len(), MOST_NAMES);
        for number in 0..10_000u32 {
            pins.add(std::net::Ipv4Addr::from(number).into(), "a.test", Duration::ZERO);
        }
        assert_eq!(pins.names.len(), MOST);
    }
}
