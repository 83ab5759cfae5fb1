//! Files with holes, in the four ways that tar has to write them down.

use std::io::{self, Read};

use tar::{GnuExtSparseHeader, GnuSparseHeader, Header};

/// More pieces than that are in no file that means anything here.
const MOST_PIECES: usize = 1 << 20;
/// The longest line of a map: a number.
const LONGEST_LINE: usize = 24;

/// A part of a file that is no hole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) length: u64,
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the map of a sparse file cannot be read")
}

/// The map of a file in the form of old: in its header, and in blocks after it.
pub(super) fn read_gnu(
    header: &Header,
    mut block: impl FnMut(&mut [u8]) -> io::Result<()>,
) -> io::Result<(u64, Vec<Piece>)> {
    let gnu = header.as_gnu().ok_or_else(damaged)?;
    let (size, mut pieces) = (gnu.real_size()?, Vec::new());
    take(&gnu.sparse, &mut pieces)?;
    let mut more = gnu.is_extended();
    while more {
        let mut next = GnuExtSparseHeader::new();
        block(next.as_mut_bytes())?;
        take(next.sparse(), &mut pieces)?;
        more = next.is_extended();
    }
    Ok((size, pieces))
}

fn take(entries: &[GnuSparseHeader], pieces: &mut Vec<Piece>) -> io::Result<()> {
    for entry in entries.iter().filter(|entry| !entry.is_empty()) {
        push(pieces, entry.offset()?, entry.length()?)?;
    }
    Ok(())
}

fn push(pieces: &mut Vec<Piece>, offset: u64, length: u64) -> io::Result<()> {
    if pieces.len() == MOST_PIECES {
        return Err(damaged());
    }
    pieces.push(Piece { offset, length });
    Ok(())
}

/// What extended headers say of holes: the map itself, or that it comes before the content.
#[derive(Debug, Default)]
pub(super) struct PaxSparse {
    size: Option<u64>,
    numbers: Vec<u64>,
    has_map: bool,
    map_before_content: bool,
}

impl PaxSparse {
    /// Takes a record, without the beginning that the names of all of them have. Nothing
    /// where it is malformed.
    pub(super) fn take(&mut self, name: &[u8], value: &str) -> Option<()> {
        match name {
            b"major" => self.map_before_content = value.parse::<u64>().ok()? > 0,
            b"size" | b"realsize" => self.size = Some(value.parse().ok()?),
            b"map" => {
                self.has_map = true;
                if !value.is_empty() {
                    let numbers = value.split(',').map(|number| number.parse().ok());
                    self.numbers = numbers.collect::<Option<_>>()?;
                }
            }
            b"offset" | b"numbytes" => {
                // One of each, in turn.
                let is_offset = name == b"offset";
                self.has_map = true;
                (self.numbers.len().is_multiple_of(2) == is_offset).then_some(())?;
                self.numbers.push(value.parse().ok()?);
            }
            b"numblocks" => self.has_map = true,
            _ => {}
        }
        Some(())
    }

    /// The size of the file and its map, if the file has holes. `content` is what the archive
    /// has of it, of which the map may be the beginning.
    pub(super) fn read(self, content: &mut impl Read) -> io::Result<Option<(u64, Vec<Piece>)>> {
        let numbers = match () {
            () if self.map_before_content => read_map(content)?,
            () if self.has_map => self.numbers,
            () => return Ok(None),
        };
        let mut pieces = Vec::new();
        let (pairs, rest) = numbers.as_chunks();
        for [offset, length] in pairs {
            push(&mut pieces, *offset, *length)?;
        }
        match self.size {
            Some(size) if rest.is_empty() => Ok(Some((size, pieces))),
            _ => Err(damaged()),
        }
    }
}

/// Numbers in lines: how many pieces there are, then two of each; padded to whole blocks.
fn read_map(content: &mut impl Read) -> io::Result<Vec<u64>> {
    let (mut numbers, mut wanted) = (Vec::new(), None);
    let mut line = Vec::new();
    loop {
        let mut block = [0; 512];
        content.read_exact(&mut block)?;
        for byte in block {
            if byte != b'\n' {
                line.push(byte);
                if line.len() > LONGEST_LINE {
                    return Err(damaged());
                }
                continue;
            }
            let text = std::str::from_utf8(&line).map_err(|_| damaged())?;
            let number: u64 = text.parse().map_err(|_| damaged())?;
            line.clear();
            match wanted {
                None if number > MOST_PIECES as u64 => return Err(damaged()),
                None => wanted = usize::try_from(number).ok().map(|pieces| pieces * 2),
                Some(_) => numbers.push(number),
            }
            if wanted == Some(numbers.len()) {
                return Ok(numbers);
            }
        }
    }
}
