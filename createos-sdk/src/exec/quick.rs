//! The frames that streams are made of, `{"stdout":"…"}` and `{"stderr":"…"}`, read without
//! the general JSON parser. Whatever is not exactly that is left to the parser, which also
//! finds the errors.

use bytes::Bytes;

use super::stream::ExecEvent;
use crate::transport::text;

/// Smaller output is copied: it would keep the whole of a chunk in memory.
const SHARED: usize = 4 << 10;

/// Reads the lines of one stream.
#[derive(Debug, Default)]
pub(super) struct Reader {
    /// Where small outputs are unescaped: their length is known only afterwards.
    scratch: Vec<u8>,
}

impl Reader {
    /// The event of a line that is a part of `chunk`.
    // Moving an event costs more than reading it, so it is to be made where it is needed.
    #[inline(always)]
    pub(super) fn event(&mut self, chunk: &Bytes, line: &[u8]) -> Option<ExecEvent> {
        let line = line.strip_suffix(b"\"}")?;
        if let Some(text) = line.strip_prefix(b"{\"stdout\":\"") {
            return self.content(chunk, text).map(ExecEvent::Stdout);
        }
        let text = line.strip_prefix(b"{\"stderr\":\"")?;
        self.content(chunk, text).map(ExecEvent::Stderr)
    }

    /// What the inside of a JSON string stands for; `None` when it is empty or not a string.
    fn content(&mut self, chunk: &Bytes, text: &[u8]) -> Option<Bytes> {
        if text.is_empty() || !text::is_valid(text) {
            return None;
        }
        let large = text.len() >= SHARED;
        let Some(first) = memchr::memchr2(b'\\', b'"', text) else {
            return Some(if large { chunk.slice_ref(text) } else { Bytes::copy_from_slice(text) });
        };
        if large {
            let mut out = Vec::with_capacity(text.len());
            unescape(text, first, &mut out)?;
            return Some(out.into());
        }
        self.scratch.clear();
        unescape(text, first, &mut self.scratch)?;
        Some(Bytes::copy_from_slice(&self.scratch))
    }
}

/// Appends what a valid text stands for. Its first backslash or quote is at `at`; a quote ends
/// a string, so behind it the line goes on with something else.
fn unescape(text: &[u8], mut at: usize, out: &mut Vec<u8>) -> Option<()> {
    let mut rest = text;
    loop {
        let (plain, escape) = rest.split_at(at);
        out.extend_from_slice(plain);
        if escape[0] == b'"' {
            return None;
        }
        let (byte, len) = match *escape.get(1)? {
            b'n' => (b'\n', 2),
            b'r' => (b'\r', 2),
            b't' => (b'\t', 2),
            b'b' => (8, 2),
            b'f' => (12, 2),
            plain @ (b'"' | b'\\' | b'/') => (plain, 2),
            // The parser knows what the others stand for.
            b'u' => (ascii(escape.get(2..6)?)?, 6),
            _ => return None,
        };
        out.push(byte);
        rest = &escape[len..];
        let Some(next) = memchr::memchr2(b'\\', b'"', rest) else {
            out.extend_from_slice(rest);
            return Some(());
        };
        at = next;
    }
}

/// The ASCII character with this hexadecimal number.
fn ascii(digits: &[u8]) -> Option<u8> {
    let mut code = 0;
    for digit in digits {
        code = code * 16 + char::from(*digit).to_digit(16)?;
    }
    u8::try_from(code).ok().filter(u8::is_ascii)
}

#[cfg(test)]
#[path = "quick_tests.rs"]
mod tests;
