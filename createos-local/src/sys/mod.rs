//! The only place with `unsafe`: thin wrappers over the kernel.
//!
//! The helper programs (warden and agent) are single files of `std` alone,
//! linked statically by the build script, so the C library's functions are
//! declared here instead of coming from a crate. Every wrapper turns a failure
//! into [`io::Error`], takes and returns owned descriptors, and copies what the
//! kernel writes before handing it on.

#![allow(unsafe_code)]
// Each helper program includes this module and uses its own part of it.
#![allow(dead_code, unused_imports)]

mod caps;
mod capture;
mod disk;
mod fds;
mod ids;
mod memory;
mod mount;
mod net;
mod netlink;
mod process;
mod route;
mod signal;
mod sockets;
mod terminal;
mod tun;

pub(crate) use caps::*;
pub(crate) use capture::*;
pub(crate) use disk::*;
pub(crate) use fds::*;
pub(crate) use ids::*;
pub(crate) use memory::*;
pub(crate) use mount::*;
use net::InterfaceRequest;
pub(crate) use net::*;
pub(crate) use process::*;
pub(crate) use route::*;
pub(crate) use signal::*;
pub(crate) use sockets::*;
pub(crate) use terminal::*;
pub(crate) use tun::*;

use std::ffi::{CString, c_char, c_int, c_long, c_void};
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

/// System calls that glibc has no wrapper for. These numbers are the same on
/// every architecture, since all were added after the tables were unified.
mod nr {
    use std::ffi::c_long;

    pub(super) const OPEN_TREE: c_long = 428;
    pub(super) const MOVE_MOUNT: c_long = 429;
    pub(super) const FSOPEN: c_long = 430;
    pub(super) const FSCONFIG: c_long = 431;
    pub(super) const FSMOUNT: c_long = 432;
    pub(super) const PIDFD_OPEN: c_long = 434;
    pub(super) const CLONE3: c_long = 435;
    pub(super) const CLOSE_RANGE: c_long = 436;
    pub(super) const MOUNT_SETATTR: c_long = 442;
}

/// System calls whose numbers differ between architectures.
#[cfg(target_arch = "x86_64")]
mod arch {
    use std::ffi::c_long;

    pub(super) const CAPSET: c_long = 126;
    pub(super) const PIVOT_ROOT: c_long = 155;
    pub(super) const RT_SIGACTION: c_long = 13;
    pub(super) const SECCOMP: c_long = 317;
}

#[cfg(target_arch = "aarch64")]
mod arch {
    use std::ffi::c_long;

    pub(super) const CAPSET: c_long = 91;
    pub(super) const PIVOT_ROOT: c_long = 41;
    pub(super) const RT_SIGACTION: c_long = 134;
    pub(super) const SECCOMP: c_long = 277;
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the local engine runs on x86_64 and aarch64");

fn check(result: c_long) -> io::Result<c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn check_int(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(result: c_long) -> io::Result<OwnedFd> {
    let fd = check(result)? as c_int;
    // SAFETY: the kernel has just created this descriptor for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn c_string(text: impl Into<Vec<u8>>) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

const EMPTY: *const c_char = c"".as_ptr();

fn null<T>() -> *const T {
    std::ptr::null()
}

fn null_mut() -> *mut c_void {
    std::ptr::null_mut()
}
