//! Headers of tar entries, and the extensions that come before them.

use std::io;

use rustix::fs::Mode;
use tar::{EntryType, Header};

use super::ImageError;
use super::sparse::{PaxSparse, Piece};
use super::unpack::broken;

/// More is no path and no attribute that means anything here.
pub(super) const LONGEST: u64 = 1 << 20;
const LONGEST_CAPABILITY: usize = 64;

/// What an entry is.
#[derive(Debug)]
pub(super) struct Meta {
    pub(super) kind: EntryType,
    pub(super) path: Vec<u8>,
    pub(super) link: Vec<u8>,
    /// How long the file is.
    pub(super) size: u64,
    /// How many bytes the archive has of it.
    pub(super) stored: u64,
    /// Where they belong, if the file has holes.
    pub(super) pieces: Option<Vec<Piece>>,
    pub(super) mode: Mode,
    pub(super) uid: u64,
    pub(super) gid: u64,
    /// Seconds since 1970.
    pub(super) modified: i64,
    /// The attribute with a program's capabilities.
    pub(super) capability: Option<Vec<u8>>,
}

/// What extensions say of the entry that follows.
#[derive(Debug, Default)]
pub(super) struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    modified: Option<i64>,
    capability: Option<Vec<u8>>,
    pub(super) sparse: PaxSparse,
}

/// Whether an entry says something of the one that follows.
pub(super) fn is_extension(kind: EntryType) -> bool {
    matches!(
        kind,
        EntryType::GNULongName
            | EntryType::GNULongLink
            | EntryType::XHeader
            | EntryType::XGlobalHeader
    )
}

impl Extended {
    /// Takes the content of an extension.
    pub(super) fn take(&mut self, kind: EntryType, content: Vec<u8>) -> Result<(), ImageError> {
        match kind {
            EntryType::GNULongName => self.path = Some(until_nul(content)),
            EntryType::GNULongLink => self.link = Some(until_nul(content)),
            // Of the archive as a whole: a comment, mostly.
            EntryType::XGlobalHeader => {}
            _ => self.read(&content)?,
        }
        Ok(())
    }

    /// Records of the form `<length> <name>=<value>\n`.
    fn read(&mut self, mut records: &[u8]) -> Result<(), ImageError> {
        let damaged = || ImageError::Damaged("an extended header cannot be read".to_owned());
        while !records.is_empty() {
            let blank = records.iter().position(|byte| *byte == b' ').ok_or_else(damaged)?;
            let length = std::str::from_utf8(&records[..blank]).ok();
            let length: usize = length.and_then(|text| text.parse().ok()).ok_or_else(damaged)?;
            if length <= blank + 1 {
                return Err(damaged());
            }
            let (record, rest) = records.split_at_checked(length).ok_or_else(damaged)?;
            let record = record[blank + 1..].strip_suffix(b"\n").ok_or_else(damaged)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(damaged)?;
            let (name, value) = (&record[..equals], &record[equals + 1..]);
            let text = std::str::from_utf8(value).unwrap_or_default();
            let number = || text.parse::<u64>().map_err(|_| damaged());
            match name {
                b"path" => self.path = Some(value.to_vec()),
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number()?),
                b"uid" => self.uid = Some(number()?),
                b"gid" => self.gid = Some(number()?),
                b"mtime" => {
                    let seconds = text.split('.').next().unwrap_or_default();
                    self.modified = Some(seconds.parse().map_err(|_| damaged())?);
                }
                b"SCHILY.xattr.security.capability" if value.len() <= LONGEST_CAPABILITY => {
                    self.capability = Some(value.to_vec());
                }
                name => match name.strip_prefix(b"GNU.sparse.") {
                    Some(b"name") => self.path = Some(value.to_vec()),
                    Some(name) => self.sparse.take(name, text).ok_or_else(damaged)?,
                    None => {}
                },
            }
            records = rest;
        }
        Ok(())
    }
}

fn until_nul(mut text: Vec<u8>) -> Vec<u8> {
    if let Some(end) = text.iter().position(|byte| *byte == 0) {
        text.truncate(end);
    }
    text
}

impl Meta {
    pub(super) fn read(header: &Header, extended: Extended) -> Result<Self, ImageError> {
        let kind = header.entry_type();
        let path = extended.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = extended.link.or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        // Old archives mark directories by their names alone.
        let kind = match kind {
            EntryType::Regular if path.ends_with(b"/") => EntryType::Directory,
            kind => kind,
        };
        let size = match kind {
            // Whatever they say.
            EntryType::Link
            | EntryType::Symlink
            | EntryType::Char
            | EntryType::Block
            | EntryType::Directory
            | EntryType::Fifo => 0,
            _ => extended.size.map_or_else(|| header.entry_size(), Ok).map_err(broken)?,
        };
        let modified = header.mtime().unwrap_or_default();
        Ok(Self {
            kind,
            path,
            link: link.unwrap_or_default(),
            size,
            stored: size,
            pieces: None,
            mode: Mode::from_raw_mode(header.mode().map_err(broken)? & 0o7777),
            uid: extended.uid.map_or_else(|| header.uid(), Ok).map_err(broken)?,
            gid: extended.gid.map_or_else(|| header.gid(), Ok).map_err(broken)?,
            modified: extended
                .modified
                .unwrap_or_else(|| i64::try_from(modified).unwrap_or_default()),
            capability: extended.capability,
        })
    }

    /// Makes it a file with holes.
    pub(super) fn with_holes(mut self, size: u64, pieces: Vec<Piece>) -> io::Result<Self> {
        let damaged =
            || io::Error::new(io::ErrorKind::InvalidData, "the map of a sparse file is wrong");
        let (mut end, mut held) = (0, 0);
        for Piece { offset, length } in &pieces {
            // In order, none over another, all within the file.
            if *offset < end {
                return Err(damaged());
            }
            end = offset.checked_add(*length).filter(|end| *end <= size).ok_or_else(damaged)?;
            held += length;
        }
        if held != self.stored || size > i64::MAX as u64 {
            return Err(damaged());
        }
        self.kind = EntryType::Regular;
        self.size = size;
        self.pieces = Some(pieces);
        Ok(self)
    }
}
