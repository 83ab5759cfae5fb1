//! The beginning and the end of something long, for readers that take no more than so much.

use std::borrow::Cow;
use std::fmt::{self, Write};

use bytes::Bytes;

/// Where bytes of an output or file are missing, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Gap {
    /// Offset in what is there: the missing bytes belong before this one.
    pub at: usize,
    /// Number of missing bytes.
    pub bytes: u64,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} left out", Bytewise(self.bytes))
    }
}

/// A number of bytes in words.
struct Bytewise(u64);

impl fmt::Display for Bytewise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

/// The beginning and the end of a file. Made with
/// [`Files::read_excerpt`](crate::Files::read_excerpt).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Excerpt {
    /// What was read, byte for byte.
    pub bytes: Bytes,
    /// Where bytes are missing; `None` when this is the whole file.
    pub gap: Option<Gap>,
}

impl Excerpt {
    /// The text for a reader such as a language model, which sees where something is missing:
    /// a line `[… 12345 bytes left out …]` stands there. A character that was cut is left out
    /// whole. Where bytes are not UTF-8, `U+FFFD` stands for them, and a last line
    /// `[… 3 bytes not in UTF-8 …]` says so.
    ///
    /// The content may hold such lines itself: programs look at [`gap`](Self::gap).
    pub fn marked(&self) -> Cow<'_, str> {
        marked(&self.bytes, self.gap)
    }
}

/// See [`Excerpt::marked`].
pub(crate) fn marked(bytes: &[u8], gap: Option<Gap>) -> Cow<'_, str> {
    if let (None, Ok(text)) = (gap, std::str::from_utf8(bytes)) {
        return text.into();
    }
    let mut marked = Marked { text: String::with_capacity(bytes.len() + 64), foreign: 0 };
    match gap {
        None => marked.push(bytes),
        Some(Gap { at, bytes: missing }) => {
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            let (head, tail) = (without_cut_end(head), without_cut_start(tail));
            let cut = bytes.len() - head.len() - tail.len();
            marked.push(head);
            marked.line(Gap { at, bytes: missing + cut as u64 });
            marked.push(tail);
        }
    }
    if let foreign @ 1.. = marked.foreign {
        marked.line(format_args!("{} not in UTF-8", Bytewise(foreign)));
    }
    marked.text.into()
}

struct Marked {
    text: String,
    /// Bytes that are not UTF-8.
    foreign: u64,
}

impl Marked {
    fn push(&mut self, bytes: &[u8]) {
        for chunk in bytes.utf8_chunks() {
            self.text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                self.text.push(char::REPLACEMENT_CHARACTER);
                self.foreign += chunk.invalid().len() as u64;
            }
        }
    }

    /// A line of its own.
    fn line(&mut self, note: impl fmt::Display) {
        if !self.text.is_empty() && !self.text.ends_with('\n') {
            self.text.push('\n');
        }
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "[… {note} …]");
    }
}

/// Without the beginning of a character at the end.
fn without_cut_end(bytes: &[u8]) -> &[u8] {
    let rest = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let is_cut = std::str::from_utf8(rest).is_err_and(|error| error.error_len().is_none());
    &bytes[..bytes.len() - if is_cut { rest.len() } else { 0 }]
}

/// Without the end of a character at the start.
fn without_cut_start(bytes: &[u8]) -> &[u8] {
    let is_inside = |byte: &&u8| **byte & 0b1100_0000 == 0b1000_0000;
    &bytes[bytes.iter().take(3).take_while(is_inside).count()..]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gap(at: usize, bytes: u64) -> Option<Gap> {
        Some(Gap { at, bytes })
    }

    #[test]
    fn the_mark_stands_on_its_own_line_where_something_is_missing() {
        for (bytes, gap, text) in [
            (&b"all of it"[..], None, "all of it"),
            (b"", None, ""),
            (b"headtail", gap(4, 7), "head\n[… 7 bytes left out …]\ntail"),
            (b"head\ntail", gap(5, 7), "head\n[… 7 bytes left out …]\ntail"),
            (b"tail", gap(0, 7), "[… 7 bytes left out …]\ntail"),
            (b"head", gap(4, 7), "head\n[… 7 bytes left out …]\n"),
            (b"", gap(0, 7), "[… 7 bytes left out …]\n"),
            (b"out of range", gap(99, 7), "out of range\n[… 7 bytes left out …]\n"),
        ] {
            assert_eq!(marked(bytes, gap), text);
        }
        assert!(matches!(marked(b"plain", None), Cow::Borrowed(_)));
    }

    #[test]
    fn characters_are_not_cut() {
        let whole = "aäé€😀z".as_bytes();
        for head in 0..whole.len() {
            for tail in 0..whole.len() - head {
                let kept = [&whole[..head], &whole[whole.len() - tail..]].concat();
                let text = marked(&kept, gap(head, (whole.len() - head - tail) as u64));
                assert!(!text.contains('\u{fffd}') && !text.contains("UTF-8"), "{text}");
                let (shown, _) = text.split_once("\n[").unwrap_or(("", ""));
                let (_, rest) = text.split_once("]\n").unwrap();
                assert!("aäé€😀z".starts_with(shown) && "aäé€😀z".ends_with(rest), "{text}");
                let missing = whole.len() - shown.len() - rest.len();
                let mark =
                    format!("[… {missing} byte{} left out …]", if missing == 1 { "" } else { "s" });
                assert!(text.contains(&mark), "{text}");
            }
        }
    }

    #[test]
    fn what_is_not_text_is_told() {
        let text = marked(b"a\xff\xfeb\n", None);
        assert_eq!(text, "a\u{fffd}\u{fffd}b\n[… 2 bytes not in UTF-8 …]\n");
        let text = marked(b"a\xffb\xff", gap(2, 5));
        let notes = "\n[… 5 bytes left out …]\nb\u{fffd}\n[… 2 bytes not in UTF-8 …]\n";
        assert_eq!(text, format!("a\u{fffd}{notes}"));
    }
}
