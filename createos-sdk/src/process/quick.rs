//! The frames that most of a process's stream is made of, `{"type":"data",…}`, read without
//! the general JSON parser. Whatever is not written exactly like that is left to the parser,
//! which also finds the errors.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

use crate::wire::OutputStream;

/// Place, origin and bytes of an output.
pub(super) fn data(line: &[u8]) -> Option<(u64, OutputStream, Bytes)> {
    let rest = line.strip_prefix(b"{\"type\":\"data\",\"seq\":")?;
    let (seq, rest) = number(rest)?;
    let rest = rest.strip_prefix(b",\"stream\":\"")?;
    let (stream, rest) = rest.split_at(rest.iter().position(|byte| *byte == b'"')?);
    let stream = match stream {
        b"stdout" => OutputStream::Stdout,
        b"stderr" => OutputStream::Stderr,
        b"pty" => OutputStream::Pty,
        _ => return None,
    };
    // Nothing that ends or escapes in a JSON string is base64.
    let base64 = rest.strip_prefix(b"\",\"data_base64\":\"")?.strip_suffix(b"\"}")?;
    let bytes = STANDARD.decode(base64).ok()?;
    Some((seq, stream, bytes.into()))
}

/// The number at the beginning, as JSON writes numbers, and what follows it.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let len = text.iter().position(|byte| !byte.is_ascii_digit())?;
    let (digits, rest) = text.split_at(len);
    if digits.len() > 1 && digits[0] == b'0' {
        return None;
    }
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ProcessFrame;

    #[test]
    fn output_is_read() {
        let line = br#"{"type":"data","seq":2,"stream":"stdout","data_base64":"c3RlcA=="}"#;
        assert_eq!(data(line), Some((2, OutputStream::Stdout, "step".into())));
        let empty = br#"{"type":"data","seq":0,"stream":"pty","data_base64":""}"#;
        assert_eq!(data(empty), Some((0, OutputStream::Pty, Bytes::new())));
    }

    /// Frames whose fields are shuffled, odd, missing and twice: where both have an answer it
    /// is the same, and what the parser refuses is not read.
    #[test]
    fn it_never_disagrees_with_the_parser() {
        const GOOD: [&str; 4] =
            [r#""type":"data""#, r#""seq":7"#, r#""stream":"stderr""#, r#""data_base64":"AAEC""#];
        const ODD: &[&str] = &[
            r#""type":"d\u0061ta""#,
            r#""type":"exit""#,
            r#""seq":-1"#,
            r#""seq":1.5"#,
            r#""seq":07"#,
            r#""seq":18446744073709551616"#,
            r#""stream":"a\nb""#,
            r#""stream":null"#,
            r#""data_base64":"A\/8=""#,
            r#""data_base64":"A""#,
            r#""data_base64":"AB==""#,
            r#""data_base64":"AA E""#,
            r#""data_base64":"""#,
            r#" "x" : {"seq":1} "#,
        ];
        let mut random = fastrand::Rng::with_seed(3);
        let (mut read, mut left) = (0, 0);
        for _ in 0..100_000 {
            let mut fields = GOOD.to_vec();
            for _ in 0..random.usize(..3) {
                let odd = ODD[random.usize(..ODD.len())];
                match random.usize(..4) {
                    at if random.bool() => fields[at] = odd,
                    at => fields.insert(at, odd),
                }
            }
            if random.u8(..8) == 0 {
                random.shuffle(&mut fields);
            }
            let line = format!("{{{}}}", fields.join(","));
            let Some((seq, stream, bytes)) = data(line.as_bytes()) else {
                left += 1;
                continue;
            };
            read += 1;
            let frame: ProcessFrame = serde_json::from_str(&line).expect(&line);
            let ProcessFrame::Data { seq: expected, stream: from, .. } = &frame else {
                panic!("{line}");
            };
            assert_eq!((seq, &stream), (*expected, from), "{line}");
            assert_eq!(frame.bytes().expect(&line), bytes, "{line}");
        }
        assert!(read > 10_000 && left > 10_000, "{read} read, {left} left");
    }
}
