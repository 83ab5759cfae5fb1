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
const SOCK_SEQPACKET: c_int = 5;
const SOCK_NONBLOCK: c_int = 0o4000;
const SOCK_CLOEXEC: c_int = 0o2_000_000;
const SOL_SOCKET: c_int = 1;
const SO_REUSEADDR: c_int = 2;

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
    let (fd, on) = (socket.as_raw_fd(), 1 as c_int);
    let address = Address {
        family: AF_INET as u16,
        port: address.port().to_be_bytes(),
        ip: Ipv4Addr::octets(address.ip()),
        padding: [0; 8],
    };
    // SAFETY: option and address are passed with their sizes and outlive the calls.
    unsafe {
        let size = size_of::<c_int>() as u32;
        check_int(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, (&raw const on).cast(), size))?;
        check_int(bind(fd, &address, size_of::<Address>() as u32))?;
        check_int(listen(fd, backlog))?;
    }
    Ok(socket)
}
