//! File work that the server has no route for: a small shell script per operation.
//!
//! A name in Linux is any bytes but NUL and `/`, while arguments and output of a command are
//! text. So paths go in with every unusual byte escaped, and what comes out is written in
//! hexadecimal. The scripts need a POSIX shell and tools that busybox and coreutils share.

use std::fmt::{self, Write};
use std::future::IntoFuture;

use crate::error::{Error, ErrorKind, Result};
use crate::exec::Output;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::sandbox::Sandbox;

/// Puts the arguments into `$p` and `$q`. The dot keeps line breaks at the end.
const PRELUDE: &str = "LC_ALL=C; export LC_ALL
p=$(printf '%b.' \"$1\") && p=${p%.}
q=$(printf '%b.' \"${2-}\") && q=${q%.}
";

/// How often a directory is read that changes meanwhile.
const TRIES: u32 = 3;

// Exit codes of the scripts.
const MISSING: i32 = 44;
const NOT_A_DIRECTORY: i32 = 45;
const IN_THE_WAY: i32 = 46;
const NOT_EMPTY: i32 = 47;
const NOT_A_FILE: i32 = 48;

type Parse<T> = fn(&[u8]) -> Option<T>;

/// A small operation on the files of a sandbox. Made by [`Files`](super::Files); done when
/// awaited.
///
/// It runs a command in the sandbox (api.md 4.11), so the sandbox must be running and have a
/// POSIX shell and the usual tools: coreutils or busybox.
///
/// # Errors
///
/// `InvalidArgument`: the path is not absolute, or has a NUL or `..`; `NotFound`: nothing is
/// there; `Conflict`: something else is in the way; `CommandFailed`: anything else, in the
/// words of the tool.
#[must_use = "nothing is sent until awaited"]
pub struct FileOperation<T> {
    sandbox: Sandbox,
    operation: &'static str,
    script: &'static str,
    paths: Vec<Vec<u8>>,
    parse: Parse<T>,
    options: RequestOptions,
}

impl<T: Send + 'static> FileOperation<T> {
    pub(super) fn new(
        sandbox: Sandbox,
        operation: &'static str,
        script: &'static str,
        paths: Vec<Vec<u8>>,
        parse: Parse<T>,
    ) -> Self {
        Self { sandbox, operation, script, paths, parse, options: RequestOptions::new() }
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<T> {
        let operation = self.operation;
        let root_is_fine = matches!(operation, "files.list" | "files.stat");
        for path in &self.paths {
            check(path, root_is_fine).map_err(|error| error.in_operation(operation))?;
        }
        let mut tries = 0;
        loop {
            tries += 1;
            let options = self.options.clone();
            let output = run(&self.sandbox, operation, self.script, &self.paths, options).await?;
            if let Some(whole) = unhex(&output.stdout).and_then(|bytes| (self.parse)(&bytes)) {
                return Ok(whole);
            }
            // Only what reads has output, so it can be repeated: a file went while it was
            // looked at.
            let stderr = output.stderr_lossy();
            if tries < TRIES && stderr.contains("No such file") {
                continue;
            }
            let why = stderr.lines().last().unwrap_or("it cannot be read");
            let message = format!("unexpected output of the sandbox's tools: {why}");
            let error = Error::new(ErrorKind::Protocol, message).in_operation(operation);
            return Err(error.with_resource(self.sandbox.id()));
        }
    }
}

impl<T: Send + 'static> IntoFuture for FileOperation<T> {
    type Output = Result<T>;
    type IntoFuture = Pending<T>;

    fn into_future(self) -> Pending<T> {
        Pending::new(self.run())
    }
}

impl<T> fmt::Debug for FileOperation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths: Vec<_> = self.paths.iter().map(|path| String::from_utf8_lossy(path)).collect();
        f.debug_struct("FileOperation")
            .field("operation", &self.operation)
            .field("paths", &paths)
            .finish_non_exhaustive()
    }
}

/// Runs a script on paths; its failures become errors of `operation`.
pub(super) async fn run(
    sandbox: &Sandbox,
    operation: &'static str,
    script: &str,
    paths: &[Vec<u8>],
    options: RequestOptions,
) -> Result<Output> {
    let script = format!("{PRELUDE}{script}");
    let arguments = ["-c".to_owned(), script, "sh".to_owned()];
    let arguments = arguments.into_iter().chain(paths.iter().map(|path| escaped(path)));
    let command = sandbox.command("sh").args(arguments).named(operation);
    let output = command.with(options).await?;
    let shown = || paths.first().map(|path| String::from_utf8_lossy(path)).unwrap_or_default();
    let (kind, why) = match output.status.code() {
        _ if output.error.is_some() => return output.ensure_success_of(operation),
        0 => return Ok(output),
        MISSING => (ErrorKind::NotFound, "does not exist"),
        NOT_A_DIRECTORY => (ErrorKind::InvalidArgument, "is not a directory"),
        IN_THE_WAY => (ErrorKind::Conflict, "cannot be done: something else has the name"),
        NOT_A_FILE => (ErrorKind::InvalidArgument, "is not a file"),
        NOT_EMPTY => (ErrorKind::Conflict, "is a directory that is not empty"),
        _ => return output.ensure_success_of(operation),
    };
    let message = format!("path: {:?} {why}", shown());
    let error = Error::new(kind, message).in_operation(operation);
    Err(error.with_resource(sandbox.id()))
}

/// Refuses paths that cannot be meant.
pub(super) fn check(path: &[u8], root_is_fine: bool) -> Result<()> {
    let why = match () {
        () if !path.starts_with(b"/") => "must be absolute",
        () if path.contains(&0) => "must not contain a NUL character",
        () if path.split(|byte| *byte == b'/').any(|part| part == b"..") => "must not contain `..`",
        () if path == b"/" && root_is_fine => return Ok(()),
        () if path.ends_with(b"/") || path.ends_with(b"/.") => "must not end in `/` or `/.`",
        () => return Ok(()),
    };
    Err(Error::invalid_argument("path", format!("{:?} {why}", String::from_utf8_lossy(path))))
}

/// A path as an argument of `printf %b`.
fn escaped(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for &byte in path {
        match byte {
            b'/' | b'.' | b'_' | b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => {
                text.push(byte.into());
            }
            _ => drop(write!(text, "\\0{byte:03o}")),
        }
    }
    text
}

/// Reads what `od -v -A n -t x1` wrote.
pub(super) fn unhex(text: &[u8]) -> Option<Vec<u8>> {
    let digits = text.split(u8::is_ascii_whitespace).filter(|digits| !digits.is_empty());
    digits
        .map(|digits| match digits {
            &[high, low] => Some((digit(high)? << 4) | digit(low)?),
            _ => None,
        })
        .collect()
}

fn digit(byte: u8) -> Option<u8> {
    (byte as char).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unusual_bytes_are_escaped() {
        assert_eq!(escaped(b"/a-b_c.D9"), "/a-b_c.D9");
        assert_eq!(escaped(b"/\n \\%\xff'"), r"/\0012\0040\0134\0045\0377\0047");
    }

    #[test]
    fn only_whole_bytes_are_read() {
        assert_eq!(unhex(b" 2f 0a\n ff\n").unwrap(), b"/\n\xff");
        assert_eq!(unhex(b"").unwrap(), b"");
        for bad in [&b"2"[..], b"2f0a", b"zz", b"+1", b"2f *"] {
            assert!(unhex(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn paths_that_cannot_be_meant_are_refused() {
        for path in [&b"/a"[..], b"/-rf", b"/a b\n\xff", b"/..a"] {
            check(path, false).unwrap();
        }
        check(b"/", true).unwrap();
        for path in [&b""[..], b"a", b"/", b"/a/", b"/a/.", b"/a\0", b"/..", b"/a/../b"] {
            assert!(check(path, false).is_err(), "{path:?}");
        }
    }
}
