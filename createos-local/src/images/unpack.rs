//! Unpacks a tar archive into a directory and nowhere else.
//!
//! Whoever made the archive is not to be trusted. Every path is resolved by the kernel with
//! that directory as its root, so neither `..` nor a link leads out; what is there is removed
//! before something takes its place, so nothing is written through a link; devices are left
//! out; and bytes, entries and the lengths of everything are bounded.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid, XattrFlags,
};
use rustix::io::Errno;
use tar::EntryType;

use super::ImageError;
use super::headers::Meta;
use super::sparse::Piece;
use super::tarball::Tarball;
use crate::tree::remove_tree;

const LONGEST_PATH: usize = 4096;
const LONGEST_NAME: usize = 255;
/// Ids that exist inside a sandbox.
const IDS: u64 = 65_536;
/// How names begin that take away what a lower layer has.
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
const CAPABILITY: &str = "security.capability";

/// Directories that a machine mounts something on.
const MOUNT_POINTS: [&str; 6] = ["dev", "etc", "proc", "run", "sys", "tmp"];

/// A directory that archives are unpacked into.
pub(super) struct Unpacker {
    root: OwnedFd,
    path: PathBuf,
    /// Whether files can have owners other than this user.
    privileged: bool,
    /// What the files may still take.
    bytes: u64,
    written: u64,
    /// Modes of directories, set when everything is there.
    modes: Vec<(Vec<u8>, Mode)>,
    /// The directory of the last entry.
    near: Option<(Vec<u8>, OwnedFd)>,
}

/// A path in an archive: names joined by `/`, none of them `.` or `..`.
type InArchive = Vec<u8>;

impl Unpacker {
    /// Unpacks into an empty directory, at most so many bytes.
    pub(super) fn new(path: &Path, bytes: u64) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        rustix::fs::fchmod(&root, Mode::from_raw_mode(0o755))?;
        Ok(Self {
            root,
            path: path.to_owned(),
            privileged: rustix::process::geteuid().is_root(),
            bytes,
            written: 0,
            modes: Vec::new(),
            near: None,
        })
    }

    /// Unpacks one archive over what is there. With `whiteouts`, names of that kind take away
    /// what earlier archives brought.
    pub(super) fn layer(
        &mut self,
        source: &mut dyn Read,
        whiteouts: bool,
    ) -> Result<(), ImageError> {
        let mut archive = Tarball::new(source);
        let mut added = HashSet::new();
        while let Some(meta) = archive.next()? {
            let path = in_archive(&meta.path)?;
            if whiteouts && self.whiteout(&path, &added)? {
                continue;
            }
            self.entry(&path, &meta, &mut archive)?;
            if whiteouts {
                added.insert(path);
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &InArchive,
        meta: &Meta,
        content: &mut impl Read,
    ) -> Result<(), ImageError> {
        if path.is_empty() {
            // The root itself.
            if meta.kind == EntryType::Directory {
                self.own_root(meta).map_err(at(path))?;
            }
            return Ok(());
        }
        let (above, name) = split(path);
        match meta.kind {
            EntryType::Char | EntryType::Block => return Ok(()),
            EntryType::Directory => {
                return self.directory(path, above, name, meta).map_err(at(path));
            }
            _ => {}
        }
        // Before anything is removed: a link may be to itself.
        let linked = match meta.kind {
            EntryType::Link => Some(in_archive(&meta.link)?),
            _ => None,
        };
        if linked.as_ref() == Some(path) {
            return Err(ImageError::Damaged(format!("{} is a link to itself", shown(path))));
        }
        let parent = self.parent(above).map_err(at(path))?;
        self.clear(&parent, name, path).map_err(at(path))?;
        match (meta.kind, linked) {
            (EntryType::Regular | EntryType::Continuous, _) => {
                self.file(&parent, name, path, meta, content)?;
            }
            (EntryType::Symlink, _) => self.symlink(&parent, name, path, meta)?,
            (EntryType::Link, Some(linked)) => {
                self.hard_link(&parent, name, &linked).map_err(|error| match error.kind() {
                    io::ErrorKind::NotFound => ImageError::Damaged(format!(
                        "{} is a link to {}, which is not there",
                        shown(path),
                        shown(&linked)
                    )),
                    _ => at(path)(error),
                })?;
            }
            (EntryType::Fifo, _) => self.fifo(&parent, name, meta).map_err(at(path))?,
            (kind, _) => {
                let text =
                    format!("{} is of a kind ({kind:?}) that is not understood", shown(path));
                return Err(ImageError::Unsupported(text));
            }
        }
        self.near = Some((above.to_vec(), parent));
        Ok(())
    }

    fn own_root(&mut self, meta: &Meta) -> io::Result<()> {
        let (uid, gid) = owner(meta)?;
        if self.privileged {
            rustix::fs::fchown(&self.root, Some(uid), Some(gid))?;
        }
        self.modes.push((Vec::new(), meta.mode));
        Ok(())
    }

    /// Opens a directory of the archive, with the unpacked one as its root.
    fn open(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        Ok(rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve)?)
    }

    /// Opens the directory of an entry; what is missing of it is made.
    fn parent(&mut self, path: &[u8]) -> io::Result<OwnedFd> {
        if let Some((near, directory)) = self.near.take_if(|(near, _)| near == path) {
            drop(near);
            return Ok(directory);
        }
        match self.open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_empty() => {
                let (above, name) = split(path);
                let parent = self.parent(above)?;
                rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                self.open(path)
            }
            opened => opened,
        }
    }

    /// Makes a place free.
    fn clear(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> io::Result<()> {
        match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => self.remove_directory(parent, name, path),
            Err(error) => Err(error.into()),
        }
    }

    fn remove_directory(&mut self, parent: &OwnedFd, name: &[u8], path: &[u8]) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt as _;
        self.near = None;
        // What is not there any more gets no mode.
        let inside = [path, b"/"].concat();
        self.modes.retain(|(known, _)| known != path && !known.starts_with(&inside));
        let directory = PathBuf::from(format!("/proc/self/fd/{}", parent.as_raw_fd()));
        remove_tree(&directory.join(std::ffi::OsStr::from_bytes(name)))
    }

    fn directory(&mut self, path: &[u8], above: &[u8], name: &[u8], meta: &Meta) -> io::Result<()> {
        let (uid, gid) = owner(meta)?;
        let parent = self.parent(above)?;
        let is_there = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory);
        if !is_there {
            self.clear(&parent, name, path)?;
            rustix::fs::mkdirat(&parent, name, Mode::RWXU)?;
        }
        if self.privileged {
            let no_follow = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(&parent, name, Some(uid), Some(gid), no_follow)?;
        }
        self.modes.push((path.to_vec(), meta.mode));
        self.near = Some((above.to_vec(), parent));
        Ok(())
    }

    fn file(
        &mut self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        meta: &Meta,
        content: &mut impl Read,
    ) -> Result<(), ImageError> {
        self.bytes = self
            .bytes
            .checked_sub(meta.stored)
            .ok_or_else(|| ImageError::TooLarge("there is not that much room for it".to_owned()))?;
        let (uid, gid) = owner(meta).map_err(at(path))?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, name, flags | OFlags::NOFOLLOW, Mode::RUSR);
        let mut file = File::from(file.map_err(|error| at(path)(error.into()))?);
        let whole = [Piece { offset: 0, length: meta.size }];
        for Piece { offset, length } in meta.pieces.as_deref().unwrap_or(&whole) {
            if meta.pieces.is_some() {
                file.seek(SeekFrom::Start(*offset)).map_err(at(path))?;
            }
            write(&mut file, path, content, *length)?;
        }
        if meta.pieces.is_some() {
            file.set_len(meta.size).map_err(at(path))?;
        }
        self.written += meta.stored;
        let finish = || -> io::Result<()> {
            if self.privileged {
                rustix::fs::fchown(&file, Some(uid), Some(gid))?;
                if let Some(capability) = &meta.capability {
                    rustix::fs::fsetxattr(&file, CAPABILITY, capability, XattrFlags::empty())?;
                }
            }
            rustix::fs::fchmod(&file, meta.mode)?;
            let time = Timespec { tv_sec: meta.modified, tv_nsec: 0 };
            rustix::fs::futimens(
                &file,
                &Timestamps { last_access: time, last_modification: time },
            )?;
            Ok(())
        };
        finish().map_err(at(path))
    }

    fn symlink(
        &self,
        parent: &OwnedFd,
        name: &[u8],
        path: &[u8],
        meta: &Meta,
    ) -> Result<(), ImageError> {
        if meta.link.is_empty() || meta.link.len() >= LONGEST_PATH || meta.link.contains(&0) {
            return Err(ImageError::Damaged(format!("{} links to nothing", shown(path))));
        }
        let make = || -> io::Result<()> {
            let (uid, gid) = owner(meta)?;
            rustix::fs::symlinkat(&*meta.link, parent, name)?;
            if self.privileged {
                let no_follow = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(parent, name, Some(uid), Some(gid), no_follow)?;
            }
            Ok(())
        };
        make().map_err(at(path))
    }

    fn hard_link(&self, parent: &OwnedFd, name: &[u8], linked: &[u8]) -> io::Result<()> {
        let (above, of) = split(linked);
        let from = self.open(above)?;
        Ok(rustix::fs::linkat(&from, of, parent, name, AtFlags::empty())?)
    }

    fn fifo(&self, parent: &OwnedFd, name: &[u8], meta: &Meta) -> io::Result<()> {
        let (uid, gid) = owner(meta)?;
        rustix::fs::mknodat(parent, name, FileType::Fifo, meta.mode, 0)?;
        if self.privileged {
            let no_follow = AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::chownat(parent, name, Some(uid), Some(gid), no_follow)?;
        }
        Ok(())
    }

    /// Whether this is a whiteout; then it has been carried out.
    fn whiteout(
        &mut self,
        path: &InArchive,
        added: &HashSet<InArchive>,
    ) -> Result<bool, ImageError> {
        let (above, name) = split(path);
        let Some(hidden) = name.strip_prefix(WHITEOUT) else { return Ok(false) };
        let directory = match self.open(above) {
            Ok(directory) => directory,
            // There is nothing that could be taken away.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
            Err(error) => return Err(at(path)(error)),
        };
        if name == OPAQUE {
            self.empty(&directory, above, added).map_err(at(path))?;
        } else if !hidden.starts_with(WHITEOUT) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(ImageError::Damaged(format!("{} hides nothing", shown(path))));
            }
            let target = joined(above, hidden);
            if !added.contains(&target) {
                self.clear(&directory, hidden, &target).map_err(at(path))?;
            }
        }
        Ok(true)
    }

    /// Removes what this archive has not brought itself.
    fn empty(
        &mut self,
        directory: &OwnedFd,
        path: &[u8],
        added: &HashSet<InArchive>,
    ) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_bytes().to_vec();
            if !matches!(&*name, b"." | b"..") {
                names.push(name);
            }
        }
        for name in names {
            let child = joined(path, &name);
            if !added.contains(&child) {
                self.clear(directory, &name, &child)?;
                continue;
            }
            let stat = rustix::fs::statat(directory, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                let inner = self.open(&child)?;
                self.empty(&inner, &child, added)?;
            }
        }
        Ok(())
    }

    /// Makes the whole fit to be the root of a machine; returns how many bytes its files have.
    pub(super) fn finish(mut self) -> Result<u64, ImageError> {
        for name in MOUNT_POINTS {
            let stat = rustix::fs::statat(&self.root, name, AtFlags::SYMLINK_NOFOLLOW);
            let is_directory = |stat: rustix::fs::Stat| {
                FileType::from_raw_mode(stat.st_mode) == FileType::Directory
            };
            if stat.is_ok_and(|stat| !is_directory(stat)) {
                return Err(ImageError::Unsupported(format!("its /{name} is no directory")));
            }
        }
        // Whoever is booted from it has a name and a resolver of its own.
        if let Ok(etc) = self.open(b"etc") {
            for name in ["hostname", "hosts", "resolv.conf"] {
                let _ = rustix::fs::unlinkat(&etc, name, AtFlags::empty());
            }
        }
        // The agent's place.
        remove_tree(&self.path.join(".cos")).map_err(at(b".cos"))?;
        let modes = std::mem::take(&mut self.modes);
        // From the inside out: a directory may be closed to this user from then on.
        for (path, mode) in modes.iter().rev() {
            match self.open(path) {
                Ok(directory) => {
                    rustix::fs::fchmod(&directory, *mode).map_err(|error| at(path)(error.into()))?
                }
                // Another entry has closed or replaced it.
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::NotFound
                            | io::ErrorKind::NotADirectory
                            | io::ErrorKind::PermissionDenied
                    ) => {}
                Err(error) => return Err(at(path)(error)),
            }
        }
        Ok(self.written)
    }

    /// Whether a path inside is there.
    pub(super) fn has(&self, path: &str) -> bool {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        rustix::fs::openat2(&self.root, path, flags, Mode::empty(), resolve).is_ok()
    }

    /// Makes a directory inside, if it is missing.
    pub(super) fn make_directory(&mut self, path: &str) -> Result<(), ImageError> {
        let path = in_archive(path.as_bytes())?;
        self.parent(&path).map(drop).map_err(at(&path))
    }
}

/// How much a filesystem has room for, with some left.
pub(super) fn room(path: &Path) -> Result<u64, ImageError> {
    const LARGEST: u64 = 32 << 30;
    const SPARED: u64 = 512 << 20;
    let stat = rustix::fs::statvfs(path)
        .map_err(|error| ImageError::io("cannot look at the disk")(error.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    Ok(free.saturating_sub(SPARED).min(LARGEST))
}

/// Writes this many bytes of an entry's content.
fn write(
    file: &mut File,
    path: &[u8],
    content: &mut impl Read,
    mut left: u64,
) -> Result<(), ImageError> {
    let mut buffer = vec![0; 128 << 10];
    while left > 0 {
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = content.read(&mut buffer[..most]).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => {
                ImageError::Damaged(format!("{} is cut short", shown(path)))
            }
            _ => broken(error),
        })?;
        file.write_all(&buffer[..count]).map_err(at(path))?;
        left -= count as u64;
    }
    Ok(())
}

fn owner(meta: &Meta) -> io::Result<(Uid, Gid)> {
    let id = |id: u64| {
        let id = u32::try_from(id).ok().filter(|id| u64::from(*id) < IDS);
        id.ok_or_else(|| {
            let text = format!("its owner {}:{} is not below {IDS}", meta.uid, meta.gid);
            io::Error::new(io::ErrorKind::InvalidData, text)
        })
    };
    Ok((Uid::from_raw(id(meta.uid)?), Gid::from_raw(id(meta.gid)?)))
}

/// Brings a path of an archive to one form.
fn in_archive(path: &[u8]) -> Result<InArchive, ImageError> {
    let damaged = |what: &str| Err(ImageError::Damaged(format!("{} {what}", shown(path))));
    if path.len() > LONGEST_PATH || path.contains(&0) {
        return damaged("is no path");
    }
    let mut clean: InArchive = Vec::with_capacity(path.len());
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => continue,
            b".." => return damaged("leads out of the image"),
            name if name.len() > LONGEST_NAME => return damaged("has too long a name"),
            _ => {}
        }
        if !clean.is_empty() {
            clean.push(b'/');
        }
        clean.extend_from_slice(name);
    }
    Ok(clean)
}

/// The directory of a path, and its last name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&[], path),
    }
}

fn joined(above: &[u8], name: &[u8]) -> InArchive {
    if above.is_empty() { name.to_vec() } else { [above, b"/", name].concat() }
}

fn shown(path: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(path).chars().take(120).collect();
    format!("{text:?}")
}

fn at(path: &[u8]) -> impl FnOnce(io::Error) -> ImageError {
    let context = format!("cannot unpack {}", shown(path));
    move |source| match source.kind() {
        io::ErrorKind::StorageFull => full(),
        io::ErrorKind::InvalidData => ImageError::Damaged(format!("{context}: {source}")),
        _ => ImageError::Io { context, source },
    }
}

fn full() -> ImageError {
    ImageError::TooLarge("the disk of the data directory is full".to_owned())
}

/// An archive that cannot be read as one.
pub(super) fn broken(error: io::Error) -> ImageError {
    match error.kind() {
        io::ErrorKind::FileTooLarge => ImageError::TooLarge(error.to_string()),
        io::ErrorKind::StorageFull => full(),
        _ => ImageError::Damaged(error.to_string()),
    }
}

#[cfg(test)]
#[path = "unpack_tests.rs"]
mod tests;
