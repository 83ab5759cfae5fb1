//! The directory on this machine.
//!
//! Everything is reached from the open root, one directory after the other and without
//! following a link, so that nothing outside is read or written whatever happens meanwhile.

// How wide the numbers of a file's state are depends on the system.
#![allow(clippy::unnecessary_cast, clippy::useless_conversion)]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir as DirStream, FileType, Mode, OFlags, RawMode, RenameFlags, fchmod, fstat, linkat,
    mkdirat, openat, readlinkat, renameat, renameat_with, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

use super::filter::{Filter, OWN};
use super::tree::{Digest, Dir, Node, Stat, join, split};

/// Why something was not done here.
#[derive(Debug)]
pub(super) enum Refusal {
    /// What is there is not what was expected: it is looked at again.
    Changed,
    Failed(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Errno> for Refusal {
    fn from(error: Errno) -> Self {
        Self::Failed(error.into())
    }
}

type Done<T = ()> = Result<T, Refusal>;

/// The directory on this machine.
#[derive(Debug)]
pub(super) struct LocalRoot {
    path: PathBuf,
    fd: OwnedFd,
    /// Tells it from a directory that takes its name later.
    identity: (u64, u64),
}

/// A new file that has its content and not yet its name.
#[derive(Debug)]
pub(super) struct Staged {
    path: Vec<u8>,
    own: Vec<u8>,
    pub(super) stat: Stat,
    pub(super) digest: Digest,
}

const NO_FOLLOW: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC);

impl LocalRoot {
    pub(super) fn open(path: &Path, filter: &Filter) -> io::Result<Self> {
        let path = std::path::absolute(path)?;
        let fd = rustix::fs::open(&path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let meta = fstat(&fd)?;
        let identity = (meta.st_dev as u64, meta.st_ino as u64);
        let root = Self { path, fd, identity };
        root.clear_unfinished(filter);
        Ok(root)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether its name still leads to it.
    pub(super) fn is_there(&self) -> bool {
        rustix::fs::stat(&self.path)
            .is_ok_and(|meta| (meta.st_dev as u64, meta.st_ino as u64) == self.identity)
    }

    pub(super) fn identity(&self) -> String {
        format!("{}:{}", self.identity.0, self.identity.1)
    }

    /// Everything in it that takes part.
    pub(super) fn scan(&self, filter: &Filter) -> io::Result<Dir> {
        let mode = permissions(fstat(&self.fd)?.st_mode);
        let mut dir = Dir { mode, ..Dir::default() };
        scan(self.fd.as_fd(), b"", filter, &mut dir)?;
        match self.is_there() {
            true => Ok(dir),
            false => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// The directory that a path is in.
    fn parent<'p>(&self, path: &'p [u8]) -> io::Result<(OwnedFd, &'p OsStr)> {
        let (above, name) = split(path);
        let mut dir = self.fd.try_clone()?;
        for part in above.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
            let flags = OFlags::DIRECTORY | NO_FOLLOW;
            dir = openat(&dir, OsStr::from_bytes(part), flags, Mode::empty())?;
        }
        Ok((dir, OsStr::from_bytes(name)))
    }

    /// Opens a file for reading, if it still is this version.
    pub(super) fn open_file(&self, path: &[u8], expected: &Stat) -> Done<File> {
        let (dir, name) = self.parent(path)?;
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | NO_FOLLOW;
        let file = File::from(openat(&dir, name, flags, Mode::empty())?);
        if is_version(&file, expected)? { Ok(file) } else { Err(Refusal::Changed) }
    }

    /// What a link points to, if it still is this version.
    pub(super) fn read_link(&self, path: &[u8], expected: &Stat) -> Done<Vec<u8>> {
        let (dir, name) = self.parent(path)?;
        let target = readlinkat(&dir, name, Vec::new())?.into_bytes();
        match version_at(&dir, name)? {
            Some(stat) if stat.same_content(expected) => Ok(target),
            _ => Err(Refusal::Changed),
        }
    }

    /// The digest of a file's content, or of what a link points to.
    pub(super) fn digest(&self, path: &[u8], node: &Node) -> Done<Digest> {
        match node {
            Node::File(stat) => {
                let mut file = self.open_file(path, stat)?;
                let mut hash = Sha256::new();
                let mut buffer = vec![0; 128 << 10];
                loop {
                    match file.read(&mut buffer)? {
                        0 => break,
                        read => hash.update(&buffer[..read]),
                    }
                }
                if is_version(&file, stat)? { Ok(hash.finalize().into()) } else { changed() }
            }
            Node::Link(stat) => Ok(Sha256::digest(self.read_link(path, stat)?).into()),
            _ => changed(),
        }
    }

    /// Stores new content beside the path that it is for.
    pub(super) fn stage(
        &self,
        path: &[u8],
        mode: u32,
        mut content: impl Read,
        size: u64,
    ) -> Done<Staged> {
        let (dir, _) = self.parent(path)?;
        let own = own_name("new");
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | NO_FOLLOW;
        let file = File::from(openat(&dir, OsStr::from_bytes(&own), flags, Mode::from(0o600))?);
        let written = copy(&mut content, &file).and_then(|(bytes, digest)| {
            if bytes != size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            fchmod(&file, Mode::from_raw_mode(mode as RawMode))?;
            Ok((version(&fstat(&file)?), digest))
        });
        match written {
            Ok((stat, digest)) => Ok(Staged { path: path.to_vec(), own, stat, digest }),
            Err(error) => {
                let _ = unlinkat(&dir, OsStr::from_bytes(&own), AtFlags::empty());
                Err(error.into())
            }
        }
    }

    /// Makes a link beside the path that it is for.
    pub(super) fn stage_link(&self, path: &[u8], target: &[u8]) -> Done<Staged> {
        let (dir, _) = self.parent(path)?;
        let own = own_name("new");
        let name = OsStr::from_bytes(&own);
        symlinkat(OsStr::from_bytes(target), &dir, name)?;
        let stat = version_at(&dir, name)?.ok_or(Refusal::Changed)?;
        let digest = Sha256::digest(target).into();
        Ok(Staged { path: path.to_vec(), own, stat, digest })
    }

    /// Gives a staged file its name, over the version that is expected there and no other.
    pub(super) fn place(&self, staged: &Staged, over: Option<&Stat>) -> Done {
        let (dir, name) = self.parent(&staged.path)?;
        let own = OsStr::from_bytes(&staged.own);
        let placed = match over {
            None => move_new(&dir, own, name).map_err(Refusal::from),
            Some(expected) => self.replace(&dir, own, name, staged, expected),
        };
        if placed.is_err() {
            let _ = unlinkat(&dir, own, AtFlags::empty());
        }
        placed
    }

    fn replace(
        &self,
        dir: &OwnedFd,
        own: &OsStr,
        name: &OsStr,
        staged: &Staged,
        expected: &Stat,
    ) -> Done {
        if version_at(dir, name)?.as_ref() != Some(expected) {
            return changed();
        }
        // From here on the own name may hold what was there, which must survive us.
        let swap = own_name("old");
        let swap = OsStr::from_bytes(&swap);
        match renameat(dir, own, dir, swap).and_then(|()| exchange(dir, swap, name)) {
            Ok(()) => {}
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                return self.replace_in_steps(dir, swap, name, expected);
            }
            Err(error) => {
                let _ = unlinkat(dir, swap, AtFlags::empty());
                return Err(error.into());
            }
        }
        if version_at(dir, swap)?.as_ref() == Some(expected) {
            unlinkat(dir, swap, AtFlags::empty())?;
            return Ok(());
        }
        // It was changed in the last moment: that change is what stays.
        exchange(dir, swap, name)?;
        match version_at(dir, swap)? {
            Some(ours) if ours.inode == staged.stat.inode => {
                unlinkat(dir, swap, AtFlags::empty())?;
            }
            _ => drop(keep(dir, swap)),
        }
        changed()
    }

    /// Where two names cannot be exchanged: the old file is taken away first.
    fn replace_in_steps(&self, dir: &OwnedFd, new: &OsStr, name: &OsStr, expected: &Stat) -> Done {
        let old = own_name("old");
        let old = OsStr::from_bytes(&old);
        renameat(dir, name, dir, old)?;
        if version_at(dir, old)?.as_ref() == Some(expected) && move_new(dir, new, name).is_ok() {
            unlinkat(dir, old, AtFlags::empty())?;
            return Ok(());
        }
        if move_new(dir, old, name).is_err() {
            let _ = keep(dir, old);
        }
        let _ = unlinkat(dir, new, AtFlags::empty());
        changed()
    }

    /// Removes a file or link of this version.
    pub(super) fn remove(&self, path: &[u8], expected: &Stat) -> Done {
        let (dir, name) = self.parent(path)?;
        if version_at(&dir, name)?.as_ref() != Some(expected) {
            return changed();
        }
        let old = own_name("old");
        let old = OsStr::from_bytes(&old);
        renameat(&dir, name, &dir, old)?;
        if version_at(&dir, old)?.as_ref() == Some(expected) {
            return Ok(unlinkat(&dir, old, AtFlags::empty())?);
        }
        if move_new(&dir, old, name).is_err() {
            let _ = keep(&dir, old);
        }
        changed()
    }

    /// Removes an empty directory.
    pub(super) fn remove_dir(&self, path: &[u8]) -> Done {
        let (dir, name) = self.parent(path)?;
        Ok(unlinkat(&dir, name, AtFlags::REMOVEDIR)?)
    }

    /// Makes a directory; one that is there already is fine.
    pub(super) fn create_dir(&self, path: &[u8], mode: u32) -> Done {
        let (dir, name) = self.parent(path)?;
        match mkdirat(&dir, name, Mode::from(0o700)) {
            Ok(()) => {}
            Err(Errno::EXIST) if is_dir(&dir, name) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        // What is written into it comes first.
        self.set_mode(path, true, mode | 0o700)
    }

    pub(super) fn set_mode(&self, path: &[u8], is_dir: bool, mode: u32) -> Done {
        let (dir, name) = self.parent(path)?;
        let kind = if is_dir { OFlags::DIRECTORY } else { OFlags::NONBLOCK };
        let file = openat(&dir, name, kind | NO_FOLLOW, Mode::empty())?;
        Ok(fchmod(&file, Mode::from_raw_mode(mode as RawMode))?)
    }

    /// Throws a staged file away.
    pub(super) fn discard(&self, staged: &Staged) {
        if let Ok((dir, _)) = self.parent(&staged.path) {
            let _ = unlinkat(&dir, OsStr::from_bytes(&staged.own), AtFlags::empty());
        }
    }

    /// Removes the unfinished files of a sync that was killed. What it had moved out of the way
    /// gets a name that shows.
    fn clear_unfinished(&self, filter: &Filter) {
        let mut levels = vec![Vec::new()];
        while let Some(path) = levels.pop() {
            let Ok((dir, _)) = self.parent(&join(&path, b".")) else { continue };
            let Ok(entries) = DirStream::read_from(&dir) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_bytes();
                if name == b"." || name == b".." {
                    continue;
                }
                let os_name = OsStr::from_bytes(name);
                let below = join(&path, name);
                if is_dir(&dir, os_name) {
                    if !filter.excludes(&below, true) {
                        levels.push(below);
                    }
                } else if name.starts_with(OWN) && name.ends_with(b".new") {
                    let _ = unlinkat(&dir, os_name, AtFlags::empty());
                } else if name.starts_with(OWN) && name.ends_with(b".old") {
                    let _ = keep(&dir, os_name);
                }
            }
        }
    }
}

fn changed<T>() -> Done<T> {
    Err(Refusal::Changed)
}

fn permissions(mode: RawMode) -> u32 {
    u32::from(mode) & 0o777
}

fn own_name(kind: &str) -> Vec<u8> {
    let mut name = OWN.to_vec();
    name.extend_from_slice(format!("{:016x}.{kind}", fastrand::u64(..)).as_bytes());
    name
}

/// Gives a file of ours that holds something of the user's a name that shows.
fn keep(dir: &OwnedFd, own: &OsStr) -> rustix::io::Result<()> {
    let mut name = b"createos-sync-saved-".to_vec();
    name.extend_from_slice(own.as_bytes().get(OWN.len()..).unwrap_or_default());
    move_new(dir, own, OsStr::from_bytes(&name))
}

/// Renames unless the name is taken.
fn move_new(dir: &OwnedFd, from: &OsStr, to: &OsStr) -> rustix::io::Result<()> {
    match renameat_with(dir, from, dir, to, RenameFlags::NOREPLACE) {
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
            linkat(dir, from, dir, to, AtFlags::empty())?;
            unlinkat(dir, from, AtFlags::empty())
        }
        other => other,
    }
}

fn exchange(dir: &OwnedFd, one: &OsStr, other: &OsStr) -> rustix::io::Result<()> {
    renameat_with(dir, one, dir, other, RenameFlags::EXCHANGE)
}

fn is_dir(dir: &OwnedFd, name: &OsStr) -> bool {
    statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|meta| FileType::from_raw_mode(meta.st_mode) == FileType::Directory)
}

fn version(meta: &rustix::fs::Stat) -> Stat {
    Stat {
        mode: u32::from(meta.st_mode) & 0o7777,
        size: meta.st_size as u64,
        inode: meta.st_ino as u64,
        mtime: format!("{}.{:09}", meta.st_mtime, meta.st_mtime_nsec).into(),
    }
}

/// The version of a file or link; `None` when there is none, or something else.
fn version_at(dir: &OwnedFd, name: &OsStr) -> rustix::io::Result<Option<Stat>> {
    let meta = match statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(meta) => meta,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let kind = FileType::from_raw_mode(meta.st_mode);
    let known = matches!(kind, FileType::RegularFile | FileType::Symlink);
    Ok(known.then(|| version(&meta)))
}

/// Whether an open file is this version.
pub(super) fn is_version(file: &File, expected: &Stat) -> io::Result<bool> {
    let meta = fstat(file)?;
    let regular = FileType::from_raw_mode(meta.st_mode) == FileType::RegularFile;
    Ok(regular && version(&meta).same_content(expected))
}

fn copy(from: &mut impl Read, mut to: &File) -> io::Result<(u64, Digest)> {
    let (mut hash, mut bytes) = (Sha256::new(), 0);
    let mut buffer = vec![0; 128 << 10];
    loop {
        let read = from.read(&mut buffer)?;
        if read == 0 {
            return Ok((bytes, hash.finalize().into()));
        }
        hash.update(&buffer[..read]);
        io::Write::write_all(&mut to, &buffer[..read])?;
        bytes += read as u64;
    }
}

fn scan(
    fd: std::os::fd::BorrowedFd<'_>,
    path: &[u8],
    filter: &Filter,
    into: &mut Dir,
) -> io::Result<()> {
    for entry in DirStream::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let below = join(path, name);
        let os_name = OsStr::from_bytes(name);
        let meta = match statat(fd, os_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(meta) => meta,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        let kind = FileType::from_raw_mode(meta.st_mode);
        if filter.excludes(&below, kind == FileType::Directory) {
            continue;
        }
        let node = match kind {
            FileType::RegularFile => Node::File(version(&meta)),
            FileType::Symlink => Node::Link(version(&meta)),
            FileType::Directory => {
                let mut dir = Dir { mode: permissions(meta.st_mode), ..Dir::default() };
                let flags = OFlags::DIRECTORY | NO_FOLLOW;
                match openat(fd, os_name, flags, Mode::empty()) {
                    Ok(opened) => match scan(opened.as_fd(), &below, filter, &mut dir) {
                        Ok(()) => Node::Dir(dir),
                        Err(_) => Node::Opaque("the directory here cannot be listed"),
                    },
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                    Err(_) => Node::Opaque("the directory here cannot be listed"),
                }
            }
            _ => Node::Opaque("it is a device, pipe or socket"),
        };
        into.children.insert(name.into(), node);
    }
    Ok(())
}
