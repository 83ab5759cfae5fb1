//! An API key, typed or read.

use std::io::Read;

use crate::failure::Failure;

/// A key is well below this; a larger input is another file.
const MAX_BYTES: u64 = 64 * 1024;

/// The key after `--token`; `-` is standard input.
pub(super) fn given(token: &str) -> Result<String, Failure> {
    if token != "-" {
        return checked(token);
    }
    let mut text = String::new();
    let read = std::io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text);
    read.map_err(|error| Failure::io("cannot read the key from standard input", &error))?;
    checked(&text)
}

/// A key without the blanks around it.
pub(super) fn checked(text: &str) -> Result<String, Failure> {
    match text.trim() {
        "" => Err(Failure::usage("the key is empty").hint("createos login --token <key>")),
        key => Ok(key.to_owned()),
    }
}
