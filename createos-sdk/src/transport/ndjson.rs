//! Lines of JSON out of chunks of bytes (api.md 4.11).
//!
//! Every byte is looked at once and copied at most once: a line that lies whole in a chunk is
//! handed out as a slice of it, and only what straddles chunks is collected. The guest decides
//! how long a line is, so the time must not depend on it, and there is a limit.

use bytes::{Buf, Bytes, BytesMut};

/// Longest line accepted.
pub(crate) const MAX_LINE: usize = 16 << 20;

/// A line longer than [`MAX_LINE`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LineTooLong;

/// Cuts chunks into lines.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// The beginning of a line whose end has not come.
    partial: BytesMut,
    /// What has not been looked at.
    chunk: Bytes,
}

impl Lines {
    /// Takes the next chunk. The one before must have been used up by [`next_line`](Self::next_line).
    pub(crate) fn push(&mut self, chunk: Bytes) {
        debug_assert!(self.chunk.is_empty());
        self.chunk = chunk;
    }

    /// The next line that carries a payload, or `None` when another chunk is needed.
    pub(crate) fn next_line(&mut self) -> Result<Option<Bytes>, LineTooLong> {
        loop {
            let Some(end) = memchr::memchr(b'\n', &self.chunk) else {
                self.check_len(self.chunk.len())?;
                self.partial.extend_from_slice(&self.chunk);
                self.chunk.clear();
                return Ok(None);
            };
            self.check_len(end)?;
            let mut line = self.chunk.split_to(end);
            self.chunk.advance(1);
            if !self.partial.is_empty() {
                self.partial.extend_from_slice(&line);
                line = self.partial.split().freeze();
            }
            if let Some(payload) = payload(line) {
                return Ok(Some(payload));
            }
        }
    }

    /// The next line, where it lies whole in the chunk and `read` makes something of it as it
    /// is. Otherwise nothing has happened, and [`next_line`](Self::next_line) gives the line.
    #[inline(always)]
    pub(crate) fn read_line<T>(
        &mut self,
        read: impl FnOnce(&Bytes, &[u8]) -> Option<T>,
    ) -> Option<T> {
        if !self.partial.is_empty() {
            return None;
        }
        let end = memchr::memchr(b'\n', &self.chunk).filter(|end| *end <= MAX_LINE)?;
        let value = read(&self.chunk, &self.chunk[..end])?;
        self.chunk.advance(end + 1);
        Some(value)
    }

    /// The last line, when the stream ended without a line break.
    pub(crate) fn finish(&mut self) -> Option<Bytes> {
        payload(self.partial.split().freeze())
    }

    fn check_len(&self, more: usize) -> Result<(), LineTooLong> {
        if self.partial.len() + more > MAX_LINE { Err(LineTooLong) } else { Ok(()) }
    }
}

/// What a line carries, without the decoration of server-sent events; `None` for lines that
/// are blank, comments, or event fields without data.
fn payload(line: Bytes) -> Option<Bytes> {
    let line = trim(line);
    match line.first()? {
        // The common case first.
        b'{' => Some(line),
        b':' => None,
        _ if line.starts_with(b"data:") => {
            let data = trim(line.slice(b"data:".len()..));
            (!data.is_empty()).then_some(data)
        }
        _ if [&b"event:"[..], b"id:", b"retry:"].iter().any(|field| line.starts_with(field)) => {
            None
        }
        _ => Some(line),
    }
}

fn trim(mut line: Bytes) -> Bytes {
    let end = line.trim_ascii_end().len();
    line.truncate(end);
    let start = line.len() - line.trim_ascii_start().len();
    line.advance(start);
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn lines_of<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<Bytes> {
        let mut lines = Lines::default();
        let mut found = Vec::new();
        for chunk in chunks {
            lines.push(Bytes::copy_from_slice(chunk));
            while let Some(line) = lines.next_line().unwrap() {
                found.push(line);
            }
        }
        found.extend(lines.finish());
        found
    }

    const STREAM: &[u8] = b"{\"hb\":true}\n\r\n  \n: comment\nevent: x\nid: 7\nretry: 9\n\
        data: {\"stdout\":\"a\"}\r\ndata:\n{\"stderr\":\"\\u00e4\xc3\xa4\"}  \n[1]\n{\"exit_code\":0}";

    fn expected() -> Vec<Bytes> {
        [
            "{\"hb\":true}",
            "{\"stdout\":\"a\"}",
            "{\"stderr\":\"\\u00e4ä\"}",
            "[1]",
            "{\"exit_code\":0}",
        ]
        .map(|line: &'static str| Bytes::from_static(line.as_bytes()))
        .to_vec()
    }

    #[test]
    fn decoration_is_removed_and_the_last_line_needs_no_break() {
        assert_eq!(lines_of([STREAM]), expected());
    }

    #[test]
    fn cuts_at_every_byte_and_pair_of_bytes_change_nothing() {
        for first in 0..=STREAM.len() {
            let (head, tail) = STREAM.split_at(first);
            for second in 0..=tail.len() {
                let (middle, end) = tail.split_at(second);
                assert_eq!(lines_of([head, middle, end]), expected(), "{first} {second}");
            }
        }
        assert_eq!(lines_of(STREAM.chunks(1)), expected());
    }

    #[test]
    fn a_line_is_limited_wherever_it_is_cut() {
        for step in [1 << 10, 1 << 20, MAX_LINE] {
            let mut lines = Lines::default();
            for _ in 0..MAX_LINE / step {
                lines.push(Bytes::from(vec![b'x'; step]));
                assert_eq!(lines.next_line(), Ok(None));
            }
            lines.push(Bytes::from_static(b"x"));
            assert_eq!(lines.next_line(), Err(LineTooLong));
        }
        let mut lines = Lines::default();
        let mut long = vec![b'x'; MAX_LINE];
        long.push(b'\n');
        lines.push(long.into());
        assert_eq!(lines.next_line().unwrap().unwrap().len(), MAX_LINE);
    }

    /// Looking at everything again for each chunk would be half a terabyte of work here.
    #[test]
    fn a_long_line_in_small_chunks_takes_linear_time() {
        let chunk = Bytes::from(vec![b'x'; 256]);
        let mut lines = Lines::default();
        let started = Instant::now();
        for _ in 0..MAX_LINE / chunk.len() {
            lines.push(chunk.clone());
            assert_eq!(lines.next_line(), Ok(None));
        }
        assert!(started.elapsed().as_secs() < 10, "{:?}", started.elapsed());
    }
}
