//! Signals as a readable descriptor.

use super::{check_int, owned};
use std::ffi::c_int;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

pub(crate) const SIGHUP: c_int = 1;
pub(crate) const SIGINT: c_int = 2;
pub(crate) const SIGCHLD: c_int = 17;

/// glibc's `sigset_t`.
#[repr(C)]
struct SignalSet([u64; 16]);

unsafe extern "C" {
    fn sigemptyset(set: *mut SignalSet) -> c_int;
    fn sigfillset(set: *mut SignalSet) -> c_int;
    fn sigaddset(set: *mut SignalSet, signal: c_int) -> c_int;
    fn sigprocmask(how: c_int, set: *const SignalSet, old: *mut SignalSet) -> c_int;
    fn signalfd(fd: c_int, set: *const SignalSet, flags: c_int) -> c_int;
}

fn set_of(signals: &[c_int]) -> io::Result<SignalSet> {
    let mut set = SignalSet([0; 16]);
    // SAFETY: the set is large enough for every signal.
    unsafe {
        check_int(sigemptyset(&mut set))?;
        for signal in signals {
            check_int(sigaddset(&mut set, *signal))?;
        }
    }
    Ok(set)
}

/// Blocks `signals` and returns a non-blocking descriptor that becomes readable
/// when one is pending.
pub(crate) fn signal_descriptor(signals: &[c_int]) -> io::Result<OwnedFd> {
    const SIG_BLOCK: c_int = 0;
    const CLOEXEC_NONBLOCK: c_int = 0o2_004_000;
    let set = set_of(signals)?;
    // SAFETY: the set outlives both calls; the old mask is not asked for.
    unsafe {
        check_int(sigprocmask(SIG_BLOCK, &set, std::ptr::null_mut()))?;
        owned(i64::from(signalfd(-1, &set, CLOEXEC_NONBLOCK)))
    }
}

/// Empties a signal descriptor.
pub(crate) fn drain_signals(descriptor: &OwnedFd) {
    let Ok(fd) = descriptor.try_clone() else { return };
    let mut file = std::fs::File::from(fd);
    let mut buffer = [0; 128];
    while file.read(&mut buffer).is_ok_and(|count| count > 0) {}
}

/// Lets every signal through again; for children, which inherit the mask.
pub(crate) fn unblock_signals() -> io::Result<()> {
    const SIG_SETMASK: c_int = 2;
    let set = set_of(&[])?;
    // SAFETY: as above.
    check_int(unsafe { sigprocmask(SIG_SETMASK, &set, std::ptr::null_mut()) }).map(drop)
}

/// Blocks every signal that can be.
pub(crate) fn block_signals() -> io::Result<()> {
    const SIG_SETMASK: c_int = 2;
    let mut set = SignalSet([0; 16]);
    // SAFETY: as above.
    unsafe {
        check_int(sigfillset(&mut set))?;
        check_int(sigprocmask(SIG_SETMASK, &set, std::ptr::null_mut())).map(drop)
    }
}
