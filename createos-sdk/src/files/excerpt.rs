//! Reading the beginning and the end of a file.

use std::future::IntoFuture;

use bytes::Bytes;

use super::guest;
use crate::error::{Error, ErrorKind, Result};
use crate::excerpt::{Excerpt, Gap};
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::sandbox::Sandbox;

const OPERATION: &str = "files.read_excerpt";
/// Longest excerpt in bytes: on its way it is three times as long, in one answer.
const LONGEST: usize = 8 << 20;

/// Reads the beginning and the end of a file. Made with
/// [`Files::read_excerpt`](super::Files::read_excerpt); gives an [`Excerpt`].
///
/// Only what is kept leaves the sandbox, so memory and traffic are constant however long the
/// file is. It runs a command (api.md 4.11), so the sandbox must be running and have a POSIX
/// shell and the usual tools: coreutils or busybox. It may read inside a mounted disk. Of a
/// file that is written meanwhile it tells what was there when it began.
///
/// # Errors
///
/// `InvalidArgument`: the path is not absolute, has a NUL or `..`, or names something that is
/// no file; or the excerpt is longer than 8 MiB; from a MiB on,
/// [`Files::download`](super::Files::download) is the faster way. `NotFound`: nothing is there. `Conflict`: the
/// sandbox is not running. `CommandFailed`: anything else, in the words of the tool. Reading
/// changes nothing, so it is safe to repeat.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct ReadExcerpt {
    sandbox: Sandbox,
    path: Vec<u8>,
    head: usize,
    tail: usize,
    options: RequestOptions,
}

impl ReadExcerpt {
    pub(super) fn new(sandbox: Sandbox, path: Vec<u8>, head: usize, tail: usize) -> Self {
        Self { sandbox, path, head, tail, options: RequestOptions::new() }
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    fn script(&self) -> Result<String> {
        let (head, tail) = (self.head, self.tail);
        let both = head.checked_add(tail).filter(|both| *both <= LONGEST).ok_or_else(|| {
            let why = format!("together longer than {} MiB; download the file", LONGEST >> 20);
            Error::invalid_argument("head and tail", why)
        })?;
        Ok(format!(
            r#"[ -e "$p" ] || exit 44
[ -f "$p" ] || exit 48
size=$(wc -c <"$p") || exit
size=$((size))
{{
printf '%s\n' "$size"
if [ "$size" -le {both} ]; then head -c "$size" "$p"
else head -c {head} "$p"; tail -c "+$((size - {tail} + 1))" "$p" | head -c {tail}
fi
}} | od -v -A n -t x1
"#
        ))
    }

    async fn run(self) -> Result<Excerpt> {
        let in_operation = |error: Error| error.in_operation(OPERATION);
        guest::check(&self.path, false).map_err(in_operation)?;
        let script = self.script().map_err(in_operation)?;
        let output =
            guest::run(&self.sandbox, OPERATION, &script, &[self.path], self.options).await?;
        guest::unhex(&output.stdout).and_then(|answer| read(answer, self.head)).ok_or_else(|| {
            let message = "unexpected output of the sandbox's tools";
            Error::new(ErrorKind::Protocol, message)
                .in_operation(OPERATION)
                .with_resource(self.sandbox.id())
        })
    }
}

/// Reads the size and what was kept. A file that shrank meanwhile lacks more than it should,
/// which the gap tells like any other.
fn read(answer: Vec<u8>, head: usize) -> Option<Excerpt> {
    let end = answer.iter().position(|byte| *byte == b'\n')?;
    let size: u64 = std::str::from_utf8(&answer[..end]).ok()?.parse().ok()?;
    let bytes = Bytes::from(answer).slice(end + 1..);
    let missing = size.checked_sub(bytes.len() as u64)?;
    let at = head.min(bytes.len());
    Some(Excerpt { bytes, gap: (missing > 0).then_some(Gap { at, bytes: missing }) })
}

impl IntoFuture for ReadExcerpt {
    type Output = Result<Excerpt>;
    type IntoFuture = Pending<Excerpt>;

    fn into_future(self) -> Pending<Excerpt> {
        Pending::new(self.run())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_no_excerpt() {
        for bad in ["", "5", "x\nabc", "-1\n", "2\nabc", "99999999999999999999\n"] {
            assert_eq!(read(bad.into(), 3), None, "{bad:?}");
        }
        let shrunk = read("9\nab".into(), 3).unwrap();
        assert_eq!(shrunk.gap, Some(Gap { at: 2, bytes: 7 }));
    }
}
