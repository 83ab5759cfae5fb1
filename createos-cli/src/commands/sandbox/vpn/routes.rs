//! Where this machine's packets go now, and what a tunnel would take from that.

use std::fs;
use std::net::Ipv4Addr;

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Range {
    first: u32,
    prefix: u32,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let (first, prefix) = text.split_once('/').unwrap_or((text, "32"));
        let first: Ipv4Addr = first.trim().parse().ok()?;
        let prefix = prefix.trim().parse().ok().filter(|prefix| *prefix <= 32)?;
        Some(Self { first: first.to_bits(), prefix })
    }

    fn overlaps(self, other: Self) -> bool {
        let shared = self.prefix.min(other.prefix);
        let mask = u32::MAX.checked_shl(32 - shared).unwrap_or(0);
        self.first & mask == other.first & mask
    }
}

/// The first of these networks that this machine reaches already by another interface than
/// `own`, and that interface.
pub(super) fn taken(networks: &[&str], own: &str) -> Option<(String, String)> {
    let table = fs::read_to_string("/proc/net/route").unwrap_or_default();
    taken_in(&table, networks, own)
}

fn taken_in(table: &str, networks: &[&str], own: &str) -> Option<(String, String)> {
    let routes: Vec<(&str, Range)> = table.lines().skip(1).filter_map(route).collect();
    networks.iter().find_map(|network| {
        let wanted = Range::parse(network)?;
        let is_taken = |(interface, range): &&(&str, Range)| {
            // The way to everywhere stands behind all others.
            *interface != own && range.prefix > 0 && range.overlaps(wanted)
        };
        let (interface, _) = routes.iter().find(is_taken)?;
        Some(((*network).to_owned(), (*interface).to_owned()))
    })
}

/// A line of the kernel's table; addresses in it are words of this machine.
fn route(line: &str) -> Option<(&str, Range)> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let word = |at: usize| u32::from_str_radix(fields.get(at)?, 16).ok().map(u32::from_be);
    let (first, mask) = (word(1)?, word(7)?);
    Some((fields.first()?, Range { first, prefix: mask.count_ones() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n\
        eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
        eth0\t000200C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n\
        docker0\t0000400A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n\
        cosvpn\t00044A0A\t00000000\t0001\t0\t0\t0\t00FCFFFF\t0\t0\t0\n";

    #[test]
    fn only_routes_of_others_are_in_the_way() {
        let taken = |networks: &[&str]| taken_in(TABLE, networks, "cosvpn");
        let docker = Some(("10.64.4.0/22".to_owned(), "docker0".to_owned()));
        assert_eq!(taken(&["100.64.0.1/32", "10.64.4.0/22"]), docker);
        assert_eq!(taken(&["10.74.4.0/22", "10.65.0.0/22", "100.64.0.1"]), None);
        assert_eq!(taken(&["192.0.2.7"]).map(|(_, by)| by).as_deref(), Some("eth0"));
        assert!(taken(&["0.0.0.0/0"]).is_some(), "everything is in somebody's way");
        assert_eq!(taken(&["::/0", "", "10.64.0.0/40"]), None);
        assert_eq!(taken_in("", &["10.64.0.0/22"], "cosvpn"), None);
    }
}
