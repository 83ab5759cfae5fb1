//! Network devices whose packets a program reads and writes.

use super::{InterfaceRequest, check_int};
use std::ffi::{c_int, c_ulong};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

/// Where the kernel makes such devices.
pub(crate) const TUN_FILE: &str = "/dev/net/tun";

const O_NONBLOCK: c_int = 0o4000;
const TUNSETIFF: c_ulong = 0x4004_54ca;
/// What the request for a namespace's owner is called in `ioctl_ns(2)`.
const NS_GET_USERNS: c_ulong = 0xb701;
/// Whole packets, and nothing in front of them.
const IFF_TUN: i16 = 0x1;
const IFF_NO_PI: i16 = 0x1000;

unsafe extern "C" {
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
}

/// Makes a device of this name in the network namespace that this process is in. It lives as
/// long as the descriptor: each read takes a packet that was sent to it, each write is a
/// packet that comes from it.
pub(crate) fn make_tun(name: &str) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    let device = options.read(true).write(true).custom_flags(O_NONBLOCK).open(TUN_FILE)?;
    let request = InterfaceRequest::new(name, IFF_TUN | IFF_NO_PI);
    // SAFETY: the request has the layout of `struct ifreq` and outlives the call.
    check_int(unsafe { ioctl(device.as_raw_fd(), TUNSETIFF, &request) })?;
    Ok(device.into())
}

/// The user namespace that a namespace belongs to.
pub(crate) fn owner_of_namespace(namespace: &impl AsRawFd) -> io::Result<OwnedFd> {
    // SAFETY: no argument; the kernel has just created the descriptor for us alone.
    unsafe {
        let fd = check_int(ioctl(namespace.as_raw_fd(), NS_GET_USERNS))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}
