//! Signals as a readable descriptor.

use super::{arch, check, check_int, null_mut, owned, syscall};
use std::ffi::{c_int, c_long};
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

/// Gives every signal that is ignored its usual effect, but SIGPIPE, which is ignored in every
/// Rust program: `exec` keeps what whoever started us ignores, as `nohup` does.
pub(crate) fn heed_signals() -> io::Result<()> {
    const SIGPIPE: c_int = 13;
    const SIG_IGN: u64 = 1;
    const SET_SIZE: usize = 8;
    /// The kernel's `struct sigaction` on both architectures: handler, flags, restorer, mask.
    type Action = [u64; 4];
    for signal in (1..=64).filter(|signal| *signal != SIGPIPE) {
        let mut now: Action = [0; 4];
        let usual: Action = [0; 4];
        // SAFETY: both actions have the kernel's size and outlive the calls; the usual effect
        // names no code. The C library's own function refuses signals 32 and 33.
        unsafe {
            let old = &raw mut now;
            check(syscall(arch::RT_SIGACTION, c_long::from(signal), null_mut(), old, SET_SIZE))?;
            if now[0] == SIG_IGN {
                let new = &raw const usual;
                check(syscall(
                    arch::RT_SIGACTION,
                    c_long::from(signal),
                    new,
                    null_mut(),
                    SET_SIZE,
                ))?;
            }
        }
    }
    Ok(())
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
