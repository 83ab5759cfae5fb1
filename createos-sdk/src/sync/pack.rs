//! Local files as an archive of known length, made while it is sent.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::Stream;
use sha2::{Digest as _, Sha256};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use tar::{EntryType, Header};
use tokio::sync::oneshot;

use super::local::{LocalRoot, is_version};
use super::tree::{Digest, Stat};
use crate::error::{Error, ErrorKind, Result};
use crate::files::pieces;

const BLOCK: u64 = 512;

/// A file for the archive.
#[derive(Debug)]
pub(super) struct Item {
    /// The operation it belongs to.
    pub(super) at: usize,
    pub(super) path: Vec<u8>,
    /// Its name in the archive.
    pub(super) name: Vec<u8>,
    pub(super) stat: Stat,
    pub(super) mode: u32,
}

pub(super) type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// An archive that is made while it is taken.
pub(super) struct Packed {
    pub(super) stream: Pieces,
    pub(super) len: u64,
    /// After all of it was taken: by operation, the digest of each file; `None` where it was
    /// not that version any more and the archive holds something else.
    pub(super) results: oneshot::Receiver<HashMap<usize, Option<Digest>>>,
    files: usize,
}

impl Packed {
    pub(super) fn has_files(&self) -> bool {
        self.files > 0
    }
}

pub(super) async fn pack(root: Arc<LocalRoot>, items: Vec<Item>) -> Result<Packed> {
    let wrong = |error: io::Error| {
        Error::new(ErrorKind::Io, format!("cannot make an archive: {error}")).with_source(error)
    };
    let len = length(&items).map_err(wrong)?;
    let files = items.len();
    let (stream, results) = pieces::written(move |out| write(&root, &items, out));
    Ok(Packed { stream: Box::pin(stream), len, results, files })
}

fn header(item: &Item) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(EntryType::Regular);
    header.set_size(item.stat.size);
    header.set_mode(item.mode);
    header
}

/// Exactly as many bytes as [`write`] will write.
fn length(items: &[Item]) -> io::Result<u64> {
    let mut heads = tar::Builder::new(Vec::new());
    let mut content = 0;
    for item in items {
        let mut header = header(item);
        header.set_size(0);
        heads.append_data(&mut header, Path::new(OsStr::from_bytes(&item.name)), io::empty())?;
        content += item.stat.size.div_ceil(BLOCK) * BLOCK;
    }
    Ok(heads.into_inner()?.len() as u64 + content)
}

fn write(
    root: &LocalRoot,
    items: &[Item],
    out: pieces::Pieces,
) -> io::Result<HashMap<usize, Option<Digest>>> {
    let mut archive = tar::Builder::new(out);
    let mut digests = HashMap::new();
    for item in items {
        let file = root.open_file(&item.path, &item.stat).ok();
        let mut content = Content { file, left: item.stat.size, hash: Sha256::new(), whole: true };
        let name = Path::new(OsStr::from_bytes(&item.name));
        archive.append_data(&mut header(item), name, &mut content)?;
        digests.insert(item.at, content.finish(&item.stat));
    }
    archive.into_inner()?.flush()?;
    Ok(digests)
}

/// Exactly as many bytes as were announced, whatever becomes of the file.
struct Content {
    file: Option<File>,
    left: u64,
    hash: Sha256,
    whole: bool,
}

impl Content {
    fn finish(self, expected: &Stat) -> Option<Digest> {
        let same = is_version(&self.file?, expected).unwrap_or(false);
        (same && self.whole).then(|| self.hash.finalize().into())
    }
}

impl Read for Content {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if room == 0 {
            return Ok(0);
        }
        let read = match &mut self.file {
            Some(file) if self.whole => file.read(&mut buffer[..room]).unwrap_or(0),
            _ => 0,
        };
        let read = if read == 0 {
            self.whole = false;
            buffer[..room].fill(0);
            room
        } else {
            self.hash.update(&buffer[..read]);
            read
        };
        self.left -= read as u64;
        Ok(read)
    }
}
