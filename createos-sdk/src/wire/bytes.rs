//! Bytes in JSON: text where it is text, and base64 beside it where it is not.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;

/// The text to send, and the exact bytes when the text had to be repaired.
pub(super) fn split(bytes: &[u8]) -> (String, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), None),
        Err(_) => (String::from_utf8_lossy(bytes).into_owned(), Some(STANDARD.encode(bytes))),
    }
}

/// The exact bytes of a pair made by [`split`].
pub(super) fn join(text: String, exact: Option<String>) -> Result<Bytes, base64::DecodeError> {
    match exact {
        None => Ok(Bytes::from(text)),
        Some(exact) => STANDARD.decode(exact).map(Bytes::from),
    }
}
