//! Disk images: loop devices, growing and trimming what is on them, holes in files.

use super::{check, check_int};
use std::ffi::{c_int, c_ulong};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

const LOOP_SET_CAPACITY: c_ulong = 0x4C07;
const LOOP_CONFIGURE: c_ulong = 0x4C0A;
const LOOP_CTL_GET_FREE: c_ulong = 0x4C82;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;
const FIFREEZE: c_ulong = 0xC004_5877;
const FITHAW: c_ulong = 0xC004_5878;
const FICLONE: c_ulong = 0x4004_9409;
const FITRIM: c_ulong = 0xC018_5879;
const XFS_IOC_FSGROWFSDATA: c_ulong = 0x4010_586E;
/// Share of the space that inodes may take, as `mkfs.xfs` sets it.
const INODE_PERCENT: u32 = 25;
const EBUSY: i32 = 16;
const ENXIO: i32 = 6;
const SEEK_DATA: c_int = 3;
const SEEK_HOLE: c_int = 4;

unsafe extern "C" {
    fn ioctl(fd: c_int, request: c_ulong, ...) -> c_int;
    fn lseek(fd: c_int, offset: i64, whence: c_int) -> i64;
}

/// The kernel's `struct loop_info64`.
#[repr(C)]
struct LoopInfo {
    device: u64,
    inode: u64,
    backing_device: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// The kernel's `struct loop_config`.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

/// The kernel's `struct fstrim_range`.
#[repr(C)]
struct TrimRange {
    start: u64,
    length: u64,
    minimum: u64,
}

/// `struct xfs_growfs_data`.
#[repr(C)]
struct Growth {
    blocks: u64,
    inode_percent: u32,
}

/// An image shown as a block device. The kernel takes the device down again, and closes
/// the image, once neither this value nor a mount uses it.
pub(crate) struct LoopDevice {
    pub(crate) number: u32,
    pub(crate) device: File,
}

impl LoopDevice {
    /// Shows `image` in blocks of `block_size` bytes. A lock on `image` lasts as long as
    /// the device does. Past the page cache, where the image's filesystem can.
    pub(crate) fn attach(image: &File, block_size: u32) -> io::Result<Self> {
        let control = File::options().read(true).write(true).open("/dev/loop-control")?;
        loop {
            // SAFETY: takes no argument.
            let number = check_int(unsafe { ioctl(control.as_raw_fd(), LOOP_CTL_GET_FREE) })?;
            let number = number.cast_unsigned();
            let device = File::options().read(true).write(true).open(device_path(number))?;
            let config = config(image, number, block_size);
            // SAFETY: the structure has the kernel's layout and outlives the call.
            match check_int(unsafe { ioctl(device.as_raw_fd(), LOOP_CONFIGURE, &config) }) {
                Ok(_) => return Ok(Self { number, device }),
                // Somebody else was given the same free one.
                Err(error) if error.raw_os_error() == Some(EBUSY) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn config(image: &File, number: u32, block_size: u32) -> LoopConfig {
    LoopConfig {
        fd: image.as_raw_fd().cast_unsigned(),
        block_size,
        info: LoopInfo {
            device: 0,
            inode: 0,
            backing_device: 0,
            offset: 0,
            size_limit: 0,
            number,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_AUTOCLEAR | LO_FLAGS_DIRECT_IO,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    }
}

pub(crate) fn device_path(number: u32) -> String {
    format!("/dev/loop{number}")
}

/// Has a loop device take note that its image has grown.
pub(crate) fn update_capacity(number: u32) -> io::Result<()> {
    let device = File::options().read(true).write(true).open(device_path(number))?;
    // SAFETY: takes no argument.
    check_int(unsafe { ioctl(device.as_raw_fd(), LOOP_SET_CAPACITY, 0) }).map(drop)
}

/// Grows the XFS mounted at `path` to this many of its blocks.
pub(crate) fn grow_xfs(path: &Path, blocks: u64) -> io::Result<()> {
    let top = File::open(path)?;
    let growth = Growth { blocks, inode_percent: INODE_PERCENT };
    // SAFETY: the structure has the kernel's layout and outlives the call.
    check_int(unsafe { ioctl(top.as_raw_fd(), XFS_IOC_FSGROWFSDATA, &growth) }).map(drop)
}

/// Writes everything of the filesystem mounted at `path` down and holds writers back until
/// [`release_writers`].
pub(crate) fn hold_writers(path: &Path) -> io::Result<()> {
    let top = File::open(path)?;
    // SAFETY: the argument is not used.
    check_int(unsafe { ioctl(top.as_raw_fd(), FIFREEZE, 0) }).map(drop)
}

pub(crate) fn release_writers(path: &Path) -> io::Result<()> {
    let top = File::open(path)?;
    // SAFETY: the argument is not used.
    check_int(unsafe { ioctl(top.as_raw_fd(), FITHAW, 0) }).map(drop)
}

/// Makes an empty file share all of another's data, where the filesystem can.
pub(crate) fn share_data(from: &File, to: &File) -> io::Result<()> {
    // SAFETY: integer arguments only.
    check_int(unsafe { ioctl(to.as_raw_fd(), FICLONE, from.as_raw_fd()) }).map(drop)
}

/// Gives the free space of the filesystem mounted at `path` back to what is below it.
pub(crate) fn trim(path: &Path) -> io::Result<()> {
    let top = File::open(path)?;
    let mut range = TrimRange { start: 0, length: u64::MAX, minimum: 0 };
    // SAFETY: the kernel reads and writes a structure of its own layout.
    check_int(unsafe { ioctl(top.as_raw_fd(), FITRIM, &mut range) }).map(drop)
}

/// The first stretch of data at or after `from`, as start and end; `None` when only a
/// hole is left.
pub(crate) fn next_data(file: &File, from: u64) -> io::Result<Option<(u64, u64)>> {
    let seek = |from: u64, whence| {
        let from = i64::try_from(from).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: integer arguments only. The file's position is nobody's business: readers
        // and writers of sparse files say where.
        check(unsafe { lseek(file.as_raw_fd(), from, whence) }).map(i64::cast_unsigned)
    };
    match seek(from, SEEK_DATA) {
        Err(error) if error.raw_os_error() == Some(ENXIO) => Ok(None),
        Err(error) => Err(error),
        Ok(start) => Ok(Some((start, seek(start, SEEK_HOLE)?))),
    }
}
