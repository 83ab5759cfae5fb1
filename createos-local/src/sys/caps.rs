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

/// WAKE_ALARM: the agent alone holds it. It opens nothing, since the kernel asks for it
/// outside of sandboxes only; but who has fewer capabilities cannot trace who has more,
/// or open its files in /proc.
const APART: u32 = 35;

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

fn set_capabilities(permitted: u64, inheritable: u64) -> io::Result<()> {
    let header = Header { version: VERSION_3, pid: 0 };
    let half = |permitted: u64, inheritable: u64| Data {
        effective: permitted as u32,
        permitted: permitted as u32,
        inheritable: inheritable as u32,
    };
    let data = [half(permitted, inheritable), half(permitted >> 32, inheritable >> 32)];
    // SAFETY: both structures have the layout of version 3 and outlive the call.
    check(unsafe { syscall(arch::CAPSET, &header, data.as_ptr()) }).map(drop)
}

/// Gives up, for this process and everything it will exec, all capabilities
/// that a sandbox's root does not need. The next program alone, the agent, gets
/// one more.
pub(crate) fn drop_capabilities() -> io::Result<()> {
    // Handing it on is refused once it has left the bounding set, which it must: or it
    // would go on to every program of root.
    set_capabilities(permitted_capabilities()?, 1 << APART)?;
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
    let kept = KEPT.iter().fold(0, |bits, capability| bits | 1 << capability);
    set_capabilities(kept | 1 << APART, 1 << APART)
}

/// As [`refuse_tracing`], but in a way that lets this process be saved more than once: the
/// capability that it has left from the launcher does not go on to programs it starts.
pub(crate) fn stay_apart() -> io::Result<()> {
    set_capabilities(permitted_capabilities()?, 0)
}

fn permitted_capabilities() -> io::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapPrm:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// Gives up every capability, and every way to gain one.
pub(crate) fn renounce_privilege() -> io::Result<()> {
    let (on, none) = (1 as c_ulong, 0 as c_ulong);
    // SAFETY: integer arguments only.
    check_int(unsafe { prctl(PR_SET_NO_NEW_PRIVS, on, none, none, none) })?;
    set_capabilities(0, 0)
}

/// Makes every permitted capability effective again: changing the filesystem ids
/// away from 0 clears those that concern files.
pub(crate) fn raise_effective_capabilities() -> io::Result<()> {
    set_capabilities(permitted_capabilities()?, 0)
}

/// Becomes an ordinary user that keeps every capability, and so do the programs it execs.
/// False where there is no such id: then nothing has changed.
pub(crate) fn become_capable_user(id: u32) -> io::Result<bool> {
    const PR_SET_KEEPCAPS: c_int = 8;
    const PR_CAP_AMBIENT: c_int = 47;
    const PR_CAP_AMBIENT_RAISE: c_ulong = 2;
    // SAFETY: integer arguments only.
    check_int(unsafe { prctl(PR_SET_KEEPCAPS, 1 as c_ulong) })?;
    if super::set_user_ids(id).is_err() {
        return Ok(false);
    }
    let all = permitted_capabilities()?;
    set_capabilities(all, all)?;
    for capability in (0..64).filter(|capability| all & 1 << capability != 0) {
        let none: c_ulong = 0;
        // SAFETY: integer arguments only.
        check_int(unsafe {
            prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability as c_ulong, none, none)
        })?;
    }
    Ok(true)
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
