//! Mounts, old calls and new: overlay by descriptors, id mapping, pivot_root.

use super::{EMPTY, arch, c_string, check, check_int, nr, null, owned, syscall};
use std::ffi::{CString, c_char, c_int, c_ulong, c_void};
use std::io::{self, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub(crate) const MS_RDONLY: c_ulong = 1;
pub(crate) const MS_NOSUID: c_ulong = 2;
pub(crate) const MS_NODEV: c_ulong = 4;
pub(crate) const MS_NOEXEC: c_ulong = 8;
pub(crate) const MS_REMOUNT: c_ulong = 32;
pub(crate) const MS_BIND: c_ulong = 4096;
pub(crate) const MS_REC: c_ulong = 16384;
pub(crate) const MS_PRIVATE: c_ulong = 1 << 18;

pub(crate) const MNT_FORCE: c_int = 1;
pub(crate) const MNT_DETACH: c_int = 2;
pub(crate) const UMOUNT_NOFOLLOW: c_int = 8;
const AT_FDCWD: c_int = -100;
const AT_EMPTY_PATH: c_int = 0x1000;
const CLOEXEC: c_int = 0o2_000_000;
const OPEN_TREE_CLONE: c_int = 1;
const MOVE_MOUNT_F_EMPTY_PATH: c_int = 4;
const MOUNT_ATTR_IDMAP: u64 = 0x0010_0000;
const FSCONFIG_SET_FLAG: c_int = 0;
const FSCONFIG_SET_STRING: c_int = 1;
const FSCONFIG_SET_FD: c_int = 5;
const FSCONFIG_CMD_CREATE: c_int = 6;
const ST_RDONLY: c_ulong = 1;

unsafe extern "C" {
    fn mount(
        source: *const c_char,
        target: *const c_char,
        kind: *const c_char,
        flags: c_ulong,
        data: *const c_void,
    ) -> c_int;
    fn umount2(target: *const c_char, flags: c_int) -> c_int;
    fn openat(dir: c_int, path: *const c_char, flags: c_int, ...) -> c_int;
    fn statvfs(path: *const c_char, buffer: *mut StatVfs) -> c_int;
}

/// glibc's `struct statvfs` on 64-bit machines.
#[repr(C)]
#[derive(Default)]
struct StatVfs {
    block_size: c_ulong,
    fragment_size: c_ulong,
    blocks: u64,
    free: u64,
    available: u64,
    files: u64,
    files_free: u64,
    files_available: u64,
    id: c_ulong,
    flags: c_ulong,
    name_max: c_ulong,
    spare: [c_int; 8],
}

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

fn c_path(path: &Path) -> io::Result<CString> {
    c_string(path.as_os_str().as_bytes())
}

/// `mount(2)` of a filesystem type.
pub(crate) fn mount_fs(kind: &str, target: &Path, flags: c_ulong, data: &str) -> io::Result<()> {
    let (kind, target, data) = (c_string(kind)?, c_path(target)?, c_string(data)?);
    // SAFETY: all strings are NUL-terminated and outlive the call.
    check_int(unsafe {
        mount(kind.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast())
    })
    .map(drop)
}

/// `mount(2)` of what is on a block device.
pub(crate) fn mount_device(
    device: &str,
    kind: &str,
    target: &Path,
    flags: c_ulong,
    data: &str,
) -> io::Result<()> {
    let (device, kind) = (c_string(device)?, c_string(kind)?);
    let (target, data) = (c_path(target)?, c_string(data)?);
    // SAFETY: as above.
    check_int(unsafe {
        mount(device.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.as_ptr().cast())
    })
    .map(drop)
}

/// Takes a mount out of sight. It ends when nothing uses it any more.
pub(crate) fn detach_mount(target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: the path outlives the call.
    check_int(unsafe { umount2(target.as_ptr(), MNT_DETACH) }).map(drop)
}

/// Ends a mount, as these flags say.
pub(crate) fn unmount(target: &Path, flags: c_int) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: the path outlives the call.
    check_int(unsafe { umount2(target.as_ptr(), flags) }).map(drop)
}

/// Binds `source` onto `target`.
pub(crate) fn bind(source: &Path, target: &Path, flags: c_ulong) -> io::Result<()> {
    let (source, target) = (c_path(source)?, c_path(target)?);
    // SAFETY: as above; a bind reads neither type nor data.
    check_int(unsafe { mount(source.as_ptr(), target.as_ptr(), null(), MS_BIND | flags, null()) })
        .map(drop)
}

/// Changes the flags or the propagation of an existing mount.
pub(crate) fn change_mount(target: &Path, flags: c_ulong) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: as above; neither source, type nor data is read.
    check_int(unsafe { mount(null(), target.as_ptr(), null(), flags, null()) }).map(drop)
}

/// Swaps the root for the current directory. The old root lies over the current
/// directory, out of reach of absolute paths, until [`drop_old_root`].
pub(crate) fn pivot_to_current_directory() -> io::Result<()> {
    let here = c".";
    // SAFETY: constant strings.
    check(unsafe { syscall(arch::PIVOT_ROOT, here.as_ptr(), here.as_ptr()) }).map(drop)
}

/// Detaches the old root and everything mounted below it. The current directory
/// must still be that of the pivot.
pub(crate) fn drop_old_root() -> io::Result<()> {
    // SAFETY: constant string.
    check_int(unsafe { umount2(c".".as_ptr(), MNT_DETACH) }).map(drop)
}

/// A detached copy of the mount at `path`.
pub(crate) fn clone_mount(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    // SAFETY: the path outlives the call.
    owned(unsafe { syscall(nr::OPEN_TREE, AT_FDCWD, path.as_ptr(), OPEN_TREE_CLONE | CLOEXEC) })
}

/// Shows the files of a detached mount with the ids of a user namespace.
pub(crate) fn map_ids(mount: &OwnedFd, user_namespace: &impl AsRawFd) -> io::Result<()> {
    let attributes = MountAttributes {
        set: MOUNT_ATTR_IDMAP,
        clear: 0,
        propagation: 0,
        user_namespace: user_namespace.as_raw_fd() as u64,
    };
    // SAFETY: the structure outlives the call and its size is passed along.
    check(unsafe {
        syscall(
            nr::MOUNT_SETATTR,
            mount.as_raw_fd(),
            EMPTY,
            AT_EMPTY_PATH,
            &attributes,
            size_of::<MountAttributes>(),
        )
    })
    .map(drop)
}

/// Attaches a detached mount at `target`.
pub(crate) fn attach_mount(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    let target = c_path(target)?;
    // SAFETY: the path outlives the call.
    check(unsafe {
        syscall(
            nr::MOVE_MOUNT,
            mount.as_raw_fd(),
            EMPTY,
            AT_FDCWD,
            target.as_ptr(),
            MOVE_MOUNT_F_EMPTY_PATH,
        )
    })
    .map(drop)
}

/// Opens a directory below another one, as a handle for mounting only.
pub(crate) fn open_directory_at(dir: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    const O_PATH: c_int = 0o10_000_000;
    const O_DIRECTORY: c_int = if cfg!(target_arch = "aarch64") { 0o40_000 } else { 0o200_000 };
    let name = c_string(name)?;
    // SAFETY: the name outlives the call.
    owned(i64::from(unsafe {
        openat(dir.as_raw_fd(), name.as_ptr(), O_PATH | O_DIRECTORY | CLOEXEC)
    }))
}

/// Whether the filesystem at `path` refuses writes.
pub(crate) fn is_read_only(path: &Path) -> io::Result<bool> {
    Ok(filesystem_status(path)?.flags & ST_RDONLY != 0)
}

/// What is taken of the filesystem at `path`.
pub(crate) struct Taken {
    pub(crate) bytes: u64,
    pub(crate) files: u64,
}

pub(crate) fn taken(path: &Path) -> io::Result<Taken> {
    let status = filesystem_status(path)?;
    Ok(Taken {
        bytes: status.blocks.saturating_sub(status.free).saturating_mul(status.fragment_size),
        files: status.files.saturating_sub(status.files_free),
    })
}

fn filesystem_status(path: &Path) -> io::Result<StatVfs> {
    let path = c_path(path)?;
    let mut buffer = StatVfs::default();
    // SAFETY: the buffer has the layout of `struct statvfs`.
    check_int(unsafe { statvfs(path.as_ptr(), &mut buffer) })?;
    Ok(buffer)
}

/// A filesystem being configured (`fsopen(2)`).
pub(crate) struct NewFilesystem(OwnedFd);

impl NewFilesystem {
    pub(crate) fn open(kind: &str) -> io::Result<Self> {
        let kind = c_string(kind)?;
        const FSOPEN_CLOEXEC: c_int = 1;
        // SAFETY: the name outlives the call.
        owned(unsafe { syscall(nr::FSOPEN, kind.as_ptr(), FSOPEN_CLOEXEC) }).map(Self)
    }

    pub(crate) fn set_flag(&self, key: &str) -> io::Result<()> {
        self.configure(FSCONFIG_SET_FLAG, Some(key), None, 0)
    }

    pub(crate) fn set_path(&self, key: &str, path: &Path) -> io::Result<()> {
        self.configure(FSCONFIG_SET_STRING, Some(key), Some(&c_path(path)?), 0)
    }

    pub(crate) fn set_text(&self, key: &str, value: &str) -> io::Result<()> {
        self.configure(FSCONFIG_SET_STRING, Some(key), Some(&c_string(value)?), 0)
    }

    pub(crate) fn set_fd(&self, key: &str, fd: &OwnedFd) -> io::Result<()> {
        self.configure(FSCONFIG_SET_FD, Some(key), None, fd.as_raw_fd())
    }

    pub(crate) fn create(&self) -> io::Result<()> {
        self.configure(FSCONFIG_CMD_CREATE, None, None, 0)
    }

    /// The created filesystem as a detached mount without devices.
    pub(crate) fn mount(&self) -> io::Result<OwnedFd> {
        const FSMOUNT_CLOEXEC: c_int = 1;
        const MOUNT_ATTR_NODEV: c_int = 4;
        // SAFETY: integer arguments only.
        owned(unsafe {
            syscall(nr::FSMOUNT, self.0.as_raw_fd(), FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV)
        })
    }

    fn configure(
        &self,
        command: c_int,
        key: Option<&str>,
        value: Option<&CString>,
        aux: c_int,
    ) -> io::Result<()> {
        let key = key.map(c_string).transpose()?;
        let pointer = |text: Option<&CString>| text.map_or(null(), |text| text.as_ptr());
        // SAFETY: key and value are NUL-terminated or null and outlive the call.
        let result = unsafe {
            syscall(
                nr::FSCONFIG,
                self.0.as_raw_fd(),
                command,
                pointer(key.as_ref()),
                pointer(value),
                aux,
            )
        };
        check(result).map(drop).map_err(|error| self.explain(error))
    }

    /// The kernel's own sentence about a failure waits in the descriptor.
    fn explain(&self, error: io::Error) -> io::Error {
        let mut buffer = [0; 512];
        let read = self
            .0
            .try_clone()
            .and_then(|fd| std::fs::File::from(fd).read(&mut buffer))
            .unwrap_or(0);
        if read == 0 {
            return error;
        }
        let text = String::from_utf8_lossy(&buffer[..read]);
        let text = text.trim().trim_start_matches("e ");
        io::Error::new(error.kind(), format!("{error}: {text}"))
    }
}
