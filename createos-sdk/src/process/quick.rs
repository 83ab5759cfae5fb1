//! The frames that most of a process's stream is made of, `{"type":"data",…}`, read without
//! copies of their fields. Whatever is not plainly that is left to [`ProcessFrame`], which also
//! finds the errors.
//!
//! [`ProcessFrame`]: crate::wire::ProcessFrame

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;

use crate::wire::OutputStream;

/// Text that needs unescaping cannot be borrowed, so it is no frame of this kind.
#[derive(Deserialize)]
struct Data<'a> {
    r#type: &'a str,
    seq: u64,
    stream: &'a str,
    data_base64: &'a str,
}

/// Place, origin and bytes of an output.
pub(super) fn data(line: &[u8]) -> Option<(u64, OutputStream, Bytes)> {
    let data: Data<'_> = serde_json::from_slice(line).ok()?;
    if data.r#type != "data" {
        return None;
    }
    let bytes = STANDARD.decode(data.data_base64).ok()?;
    Some((data.seq, data.stream.into(), bytes.into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ProcessFrame;

    #[test]
    fn output_is_read() {
        let line = br#"{"type":"data","seq":2,"stream":"stdout","data_base64":"c3RlcA=="}"#;
        assert_eq!(data(line), Some((2, OutputStream::Stdout, "step".into())));
        let odd = br#"{ "new":[1], "data_base64":"","stream":"audio","seq":0,"type":"data" }"#;
        let audio = OutputStream::Unknown("audio".to_owned());
        assert_eq!(data(odd), Some((0, audio, Bytes::new())));
    }

    /// Frames whose fields are shuffled, odd, missing and twice: where both have an answer it
    /// is the same, and what the parser refuses is not read.
    #[test]
    fn it_never_disagrees_with_the_parser() {
        const GOOD: [&str; 4] = [
            r#""type":"data""#,
            r#""seq":7"#,
            r#""stream":"stderr""#,
            r#""data_base64":"AAEC""#,
        ];
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
            if random.bool() {
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
