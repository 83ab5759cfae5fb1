//! How the engine and its helper programs write values into messages.
//!
//! Integers are little endian, texts and byte strings carry their length first.
//! Whatever is read comes from another process, possibly a hostile one, so every
//! length is checked against what is there and nothing panics.

// The engine and each helper program include this file and use their own part.
#![allow(dead_code)]

/// Appends values to a message.
#[derive(Debug, Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }

    pub(crate) fn u32(mut self, value: u32) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn i32(self, value: i32) -> Self {
        self.u32(value.cast_unsigned())
    }

    pub(crate) fn u64(mut self, value: u64) -> Self {
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    pub(crate) fn bytes(self, value: &[u8]) -> Self {
        let mut writer = self.u32(u32::try_from(value.len()).unwrap_or(u32::MAX));
        writer.0.extend_from_slice(value);
        writer
    }

    pub(crate) fn text(self, value: &str) -> Self {
        self.bytes(value.as_bytes())
    }

    pub(crate) fn texts<'a>(self, values: impl ExactSizeIterator<Item = &'a str>) -> Self {
        let count = self.u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
        values.fold(count, Self::text)
    }

    pub(crate) fn byte_strings(self, values: &[Vec<u8>]) -> Self {
        let count = self.u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
        values.iter().fold(count, |writer, value| writer.bytes(value))
    }

    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// A message that does not read as it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("malformed message")
    }
}

impl From<Malformed> for std::io::Error {
    fn from(_: Malformed) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, "malformed message")
    }
}

/// Takes values from the front of a message.
#[derive(Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(message: &'a [u8]) -> Self {
        Self(message)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.take(N)?.try_into().map_err(|_| Malformed)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.u32()?;
        self.take(usize::try_from(length).map_err(|_| Malformed)?)
    }

    pub(crate) fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }

    pub(crate) fn texts(&mut self) -> Result<Vec<&'a str>, Malformed> {
        let count = self.u32()?;
        // No capacity from the wire: a count that lies runs out of message first.
        (0..count).map(|_| self.text()).collect()
    }

    pub(crate) fn byte_strings(&mut self) -> Result<Vec<Vec<u8>>, Malformed> {
        let count = self.u32()?;
        (0..count).map(|_| self.bytes().map(<[u8]>::to_vec)).collect()
    }

    /// Whether everything has been read.
    pub(crate) fn is_at_end(&self) -> bool {
        self.0.is_empty()
    }

    /// Fails when something is left over.
    pub(crate) fn finish(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let message = Writer::default()
            .u8(7)
            .u32(70_000)
            .i32(-5)
            .u64(1 << 40)
            .bytes(b"\0\xff")
            .text("grüße")
            .texts(["a", "", "c"].into_iter())
            .finish();
        let mut reader = Reader::new(&message);
        assert_eq!(reader.u8(), Ok(7));
        assert_eq!(reader.u32(), Ok(70_000));
        assert_eq!(reader.i32(), Ok(-5));
        assert_eq!(reader.u64(), Ok(1 << 40));
        assert_eq!(reader.bytes(), Ok(&b"\0\xff"[..]));
        assert_eq!(reader.text(), Ok("grüße"));
        assert_eq!(reader.texts(), Ok(vec!["a", "", "c"]));
        assert_eq!(reader.finish(), Ok(()));
    }

    #[test]
    fn every_cut_of_a_message_is_malformed() {
        let message = Writer::default().text("abc").texts(["x", "yz"].into_iter()).finish();
        for length in 0..message.len() {
            let mut reader = Reader::new(&message[..length]);
            let read = reader.text().and_then(|_| reader.texts());
            assert_eq!(read, Err(Malformed), "cut at {length}");
        }
    }

    #[test]
    fn lying_lengths_are_malformed() {
        let huge = Writer::default().u32(u32::MAX).finish();
        assert_eq!(Reader::new(&huge).bytes(), Err(Malformed));
        assert_eq!(Reader::new(&huge).texts(), Err(Malformed));
        assert_eq!(Reader::new(&[1, 0, 0, 0, 0xff]).text(), Err(Malformed));
    }

    #[test]
    fn leftovers_are_malformed() {
        let mut reader = Reader::new(&[1, 2]);
        assert_eq!(reader.u8(), Ok(1));
        assert_eq!(reader.finish(), Err(Malformed));
    }
}
