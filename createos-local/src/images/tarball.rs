//! A tar archive, entry by entry. What is read is not to be trusted.
//!
//! Headers are read by the `tar` crate. Its own walk over an archive knows neither extended
//! sizes nor files with holes where it does not read extensions itself, and then it reads
//! them without a bound.

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::ImageError;
use super::headers::{Extended, LONGEST, Meta, is_extension};
use super::sparse;
use super::unpack::broken;

const BLOCK: usize = 512;
const MOST_ENTRIES: u64 = 2_000_000;

/// An archive; what is read of it is the content of the last entry.
pub(super) struct Tarball<R> {
    source: R,
    /// Of the entry's content.
    left: u64,
    /// After it, up to a whole block.
    padding: u64,
    entries: u64,
}

impl<R: Read> Tarball<R> {
    pub(super) fn new(source: R) -> Self {
        Self { source, left: 0, padding: 0, entries: 0 }
    }

    /// The next entry.
    pub(super) fn next(&mut self) -> Result<Option<Meta>, ImageError> {
        let mut extended = Extended::default();
        loop {
            self.skip().map_err(broken)?;
            let Some(header) = self.header().map_err(broken)? else { return Ok(None) };
            self.entries += 1;
            if self.entries > MOST_ENTRIES {
                let text = format!("it has more than {MOST_ENTRIES} entries");
                return Err(ImageError::TooLarge(text));
            }
            let kind = header.entry_type();
            if is_extension(kind) {
                extended.take(kind, self.extension(&header)?)?;
                continue;
            }
            return self.entry(&header, extended).map(Some);
        }
    }

    fn entry(&mut self, header: &Header, mut extended: Extended) -> Result<Meta, ImageError> {
        let holes = std::mem::take(&mut extended.sparse);
        let mut meta = Meta::read(header, extended)?;
        let of_old = match meta.kind {
            EntryType::GNUSparse => {
                let block = |block: &mut [u8]| self.source.read_exact(block);
                Some(sparse::read_gnu(header, block).map_err(broken)?)
            }
            _ => None,
        };
        self.open(meta.stored);
        let holes = match (of_old, meta.kind) {
            (Some(holes), _) => Some(holes),
            (None, EntryType::Regular | EntryType::Continuous) => {
                holes.read(self).map_err(broken)?
            }
            _ => None,
        };
        meta.stored = self.left;
        match holes {
            Some((size, pieces)) => meta.with_holes(size, pieces).map_err(broken),
            None => Ok(meta),
        }
    }

    fn open(&mut self, size: u64) {
        self.left = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn extension(&mut self, header: &Header) -> Result<Vec<u8>, ImageError> {
        let size = header.entry_size().map_err(broken)?;
        if size > LONGEST {
            return Err(ImageError::Damaged(format!("a header has {size} bytes")));
        }
        self.open(size);
        let mut content = Vec::new();
        self.read_to_end(&mut content).map_err(broken)?;
        Ok(content)
    }

    /// Skips what is left of the last entry.
    fn skip(&mut self) -> io::Result<()> {
        io::copy(self, &mut io::sink())?;
        let padding = std::mem::take(&mut self.padding);
        // Some leave the last one out.
        io::copy(&mut self.source.by_ref().take(padding), &mut io::sink()).map(drop)
    }

    /// The next header, if this is not the archive's end.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut header = Header::new_old();
        let bytes = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut bytes[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => filled += count,
            }
        }
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        match header.cksum() {
            Ok(sum) if sum == checksum(header.as_bytes()) => Ok(Some(header)),
            _ => {
                let text = "it is no tar archive, or its headers are broken";
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
        }
    }
}

/// The sum of a header's bytes, its own place being blank.
fn checksum(header: &[u8; BLOCK]) -> u32 {
    let own = 148..156;
    let sum = |(at, byte): (usize, &u8)| u32::from(if own.contains(&at) { b' ' } else { *byte });
    header.iter().enumerate().map(sum).sum()
}

impl<R: Read> Read for Tarball<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if most == 0 {
            return Ok(0);
        }
        let count = self.source.read(&mut buffer[..most])?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut short"));
        }
        self.left -= count as u64;
        Ok(count)
    }
}
