//! Links, addresses and routes of a network namespace, over a netlink socket of that
//! namespace. Who asks need not be in there: the kernel looks at the rights of whoever
//! sends a message that names its receiver, and at the namespace of the socket.

use super::netlink::{
    ACK, Body, CREATE, DONE, DUMP, ERROR, EXCLUSIVE, Family, Messages, REPLACE, REQUEST, Wait,
    acknowledged, messages, open, receive,
};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
pub(super) const NEW_ADDRESS: u16 = 20;
pub(super) const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;
const DELETE_ROUTE: u16 = 25;
const NEW_RULE: u16 = 32;
const DELETE_RULE: u16 = 33;

const IPV4: u8 = 2;
/// The longest answer.
const ANSWER: usize = 64 << 10;
/// The loopback device of every namespace.
pub(crate) const LOOPBACK: u32 = 1;

const IFF_UP: u32 = 0x1;
const IFF_NOARP: u32 = 0x80;

/// A socket for the functions of this file, in the namespace that this process is in.
pub(crate) fn route_socket() -> io::Result<OwnedFd> {
    open(Family::Route)
}

fn message(kind: u16, flags: u16, body: impl FnOnce(&mut Body)) -> Messages {
    Messages::default().add(kind, REQUEST | flags, body)
}

/// `struct ifinfomsg`: the flags among `changed` are set as in `flags`.
fn link(body: &mut Body, index: u32, flags: u32, changed: u32) {
    body.bytes(&[0; 4]);
    for word in [index, flags, changed] {
        body.bytes(&word.to_ne_bytes());
    }
}

/// Sends a message and reads what it came to.
fn change(socket: &OwnedFd, message: &Messages) -> io::Result<()> {
    message.send_over(socket)?;
    let mut buffer = vec![0; ANSWER];
    match messages(receive(socket, &mut buffer, Wait::Yes)?).next() {
        Some((ERROR, body)) => acknowledged(body),
        _ => Err(unexpected()),
    }
}

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;

/// One end of a new cable.
pub(crate) struct Plug<'a> {
    pub(crate) name: &'a str,
    /// The same at both ends: they take what they send each other without having asked whose
    /// it is.
    pub(crate) mac: [u8; 6],
}

/// Makes a cable from the socket's namespace to another one, with the near end up.
pub(crate) fn add_cable(
    socket: &OwnedFd,
    near: &Plug<'_>,
    far: &Plug<'_>,
    namespace: &OwnedFd,
) -> io::Result<()> {
    const LINK_INFO: u16 = 18;
    const KIND: u16 = 1;
    const DATA: u16 = 2;
    const PEER: u16 = 1;
    const NAMESPACE: u16 = 28;
    let plug = |body: &mut Body, plug: &Plug<'_>, flags| {
        link(body, 0, flags, flags);
        body.attribute(IFLA_ADDRESS, &plug.mac);
        body.text(IFLA_IFNAME, plug.name);
    };
    let message = message(NEW_LINK, ACK | CREATE | EXCLUSIVE, |body| {
        // The far end is made first, and cannot be up before there is a near one.
        plug(body, near, IFF_UP | IFF_NOARP);
        body.nest(LINK_INFO, |info| {
            info.text(KIND, "veth");
            info.nest(DATA, |data| {
                data.nest(PEER, |peer| {
                    plug(peer, far, IFF_NOARP);
                    peer.attribute(NAMESPACE, &namespace.as_raw_fd().to_ne_bytes());
                });
            });
        });
    });
    change(socket, &message)
}

/// Lets a link carry packets.
pub(crate) fn raise_link(socket: &OwnedFd, index: u32) -> io::Result<()> {
    change(socket, &message(NEW_LINK, ACK, |body| link(body, index, IFF_UP, IFF_UP)))
}

/// The same for one that takes no packets longer than this.
pub(crate) fn raise_link_of(socket: &OwnedFd, index: u32, longest: u32) -> io::Result<()> {
    const IFLA_MTU: u16 = 4;
    change(
        socket,
        &message(NEW_LINK, ACK, |body| {
            link(body, index, IFF_UP, IFF_UP);
            body.attribute(IFLA_MTU, &longest.to_ne_bytes());
        }),
    )
}

/// Removes a link, and with it the other end of a cable. One that is not there is no error.
pub(crate) fn remove_link(socket: &OwnedFd, name: &str) -> io::Result<()> {
    const ENODEV: i32 = 19;
    let message = message(DELETE_LINK, ACK, |body| named_link(body, name));
    match change(socket, &message) {
        Err(error) if error.raw_os_error() == Some(ENODEV) => Ok(()),
        other => other,
    }
}

/// The kernel's number of a link.
pub(crate) fn link_index(socket: &OwnedFd, name: &str) -> io::Result<u32> {
    message(GET_LINK, 0, |body| named_link(body, name)).send_over(socket)?;
    let mut buffer = vec![0; ANSWER];
    match messages(receive(socket, &mut buffer, Wait::Yes)?).next() {
        Some((NEW_LINK, body)) => {
            let index = body.get(4..8).and_then(|index| index.try_into().ok());
            Ok(u32::from_ne_bytes(index.ok_or(io::ErrorKind::InvalidData)?))
        }
        Some((ERROR, body)) => Err(acknowledged(body).err().unwrap_or_else(unexpected)),
        _ => Err(unexpected()),
    }
}

fn named_link(body: &mut Body, name: &str) {
    link(body, 0, 0, 0);
    body.text(IFLA_IFNAME, name);
}

fn unexpected() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// `struct ifaddrmsg` and its attributes: an address of its own, of the loopback device.
pub(super) fn address_message(kind: u16, flags: u16, address: Ipv4Addr) -> Messages {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    message(kind, ACK | flags, |body| {
        body.bytes(&[IPV4, 32, 0, 0]);
        body.bytes(&LOOPBACK.to_ne_bytes());
        for attribute in [LOCAL, ADDRESS] {
            body.attribute(attribute, &address.octets());
        }
    })
}

/// Gives the loopback device an address, unless it has it.
pub(crate) fn add_own_address(socket: &OwnedFd, address: Ipv4Addr) -> io::Result<()> {
    match change(socket, &address_message(NEW_ADDRESS, CREATE | EXCLUSIVE, address)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Takes an address from the loopback device, if it has it.
pub(crate) fn remove_own_address(socket: &OwnedFd, address: Ipv4Addr) -> io::Result<()> {
    match change(socket, &address_message(DELETE_ADDRESS, 0, address)) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
        other => other,
    }
}

/// Every address of the loopback device.
pub(crate) fn own_addresses(socket: &OwnedFd) -> io::Result<Vec<Ipv4Addr>> {
    let ask = message(GET_ADDRESS, DUMP, |body| body.bytes(&[IPV4, 0, 0, 0, 0, 0, 0, 0]));
    ask.send_over(socket)?;
    let (mut found, mut buffer) = (Vec::new(), vec![0; ANSWER]);
    loop {
        for (kind, body) in messages(receive(socket, &mut buffer, Wait::Yes)?) {
            match kind {
                NEW_ADDRESS => found.extend(own_address(body)),
                DONE => return Ok(found),
                ERROR => acknowledged(body)?,
                _ => {}
            }
        }
    }
}

fn own_address(body: &[u8]) -> Option<Ipv4Addr> {
    const LOCAL: u16 = 2;
    if body.get(4..8)? != LOOPBACK.to_ne_bytes() {
        return None;
    }
    let mut attributes = body.get(8..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(attributes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(attributes.get(2..4)?.try_into().ok()?);
        if kind == LOCAL {
            let octets: [u8; 4] = attributes.get(4..8)?.try_into().ok()?;
            return Some(octets.into());
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

/// Where packets to some addresses go.
pub(crate) enum Way {
    /// To whom is at the other end.
    Link { index: u32 },
    /// To a router at the other end, as from this address.
    Gateway { index: u32, gateway: Ipv4Addr, source: Ipv4Addr },
    /// Nowhere, as from this address. It is the way that is left where there is no other.
    Last { source: Ipv4Addr },
    /// Nowhere, and the sender is told.
    Unreachable,
}

/// The table that every packet is looked up in.
pub(crate) const MAIN_TABLE: u32 = 254;

/// Adds a route in the main table, in the place of one to the same addresses.
pub(crate) fn set_route(
    socket: &OwnedFd,
    network: Ipv4Addr,
    prefix: u8,
    way: &Way,
) -> io::Result<()> {
    set_route_in(socket, MAIN_TABLE, network, prefix, way)
}

/// The same in any table.
pub(crate) fn set_route_in(
    socket: &OwnedFd,
    table: u32,
    network: Ipv4Addr,
    prefix: u8,
    way: &Way,
) -> io::Result<()> {
    change(socket, &route_message(NEW_ROUTE, CREATE | REPLACE, table, network, prefix, way))
}

/// Removes such a route from the main table, unless it is gone.
pub(crate) fn remove_route(
    socket: &OwnedFd,
    network: Ipv4Addr,
    prefix: u8,
    way: &Way,
) -> io::Result<()> {
    const ESRCH: i32 = 3;
    let message = route_message(DELETE_ROUTE, 0, MAIN_TABLE, network, prefix, way);
    match change(socket, &message) {
        Err(error) if error.raw_os_error() == Some(ESRCH) => Ok(()),
        other => other,
    }
}

fn route_message(
    kind_of_message: u16,
    flags_of_message: u16,
    table: u32,
    network: Ipv4Addr,
    prefix: u8,
    way: &Way,
) -> Messages {
    const STATIC: u8 = 4;
    const EVERYWHERE: u8 = 0;
    const ON_LINK: u8 = 253;
    const UNICAST: u8 = 1;
    const UNREACHABLE: u8 = 7;
    const FLAG_ON_LINK: u32 = 4;
    const DESTINATION: u16 = 1;
    const OUT: u16 = 4;
    const GATEWAY: u16 = 5;
    const PRIORITY: u16 = 6;
    const PREFERRED_SOURCE: u16 = 7;
    const TABLE: u16 = 15;
    const WORST: u32 = u32::MAX;
    let (scope, kind, flags) = match way {
        Way::Link { .. } | Way::Last { .. } => (ON_LINK, UNICAST, 0),
        Way::Gateway { .. } => (EVERYWHERE, UNICAST, FLAG_ON_LINK),
        Way::Unreachable => (EVERYWHERE, UNREACHABLE, 0),
    };
    message(kind_of_message, ACK | flags_of_message, |body| {
        body.bytes(&[IPV4, prefix, 0, 0, 0, STATIC, scope, kind]);
        body.bytes(&flags.to_ne_bytes());
        body.attribute(TABLE, &table.to_ne_bytes());
        body.attribute(DESTINATION, &network.octets());
        match way {
            Way::Link { index } => body.attribute(OUT, &index.to_ne_bytes()),
            Way::Gateway { index, gateway, source } => {
                body.attribute(OUT, &index.to_ne_bytes());
                body.attribute(GATEWAY, &gateway.octets());
                body.attribute(PREFERRED_SOURCE, &source.octets());
            }
            Way::Last { source } => {
                body.attribute(OUT, &LOOPBACK.to_ne_bytes());
                body.attribute(PRIORITY, &WORST.to_ne_bytes());
                body.attribute(PREFERRED_SOURCE, &source.octets());
            }
            Way::Unreachable => {}
        }
    })
}

/// Packets from one address to some others are looked up in a table of their own.
pub(crate) struct Detour {
    pub(crate) from: Ipv4Addr,
    pub(crate) network: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) table: u32,
}

/// Adds a detour before the main table, unless it is there. A kernel without such rules is no
/// error: it has one way to everything.
pub(crate) fn add_detour(socket: &OwnedFd, detour: &Detour) -> io::Result<()> {
    match change(socket, &detour.message(NEW_RULE, CREATE | EXCLUSIVE)) {
        Err(error) => match error.kind() {
            io::ErrorKind::AlreadyExists | io::ErrorKind::Unsupported => Ok(()),
            _ => Err(error),
        },
        other => other,
    }
}

/// Removes it, if it is there.
pub(crate) fn remove_detour(socket: &OwnedFd, detour: &Detour) -> io::Result<()> {
    match change(socket, &detour.message(DELETE_RULE, 0)) {
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::Unsupported => Ok(()),
            _ => Err(error),
        },
        other => other,
    }
}

impl Detour {
    /// `struct fib_rule_hdr` and its attributes.
    fn message(&self, kind: u16, flags: u16) -> Messages {
        const LOOK_UP: u8 = 1;
        const DESTINATION: u16 = 1;
        const SOURCE: u16 = 2;
        const PRIORITY: u16 = 6;
        const TABLE: u16 = 15;
        const BEFORE_MAIN: u32 = 32_600;
        message(kind, ACK | flags, |body| {
            body.bytes(&[IPV4, self.prefix, 32, 0, 0, 0, 0, LOOK_UP]);
            body.bytes(&[0; 4]);
            body.attribute(SOURCE, &self.from.octets());
            body.attribute(DESTINATION, &self.network.octets());
            body.attribute(PRIORITY, &BEFORE_MAIN.to_ne_bytes());
            body.attribute(TABLE, &self.table.to_ne_bytes());
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::netlink::HEADER;
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested_ones_have_the_whole_length() {
        let message = message(NEW_LINK, ACK, |body| {
            link(body, 0, 0, 0);
            body.nest(18, |inner| {
                inner.text(1, "veth");
                inner.attribute(2, &[7]);
            });
        });
        let bytes = message.as_bytes();
        assert_eq!(bytes.len(), HEADER + 16 + 4 + 12 + 8);
        assert_eq!(bytes[..4], (bytes.len() as u32).to_ne_bytes());
        let nested = &bytes[HEADER + 16..];
        assert_eq!(nested[..2], 24u16.to_ne_bytes());
        assert_eq!(nested[4..6], 9u16.to_ne_bytes(), "a name ends with a NUL");
    }

    #[test]
    fn whatever_comes_back_is_cut_into_messages_or_not_read() {
        let message = message(7, 0, |body| body.attribute(1, &[1, 2, 3]));
        let packet = [message.as_bytes(), message.as_bytes()].concat();
        assert_eq!(messages(&packet).count(), 2);
        for length in 0..packet.len() {
            assert!(messages(&packet[..length]).count() < 2, "cut at {length}");
        }
        let endless = [0; 32];
        assert_eq!(messages(&endless).count(), 0);
        assert!(acknowledged(&[]).is_err());
        assert_eq!(acknowledged(&(-17i32).to_ne_bytes()).unwrap_err().raw_os_error(), Some(17));
    }

    #[test]
    fn addresses_of_other_devices_and_broken_ones_are_left_out() {
        let message = address_message(NEW_ADDRESS, 0, Ipv4Addr::new(10, 64, 0, 2));
        let body = message.as_bytes()[HEADER..].to_vec();
        assert_eq!(own_address(&body), Some(Ipv4Addr::new(10, 64, 0, 2)));
        for length in 0..15 {
            assert_eq!(own_address(&body[..length]), None, "cut at {length}");
        }
        let mut other = body;
        other[4] = 9;
        assert_eq!(own_address(&other), None);
    }
}
