//! Sockets of the network namespace that this process is in.

use super::{check_int, owned};
use std::ffi::{c_int, c_void};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const AF_UNIX: c_int = 1;
const AF_INET: c_int = 2;
const AF_INET6: c_int = 10;
const SOCK_STREAM: c_int = 1;
const SOCK_DGRAM: c_int = 2;
const SOCK_RAW: c_int = 3;
const SOCK_SEQPACKET: c_int = 5;
const SOCK_NONBLOCK: c_int = 0o4000;
const SOCK_CLOEXEC: c_int = 0o2_000_000;
const SOL_SOCKET: c_int = 1;
const SO_REUSEADDR: c_int = 2;
const SOL_IP: c_int = 0;
const IP_TRANSPARENT: c_int = 19;
const IP_RECVORIGDSTADDR: c_int = 20;

/// The kernel's `sockaddr_in`.
#[repr(C)]
struct Address {
    family: u16,
    port: [u8; 2],
    ip: [u8; 4],
    padding: [u8; 8],
}

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn socketpair(domain: c_int, kind: c_int, protocol: c_int, fds: *mut c_int) -> c_int;
    fn bind(fd: c_int, address: *const Address, length: u32) -> c_int;
    fn listen(fd: c_int, backlog: c_int) -> c_int;
    fn setsockopt(fd: c_int, level: c_int, name: c_int, value: *const c_void, len: u32) -> c_int;
}

/// Two ends of a connection that keeps packets apart, both close-on-exec.
pub(crate) fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the array has room for the two descriptors that the kernel writes.
    check_int(unsafe { socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds.as_mut_ptr()) })?;
    // SAFETY: both were just created and belong to nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// A TCP socket that does not block and is not connected.
pub(crate) fn stream_socket(v6: bool) -> io::Result<OwnedFd> {
    let family = if v6 { AF_INET6 } else { AF_INET };
    // SAFETY: integer arguments only.
    owned(unsafe { socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0) }.into())
}

/// A TCP socket that listens on an address of this namespace and does not block.
pub(crate) fn listening_socket(address: SocketAddrV4, backlog: i32) -> io::Result<OwnedFd> {
    let socket = stream_socket(false)?;
    set_option(&socket, SOL_SOCKET, SO_REUSEADDR)?;
    bind_to(&socket, address)?;
    // SAFETY: integer arguments only.
    check_int(unsafe { listen(socket.as_raw_fd(), backlog) })?;
    Ok(socket)
}

/// A TCP socket that takes connections meant for any address, and says on which of them it
/// took one. Needs CAP_NET_ADMIN over this namespace, like the next two.
pub(crate) fn capturing_listener(port: u16, backlog: i32) -> io::Result<OwnedFd> {
    let socket = stream_socket(false)?;
    set_option(&socket, SOL_SOCKET, SO_REUSEADDR)?;
    set_option(&socket, SOL_IP, IP_TRANSPARENT)?;
    bind_to(&socket, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
    // SAFETY: integer arguments only.
    check_int(unsafe { listen(socket.as_raw_fd(), backlog) })?;
    Ok(socket)
}

/// A UDP socket that takes datagrams meant for any address, and says for which each one was.
pub(crate) fn capturing_datagrams(port: u16) -> io::Result<OwnedFd> {
    let kind = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    // SAFETY: integer arguments only.
    let socket = owned(unsafe { socket(AF_INET, kind, 0) }.into())?;
    set_option(&socket, SOL_IP, IP_TRANSPARENT)?;
    set_option(&socket, SOL_IP, IP_RECVORIGDSTADDR)?;
    bind_to(&socket, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?;
    Ok(socket)
}

/// A socket that sends whole packets, from whatever address they say. It receives none.
pub(crate) fn packet_sender() -> io::Result<OwnedFd> {
    const IPPROTO_RAW: c_int = 255;
    // SAFETY: integer arguments only.
    owned(unsafe { socket(AF_INET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_RAW) }.into())
}

fn set_option(socket: &OwnedFd, level: c_int, name: c_int) -> io::Result<()> {
    let (fd, on) = (socket.as_raw_fd(), 1 as c_int);
    // SAFETY: the option is passed with its size and outlives the call.
    check_int(unsafe {
        setsockopt(fd, level, name, (&raw const on).cast(), size_of::<c_int>() as u32)
    })
    .map(drop)
}

fn bind_to(socket: &OwnedFd, address: SocketAddrV4) -> io::Result<()> {
    let address = Address {
        family: AF_INET as u16,
        port: address.port().to_be_bytes(),
        ip: Ipv4Addr::octets(address.ip()),
        padding: [0; 8],
    };
    // SAFETY: the address is passed with its size and outlives the call.
    check_int(unsafe { bind(socket.as_raw_fd(), &address, size_of::<Address>() as u32) }).map(drop)
}
