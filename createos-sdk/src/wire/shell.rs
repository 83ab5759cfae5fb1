//! What goes into an interactive shell (api.md 4.20): frames of one byte of type, four bytes of
//! length and a payload. What comes out is plain bytes.

use bytes::{Buf, BufMut, Bytes, BytesMut};

use super::PtySize;
use crate::error::{Error, ErrorKind};

const DATA: u8 = 0;
const RESIZE: u8 = 1;
const HEADER: usize = 5;
const SIZE: usize = 4;

/// One frame.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ShellFrame {
    /// What is typed.
    Data(Bytes),
    /// The size of the terminal.
    Resize(PtySize),
}

impl ShellFrame {
    /// Longest payload, in bytes. More is sent as several frames.
    pub const MAX_PAYLOAD: usize = 1 << 20;

    /// Writes a frame of what is typed, at most [`MAX_PAYLOAD`](Self::MAX_PAYLOAD) bytes; the
    /// rest is left out.
    pub fn write_data(bytes: &[u8], to: &mut BytesMut) {
        let bytes = &bytes[..bytes.len().min(Self::MAX_PAYLOAD)];
        let length = u32::try_from(bytes.len()).unwrap_or_default();
        to.reserve(HEADER + bytes.len());
        to.put_u8(DATA);
        to.put_u32(length);
        to.put_slice(bytes);
    }

    /// Writes a frame with the size of the terminal.
    pub fn write_resize(size: PtySize, to: &mut BytesMut) {
        to.put_u8(RESIZE);
        to.put_u32(SIZE as u32);
        to.put_u16(size.rows);
        to.put_u16(size.cols);
    }

    /// Takes the first frame out of what has arrived; `None` when it is not complete.
    ///
    /// Fails with [`ErrorKind::Protocol`] on a type that is not known, a size that is not one,
    /// or a payload beyond [`MAX_PAYLOAD`](Self::MAX_PAYLOAD): what follows cannot be read then.
    pub fn take(from: &mut BytesMut) -> Result<Option<Self>, Error> {
        let refuse = |why: String| Err(Error::new(ErrorKind::Protocol, why));
        let Some((header, payload)) = from.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [kind, a, b, c, d] = *header;
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        match kind {
            DATA if length > Self::MAX_PAYLOAD => {
                return refuse(format!("a shell frame of {length} bytes"));
            }
            RESIZE if length != SIZE => {
                return refuse(format!("a terminal size of {length} bytes instead of {SIZE}"));
            }
            DATA | RESIZE => {}
            other => return refuse(format!("a shell frame of the unknown type {other}")),
        }
        if payload.len() < length {
            return Ok(None);
        }
        from.advance(HEADER);
        let mut payload = from.split_to(length).freeze();
        Ok(Some(match kind {
            DATA => Self::Data(payload),
            _ => Self::Resize(PtySize::new(payload.get_u16(), payload.get_u16())),
        }))
    }
}

// What is typed often is a password.
impl std::fmt::Debug for ShellFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Data(bytes) => write!(f, "Data({} bytes)", bytes.len()),
            Self::Resize(size) => write!(f, "Resize({}x{})", size.rows, size.cols),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(frames: &[ShellFrame]) -> BytesMut {
        let mut to = BytesMut::new();
        for frame in frames {
            match frame {
                ShellFrame::Data(bytes) => ShellFrame::write_data(bytes, &mut to),
                ShellFrame::Resize(size) => ShellFrame::write_resize(*size, &mut to),
            }
        }
        to
    }

    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<ShellFrame> {
        let mut arrived = BytesMut::new();
        let mut frames = Vec::new();
        for piece in pieces {
            arrived.extend_from_slice(piece);
            while let Some(frame) = ShellFrame::take(&mut arrived).unwrap() {
                frames.push(frame);
            }
        }
        assert!(arrived.is_empty());
        frames
    }

    fn typed(bytes: &'static [u8]) -> ShellFrame {
        ShellFrame::Data(Bytes::from_static(bytes))
    }

    #[test]
    fn frames_of_the_contract_byte_for_byte() {
        let resize = written(&[ShellFrame::Resize(PtySize::new(40, 120))]);
        assert_eq!(resize[..], [1, 0, 0, 0, 4, 0, 0x28, 0, 0x78]);
        assert_eq!(written(&[typed(b"ls\r")])[..], [0, 0, 0, 0, 3, b'l', b's', 0x0d]);
    }

    #[test]
    fn cuts_at_every_byte_and_pair_of_bytes_change_nothing() {
        let frames = [
            ShellFrame::Resize(PtySize::new(1, u16::MAX)),
            typed(b"ls\r"),
            typed(b""),
            typed(b"\x00\x01\xff\x00\x00\x00\x04"),
            ShellFrame::Resize(PtySize::new(0, 0)),
            typed(b"x"),
        ];
        let bytes = written(&frames);
        for first in 0..=bytes.len() {
            let (head, tail) = bytes.split_at(first);
            for second in 0..=tail.len() {
                let (middle, end) = tail.split_at(second);
                assert_eq!(read([head, middle, end]), frames, "{first} {second}");
            }
        }
        assert_eq!(read(bytes.chunks(1)), frames);
    }

    #[test]
    fn random_frames_in_random_pieces_come_out_as_they_went_in() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let frames: Vec<_> = (0..random.usize(..20))
                .map(|_| match random.bool() {
                    true => ShellFrame::Resize(PtySize::new(random.u16(..), random.u16(..))),
                    false => {
                        let length = random.usize(..2000);
                        ShellFrame::Data((0..length).map(|_| random.u8(..)).collect())
                    }
                })
                .collect();
            let bytes = written(&frames);
            let mut rest = &bytes[..];
            let mut pieces = Vec::new();
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(random.usize(1..=rest.len()));
                pieces.push(piece);
                rest = after;
            }
            assert_eq!(read(pieces), frames);
        }
    }

    #[test]
    fn garbage_is_refused_before_it_is_waited_for() {
        for bytes in [
            &[2, 0, 0, 0, 0][..],
            &[255, 255, 255, 255, 255],
            &[0, 0, 0x10, 0, 1],
            &[1, 0, 0, 0, 3],
            &[1, 0, 0, 0, 5],
        ] {
            let error = ShellFrame::take(&mut BytesMut::from(bytes)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Protocol, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_typed_does_not_show() {
        assert!(!format!("{:?}", typed(b"hunter2")).contains("hunter2"));
    }
}
