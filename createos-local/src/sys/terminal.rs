//! Pseudoterminals.

use super::{check_int, owned};
use std::ffi::{c_int, c_ulong};
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;

const O_NONBLOCK: c_int = 0o4000;
const O_NOCTTY: c_int = 0o400;
const O_RDWR: c_ulong = 2;
const O_CLOEXEC: c_ulong = 0o2_000_000;

// The same on x86-64 and aarch64.
const TIOCSCTTY: c_ulong = 0x540e;
const TIOCGPGRP: c_ulong = 0x540f;
const TIOCSWINSZ: c_ulong = 0x5414;
const TIOCSPTLCK: c_ulong = 0x4004_5431;
const TIOCGPTPEER: c_ulong = 0x5441;

#[repr(C)]
struct WindowSize {
    rows: u16,
    cols: u16,
    width: u16,
    height: u16,
}

unsafe extern "C" {
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
}

/// A new terminal: the side of its owner, which does not block, and the side of
/// the programs in it.
pub(crate) fn open_terminal() -> io::Result<(OwnedFd, OwnedFd)> {
    // Not through /dev/ptmx, which programs inside may have replaced.
    let ours: OwnedFd = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(O_NONBLOCK | O_NOCTTY)
        .open("/dev/pts/ptmx")?
        .into();
    let unlocked: c_int = 0;
    // SAFETY: the kernel reads one integer.
    check_int(unsafe { ioctl(ours.as_raw_fd(), TIOCSPTLCK, &unlocked) })?;
    let flags = O_RDWR | O_NOCTTY as c_ulong | O_CLOEXEC;
    // SAFETY: integer argument only; the result is a new descriptor that is ours.
    let theirs = owned(i64::from(unsafe { ioctl(ours.as_raw_fd(), TIOCGPTPEER, flags) }))?;
    Ok((ours, theirs))
}

/// Sets the size in characters and tells the programs in the foreground.
pub(crate) fn set_window_size(terminal: &impl AsRawFd, rows: u16, cols: u16) -> io::Result<()> {
    let size = WindowSize { rows, cols, width: 0, height: 0 };
    // SAFETY: the structure has the layout of `struct winsize`.
    check_int(unsafe { ioctl(terminal.as_raw_fd(), TIOCSWINSZ, &size) }).map(drop)
}

/// The process group in the foreground, if there is one.
pub(crate) fn foreground_group(terminal: &impl AsRawFd) -> Option<i32> {
    let mut group: c_int = 0;
    // SAFETY: the kernel writes one integer.
    check_int(unsafe { ioctl(terminal.as_raw_fd(), TIOCGPGRP, &mut group) }).ok()?;
    (group > 0).then_some(group)
}

/// Makes standard input the terminal of this session, whose leader this process is.
pub(super) fn take_terminal() -> io::Result<()> {
    // SAFETY: integer arguments only.
    check_int(unsafe { ioctl(0, TIOCSCTTY, 0) }).map(drop)
}
