//! The frames that streams are made of, `{"stdout":"…"}` and `{"stderr":"…"}`, read without
//! the general JSON parser. Whatever is not exactly that is left to the parser, which also
//! finds the errors.

use bytes::Bytes;

use super::stream::ExecEvent;

/// Smaller output is copied: it would keep the whole of a chunk in memory.
const SHARED: usize = 4 << 10;

/// The event of a line that is a part of `chunk`.
pub(super) fn event(chunk: &Bytes, line: &[u8]) -> Option<ExecEvent> {
    let line = line.strip_suffix(b"\"}")?;
    if let Some(text) = line.strip_prefix(b"{\"stdout\":\"") {
        return bytes(chunk, text).map(ExecEvent::Stdout);
    }
    let text = line.strip_prefix(b"{\"stderr\":\"")?;
    bytes(chunk, text).map(ExecEvent::Stderr)
}

/// What the inside of a JSON string stands for; `None` when it is empty or not simple.
fn bytes(chunk: &Bytes, text: &[u8]) -> Option<Bytes> {
    let escape = memchr::memchr(b'\\', text);
    let bytes = match escape {
        None if text.len() >= SHARED => is_plain(text).then(|| chunk.slice_ref(text))?,
        None => is_plain(text).then(|| Bytes::copy_from_slice(text))?,
        Some(first) => unescaped(text, first)?.into(),
    };
    (!bytes.is_empty()).then_some(bytes)
}

fn unescaped(text: &[u8], first: usize) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    let mut escape = Some(first);
    while let Some(at) = escape {
        if !is_plain(&rest[..at]) {
            return None;
        }
        out.extend_from_slice(&rest[..at]);
        out.push(match rest.get(at + 1)? {
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            plain @ (b'"' | b'\\' | b'/') => *plain,
            _ => return None,
        });
        rest = &rest[at + 2..];
        escape = memchr::memchr(b'\\', rest);
    }
    if !is_plain(rest) {
        return None;
    }
    out.extend_from_slice(rest);
    Some(out)
}

/// Whether this stands for itself inside of a JSON string.
fn is_plain(text: &[u8]) -> bool {
    // Without branches, so that the compiler can look at many bytes at a time.
    let odd = |byte: &u8| (*byte < 0x20) | (*byte == b'"');
    let simple = text.iter().fold(true, |simple, byte| simple & !odd(byte) & byte.is_ascii());
    simple || (!text.iter().any(odd) && std::str::from_utf8(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ExecFrame;

    fn quick(line: &[u8]) -> Option<ExecEvent> {
        let chunk = Bytes::copy_from_slice(line);
        event(&chunk, &chunk)
    }

    fn slow(line: &[u8]) -> Option<ExecEvent> {
        let mut frame: ExecFrame = serde_json::from_slice(line).ok()?;
        let stdout = frame.take_stdout().unwrap().map(ExecEvent::Stdout);
        stdout.or_else(|| frame.take_stderr().unwrap().map(ExecEvent::Stderr))
    }

    #[test]
    fn simple_frames_are_read() {
        let out = |text: &str| Some(ExecEvent::Stdout(text.to_owned().into()));
        assert_eq!(quick(br#"{"stdout":"abc"}"#), out("abc"));
        assert_eq!(quick(br#"{"stdout":"a\n\t\r\"\\\/b"}"#), out("a\n\t\r\"\\/b"));
        assert_eq!(quick("{\"stdout\":\"ä→\\n\"}".as_bytes()), out("ä→\n"));
        let long = "x".repeat(SHARED);
        assert_eq!(quick(format!("{{\"stdout\":\"{long}\"}}").as_bytes()), out(&long));
        let error = Some(ExecEvent::Stderr("e".into()));
        assert_eq!(quick(br#"{"stderr":"e"}"#), error);
    }

    #[test]
    fn anything_else_is_left_to_the_parser() {
        for line in [
            &br#"{"stdout":""}"#[..],
            br#"{"stdout":"a","stderr":"b"}"#,
            br#"{"stdout":"a","stdout_base64":"YQ=="}"#,
            br#"{"stdout":"\u0041"}"#,
            br#"{"stdout":"\b"}"#,
            br#"{"stdout":"a\"}"#,
            br#"{"stdout":"a\\\"}"#,
            br#"{"stdout":"a"b"}"#,
            b"{\"stdout\":\"a\x01\"}",
            b"{\"stdout\":\"a\xff\"}",
            b"{\"stdout\":\"\\n\xff\"}",
            b"{\"stdout\":\"\xc3\\n\xa4\"}",
            br#" {"stdout":"a"}"#,
            br#"{"error":"a"}"#,
            br#"{"stdout":"}"#,
            b"",
        ] {
            assert_eq!(quick(line), None, "{:?}", String::from_utf8_lossy(line));
        }
    }

    /// Random text over the bytes that matter: where both have an answer it is the same.
    #[test]
    fn it_never_disagrees_with_the_parser() {
        const BYTES: &[u8] = b"ab\"\\nrtu/0041{}: ,\x01\x7f\xc3\xa4\xff";
        let mut random = fastrand::Rng::with_seed(7);
        let mut read = 0;
        for _ in 0..200_000 {
            let length = random.usize(..12);
            let text: Vec<u8> = (0..length).map(|_| BYTES[random.usize(..BYTES.len())]).collect();
            let line = [b"{\"stdout\":\"", &text[..], b"\"}"].concat();
            if let Some(event) = quick(&line) {
                read += 1;
                assert_eq!(Some(event), slow(&line), "{:?}", String::from_utf8_lossy(&line));
            }
        }
        assert!(read > 10_000, "{read}");
    }
}
