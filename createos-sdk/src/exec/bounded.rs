//! The beginning and the end of an output of any length, in constant memory.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::excerpt::Gap;

/// Keeps the first `head` and the last `tail` bytes of what is pushed.
#[derive(Debug)]
pub(super) struct Bounded {
    head: usize,
    tail: usize,
    first: Vec<u8>,
    last: VecDeque<u8>,
    dropped: u64,
}

impl Bounded {
    pub(super) fn new(head: usize, tail: usize) -> Self {
        Self { head, tail, first: Vec::new(), last: VecDeque::new(), dropped: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        let room = self.head - self.first.len();
        let (first, rest) = bytes.split_at(bytes.len().min(room));
        self.first.extend_from_slice(first);
        // What would be pushed out at once need not go in.
        let keep = &rest[rest.len().saturating_sub(self.tail)..];
        let over = (self.last.len() + keep.len()).saturating_sub(self.tail);
        self.last.drain(..over);
        self.last.extend(keep);
        self.dropped += (rest.len() - keep.len() + over) as u64;
    }

    /// What was kept, and the gap in it if there is one.
    pub(super) fn finish(self) -> (Bytes, Option<Gap>) {
        let at = self.first.len();
        let mut all = self.first;
        let (front, back) = self.last.as_slices();
        all.extend_from_slice(front);
        all.extend_from_slice(back);
        let gap = (self.dropped > 0).then_some(Gap { at, bytes: self.dropped });
        (all.into(), gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cut_of_every_length_keeps_the_same() {
        let input: Vec<u8> = (0..40).collect();
        for (head, tail) in [(0, 0), (0, 5), (5, 0), (3, 4), (20, 20), (40, 0), (64, 64)] {
            for length in 0..=input.len() {
                let input = &input[..length];
                let kept = length.min(head + tail);
                let mut expected = input[..length.min(head)].to_vec();
                expected.extend(&input[length - (kept - expected.len())..]);
                for step in 1..=length.max(1) {
                    let mut bounded = Bounded::new(head, tail);
                    input.chunks(step).for_each(|chunk| bounded.push(chunk));
                    let (bytes, gap) = bounded.finish();
                    assert_eq!(bytes, expected, "{head} {tail} {length} {step}");
                    let missing = (length - kept) as u64;
                    assert_eq!(gap.map_or(0, |gap| gap.bytes), missing);
                    assert!(gap.is_none_or(|gap| gap.at == head));
                }
            }
        }
    }

    #[test]
    fn memory_does_not_grow_with_the_output() {
        let mut bounded = Bounded::new(100, 1000);
        for _ in 0..10_000 {
            bounded.push(&[b'x'; 777]);
        }
        assert!(bounded.last.capacity() < 4096 && bounded.first.capacity() < 1024);
        assert_eq!(bounded.finish().1.unwrap().bytes, 7_770_000 - 1100);
    }
}
