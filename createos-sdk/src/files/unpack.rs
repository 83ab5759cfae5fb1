//! An archive from a sandbox, unpacked while it arrives. The sandbox is not trusted: nothing is
//! written outside of the directory, and memory is bounded.

use std::fs;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};

use bytes::{Buf, Bytes};
use tar::{Archive, Entry, EntryType};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::{JoinHandle, spawn_blocking};

use super::DirectorySummary;
use crate::error::{Error, ErrorKind, Result};

/// Pieces that wait to be unpacked.
const WAITING: usize = 4;
/// Longest path, and longest header that is read into memory.
const MAX_NAME: u64 = 64 << 10;
/// Directories whose permissions must wait until they are filled.
const MAX_CLOSED: usize = 10_000;

/// What is taken from an archive.
#[derive(Debug, Clone)]
pub(super) struct Policy {
    /// Leaves out links that lead outside, instead of refusing the whole.
    skip_links: bool,
    /// Leaves out every symbolic link.
    plain: bool,
    /// Permissions that are kept.
    mask: u32,
    /// Longest file.
    most: u64,
    /// Nothing but what is at or below these.
    only: Option<Vec<PathBuf>>,
}

impl Policy {
    /// A whole directory; links that lead outside are left out or end it.
    pub(super) fn directory(skip_links: bool) -> Self {
        Self { skip_links, plain: false, mask: 0o777, most: u64::MAX, only: None }
    }

    /// Plain files and directories of work that is not trusted.
    pub(super) fn results(only: Vec<PathBuf>) -> Self {
        Self { skip_links: true, plain: true, mask: 0o755, most: 2 << 30, only: Some(only) }
    }

    fn takes(&self, path: &Path) -> bool {
        let Some(only) = &self.only else { return true };
        // A directory on the way to a wanted path is made where it is needed.
        only.iter().any(|wanted| path.starts_with(wanted))
    }
}

/// Starts unpacking into `root`. It takes pieces and, after the last, a `None`.
pub(super) fn unpack(
    root: PathBuf,
    policy: Policy,
) -> (Sender<Option<Bytes>>, JoinHandle<Result<DirectorySummary>>) {
    let (give, take) = channel(WAITING);
    let reader = Pieces { take, piece: Bytes::new(), ended: false };
    let work = spawn_blocking(move || {
        fs::create_dir_all(&root).map_err(|error| local(&root, error))?;
        Unpacker { root, policy, summary: DirectorySummary::default(), closed: Vec::new() }
            .run(reader)
    });
    (give, work)
}

struct Pieces {
    take: Receiver<Option<Bytes>>,
    piece: Bytes,
    ended: bool,
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() && !self.ended {
            match self.take.blocking_recv() {
                Some(Some(piece)) => self.piece = piece,
                Some(None) => self.ended = true,
                // Nobody sends any more, and it was not the end.
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        let count = self.piece.len().min(buffer.len());
        buffer[..count].copy_from_slice(&self.piece[..count]);
        self.piece.advance(count);
        Ok(count)
    }
}

struct Unpacker {
    root: PathBuf,
    policy: Policy,
    summary: DirectorySummary,
    /// Directories that their owner cannot write to, and their permissions.
    closed: Vec<(PathBuf, u32)>,
}

/// A name that did not fit into its entry's header and came before it.
#[derive(Default)]
struct Names {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
}

impl Unpacker {
    fn run(mut self, reader: impl Read) -> Result<DirectorySummary> {
        let mut archive = Archive::new(reader);
        let mut names = Names::default();
        // Raw, because the library would read names of any length into memory.
        for entry in archive.entries().map_err(damaged)?.raw(true) {
            let mut entry = entry.map_err(damaged)?;
            match entry.header().entry_type() {
                EntryType::GNULongName => names.path = Some(read_name(&mut entry)?),
                EntryType::GNULongLink => names.link = Some(read_name(&mut entry)?),
                EntryType::XHeader => read_extensions(&mut entry, &mut names)?,
                EntryType::XGlobalHeader => {}
                _ => self.entry(&mut entry, std::mem::take(&mut names))?,
            }
        }
        for (path, mode) in self.closed.iter().rev() {
            set_mode(path, *mode)?;
        }
        Ok(self.summary)
    }

    fn entry(&mut self, entry: &mut Entry<'_, impl Read>, names: Names) -> Result<()> {
        let name = names.path.unwrap_or_else(|| entry.path_bytes().into_owned());
        let relative = inside(&name)?;
        if relative.as_os_str().is_empty() {
            return Ok(()); // The directory itself.
        }
        if !self.policy.takes(&relative) {
            return Err(hostile(&name, "was not asked for"));
        }
        self.no_links_above(&relative)?;
        let path = self.root.join(&relative);
        let mode = entry.header().mode().map_err(damaged)? & self.policy.mask;
        let target = names.link.or_else(|| entry.link_name_bytes().map(|name| name.into_owned()));
        match entry.header().entry_type() {
            EntryType::Symlink if self.policy.plain => {
                self.summary.skipped += 1;
                Ok(())
            }
            EntryType::Directory => self.directory(path, mode),
            EntryType::Regular | EntryType::Continuous => self.file(entry, &path, mode),
            EntryType::Symlink => self.symlink(&relative, &path, &target.unwrap_or_default()),
            EntryType::Link => self.hard_link(&path, &target.unwrap_or_default()),
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                self.summary.skipped += 1;
                Ok(())
            }
            other => Err(hostile(&name, &format!("is of an unknown kind ({other:?})"))),
        }
    }

    /// Every directory on the way must be one: a link could lead anywhere.
    fn no_links_above(&self, relative: &Path) -> Result<()> {
        let mut path = self.root.clone();
        for part in relative.parent().into_iter().flat_map(Path::components) {
            path.push(part);
            match fs::symlink_metadata(&path) {
                Ok(meta) if meta.is_dir() => {}
                Ok(_) => {
                    let why = "lies below something that is not a directory";
                    return Err(hostile(relative.as_os_str().as_encoded_bytes(), why));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    fs::create_dir(&path).map_err(|error| local(&path, error))?;
                }
                Err(error) => return Err(local(&path, error)),
            }
        }
        Ok(())
    }

    fn directory(&mut self, path: PathBuf, mode: u32) -> Result<()> {
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                fs::create_dir(&path).map_err(|error| local(&path, error))?;
            }
            Ok(_) => return Err(local(&path, io::ErrorKind::AlreadyExists.into())),
            Err(error) => return Err(local(&path, error)),
        }
        self.summary.directories += 1;
        if mode & 0o700 == 0o700 {
            return set_mode(&path, mode);
        }
        if self.closed.len() == MAX_CLOSED {
            let why = format!("is one of more than {MAX_CLOSED} write-protected directories");
            return Err(hostile(path.as_os_str().as_encoded_bytes(), &why));
        }
        self.closed.push((path, mode));
        Ok(())
    }

    fn file(&mut self, entry: &mut Entry<'_, impl Read>, path: &Path, mode: u32) -> Result<()> {
        if entry.size() > self.policy.most {
            let why = format!("is larger than {} GiB", self.policy.most >> 30);
            return Err(hostile(path.as_os_str().as_encoded_bytes(), &why));
        }
        let parent = path.parent().unwrap_or(&self.root);
        let mut part = tempfile::NamedTempFile::new_in(parent).map_err(|e| local(path, e))?;
        let size = entry.size();
        let copied = io::copy(entry, &mut part).map_err(damaged)?;
        if copied != size {
            return Err(damaged(io::ErrorKind::UnexpectedEof.into()));
        }
        set_mode(part.path(), mode)?;
        // Takes the name as it is; a link of that name is replaced, not followed.
        part.persist(path).map_err(|error| local(path, error.error))?;
        self.summary.files += 1;
        self.summary.bytes += size;
        Ok(())
    }

    fn symlink(&mut self, relative: &Path, path: &Path, target: &[u8]) -> Result<()> {
        let depth = relative.components().count() - 1;
        if !stays_inside(target, depth) {
            if self.policy.skip_links {
                self.summary.skipped += 1;
                return Ok(());
            }
            let why = format!("links to {:?}, outside", String::from_utf8_lossy(target));
            return Err(hostile(relative.as_os_str().as_encoded_bytes(), &why));
        }
        if !make_symlink(path, target)? {
            self.summary.skipped += 1;
            return Ok(());
        }
        self.summary.symlinks += 1;
        Ok(())
    }

    fn hard_link(&mut self, path: &Path, target: &[u8]) -> Result<()> {
        let relative = inside(target)?;
        if !self.policy.takes(&relative) {
            return Err(hostile(target, "was not asked for, and is linked to"));
        }
        self.no_links_above(&relative)?;
        let target = self.root.join(relative);
        let is_file = fs::symlink_metadata(&target).is_ok_and(|meta| meta.is_file());
        if !is_file {
            return Err(hostile(path.as_os_str().as_encoded_bytes(), "is a link to no file"));
        }
        replace(path, |path| fs::hard_link(&target, path))?;
        self.summary.files += 1;
        Ok(())
    }
}

/// A path of the archive, without `.`; anything that could lead outside is refused.
fn inside(name: &[u8]) -> Result<PathBuf> {
    if name.len() as u64 > MAX_NAME || name.contains(&0) {
        return Err(hostile(name, "cannot be a path"));
    }
    let mut path = PathBuf::new();
    for part in Path::new(&os_string(name)?).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            _ => return Err(hostile(name, "is absolute or has `..`")),
        }
    }
    Ok(path)
}

/// Whether a link `depth` directories below the root can only lead to what is below it. `..`
/// counts only at the beginning, where the directories are known to be no links.
fn stays_inside(target: &[u8], depth: usize) -> bool {
    let parts =
        || target.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".");
    let up = parts().take_while(|part| *part == b"..").count();
    let usable = !target.is_empty() && !target.starts_with(b"/") && !target.contains(&0);
    usable && up <= depth && !parts().skip(up).any(|part| part == b"..")
}

#[cfg(unix)]
fn os_string(bytes: &[u8]) -> Result<std::ffi::OsString> {
    Ok(std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec()))
}

#[cfg(not(unix))]
fn os_string(bytes: &[u8]) -> Result<std::ffi::OsString> {
    let text = std::str::from_utf8(bytes).map_err(|_| hostile(bytes, "is not UTF-8"))?;
    Ok(text.into())
}

/// False where there are no such links.
#[cfg(unix)]
fn make_symlink(path: &Path, target: &[u8]) -> Result<bool> {
    let target = os_string(target)?;
    replace(path, |path| std::os::unix::fs::symlink(&target, path)).map(|()| true)
}

#[cfg(not(unix))]
fn make_symlink(_: &Path, _: &[u8]) -> Result<bool> {
    Ok(false)
}

/// Makes a link in place of a file or link of the same name.
fn replace(path: &Path, make: impl Fn(&Path) -> io::Result<()>) -> Result<()> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(local(path, error)),
    }
    make(path).map_err(|error| local(path, error))
}

#[cfg(unix)]
fn set_mode(path: &Path, mode: u32) -> Result<()> {
    let permissions = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(path, permissions).map_err(|error| local(path, error))
}

#[cfg(not(unix))]
fn set_mode(_: &Path, _: u32) -> Result<()> {
    Ok(())
}

fn read_name(entry: &mut impl Read) -> Result<Vec<u8>> {
    let mut name = Vec::new();
    entry.take(MAX_NAME + 1).read_to_end(&mut name).map_err(damaged)?;
    if name.len() as u64 > MAX_NAME {
        return Err(hostile(&name[..40], "… is longer than any path"));
    }
    while name.last() == Some(&0) {
        name.pop();
    }
    Ok(name)
}

/// Reads the records `<length> <key>=<value>\n` that this understands.
fn read_extensions(entry: &mut impl Read, names: &mut Names) -> Result<()> {
    let records = read_name(entry)?;
    let mut rest = &records[..];
    let bad = || damaged(io::Error::other("a malformed extended header"));
    while !rest.is_empty() {
        let blank = rest.iter().position(|byte| *byte == b' ').ok_or_else(bad)?;
        let length = std::str::from_utf8(&rest[..blank]).ok().and_then(|text| text.parse().ok());
        let length: usize = length.filter(|length| *length > blank + 1).ok_or_else(bad)?;
        let record = rest.get(blank + 1..length).ok_or_else(bad)?;
        let record = record.strip_suffix(b"\n").ok_or_else(bad)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(bad)?;
        let value = &record[equals + 1..];
        match &record[..equals] {
            b"path" => names.path = Some(value.to_vec()),
            b"linkpath" => names.link = Some(value.to_vec()),
            // Only what is larger than any archive here needs it.
            b"size" => return Err(hostile(value, "is a size beyond all limits")),
            _ => {}
        }
        rest = &rest[length..];
    }
    Ok(())
}

fn hostile(name: &[u8], why: &str) -> Error {
    let name = String::from_utf8_lossy(name);
    Error::new(ErrorKind::Protocol, format!("refused an archive: {name:?} {why}"))
}

fn damaged(error: io::Error) -> Error {
    Error::new(ErrorKind::Protocol, format!("the archive is damaged: {error}")).with_source(error)
}

fn local(path: &Path, error: io::Error) -> Error {
    let message = format!("cannot write {}: {error}", path.display());
    Error::new(ErrorKind::Io, message).with_source(error)
}

#[cfg(test)]
#[cfg(unix)]
#[path = "unpack_tests.rs"]
mod tests;
