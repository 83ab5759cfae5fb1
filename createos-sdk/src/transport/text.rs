//! Looking at eight bytes of text at once.

/// The lowest bit of each byte.
const EACH: u64 = u64::from_ne_bytes([1; 8]);
/// The highest bit of each byte.
const HIGHEST: u64 = 0x80 * EACH;

/// Whether this is UTF-8 without control characters, as the inside of a JSON string must be.
pub(crate) fn is_valid(text: &[u8]) -> bool {
    let (mut control, mut all) = (0, 0);
    // The highest bit of a byte is set by a byte below 0x20, and never by text alone.
    let mut look = |bytes: [u8; 8]| {
        let word = u64::from_ne_bytes(bytes);
        control |= word.wrapping_sub(0x20 * EACH) & !word;
        all |= word;
    };
    let (words, rest) = text.as_chunks();
    words.iter().for_each(|word| look(*word));
    match text.last_chunk() {
        // Some of it was looked at before, which is cheaper than to leave it out.
        Some(last) => look(*last),
        None => rest.iter().for_each(|byte| look([*byte; 8])),
    }
    let ascii = all & HIGHEST == 0;
    control & HIGHEST == 0 && (ascii || simdutf8::basic::from_utf8(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::is_valid;

    /// Every byte at every place of texts of every length around those of words.
    #[test]
    fn one_odd_byte_is_found_wherever_it_is() {
        for len in 0..40 {
            let text = vec![b'x'; len];
            assert!(is_valid(&text));
            for at in 0..len {
                for byte in 0..=255 {
                    let mut text = text.clone();
                    text[at] = byte;
                    assert_eq!(is_valid(&text), (0x20..0x80).contains(&byte), "{byte} at {at}");
                }
            }
        }
    }

    #[test]
    fn text_is_more_than_ascii() {
        for text in ["ä", "→ →", "😀", "\u{7f}", "ein ä, das weiter hinten steht"] {
            assert!(is_valid(text.as_bytes()), "{text}");
            assert!(is_valid(text.repeat(100).as_bytes()), "{text}");
            assert!(!is_valid(format!("{text}\n").as_bytes()), "{text}");
            assert!(!is_valid(format!("{text}\u{0}äöüß").as_bytes()), "{text}");
        }
        assert!(!is_valid(&"→".as_bytes()[..2]));
        assert!(!is_valid(b"\xed\xa0\x80"), "half of a pair");
    }
}
