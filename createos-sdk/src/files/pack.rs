//! A local directory as an archive, made while it is read.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use futures::Stream;
use tar::{EntryType, Header};
use tokio::sync::oneshot;

use super::DirectorySummary;
use super::pieces::{self, Pieces};

/// The archive of a directory, or of these paths in it, and, once all of it was taken, what is in it.
pub(super) fn pack(
    root: PathBuf,
    only: Option<Vec<PathBuf>>,
) -> (impl Stream<Item = io::Result<Bytes>> + Send, oneshot::Receiver<DirectorySummary>) {
    pieces::written(move |out| match only {
        Some(paths) => write_listed(&root, &paths, out),
        None => write_archive(&root, out),
    })
}

fn write_archive(root: &Path, out: Pieces) -> io::Result<DirectorySummary> {
    let mut archive = tar::Builder::new(out);
    let mut summary = DirectorySummary::default();
    // One open directory per level, so that wide ones cost nothing.
    let mut levels = vec![fs::read_dir(root)?];
    while let Some(level) = levels.last_mut() {
        let Some(entry) = level.next() else {
            levels.pop();
            continue;
        };
        let path = entry?.path();
        let meta = named(&path, fs::symlink_metadata(&path))?;
        let name = path.strip_prefix(root).map_err(io::Error::other)?;
        named(&path, add(&mut archive, &mut summary, &path, name, &meta))?;
        if meta.is_dir() {
            levels.push(named(&path, fs::read_dir(&path))?);
        }
    }
    archive.into_inner()?.flush()?;
    Ok(summary)
}

fn write_listed(root: &Path, paths: &[PathBuf], out: Pieces) -> io::Result<DirectorySummary> {
    let mut archive = tar::Builder::new(out);
    let mut summary = DirectorySummary::default();
    for name in paths {
        let path = root.join(name);
        let meta = named(&path, fs::symlink_metadata(&path))?;
        named(&path, add(&mut archive, &mut summary, &path, name, &meta))?;
    }
    archive.into_inner()?.flush()?;
    Ok(summary)
}

fn named<T>(path: &Path, result: io::Result<T>) -> io::Result<T> {
    result.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => error,
        kind => io::Error::new(kind, format!("{}: {error}", path.display())),
    })
}

fn add(
    archive: &mut tar::Builder<Pieces>,
    summary: &mut DirectorySummary,
    path: &Path,
    name: &Path,
    meta: &Metadata,
) -> io::Result<()> {
    let mut header = header(meta);
    let kind = meta.file_type();
    if kind.is_dir() {
        summary.directories += 1;
        header.set_entry_type(EntryType::Directory);
        archive.append_data(&mut header, name, io::empty())
    } else if kind.is_symlink() {
        summary.symlinks += 1;
        header.set_entry_type(EntryType::Symlink);
        archive.append_link(&mut header, name, fs::read_link(path)?)
    } else if kind.is_file() {
        // Its size is that of the open file, which cannot be exchanged any more.
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        summary.files += 1;
        summary.bytes += size;
        header.set_entry_type(EntryType::Regular);
        header.set_size(size);
        archive.append_data(&mut header, name, Exact { file, left: size })
    } else {
        summary.skipped += 1;
        Ok(())
    }
}

fn header(meta: &Metadata) -> Header {
    let mut header = Header::new_gnu();
    header.set_size(0);
    header.set_mtime(meta.modified().ok().and_then(since_epoch).unwrap_or_default());
    #[cfg(unix)]
    header.set_mode(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o7777);
    #[cfg(not(unix))]
    header.set_mode(if meta.is_dir() { 0o755 } else { 0o644 });
    header
}

fn since_epoch(at: std::time::SystemTime) -> Option<u64> {
    Some(at.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs())
}

/// Exactly as many bytes as were announced: an archive cannot take back a size.
struct Exact {
    file: File,
    left: u64,
}

impl Read for Exact {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        match self.file.read(&mut buffer[..room])? {
            0 => Err(io::Error::other("the file became shorter while it was read")),
            read => {
                self.left -= read as u64;
                Ok(read)
            }
        }
    }
}
