//! Which addresses a sandbox may reach without being told so, and which never.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// How far an address is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// Everybody's.
    Public,
    /// Of this machine's neighbourhood, or of its own: only where a rule lists it.
    Listed,
    /// Loopback, what only routers answer, metadata of clouds: whatever the rules say.
    Never,
}

/// By the address alone.
pub(crate) fn reach(ip: IpAddr) -> Reach {
    match ip {
        IpAddr::V4(ip) => reach_v4(ip),
        IpAddr::V6(ip) => reach_v6(ip),
    }
}

fn reach_v4(ip: Ipv4Addr) -> Reach {
    /// Metadata services that are not link-local (Alibaba, Azure).
    const METADATA: [Ipv4Addr; 2] =
        [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];
    let [a, b, c, _] = ip.octets();
    match (a, b, c) {
        _ if METADATA.contains(&ip) => Reach::Never,
        (0 | 127 | 224..=255, ..) | (169, 254, _) | (192, 0, 0) => Reach::Never,
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Reach::Listed,
        (100, 64..=127, _) | (198, 18..=19, _) => Reach::Listed,
        _ => Reach::Public,
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    const METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    let [a, b, c, d, e, f, g, h] = ip.segments();
    let v4 = |high: u16, low: u16| reach_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match (a, b) {
        _ if ip == METADATA => Reach::Never,
        // Unspecified, loopback, IPv4 in its place: whatever that leads to, it is no IPv6.
        (0, 0) if [c, d, e] == [0; 3] && matches!(f, 0 | 0xffff) => match (g, h) {
            (0, _) => Reach::Never,
            _ => v4(g, h),
        },
        // What translators and relays take for IPv4.
        (0x64, 0xff9b) if [c, d, e, f] == [0; 4] => v4(g, h),
        (0x2002, high) => v4(high, c),
        (0xfe80..=0xfebf | 0xff00..=0xffff, _) => Reach::Never,
        (0xfc00..=0xfdff | 0xfec0..=0xfeff, _) | (0x64, 0xff9b) => Reach::Listed,
        _ => Reach::Public,
    }
}

/// Whether an address is this machine's own: what goes there comes from there.
pub(crate) fn is_own(ip: IpAddr) -> bool {
    let any: SocketAddr = match ip {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Nothing is sent by this: it only asks the kernel for the way.
    let asked = UdpSocket::bind(any).and_then(|socket| {
        socket.connect((ip, 9))?;
        socket.local_addr()
    });
    asked.is_ok_and(|from| from.ip() == ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Reach {
        reach(text.parse().unwrap())
    }

    #[test]
    fn what_is_near_is_out_of_reach_in_every_spelling() {
        for never in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "224.0.0.251",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.0.192",
            "100.100.100.200",
            "168.63.129.16",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::1",
            "2002:a9fe:a9fe::",
        ] {
            assert_eq!(of(never), Reach::Never, "{never}");
        }
        for listed in [
            "10.0.0.2",
            "10.255.255.53",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "fc00::1",
            "fdff::1",
            "fec0::1",
            "::ffff:10.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:c0a8:101::1",
        ] {
            assert_eq!(of(listed), Reach::Listed, "{listed}");
        }
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.2.7",
            "198.51.100.2",
            "203.0.113.7",
            "223.255.255.255",
            "100.63.0.1",
            "100.128.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
        ] {
            assert_eq!(of(public), Reach::Public, "{public}");
        }
    }

    #[test]
    fn this_machine_knows_its_own_addresses() {
        assert!(is_own([127, 0, 0, 1].into()));
        assert!(!is_own([198, 51, 100, 77].into()));
    }
}
