//! Streams of archives: decompressed, hashed, bounded. What is read is not to be trusted.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use lzma_rust2::XzReader;
use ruzstd::decoding::StreamingDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use sha2::{Digest, Sha256};

use super::ImageError;

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const XZ: [u8; 6] = [0xfd, b'7', b'z', b'X', b'Z', 0];
const BZIP2: [u8; 3] = *b"BZh";
/// Four times what the highest level of xz takes; more must be asked of it by hand.
const XZ_MEMORY_KIB: u32 = 256 << 10;

/// A stream as it is inside its compression.
pub(super) fn decompressed<'a>(
    mut source: impl BufRead + 'a,
) -> Result<Box<dyn Read + 'a>, ImageError> {
    let start = source.fill_buf().map_err(ImageError::io("cannot read the archive"))?;
    let begins = |magic: &[u8]| start.starts_with(magic);
    Ok(match () {
        () if begins(&GZIP) => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
        () if begins(&XZ) => Box::new(XzReader::new_mem_limit(source, true, XZ_MEMORY_KIB)),
        () if begins(&BZIP2) => Box::new(bzip2::bufread::MultiBzDecoder::new(source)),
        () if begins(&ZSTD) || is_skippable(start) => Box::new(Zstd::new(source)),
        () => Box::new(source),
    })
}

/// zstd leaves room for data of others between its frames.
fn is_skippable(start: &[u8]) -> bool {
    start.first_chunk().is_some_and(|magic: &[u8; 4]| {
        (0x184d_2a50..=0x184d_2a5f).contains(&u32::from_le_bytes(*magic))
    })
}

/// All frames of a zstd file, one after the other.
struct Zstd<R: BufRead> {
    state: Option<Frame<R>>,
}

enum Frame<R: BufRead> {
    Between(R),
    Inside(Box<StreamingDecoder<R, ruzstd::decoding::FrameDecoder>>),
}

impl<R: BufRead> Zstd<R> {
    fn new(source: R) -> Self {
        Self { state: Some(Frame::Between(source)) }
    }
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.state.take() {
                None => return Ok(0),
                Some(Frame::Between(mut source)) => {
                    if source.fill_buf()?.is_empty() {
                        return Ok(0);
                    }
                    if is_skippable(source.fill_buf()?) {
                        skip(&mut source)?;
                        self.state = Some(Frame::Between(source));
                        continue;
                    }
                    let decoder = StreamingDecoder::new(source).map_err(damaged)?;
                    self.state = Some(Frame::Inside(Box::new(decoder)));
                }
                Some(Frame::Inside(mut decoder)) => match decoder.read(buffer)? {
                    0 if !buffer.is_empty() => {
                        self.state = Some(Frame::Between(decoder.into_inner()));
                    }
                    count => {
                        self.state = Some(Frame::Inside(decoder));
                        return Ok(count);
                    }
                },
            }
        }
    }
}

fn damaged(error: FrameDecoderError) -> io::Error {
    match error {
        FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::MagicNumberReadError(
            error,
        )) => error,
        error => io::Error::new(io::ErrorKind::InvalidData, error.to_string()),
    }
}

fn skip(source: &mut impl BufRead) -> io::Result<()> {
    let mut header = [0; 8];
    source.read_exact(&mut header)?;
    let [.., a, b, c, d] = header;
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    let skipped = io::copy(&mut source.take(length), &mut io::sink())?;
    if skipped == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

/// Whether somebody still waits for what is read.
#[derive(Debug, Clone, Default)]
pub(super) struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    pub(super) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// An error once nobody waits any more.
    pub(super) fn check(&self) -> io::Result<()> {
        match self.0.load(Ordering::Relaxed) {
            true => Err(io::Error::other("it was given up")),
            false => Ok(()),
        }
    }

    /// A bound of so many bytes.
    pub(super) fn bound(&self, most: u64) -> Bound {
        Bound { most, given_up: self.clone() }
    }
}

/// How much may be read of something, and how long.
#[derive(Debug, Clone)]
pub(super) struct Bound {
    pub(super) most: u64,
    pub(super) given_up: GivenUp,
}

/// Hashes what is read, and ends with an error when that is more than it may be.
pub(super) struct Hashed<R> {
    source: R,
    digest: Sha256,
    left: u64,
    given_up: GivenUp,
}

impl<R: Read> Hashed<R> {
    pub(super) fn new(source: R, bound: &Bound) -> Self {
        let given_up = bound.given_up.clone();
        Self { source, digest: Sha256::new(), left: bound.most, given_up }
    }

    /// Reads what is left and returns the digest of all, in hexadecimal.
    pub(super) fn finish(mut self) -> io::Result<String> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(hex(&self.digest.finalize()))
    }
}

impl<R: Read> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.given_up.check()?;
        let count = self.source.read(buffer)?;
        self.digest.update(&buffer[..count]);
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::new(io::ErrorKind::FileTooLarge, "it is longer than images may be")
        })?;
        Ok(count)
    }
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn read(bytes: &[u8]) -> io::Result<Vec<u8>> {
        let mut all = Vec::new();
        decompressed(bytes).map_err(io::Error::other)?.read_to_end(&mut all)?;
        Ok(all)
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("gzip");
        encoder.finish().expect("gzip")
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        let level = ruzstd::encoding::CompressionLevel::Fastest;
        ruzstd::encoding::compress_to_vec(text, level)
    }

    fn bzip2(text: &[u8]) -> Vec<u8> {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        encoder.write_all(text).expect("bzip2");
        encoder.finish().expect("bzip2")
    }

    /// By the program: its writer is not built into this crate.
    fn xz(text: &[u8]) -> Vec<u8> {
        use std::process::{Command, Stdio};
        let mut xz = Command::new("xz");
        xz.args(["-c", "-1"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut xz = xz.spawn().expect("xz (Debian: apt install xz-utils)");
        let mut input = xz.stdin.take().expect("its input");
        let text = text.to_vec();
        let writes = std::thread::spawn(move || input.write_all(&text).expect("xz"));
        let output = xz.wait_with_output().expect("its output").stdout;
        writes.join().expect("xz");
        output
    }

    #[test]
    fn each_compression_is_undone_in_all_its_parts() {
        let skippable = [&[0x5f, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        assert_eq!(read(b"plain").expect("plain"), b"plain");
        assert_eq!(read(&[gzip(b"one"), gzip(b"two")].concat()).expect("gzip"), b"onetwo");
        let frames = [skippable.clone(), zstd(b"one"), skippable, zstd(b"two")].concat();
        assert_eq!(read(&frames).expect("zstd"), b"onetwo");
        assert_eq!(read(&[xz(b"one"), xz(b"two")].concat()).expect("xz"), b"onetwo");
        assert_eq!(read(&[bzip2(b"one"), bzip2(b"two")].concat()).expect("bzip2"), b"onetwo");
        assert!(read(&XZ).is_err() && read(b"BZh9").is_err());
    }

    #[test]
    fn what_is_cut_short_or_broken_is_an_error() {
        let long: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        for whole in [gzip(&long), zstd(&long), xz(&long), bzip2(&long)] {
            for length in [8, whole.len() / 2, whole.len() - 1] {
                assert!(read(&whole[..length]).is_err(), "cut at {length}");
            }
        }
        assert!(read(&[&ZSTD[..], &[0xff; 64]].concat()).is_err());
        assert!(read(&[0x50, 0x2a, 0x4d, 0x18, 255, 0, 0, 0, 1]).is_err());
    }

    #[test]
    fn more_than_allowed_is_an_error() {
        let bound = GivenUp::default().bound(3);
        let hashed = Hashed::new(&b"abc"[..], &bound).finish().expect("as much as allowed");
        assert!(hashed.starts_with("ba7816bf"), "{hashed}");
        assert!(Hashed::new(&b"abcd"[..], &bound).finish().is_err());
        bound.given_up.set();
        assert!(Hashed::new(&b"abc"[..], &bound).finish().is_err());
    }
}
