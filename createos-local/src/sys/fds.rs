//! Descriptors: pipes, polling, socket messages with descriptors attached.

use super::{check_int, nr, null_mut, syscall};
use std::collections::HashMap;
use std::ffi::{c_char, c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const O_CLOEXEC: c_int = 0o2_000_000;
pub(crate) const O_NONBLOCK: c_int = 0o4000;
const F_SETFD: c_int = 2;
const FD_CLOEXEC: c_int = 1;
const F_GETFL: c_int = 3;
const F_SETFL: c_int = 4;
const SOL_SOCKET: c_int = 1;
const SCM_RIGHTS: c_int = 1;
const MSG_NOSIGNAL: c_int = 0x4000;
const MSG_CMSG_CLOEXEC: c_int = 0x4000_0000;
const MSG_TRUNC: c_int = 0x20;

pub(crate) const POLLIN: i16 = 1;
pub(crate) const POLLOUT: i16 = 4;
pub(crate) const POLLERR: i16 = 8;
pub(crate) const POLLHUP: i16 = 16;

/// One descriptor to wait for; the same layout as the kernel's `pollfd`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct PollFd {
    fd: c_int,
    events: i16,
    pub(crate) revents: i16,
}

impl PollFd {
    pub(crate) fn new(fd: &impl AsRawFd, events: i16) -> Self {
        Self { fd: fd.as_raw_fd(), events, revents: 0 }
    }

    /// Readable, or ended, or broken: a read will not block.
    pub(crate) fn is_readable(&self) -> bool {
        self.revents & (POLLIN | POLLHUP | POLLERR) != 0
    }
}

/// Descriptors that a poll found ready for something, or broken. Whatever is tried with
/// them must not block: their numbers may be others' by now.
#[derive(Debug)]
pub(crate) struct Ready(HashMap<c_int, PollFd>);

impl Ready {
    pub(crate) fn of(polled: &[PollFd]) -> Self {
        let ready = polled.iter().filter(|answer| answer.revents != 0);
        Self(ready.map(|answer| (answer.fd, *answer)).collect())
    }

    pub(crate) fn has(&self, fd: &impl AsRawFd) -> bool {
        self.0.contains_key(&fd.as_raw_fd())
    }

    /// Readable, or ended, or broken.
    pub(crate) fn is_readable(&self, fd: &impl AsRawFd) -> bool {
        self.0.get(&fd.as_raw_fd()).is_some_and(PollFd::is_readable)
    }
}

#[repr(C)]
struct IoVec {
    base: *mut c_void,
    len: usize,
}

#[repr(C)]
struct MsgHdr {
    name: *mut c_void,
    namelen: u32,
    iov: *mut IoVec,
    iovlen: usize,
    control: *mut c_void,
    controllen: usize,
    flags: c_int,
}

/// A control message that carries one descriptor, padded as `CMSG_SPACE` asks.
#[repr(C, align(8))]
#[derive(Default)]
struct OneFd {
    len: usize,
    level: c_int,
    kind: c_int,
    fd: c_int,
    padding: c_int,
}

const ONE_FD_LEN: usize = 16 + 4;

unsafe extern "C" {
    fn mkfifo(path: *const c_char, mode: u32) -> c_int;
    fn pipe2(fds: *mut c_int, flags: c_int) -> c_int;
    fn poll(fds: *mut PollFd, count: u64, timeout_ms: c_int) -> c_int;
    fn fcntl(fd: c_int, command: c_int, ...) -> c_int;
    fn dup2(from: c_int, to: c_int) -> c_int;
    fn sendmsg(fd: c_int, message: *const MsgHdr, flags: c_int) -> isize;
    fn recvmsg(fd: c_int, message: *mut MsgHdr, flags: c_int) -> isize;
    fn recv(fd: c_int, buffer: *mut c_void, len: usize, flags: c_int) -> isize;
}

/// A pipe, both ends close-on-exec: `(read, write)`.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: the array has room for the two descriptors that the kernel writes.
    check_int(unsafe { pipe2(fds.as_mut_ptr(), O_CLOEXEC) })?;
    // SAFETY: both were just created and belong to nobody else.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Waits until a descriptor is ready; `None` waits without end. Interrupted waits
/// return 0, so that the caller's loop looks at everything again.
pub(crate) fn poll_fds(fds: &mut [PollFd], timeout_ms: Option<u32>) -> io::Result<usize> {
    let timeout = timeout_ms.map_or(-1, |ms| c_int::try_from(ms).unwrap_or(c_int::MAX));
    // SAFETY: the slice is valid for its length and laid out as `pollfd`.
    let ready = unsafe { poll(fds.as_mut_ptr(), fds.len() as u64, timeout) };
    match check_int(ready) {
        Ok(count) => Ok(count as usize),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

/// Makes reads and writes return `WouldBlock` instead of waiting.
pub(crate) fn set_nonblocking(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: plain flag calls on a descriptor that the caller owns.
    let flags = check_int(unsafe { fcntl(fd.as_raw_fd(), F_GETFL) })?;
    check_int(unsafe { fcntl(fd.as_raw_fd(), F_SETFL, flags | O_NONBLOCK) }).map(drop)
}

/// Keeps a descriptor out of the programs that this process starts.
pub(crate) fn set_close_on_exec(fd: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: sets the descriptor flags of a descriptor that the caller owns.
    check_int(unsafe { fcntl(fd.as_raw_fd(), F_SETFD, FD_CLOEXEC) }).map(drop)
}

/// Puts `fd` at number `target`, which survives an exec; `fd` itself is given up.
pub(crate) fn place_at(fd: OwnedFd, target: c_int) -> io::Result<()> {
    if fd.as_raw_fd() == target {
        // dup2 onto itself would leave close-on-exec set.
        let raw = fd.into_raw_fd();
        // SAFETY: clears the descriptor flags of a descriptor that we own.
        return check_int(unsafe { fcntl(raw, F_SETFD, 0) }).map(drop);
    }
    // SAFETY: whatever owned `target` is never used or dropped again: the callers
    // are launchers, which from here on only exec or exit.
    check_int(unsafe { dup2(fd.as_raw_fd(), target) }).map(drop)
}

/// Marks every descriptor from `first` up to be closed by the next exec.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: closes nothing now; the exec replaces every value that owns one.
    super::check(unsafe { syscall(nr::CLOSE_RANGE, first, u32::MAX, CLOSE_RANGE_CLOEXEC) })
        .map(drop)
}

/// Makes a pipe with a name, for its owner alone.
pub(crate) fn make_fifo(path: &Path) -> io::Result<()> {
    let path = super::c_string(path.as_os_str().as_bytes())?;
    // SAFETY: the path ends in NUL and outlives the call.
    super::check_int(unsafe { mkfifo(path.as_ptr(), 0o600) }).map(drop)
}

/// Closes every descriptor from 3 up but these. Only in a fresh child that will
/// never touch, or drop, the other values it inherited.
pub(crate) fn close_all_but(kept: &[&dyn AsRawFd]) -> io::Result<()> {
    let mut kept: Vec<u32> = kept.iter().map(|fd| fd.as_raw_fd().cast_unsigned()).collect();
    kept.sort_unstable();
    let mut first = 3;
    for fd in kept.into_iter().filter(|fd| *fd >= 3) {
        if fd > first {
            // SAFETY: see above.
            super::check(unsafe { syscall(nr::CLOSE_RANGE, first, fd - 1, 0u32) })?;
        }
        first = fd + 1;
    }
    // SAFETY: as above.
    super::check(unsafe { syscall(nr::CLOSE_RANGE, first, u32::MAX, 0u32) }).map(drop)
}

/// Closes every descriptor from `first` up. Only in a fresh child that will never touch,
/// or drop, the values that own them.
pub(crate) fn close_from(first: u32) -> io::Result<()> {
    // SAFETY: see above.
    super::check(unsafe { syscall(nr::CLOSE_RANGE, first, u32::MAX, 0u32) }).map(drop)
}

/// Moves a descriptor out of the way of the numbers that a program is started
/// with. On failure it stays where it was.
pub(crate) fn move_above_standard(fd: OwnedFd) -> OwnedFd {
    const F_DUPFD_CLOEXEC: c_int = 1030;
    // SAFETY: makes one new descriptor, which is ours alone.
    match unsafe { fcntl(fd.as_raw_fd(), F_DUPFD_CLOEXEC, 10) } {
        -1 => fd,
        // SAFETY: as above.
        moved => unsafe { OwnedFd::from_raw_fd(moved) },
    }
}

/// Takes over a descriptor that the parent process left for this program.
pub(crate) fn inherited(number: c_int) -> OwnedFd {
    // SAFETY: called once for each number by a helper program whose start-up
    // contract says that this descriptor is open and nobody else's.
    unsafe { OwnedFd::from_raw_fd(number) }
}

/// Sends one packet, with at most one descriptor attached.
pub(crate) fn send_packet(
    socket: &impl AsRawFd,
    bytes: &[u8],
    fd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut iov = IoVec { base: bytes.as_ptr() as *mut c_void, len: bytes.len() };
    let mut control = OneFd {
        len: ONE_FD_LEN,
        level: SOL_SOCKET,
        kind: SCM_RIGHTS,
        fd: fd.map_or(-1, |fd| fd.as_raw_fd()),
        padding: 0,
    };
    let message = MsgHdr {
        name: null_mut(),
        namelen: 0,
        iov: &mut iov,
        iovlen: 1,
        control: if fd.is_some() { (&raw mut control).cast() } else { null_mut() },
        controllen: if fd.is_some() { size_of::<OneFd>() } else { 0 },
        flags: 0,
    };
    // SAFETY: every pointer in the header outlives the call; the kernel only reads them.
    let sent = unsafe { sendmsg(socket.as_raw_fd(), &message, MSG_NOSIGNAL) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Receives one packet; `None` when the peer has closed. A packet longer than
/// the buffer is an error, not a silent cut.
pub(crate) fn receive_packet(
    socket: &impl AsRawFd,
    buffer: &mut [u8],
) -> io::Result<Option<usize>> {
    // SAFETY: the buffer is valid for its length. MSG_TRUNC returns the true length.
    let length = unsafe {
        recv(
            socket.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            MSG_CMSG_CLOEXEC | MSG_TRUNC,
        )
    };
    match length {
        0 => Ok(None),
        n if n < 0 => Err(io::Error::last_os_error()),
        n if n as usize > buffer.len() => Err(io::Error::from(io::ErrorKind::InvalidData)),
        n => Ok(Some(n as usize)),
    }
}

/// Receives a packet of one byte that brings a descriptor; `None` when the peer has closed.
pub(crate) fn receive_descriptor(socket: &impl AsRawFd) -> io::Result<Option<OwnedFd>> {
    let mut byte = 0u8;
    let mut iov = IoVec { base: (&raw mut byte).cast(), len: 1 };
    let mut control = OneFd { fd: -1, ..OneFd::default() };
    let mut message = MsgHdr {
        name: null_mut(),
        namelen: 0,
        iov: &mut iov,
        iovlen: 1,
        control: (&raw mut control).cast(),
        controllen: size_of::<OneFd>(),
        flags: 0,
    };
    // SAFETY: every pointer in the header outlives the call, with the length that it gives.
    let received = unsafe { recvmsg(socket.as_raw_fd(), &mut message, MSG_CMSG_CLOEXEC) };
    if check_int(received as c_int)? == 0 {
        return Ok(None);
    }
    let came = message.controllen > 0 && control.kind == SCM_RIGHTS && control.fd >= 0;
    if !came {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(control.fd) }))
}
