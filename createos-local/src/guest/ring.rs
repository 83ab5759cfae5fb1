//! The output of a process that is kept: the newest, up to a size.
//!
//! Places count bytes over all channels: the first byte has place 1. A piece of output
//! is told with the place of its last byte, so wherever output is cut, what follows a
//! place is always the same.

use crate::protocol::Channel;
use crate::sys::Pages;
use std::collections::VecDeque;
use std::io;

/// Bytes kept for each process.
pub(crate) const SIZE: usize = 1 << 20;
/// Changes of the channel that are kept, for output that alternates all the time.
const MAX_RUNS: usize = 16 << 10;

pub(crate) struct Ring {
    memory: Pages,
    /// Bytes that are gone.
    start: u64,
    /// All bytes that ever came.
    end: u64,
    /// Where output of each channel begins; the first covers `start`.
    runs: VecDeque<(u64, Channel)>,
}

/// A piece of output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) place: u64,
    pub(crate) channel: Channel,
    pub(crate) bytes: Vec<u8>,
}

/// What is asked for is gone; the oldest place that is not.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Expired(pub(crate) u64);

impl Ring {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { memory: Pages::new(SIZE)?, start: 0, end: 0, runs: VecDeque::new() })
    }

    pub(crate) fn push(&mut self, channel: Channel, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        if self.runs.back().is_none_or(|(_, last)| *last != channel) {
            self.runs.push_back((self.end, channel));
        }
        let newest = &bytes[bytes.len().saturating_sub(SIZE)..];
        self.end += bytes.len() as u64;
        let mut at = offset(self.end - newest.len() as u64);
        for byte_run in
            [&newest[..newest.len().min(SIZE - at)], &newest[newest.len().min(SIZE - at)..]]
        {
            self.memory[at..at + byte_run.len()].copy_from_slice(byte_run);
            at = 0;
        }
        self.forget();
    }

    /// Lets go of what is too old.
    fn forget(&mut self) {
        self.start = self.start.max(self.end.saturating_sub(SIZE as u64));
        if self.runs.len() > MAX_RUNS {
            self.start = self.start.max(self.runs[1].0);
        }
        while self.runs.get(1).is_some_and(|(begin, _)| *begin <= self.start) {
            self.runs.pop_front();
        }
    }

    /// Output behind a place, of one channel and at most `max` bytes; `None` when nothing
    /// has come yet. Place 0 stands for the oldest that is kept.
    pub(crate) fn after(&self, place: u64, max: usize) -> Result<Option<Piece>, Expired> {
        let from = match place {
            0 => self.start,
            place if place < self.start => return Err(Expired(self.oldest())),
            place => place,
        };
        if from >= self.end {
            return Ok(None);
        }
        let run = self.runs.partition_point(|(begin, _)| *begin <= from);
        let Some((_, channel)) = run.checked_sub(1).and_then(|run| self.runs.get(run)) else {
            return Ok(None);
        };
        let limit = self.runs.get(run).map_or(self.end, |(begin, _)| *begin);
        let count = usize::try_from(limit - from).unwrap_or(max).min(max);
        let at = offset(from);
        let first = count.min(SIZE - at);
        let mut bytes = self.memory[at..at + first].to_vec();
        bytes.extend_from_slice(&self.memory[..count - first]);
        Ok(Some(Piece { place: from + count as u64, channel: *channel, bytes }))
    }

    /// Place of the oldest byte that is kept; of the newest, when none is.
    pub(crate) fn oldest(&self) -> u64 {
        (self.start + 1).min(self.end)
    }

    pub(crate) fn newest(&self) -> u64 {
        self.end
    }

    /// Bytes that are kept.
    pub(crate) fn kept(&self) -> u64 {
        self.end - self.start
    }
}

fn offset(place: u64) -> usize {
    (place % SIZE as u64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use Channel::{Stderr, Stdout};

    fn all(ring: &Ring, mut place: u64, max: usize) -> Vec<(Channel, Vec<u8>)> {
        let mut pieces = Vec::new();
        while let Some(piece) = ring.after(place, max).expect("kept") {
            assert_eq!(piece.place, place.max(ring.start) + piece.bytes.len() as u64);
            place = piece.place;
            pieces.push((piece.channel, piece.bytes));
        }
        pieces
    }

    #[test]
    fn an_empty_one_has_nothing_and_no_places() {
        let ring = Ring::new().expect("memory");
        assert_eq!((ring.oldest(), ring.newest(), ring.kept()), (0, 0, 0));
        assert_eq!(ring.after(0, 10), Ok(None));
        assert_eq!(ring.after(7, 10), Ok(None));
    }

    #[test]
    fn channels_keep_their_order_and_places() {
        let mut ring = Ring::new().expect("memory");
        ring.push(Stdout, b"one");
        ring.push(Stdout, b"two");
        ring.push(Stderr, b"");
        ring.push(Stderr, b"oops");
        ring.push(Stdout, b"!");
        let expected =
            [(Stdout, b"onetwo".to_vec()), (Stderr, b"oops".to_vec()), (Stdout, b"!".to_vec())];
        assert_eq!(all(&ring, 0, 100), expected);
        assert_eq!(all(&ring, 8, 100), [(Stderr, b"ps".to_vec()), (Stdout, b"!".to_vec())]);
        assert_eq!(all(&ring, 0, 1).len(), 11);
        assert_eq!(ring.after(11, 10), Ok(None));
        assert_eq!(ring.after(u64::MAX, 10), Ok(None));
        assert_eq!((ring.oldest(), ring.newest(), ring.kept()), (1, 11, 11));
    }

    #[test]
    fn the_oldest_goes_first_and_is_told() {
        let mut ring = Ring::new().expect("memory");
        let pattern: Vec<u8> = (0..SIZE as u32 + 10).map(|n| (n % 251) as u8).collect();
        ring.push(Stderr, &pattern[..7]);
        for piece in pattern[7..].chunks(65_537) {
            ring.push(Stdout, piece);
        }
        assert_eq!(
            (ring.oldest(), ring.newest(), ring.kept()),
            (11, SIZE as u64 + 10, SIZE as u64)
        );
        assert_eq!(ring.after(9, 10), Err(Expired(11)));
        let kept: Vec<u8> = all(&ring, 0, 1000).into_iter().flat_map(|(_, bytes)| bytes).collect();
        assert!(kept == pattern[10..]);
        assert!(all(&ring, 10, usize::MAX) == [(Stdout, pattern[10..].to_vec())]);
    }

    #[test]
    fn more_than_fits_at_once_leaves_its_end() {
        let mut ring = Ring::new().expect("memory");
        ring.push(Stdout, b"x");
        let big: Vec<u8> = (0..2 * SIZE as u32 + 3).map(|n| (n % 249) as u8).collect();
        ring.push(Stderr, &big);
        assert_eq!(ring.newest(), big.len() as u64 + 1);
        assert!(all(&ring, 0, usize::MAX) == [(Stderr, big[big.len() - SIZE..].to_vec())]);
    }

    #[test]
    fn output_that_alternates_is_bounded_too() {
        let mut ring = Ring::new().expect("memory");
        for _ in 0..MAX_RUNS {
            ring.push(Stdout, b"o");
            ring.push(Stderr, b"e");
        }
        assert!(ring.runs.len() <= MAX_RUNS + 1, "{}", ring.runs.len());
        assert_eq!(all(&ring, 0, 10).len() as u64, ring.kept());
        assert_eq!(ring.after(1, 1), Err(Expired(ring.oldest())));
    }
}
