//! Capabilities and the seccomp filter of this process.

use super::{arch, check, check_int, null, syscall};
use std::ffi::{c_int, c_ulong};
use std::io;

const PR_SET_PDEATHSIG: c_int = 1;
const PR_SET_NO_NEW_PRIVS: c_int = 38;
const PR_CAPBSET_READ: c_int = 23;
const PR_CAPBSET_DROP: c_int = 24;
const VERSION_3: u32 = 0x2008_0522;
const SIGKILL: c_ulong = 9;

/// What root inside a sandbox keeps: enough for package managers, sshd, su and
/// ports below 1024, nothing that reaches mounts, devices, networks or the kernel.
const KEPT: [u32; 12] = [
    0,  // CHOWN
    1,  // DAC_OVERRIDE
    3,  // FOWNER
    4,  // FSETID
    5,  // KILL
    6,  // SETGID
    7,  // SETUID
    8,  // SETPCAP
    10, // NET_BIND_SERVICE
    18, // SYS_CHROOT
    29, // AUDIT_WRITE
    31, // SETFCAP
];

#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

#[repr(C)]
struct FilterProgram {
    len: u16,
    instructions: *const u8,
}

unsafe extern "C" {
    fn prctl(option: c_int, ...) -> c_int;
}

fn set_capabilities(permitted: u64) -> io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |bits: u64| Data { effective: bits as u32, permitted: bits as u32, inheritable: 0 };
    let data = [half(permitted), half(permitted >> 32)];
    // SAFETY: both structures have the layout of version 3 and outlive the call.
    check(unsafe { syscall(arch::CAPSET, &header, data.as_ptr()) }).map(drop)
}

/// Gives up, for this process and everything it will exec, all capabilities
/// that a sandbox's root does not need.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    for capability in 0..64 {
        if KEPT.contains(&capability) {
            continue;
        }
        // SAFETY: integer arguments only. EINVAL marks the end of the known capabilities.
        let known = unsafe { prctl(PR_CAPBSET_READ, c_ulong::from(capability)) };
        if known < 0 {
            break;
        }
        // SAFETY: integer arguments only.
        check_int(unsafe { prctl(PR_CAPBSET_DROP, c_ulong::from(capability)) })?;
    }
    set_capabilities(KEPT.iter().fold(0, |bits, capability| bits | 1 << capability))
}

/// Gives up every capability, and every way to gain one.
pub(crate) fn renounce_privilege() -> io::Result<()> {
    let (on, none) = (1 as c_ulong, 0 as c_ulong);
    // SAFETY: integer arguments only.
    check_int(unsafe { prctl(PR_SET_NO_NEW_PRIVS, on, none, none, none) })?;
    set_capabilities(0)
}

/// Makes every permitted capability effective again: changing the filesystem ids
/// away from 0 clears those that concern files.
pub(crate) fn raise_effective_capabilities() -> io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let permitted = status
        .lines()
        .find_map(|line| line.strip_prefix("CapPrm:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    set_capabilities(permitted)
}

/// Installs a filter of packed BPF instructions. Needs CAP_SYS_ADMIN in the user
/// namespace, or `no_new_privs`, which stays off for guests: sudo would not work.
pub(crate) fn install_seccomp_filter(instructions: &[u8]) -> io::Result<()> {
    const SECCOMP_SET_MODE_FILTER: c_int = 1;
    let len = u16::try_from(instructions.len() / 8)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    let program = FilterProgram { len, instructions: instructions.as_ptr() };
    // SAFETY: the program points at `len` instructions of 8 bytes that outlive the call.
    check(unsafe { syscall(arch::SECCOMP, SECCOMP_SET_MODE_FILTER, 0, &program) }).map(drop)
}

/// Keeps programs with the same ids from tracing this one, and from opening its
/// files in /proc. An exec undoes it.
pub(crate) fn refuse_tracing() -> io::Result<()> {
    const PR_SET_DUMPABLE: c_int = 4;
    // SAFETY: integer arguments only.
    check_int(unsafe { prctl(PR_SET_DUMPABLE, null::<u8>(), null::<u8>(), null::<u8>()) }).map(drop)
}

/// Asks the kernel to kill this process when its parent ends.
pub(crate) fn die_with_parent() -> io::Result<()> {
    // SAFETY: integer arguments only.
    check_int(unsafe { prctl(PR_SET_PDEATHSIG, SIGKILL, null::<u8>(), null::<u8>(), null::<u8>()) })
        .map(drop)
}

/// Makes orphans among what this process starts its own children, as if it were PID 1.
/// Survives an exec.
pub(crate) fn adopt_orphans() -> io::Result<()> {
    const PR_SET_CHILD_SUBREAPER: c_int = 36;
    // SAFETY: integer arguments only.
    check_int(unsafe {
        prctl(PR_SET_CHILD_SUBREAPER, 1 as c_ulong, null::<u8>(), null::<u8>(), null::<u8>())
    })
    .map(drop)
}
