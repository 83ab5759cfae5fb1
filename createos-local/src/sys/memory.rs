//! Memory that is not shared with children.

use super::null_mut;
use std::ffi::{c_int, c_void};
use std::io;
use std::ops::{Deref, DerefMut};

unsafe extern "C" {
    fn mmap(
        at: *mut c_void,
        len: usize,
        protection: c_int,
        flags: c_int,
        fd: c_int,
        offset: i64,
    ) -> *mut c_void;
    fn munmap(at: *mut c_void, len: usize) -> c_int;
    fn madvise(at: *mut c_void, len: usize, advice: c_int) -> c_int;
}

/// Zeroed bytes that take memory only where they were written, and that a forked
/// child does not get: it would hold on to every page that changes here later.
#[derive(Debug)]
pub(crate) struct Pages {
    at: *mut u8,
    len: usize,
}

impl Pages {
    /// `len` must not be 0.
    pub(crate) fn new(len: usize) -> io::Result<Self> {
        const PROT_READ_WRITE: c_int = 3;
        const MAP_PRIVATE_ANONYMOUS: c_int = 0x22;
        const MADV_DONTFORK: c_int = 10;
        // SAFETY: a new mapping wherever the kernel likes.
        let at = unsafe { mmap(null_mut(), len, PROT_READ_WRITE, MAP_PRIVATE_ANONYMOUS, -1, 0) };
        if at as isize == -1 {
            return Err(io::Error::last_os_error());
        }
        let pages = Self { at: at.cast(), len };
        // SAFETY: the mapping is ours and whole.
        super::check_int(unsafe { madvise(at, len, MADV_DONTFORK) })?;
        Ok(pages)
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: mapped, initialised with zeros, and borrowed as long as `self` is.
        unsafe { std::slice::from_raw_parts(self.at, self.len) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: nothing borrows it any more.
        unsafe { munmap(self.at.cast(), self.len) };
    }
}
