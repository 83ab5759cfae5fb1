//! What engine and warden both know of private networks.

// The engine and the warden include this file and use their own part.
#![allow(dead_code)]

use crate::codec::{Malformed, Reader, Writer};
use std::net::Ipv4Addr;

/// Where private networks have their addresses, the first choice first. Sandboxes have
/// theirs in 10.0.0.0/16, and devices in 100.64.0.0/10.
pub(crate) const POOLS: [Subnet; 4] = [
    Subnet::new([10, 64, 0, 0], 10),
    Subnet::new([172, 16, 0, 0], 12),
    Subnet::new([192, 168, 0, 0], 16),
    Subnet::new([198, 18, 0, 0], 15),
];

/// Where devices have theirs.
pub(crate) const DEVICES: Subnet = Subnet::new([100, 64, 0, 0], 10);

/// The longest packet to and from a device: with what WireGuard adds, it fits an Ethernet frame.
pub(crate) const LINE_MTU: u32 = 1420;

/// Addresses that begin alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Subnet {
    first: [u8; 4],
    prefix: u8,
}

impl Subnet {
    /// The first address, and how many of its bits all have.
    pub(crate) const fn new(first: [u8; 4], prefix: u8) -> Self {
        Self { first, prefix: if prefix > 32 { 32 } else { prefix } }
    }

    pub(crate) fn first(self) -> Ipv4Addr {
        self.first.into()
    }

    pub(crate) fn prefix(self) -> u8 {
        self.prefix
    }

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & self.mask() == self.first().to_bits() & self.mask()
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        if self.prefix <= other.prefix {
            self.contains(other.first())
        } else {
            other.contains(self.first())
        }
    }

    /// The router of a network with these addresses.
    pub(crate) fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.first().to_bits() + 1)
    }

    pub(crate) fn write(self, writer: Writer) -> Writer {
        writer.bytes(&self.first).u8(self.prefix)
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self::new(octets(reader)?, reader.u8()?))
    }

    /// The addresses that members of such a network can have.
    pub(crate) fn members(self) -> std::ops::RangeInclusive<u32> {
        let first = self.first().to_bits();
        first + 2..=(first | !self.mask()) - 1
    }
}

fn octets(reader: &mut Reader<'_>) -> Result<[u8; 4], Malformed> {
    reader.bytes()?.try_into().map_err(|_| Malformed)
}

/// A sandbox's place on a private network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    /// The network's id.
    pub(crate) network: String,
    pub(crate) subnet: Subnet,
    /// The sandbox's address there.
    pub(crate) address: Ipv4Addr,
    /// What the link is called inside.
    pub(crate) interface: String,
    /// The devices that are reached by this network, by their addresses.
    pub(crate) devices: Vec<Ipv4Addr>,
}

impl Link {
    pub(crate) fn write(writer: Writer, link: &Self) -> Writer {
        let Self { network, subnet, address, interface, devices } = link;
        let writer = subnet.write(writer.text(network));
        let writer = writer.bytes(&address.octets()).text(interface);
        let writer = writer.u32(u32::try_from(devices.len()).unwrap_or(u32::MAX));
        devices.iter().fold(writer, |writer, device| writer.bytes(&device.octets()))
    }

    /// Whether another one is the same but for the devices.
    pub(crate) fn is_place_of(&self, other: &Self) -> bool {
        let parts = |link: &Self| (link.subnet, link.address);
        self.network == other.network
            && parts(self) == parts(other)
            && self.interface == other.interface
    }

    pub(crate) fn read(reader: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            network: reader.text()?.to_owned(),
            subnet: Subnet::read(reader)?,
            address: octets(reader)?.into(),
            interface: reader.text()?.to_owned(),
            devices: (0..reader.u32()?)
                .map(|_| octets(reader).map(Ipv4Addr::from))
                .collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_know_what_is_in_them() {
        let subnet = Subnet::new([10, 64, 4, 0], 22);
        assert!(
            subnet.contains([10, 64, 7, 255].into()) && !subnet.contains([10, 64, 8, 0].into())
        );
        assert_eq!(subnet.gateway(), Ipv4Addr::new(10, 64, 4, 1));
        let members: Vec<_> = subnet.members().collect();
        assert_eq!(members.len(), 1021);
        assert_eq!(Ipv4Addr::from_bits(members[0]), Ipv4Addr::new(10, 64, 4, 2));
        assert_eq!(Ipv4Addr::from_bits(members[1020]), Ipv4Addr::new(10, 64, 7, 254));
        assert!(POOLS[0].overlaps(subnet) && subnet.overlaps(POOLS[0]));
        assert!(!POOLS[1].overlaps(subnet) && !subnet.overlaps(Subnet::new([10, 64, 8, 0], 22)));
        assert!(Subnet::new([0; 4], 0).overlaps(subnet));
    }
}
