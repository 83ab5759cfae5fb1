//! Output cut into frames that are whole characters.

use bytes::{Bytes, BytesMut};

/// Largest piece. Written as JSON with every byte escaped, and once more as base64, it stays
/// below the 512 KiB that clients accept for a frame (api.md 1.12).
const MAX_PIECE: usize = 64 << 10;

/// Cuts a stream of bytes so that no UTF-8 sequence is split. Bytes that are no UTF-8 at all
/// pass through as they are.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    /// The beginning of a character whose rest has not come yet, at most 3 bytes.
    held: Bytes,
}

impl Pieces {
    /// The pieces that are whole after `chunk`.
    pub(super) fn push(&mut self, chunk: Bytes) -> impl Iterator<Item = Bytes> + use<> {
        let mut data = if self.held.is_empty() {
            chunk
        } else {
            let mut joined = BytesMut::with_capacity(self.held.len() + chunk.len());
            joined.extend_from_slice(&self.held);
            joined.extend_from_slice(&chunk);
            joined.freeze()
        };
        self.held = data.split_off(data.len() - unfinished(&data));
        std::iter::from_fn(move || {
            if data.is_empty() {
                return None;
            }
            let mut cut = data.len().min(MAX_PIECE);
            if cut < data.len() {
                cut -= unfinished(&data[..cut]);
            }
            Some(data.split_to(cut))
        })
    }

    /// What is left when nothing more comes.
    pub(super) fn rest(&mut self) -> Option<Bytes> {
        let rest = std::mem::take(&mut self.held);
        (!rest.is_empty()).then_some(rest)
    }
}

/// How many bytes at the end begin a character that is not complete.
fn unfinished(data: &[u8]) -> usize {
    for (back, byte) in (1..=3).zip(data.iter().rev()) {
        let length = match byte {
            0x80..=0xBF => continue,
            0xC2..=0xDF => 2,
            0xE0..=0xEF => 3,
            0xF0..=0xF4 => 4,
            _ => 1,
        };
        return if length > back { back } else { 0 };
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(chunks: &[&[u8]]) -> Vec<Bytes> {
        let mut pieces = Pieces::default();
        let mut all: Vec<Bytes> =
            chunks.iter().flat_map(|chunk| pieces.push(Bytes::copy_from_slice(chunk))).collect();
        all.extend(pieces.rest());
        all
    }

    #[test]
    fn text_split_anywhere_arrives_in_whole_characters() {
        let text = "aé€😀z\n";
        for at in 0..=text.len() {
            for then in at..=text.len() {
                let bytes = text.as_bytes();
                let pieces = cut(&[&bytes[..at], &bytes[at..then], &bytes[then..]]);
                for piece in &pieces {
                    assert!(std::str::from_utf8(piece).is_ok(), "{at} {then} {piece:?}");
                }
                assert_eq!(pieces.concat(), bytes, "{at} {then}");
            }
        }
    }

    #[test]
    fn no_byte_is_lost_or_invented_whatever_comes() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let mut data = vec![0; random.usize(..40)];
            random.fill(&mut data);
            let size = random.usize(1..8);
            let chunks: Vec<&[u8]> = data.chunks(size).collect();
            let pieces = cut(&chunks);
            assert_eq!(pieces.concat(), data);
            assert!(pieces.iter().all(|piece| !piece.is_empty()));
        }
    }

    #[test]
    fn a_long_chunk_is_cut_between_characters() {
        let text = "€".repeat(100_000);
        let pieces = cut(&[text.as_bytes()]);
        assert!(pieces.len() > 4);
        for piece in &pieces {
            assert!(piece.len() <= MAX_PIECE && std::str::from_utf8(piece).is_ok());
        }
        assert_eq!(pieces.concat(), text.as_bytes());
        // Garbage that looks like an endless beginning still moves on.
        let garbage = vec![0xF0; 200_000];
        assert_eq!(cut(&[&garbage]).concat(), garbage);
    }
}
