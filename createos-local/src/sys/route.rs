//! Links, addresses and routes of a network namespace, over a netlink socket of that
//! namespace. Who asks need not be in there: the kernel looks at the rights of whoever
//! sends a message that names its receiver, and at the namespace of the socket.

use super::{check, owned};
use std::ffi::{c_int, c_void};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

const AF_NETLINK: c_int = 16;
const SOCK_RAW: c_int = 3;
const SOCK_CLOEXEC: c_int = 0o2_000_000;
const MSG_TRUNC: c_int = 0x20;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const REPLACE: u16 = 0x100;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const DUMP: u16 = 0x300;

const NEW_LINK: u16 = 16;
const DELETE_LINK: u16 = 17;
const GET_LINK: u16 = 18;
const NEW_ADDRESS: u16 = 20;
const DELETE_ADDRESS: u16 = 21;
const GET_ADDRESS: u16 = 22;
const NEW_ROUTE: u16 = 24;

const IPV4: u8 = 2;
const HEADER: usize = 16;
/// The loopback device of every namespace.
pub(crate) const LOOPBACK: u32 = 1;

const IFF_UP: u32 = 0x1;
const IFF_NOARP: u32 = 0x80;

/// The kernel's `sockaddr_nl`; the kernel itself is port 0.
#[repr(C)]
struct Address {
    family: u16,
    padding: u16,
    port: u32,
    groups: u32,
}

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn sendto(
        fd: c_int,
        buffer: *const c_void,
        len: usize,
        flags: c_int,
        address: *const Address,
        address_len: u32,
    ) -> isize;
    fn recv(fd: c_int, buffer: *mut c_void, len: usize, flags: c_int) -> isize;
}

/// A request to the kernel, with its attributes.
struct Message(Vec<u8>);

impl Message {
    fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&(REQUEST | flags).to_ne_bytes());
        Self(bytes)
    }

    /// `struct ifinfomsg`: the flags among `changed` are set as in `flags`.
    fn link(mut self, index: u32, flags: u32, changed: u32) -> Self {
        self.0.extend_from_slice(&[0; 4]);
        for word in [index, flags, changed] {
            self.0.extend_from_slice(&word.to_ne_bytes());
        }
        self
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let length = 4 + value.len();
        self.0.extend_from_slice(&(length as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn name(self, kind: u16, name: &str) -> Self {
        self.attribute(kind, &[name.as_bytes(), &[0]].concat())
    }

    /// An attribute that holds others.
    fn nested(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let start = self.0.len();
        self = inner(self.attribute(kind, &[]));
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self
    }

    fn finish(mut self) -> Vec<u8> {
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0
    }
}

/// A socket for the functions of this file, in the namespace that this process is in.
pub(crate) fn route_socket() -> io::Result<OwnedFd> {
    // SAFETY: integer arguments only.
    owned(unsafe { socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0) }.into())
}

fn send(socket: &OwnedFd, message: Message) -> io::Result<()> {
    let bytes = message.finish();
    let kernel = Address { family: AF_NETLINK as u16, padding: 0, port: 0, groups: 0 };
    let length = size_of::<Address>() as u32;
    // SAFETY: message and address are passed with their sizes and outlive the call.
    let sent = unsafe {
        sendto(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0, &kernel, length)
    };
    check(sent as i64).map(drop)
}

fn receive(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; 64 << 10];
    // SAFETY: the buffer is valid for its length. MSG_TRUNC returns the true length.
    let length =
        unsafe { recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), MSG_TRUNC) };
    let length = check(length as i64)? as usize;
    if length > buffer.len() {
        return Err(io::ErrorKind::InvalidData.into());
    }
    buffer.truncate(length);
    Ok(buffer)
}

/// The messages of a packet: their kinds and what follows their headers.
fn messages(mut packet: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(packet.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(packet.get(4..6)?.try_into().ok()?);
        let body = packet.get(HEADER..length)?;
        packet = packet.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

/// What an acknowledgement says: nothing, or a negated error number.
fn acknowledged(body: &[u8]) -> io::Result<()> {
    let code = body.get(..4).and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes);
    match code.ok_or(io::ErrorKind::InvalidData)? {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(-code)),
    }
}

fn change(socket: &OwnedFd, message: Message) -> io::Result<()> {
    send(socket, message)?;
    let answer = receive(socket)?;
    match messages(&answer).next() {
        Some((NLMSG_ERROR, body)) => acknowledged(body),
        _ => Err(io::ErrorKind::InvalidData.into()),
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
    let plug = |message: Message, plug: &Plug<'_>, flags| {
        message
            .link(0, flags, flags)
            .attribute(IFLA_ADDRESS, &plug.mac)
            .name(IFLA_IFNAME, plug.name)
    };
    // The far end is made first, and cannot be up before there is a near one.
    let message = Message::new(NEW_LINK, ACK | CREATE | EXCLUSIVE);
    let message = plug(message, near, IFF_UP | IFF_NOARP);
    let message = message.nested(LINK_INFO, |message| {
        message.name(KIND, "veth").nested(DATA, |message| {
            message.nested(PEER, |message| {
                plug(message, far, IFF_NOARP)
                    .attribute(NAMESPACE, &namespace.as_raw_fd().to_ne_bytes())
            })
        })
    });
    change(socket, message)
}

/// Lets a link carry packets.
pub(crate) fn raise_link(socket: &OwnedFd, index: u32) -> io::Result<()> {
    change(socket, Message::new(NEW_LINK, ACK).link(index, IFF_UP, IFF_UP))
}

/// Removes a link, and with it the other end of a cable. One that is not there is no error.
pub(crate) fn remove_link(socket: &OwnedFd, name: &str) -> io::Result<()> {
    const ENODEV: i32 = 19;
    let message = Message::new(DELETE_LINK, ACK).link(0, 0, 0).name(IFLA_IFNAME, name);
    match change(socket, message) {
        Err(error) if error.raw_os_error() == Some(ENODEV) => Ok(()),
        other => other,
    }
}

/// The kernel's number of a link.
pub(crate) fn link_index(socket: &OwnedFd, name: &str) -> io::Result<u32> {
    send(socket, Message::new(GET_LINK, 0).link(0, 0, 0).name(IFLA_IFNAME, name))?;
    let answer = receive(socket)?;
    match messages(&answer).next() {
        Some((NEW_LINK, body)) => {
            let index = body.get(4..8).and_then(|index| index.try_into().ok());
            Ok(u32::from_ne_bytes(index.ok_or(io::ErrorKind::InvalidData)?))
        }
        Some((NLMSG_ERROR, body)) => Err(acknowledged(body).err().unwrap_or_else(unexpected)),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> io::Error {
    io::ErrorKind::InvalidData.into()
}

/// `struct ifaddrmsg` and its attributes: an address of its own, of the loopback device.
fn address_message(kind: u16, flags: u16, address: Ipv4Addr) -> Message {
    const ADDRESS: u16 = 1;
    const LOCAL: u16 = 2;
    let mut message = Message::new(kind, ACK | flags);
    message.0.extend_from_slice(&[IPV4, 32, 0, 0]);
    message.0.extend_from_slice(&LOOPBACK.to_ne_bytes());
    let octets = address.octets();
    message.attribute(LOCAL, &octets).attribute(ADDRESS, &octets)
}

/// Gives the loopback device an address, unless it has it.
pub(crate) fn add_own_address(socket: &OwnedFd, address: Ipv4Addr) -> io::Result<()> {
    match change(socket, address_message(NEW_ADDRESS, CREATE | EXCLUSIVE, address)) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Takes an address from the loopback device, if it has it.
pub(crate) fn remove_own_address(socket: &OwnedFd, address: Ipv4Addr) -> io::Result<()> {
    match change(socket, address_message(DELETE_ADDRESS, 0, address)) {
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(()),
        other => other,
    }
}

/// Every address of the loopback device.
pub(crate) fn own_addresses(socket: &OwnedFd) -> io::Result<Vec<Ipv4Addr>> {
    let mut message = Message::new(GET_ADDRESS, DUMP);
    message.0.extend_from_slice(&[IPV4, 0, 0, 0, 0, 0, 0, 0]);
    send(socket, message)?;
    let mut found = Vec::new();
    loop {
        let packet = receive(socket)?;
        for (kind, body) in messages(&packet) {
            match kind {
                NEW_ADDRESS => found.extend(own_address(body)),
                NLMSG_DONE => return Ok(found),
                NLMSG_ERROR => acknowledged(body)?,
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

/// Adds a route in the main table, in the place of one to the same addresses.
pub(crate) fn set_route(
    socket: &OwnedFd,
    network: Ipv4Addr,
    prefix: u8,
    way: &Way,
) -> io::Result<()> {
    const MAIN: u8 = 254;
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
    const WORST: u32 = u32::MAX;
    let (scope, kind, flags) = match way {
        Way::Link { .. } | Way::Last { .. } => (ON_LINK, UNICAST, 0),
        Way::Gateway { .. } => (EVERYWHERE, UNICAST, FLAG_ON_LINK),
        Way::Unreachable => (EVERYWHERE, UNREACHABLE, 0),
    };
    let mut message = Message::new(NEW_ROUTE, ACK | CREATE | REPLACE);
    message.0.extend_from_slice(&[IPV4, prefix, 0, 0, MAIN, STATIC, scope, kind]);
    message.0.extend_from_slice(&flags.to_ne_bytes());
    let message = message.attribute(DESTINATION, &network.octets());
    let message = match way {
        Way::Link { index } => message.attribute(OUT, &index.to_ne_bytes()),
        Way::Gateway { index, gateway, source } => message
            .attribute(OUT, &index.to_ne_bytes())
            .attribute(GATEWAY, &gateway.octets())
            .attribute(PREFERRED_SOURCE, &source.octets()),
        Way::Last { source } => message
            .attribute(OUT, &LOOPBACK.to_ne_bytes())
            .attribute(PRIORITY, &WORST.to_ne_bytes())
            .attribute(PREFERRED_SOURCE, &source.octets()),
        Way::Unreachable => message,
    };
    change(socket, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nested_ones_have_the_whole_length() {
        let message = Message::new(NEW_LINK, ACK).link(0, 0, 0);
        let bytes = message.nested(18, |inner| inner.name(1, "veth").attribute(2, &[7])).finish();
        assert_eq!(bytes.len(), HEADER + 16 + 4 + 12 + 8);
        assert_eq!(bytes[..4], (bytes.len() as u32).to_ne_bytes());
        let nested = &bytes[HEADER + 16..];
        assert_eq!(nested[..2], 24u16.to_ne_bytes());
        assert_eq!(nested[4..6], 9u16.to_ne_bytes(), "a name ends with a NUL");
    }

    #[test]
    fn whatever_comes_back_is_cut_into_messages_or_not_read() {
        let message = Message::new(7, 0).attribute(1, &[1, 2, 3]).finish();
        let packet = [message.clone(), message].concat();
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
        let mut message = address_message(NEW_ADDRESS, 0, Ipv4Addr::new(10, 64, 0, 2)).finish();
        let body = message.split_off(HEADER);
        assert_eq!(own_address(&body), Some(Ipv4Addr::new(10, 64, 0, 2)));
        for length in 0..15 {
            assert_eq!(own_address(&body[..length]), None, "cut at {length}");
        }
        let mut other = body;
        other[4] = 9;
        assert_eq!(own_address(&other), None);
    }
}
