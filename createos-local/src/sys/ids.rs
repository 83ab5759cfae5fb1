//! User and group ids of this process.

use super::check_int;
use std::ffi::c_int;
use std::io;

unsafe extern "C" {
    fn geteuid() -> u32;
    fn getegid() -> u32;
    fn setresuid(real: u32, effective: u32, saved: u32) -> c_int;
    fn setresgid(real: u32, effective: u32, saved: u32) -> c_int;
    fn setgroups(count: usize, list: *const u32) -> c_int;
    fn setfsuid(uid: u32) -> c_int;
    fn setfsgid(gid: u32) -> c_int;
}

pub(crate) fn effective_uid() -> u32 {
    // SAFETY: cannot fail and touches no memory.
    unsafe { geteuid() }
}

pub(crate) fn effective_gid() -> u32 {
    // SAFETY: cannot fail and touches no memory.
    unsafe { getegid() }
}

/// Becomes root of the user namespace this process is in.
pub(crate) fn become_namespace_root(clear_groups: bool) -> io::Result<()> {
    // SAFETY: plain id calls; the group list is empty, so its pointer is not read.
    unsafe {
        check_int(setresgid(0, 0, 0))?;
        check_int(setresuid(0, 0, 0))?;
        if clear_groups {
            check_int(setgroups(0, super::null()))?;
        }
    }
    Ok(())
}

/// Becomes this user and group for good, without other groups.
pub(crate) fn become_user(id: u32) -> io::Result<()> {
    // SAFETY: plain id calls; the group list is empty, so its pointer is not read.
    unsafe {
        check_int(setgroups(0, super::null()))?;
        check_int(setresgid(id, id, id))?;
        check_int(setresuid(id, id, id)).map(drop)
    }
}

/// Lets the program run as this user, with these groups besides.
pub(crate) fn as_user(
    command: &mut std::process::Command,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: this process has one thread, so its child after a fork is as good as any; the
    // list outlives the call that reads it.
    unsafe {
        command.pre_exec(move || {
            // Where there is one id only, there are no groups to set either.
            let set = check_int(setgroups(groups.len(), groups.as_ptr()));
            if uid != 0 || gid != 0 {
                set?;
            }
            check_int(setresgid(gid, gid, gid))?;
            check_int(setresuid(uid, uid, uid)).map(drop)
        })
    }
}

/// Sets the effective user id alone. The real one stays, so 0 can come back.
pub(crate) fn set_effective_uid(id: u32) -> io::Result<()> {
    // SAFETY: plain id call.
    check_int(unsafe { setresuid(u32::MAX, id, u32::MAX) }).map(drop)
}

/// Sets real, effective and saved user id for good.
pub(crate) fn set_user_ids(id: u32) -> io::Result<()> {
    // SAFETY: plain id call.
    check_int(unsafe { setresuid(id, id, id) }).map(drop)
}

/// Sets the ids that the kernel uses when this process creates files.
pub(crate) fn set_filesystem_ids(id: u32) {
    // SAFETY: touches no memory. Both calls return the previous id and never an error.
    unsafe {
        setfsuid(id);
        setfsgid(id);
    }
}
