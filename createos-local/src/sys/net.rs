//! The loopback device of a fresh network namespace.

use super::netlink::{CREATE, EXCLUSIVE, Family};
use super::route::{DELETE_ADDRESS, NEW_ADDRESS, address_message};
use super::{check_int, owned};
use std::ffi::{c_int, c_ulong};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

const AF_INET: c_int = 2;
const SOCK_DGRAM: c_int = 2;
const SOCK_CLOEXEC: c_int = 0o2_000_000;
const SIOCSIFFLAGS: c_ulong = 0x8914;
const IFF_UP: i16 = 1;

/// The kernel's `struct ifreq`.
#[repr(C)]
pub(super) struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    padding: [u8; 22],
}

impl InterfaceRequest {
    /// A name that is too long is cut off.
    pub(super) fn new(name: &str, flags: i16) -> Self {
        let mut request = Self { name: [0; 16], flags, padding: [0; 22] };
        let last = request.name.len() - 1;
        request.name[..last].iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        request
    }
}

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
}

/// Brings the loopback device up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let request = InterfaceRequest::new("lo", IFF_UP);
    // SAFETY: the request has the layout of `struct ifreq` and outlives the call.
    unsafe {
        let socket = owned(i64::from(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)))?;
        check_int(ioctl(socket.as_raw_fd(), SIOCSIFFLAGS, &request)).map(drop)
    }
}

/// Gives the loopback device one more address, so that the sandbox can bind and
/// reach its own.
pub(crate) fn add_loopback_address(address: Ipv4Addr) -> io::Result<()> {
    address_message(NEW_ADDRESS, CREATE | EXCLUSIVE, address).send(Family::Route)
}

/// Takes an address from the loopback device.
pub(crate) fn remove_loopback_address(address: Ipv4Addr) -> io::Result<()> {
    address_message(DELETE_ADDRESS, 0, address).send(Family::Route)
}
