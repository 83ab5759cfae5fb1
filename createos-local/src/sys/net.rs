//! The loopback device of a fresh network namespace.

use super::{check, check_int, owned};
use std::ffi::{c_int, c_ulong, c_void};
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

const AF_INET: c_int = 2;
const AF_NETLINK: c_int = 16;
const SOCK_DGRAM: c_int = 2;
const SOCK_RAW: c_int = 3;
const SOCK_CLOEXEC: c_int = 0o2_000_000;
const SIOCSIFFLAGS: c_ulong = 0x8914;
const IFF_UP: i16 = 1;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const NLM_REQUEST_ACK: u16 = 0x1 | 0x4;
const NLM_CREATE_EXCL: u16 = 0x400 | 0x200;
const NLMSG_ERROR: u16 = 2;

#[repr(C)]
struct InterfaceRequest {
    name: [u8; 16],
    flags: i16,
    padding: [u8; 22],
}

unsafe extern "C" {
    fn socket(domain: c_int, kind: c_int, protocol: c_int) -> c_int;
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn send(fd: c_int, buffer: *const c_void, len: usize, flags: c_int) -> isize;
    fn recv(fd: c_int, buffer: *mut c_void, len: usize, flags: c_int) -> isize;
}

/// Brings the loopback device up.
pub(crate) fn loopback_up() -> io::Result<()> {
    let mut request = InterfaceRequest { name: [0; 16], flags: IFF_UP, padding: [0; 22] };
    request.name[..2].copy_from_slice(b"lo");
    // SAFETY: the request has the layout of `struct ifreq` and outlives the call.
    unsafe {
        let socket = owned(i64::from(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)))?;
        check_int(ioctl(socket.as_raw_fd(), SIOCSIFFLAGS, &request)).map(drop)
    }
}

/// Gives the loopback device one more address, so that the sandbox can bind and
/// reach its own.
pub(crate) fn add_loopback_address(address: Ipv4Addr) -> io::Result<()> {
    change_address(&address_message(RTM_NEWADDR, NLM_CREATE_EXCL, address))
}

/// Takes an address from the loopback device.
pub(crate) fn remove_loopback_address(address: Ipv4Addr) -> io::Result<()> {
    change_address(&address_message(RTM_DELADDR, 0, address))
}

fn change_address(message: &[u8]) -> io::Result<()> {
    let mut answer = [0u8; 1024];
    // SAFETY: buffers are passed with their lengths and outlive the calls.
    let received = unsafe {
        let socket = owned(i64::from(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0)))?;
        check(send(socket.as_raw_fd(), message.as_ptr().cast(), message.len(), 0) as i64)?;
        check(recv(socket.as_raw_fd(), answer.as_mut_ptr().cast(), answer.len(), 0) as i64)?
    };
    netlink_result(&answer[..received as usize])
}

/// One request about an address: interface 1, a /32 of its own.
fn address_message(request: u16, flags: u16, address: Ipv4Addr) -> Vec<u8> {
    const IFA_ADDRESS: u16 = 1;
    const IFA_LOCAL: u16 = 2;
    let mut message = Vec::with_capacity(40);
    message.extend_from_slice(&40u32.to_ne_bytes());
    message.extend_from_slice(&request.to_ne_bytes());
    message.extend_from_slice(&(NLM_REQUEST_ACK | flags).to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&[AF_INET as u8, 32, 0, 0]);
    message.extend_from_slice(&1u32.to_ne_bytes());
    for attribute in [IFA_LOCAL, IFA_ADDRESS] {
        message.extend_from_slice(&8u16.to_ne_bytes());
        message.extend_from_slice(&attribute.to_ne_bytes());
        message.extend_from_slice(&address.octets());
    }
    message
}

/// Reads the acknowledgement: 0 is success, otherwise a negated error number.
fn netlink_result(answer: &[u8]) -> io::Result<()> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidData);
    let kind = answer.get(4..6).ok_or_else(invalid)?;
    let code = answer.get(16..20).ok_or_else(invalid)?;
    let kind = u16::from_ne_bytes([kind[0], kind[1]]);
    let code = i32::from_ne_bytes([code[0], code[1], code[2], code[3]]);
    match (kind, code) {
        (NLMSG_ERROR, 0) => Ok(()),
        (NLMSG_ERROR, code) => Err(io::Error::from_raw_os_error(-code)),
        _ => Err(invalid()),
    }
}
