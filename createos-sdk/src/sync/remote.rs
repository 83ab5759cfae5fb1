//! The directory in the sandbox: looking at it and reading from it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use futures::TryStreamExt;

use super::filter::Filter;
use super::script::{self, STAT, Script};
use super::tree::{Digest, Dir, Node, Stat};
use crate::error::{Error, ErrorKind, Result};
use crate::exec::{ExecEvent, ExitStatus};
use crate::sandbox::Sandbox;

pub(super) const OPERATION: &str = "sandbox.sync";

/// How often a directory is listed that changes meanwhile.
const TRIES: u32 = 5;

/// The directory in the sandbox.
#[derive(Debug, Clone)]
pub(super) struct RemoteRoot {
    pub(super) sandbox: Sandbox,
    /// Absolute and without links.
    pub(super) path: String,
    /// Tells it from a directory that takes its name later.
    pub(super) identity: String,
}

/// How a script ended, and what it wrote.
pub(super) struct Ran {
    pub(super) status: ExitStatus,
    pub(super) stdout: Vec<u8>,
    pub(super) stderr: String,
}

/// Runs a script to its end. What it writes may be any amount.
pub(super) async fn run(sandbox: &Sandbox, script: String) -> Result<Ran> {
    let command = sandbox.command("sh").args(["-c".to_owned(), script]).named(OPERATION);
    let mut events = command.stream().await?;
    let (mut stdout, mut stderr, mut refused) = (Vec::new(), Vec::new(), None);
    while let Some(event) = events.try_next().await? {
        match event {
            ExecEvent::Stdout(bytes) => stdout.extend_from_slice(&bytes),
            ExecEvent::Stderr(bytes) => stderr.extend_from_slice(&bytes),
            ExecEvent::Error(why) => refused = Some(why),
            ExecEvent::Exit(status) => {
                if let Some(why) = refused {
                    let why = format!("the sandbox cannot run a shell: {why}");
                    return Err(failed(sandbox, ErrorKind::CommandFailed, why));
                }
                let stderr = String::from_utf8_lossy(&stderr).into_owned();
                return Ok(Ran { status, stdout, stderr });
            }
        }
    }
    Err(failed(sandbox, ErrorKind::StreamLost, "the script's end is missing"))
}

pub(super) fn failed(sandbox: &Sandbox, kind: ErrorKind, why: impl Into<String>) -> Error {
    Error::new(kind, why).in_operation(OPERATION).with_resource(sandbox.id())
}

impl Ran {
    /// The last line of what the tools said, or how the script ended.
    pub(super) fn why(&self) -> String {
        let said = self.stderr.lines().rev().find(|line| !line.trim().is_empty());
        said.map_or_else(|| self.status.to_string(), |line| line.trim().to_owned())
    }
}

impl RemoteRoot {
    /// Makes the directory where it is missing, and gets it ready.
    pub(super) async fn prepare(sandbox: Sandbox, path: &str) -> Result<Self> {
        let mut script = Script::new();
        let root = script.word(path.as_bytes());
        script.push(&format!("R={root}\n"));
        script.push(script::PREPARE);
        let ran = run(&sandbox, script.text()).await?;
        let text = String::from_utf8_lossy(&ran.stdout);
        let missing: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("missing ")).collect();
        if !missing.is_empty() {
            let why = format!(
                "the sandbox has no {}; a sync needs coreutils or busybox, findutils and tar",
                missing.join(", ")
            );
            return Err(failed(&sandbox, ErrorKind::Unsupported, why));
        }
        if ran.status.code() != 0 {
            let why = match ran.status.code() {
                44 => format!("{path:?} is not a directory and cannot be made one"),
                45 => format!("{path:?} cannot be entered"),
                _ => format!("{path:?} cannot be prepared: {}", ran.why()),
            };
            return Err(failed(&sandbox, ErrorKind::InvalidArgument, why));
        }
        let told = text.lines().find_map(|line| line.strip_prefix("root "));
        let (identity, real) = told.and_then(|told| told.split_once(' ')).ok_or_else(|| {
            failed(&sandbox, ErrorKind::Protocol, "the sandbox's tools answer nothing useful")
        })?;
        if real == "/" || real.contains(char::REPLACEMENT_CHARACTER) {
            let why = format!("{path:?} leads to {real:?}, which cannot be synced");
            return Err(failed(&sandbox, ErrorKind::InvalidArgument, why));
        }
        let (path, identity) = (real.to_owned(), identity.to_owned());
        Ok(Self { sandbox, path, identity })
    }

    fn gone(&self) -> Error {
        let why = format!(
            "{} in the sandbox is gone, or is another directory now; nothing was removed here",
            self.path
        );
        failed(&self.sandbox, ErrorKind::NotFound, why)
    }

    /// What lists the directory, every entry behind a mark that no name can hold by chance.
    fn listing(&self, mark: &str, filter: &Filter) -> String {
        let prunes = script::prunes(&filter.pruned());
        format!(
            "{{ stat -c '\n{mark} {STAT} %d:%i' .\n\
             find . -mindepth 1 {prunes} -exec stat -c '\n{mark} {STAT} %n' {{}} +\n\
             printf '\n{mark} end %s' $?; }}"
        )
    }

    /// Everything in the directory that takes part.
    pub(super) async fn scan(&self, filter: &Filter) -> Result<Dir> {
        let mut tries = 0;
        loop {
            tries += 1;
            let mark = format!("{:016x}", fastrand::u64(..));
            let mut script = Script::in_root(&self.path);
            script.push(&self.listing(&mark, filter));
            script.push(" | base64\n");
            let ran = run(&self.sandbox, script.text()).await?;
            match ran.status.code() {
                0 => {}
                44 | 45 => return Err(self.gone()),
                _ => return Err(self.unlisted(&ran)),
            }
            // What went while it was looked at is gone. Anything else may hide files.
            let harmless = |line: &str| line.contains("No such file or directory");
            let only_gone = ran.stderr.lines().all(harmless);
            match decode(&ran.stdout).and_then(|bytes| self.parse(&bytes, &mark, filter)) {
                Some(Listed { identity, .. }) if identity != self.identity => {
                    return Err(self.gone());
                }
                Some(listed) if listed.whole || only_gone => return Ok(listed.dir),
                _ if tries < TRIES => continue,
                _ => return Err(self.unlisted(&ran)),
            }
        }
    }

    fn unlisted(&self, ran: &Ran) -> Error {
        let why = format!("{} in the sandbox cannot be listed: {}", self.path, ran.why());
        failed(&self.sandbox, ErrorKind::CommandFailed, why)
    }

    fn parse(&self, bytes: &[u8], mark: &str, filter: &Filter) -> Option<Listed> {
        let mark = format!("\n{mark} ");
        let finder = memchr::memmem::Finder::new(mark.as_bytes());
        let mut starts = finder.find_iter(bytes).map(|at| at + mark.len()).peekable();
        let first = starts.next()?;
        let mut records = Vec::new();
        let mut start = first;
        for next in starts {
            // `stat` ends each entry with a line break, which precedes the next one's own.
            records.push(bytes.get(start..next - mark.len())?.strip_suffix(b"\n")?);
            start = next;
        }
        let whole = bytes.get(start..)?.strip_prefix(b"end ")? == b"0";
        let mut records = records.into_iter();
        let (root, _, identity) = record(records.next()?)?;
        let identity = String::from_utf8_lossy(identity).into_owned();
        let mut dir = Dir { mode: root.permissions(), ..Dir::default() };
        for entry in records {
            let (stat, kind, path) = record(entry)?;
            let path = path.strip_prefix(b"./")?;
            if filter.excludes(path, kind == Kind::Dir) {
                continue;
            }
            // Below what was left out nothing has a directory to go to.
            dir.insert(path, kind.node(stat));
        }
        Some(Listed { dir, identity, whole })
    }

    /// The digests of files, for those that can be read.
    pub(super) async fn digests(&self, paths: &[Vec<u8>]) -> Result<Vec<(Vec<u8>, Digest)>> {
        let mut found = Vec::new();
        for batch in batches(paths) {
            let mut script = Script::in_root(&self.path);
            script.push(
                "d_() { if [ -f \"$1\" ] && [ ! -L \"$1\" ]; then h=$(sha256sum < \"$1\"); \
                 else h=; fi; printf '%s\\n' \"${h%% *}\"; }\n",
            );
            for path in batch {
                let word = script.relative(path);
                script.call("d_", &[word]);
            }
            let ran = run(&self.sandbox, script.text()).await?;
            if matches!(ran.status.code(), 44 | 45) {
                return Err(self.gone());
            }
            let text = String::from_utf8_lossy(&ran.stdout);
            let digests = text.lines().map(parse_digest);
            let known = batch.iter().zip(digests);
            found.extend(known.filter_map(|(path, digest)| Some((path.clone(), digest?))));
        }
        Ok(found)
    }

    /// A script that writes these files and links as an archive, and then, behind a line `-`,
    /// their versions as they are after that, all in base64.
    pub(super) fn archive(&self, mark: &str, paths: &[&[u8]]) -> String {
        let mut script = Script::in_root(&self.path);
        let words: Vec<String> = paths.iter().map(|path| script.relative(path)).collect();
        script.push(&format!("set -- {}\n", words.join(" ")));
        // GNU tar takes a backslash in a name for an escape.
        script.push("u=\n");
        if paths.iter().any(|path| path.contains(&b'\\')) {
            script.push("case $(tar --version 2>/dev/null) in *GNU*) u=--no-unquote;; esac\n");
        }
        script.push("tar $u -c -f - \"$@\" | base64; echo -\n");
        script.push(&format!("stat -c '\n{mark} {STAT} %n' \"$@\" 2>/dev/null | base64\n"));
        script.text()
    }

    /// The versions that [`archive`](Self::archive) tells at its end.
    pub(super) fn versions(bytes: &[u8], mark: &str) -> Option<Vec<(Vec<u8>, Stat)>> {
        let mark = format!("\n{mark} ");
        let mut versions = Vec::new();
        let starts: Vec<usize> =
            memchr::memmem::find_iter(bytes, mark.as_bytes()).map(|at| at + mark.len()).collect();
        for (n, start) in starts.iter().enumerate() {
            let end = starts.get(n + 1).map_or(bytes.len(), |next| next - mark.len());
            let (stat, _, path) = record(bytes.get(*start..end)?.strip_suffix(b"\n")?)?;
            versions.push((path.strip_prefix(b"./")?.to_vec(), stat));
        }
        Some(versions)
    }

    /// A script that writes a line whenever something may have changed, for `seconds`.
    pub(super) fn watcher(&self, filter: &Filter, interval: u64, seconds: u64) -> String {
        let mut script = Script::in_root(&self.path);
        let listing = self.listing("e", filter);
        script.push(&format!(
            "old=; n=0\nwhile [ $n -lt {seconds} ]; do\n\
             new=$({{ stat -c %d:%i \"$R\"; {listing}; }} 2>/dev/null | cksum)\n\
             [ \"$new\" = \"$old\" ] || echo changed\n\
             old=$new; sleep {interval}; n=$((n+{interval}))\ndone\n"
        ));
        script.text()
    }
}

struct Listed {
    dir: Dir,
    identity: String,
    whole: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Dir,
    File,
    Link,
    Other,
}

impl Kind {
    fn node(self, stat: Stat) -> Node {
        match self {
            Self::Dir => Node::Dir(Dir { mode: stat.permissions(), ..Dir::default() }),
            Self::File => Node::File(stat),
            Self::Link => Node::Link(stat),
            Self::Other => Node::Opaque("it is a device, pipe or socket"),
        }
    }
}

/// `<mode> <size> <inode> <date> <time> <zone> <rest>`.
fn record(bytes: &[u8]) -> Option<(Stat, Kind, &[u8])> {
    let mut rest = bytes;
    let mut field = || -> Option<&str> {
        let end = rest.iter().position(|byte| *byte == b' ')?;
        let (field, after) = rest.split_at(end);
        rest = &after[1..];
        std::str::from_utf8(field).ok()
    };
    let raw = u32::from_str_radix(field()?, 16).ok()?;
    let (size, inode) = (field()?.parse().ok()?, field()?.parse().ok()?);
    let mtime = format!("{} {} {}", field()?, field()?, field()?);
    let kind = match raw & 0o170_000 {
        0o040_000 => Kind::Dir,
        0o100_000 => Kind::File,
        0o120_000 => Kind::Link,
        _ => Kind::Other,
    };
    Some((Stat { mode: raw & 0o7777, size, inode, mtime: mtime.into() }, kind, rest))
}

/// A version as the scripts that change something tell it: without a name.
pub(super) fn parse_stat(text: &str) -> Option<Stat> {
    record(format!("{text} ").as_bytes()).map(|(stat, _, _)| stat)
}

/// A version in the words of `stat`.
pub(super) fn stat_words(stat: &Stat, link: bool) -> String {
    let kind: u32 = if link { 0o120_000 } else { 0o100_000 };
    format!("{:x} {} {} {}", kind | stat.mode, stat.size, stat.inode, stat.mtime)
}

pub(super) fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    STANDARD.decode(digits).ok()
}

fn parse_digest(text: &str) -> Option<Digest> {
    let mut digest = Digest::default();
    if text.len() != 2 * digest.len() || !text.is_ascii() {
        return None;
    }
    for (byte, at) in digest.iter_mut().zip((0..text.len()).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(digest)
}

/// The longest text of names in one script: a single argument of a program is limited.
pub(super) const MAX_SCRIPT: usize = 90 << 10;

/// Cuts paths into groups whose names fit into one script.
fn batches(paths: &[Vec<u8>]) -> Vec<&[Vec<u8>]> {
    let mut groups = Vec::new();
    let (mut start, mut len) = (0, 0);
    for (at, path) in paths.iter().enumerate() {
        // Escaped, a byte may take five.
        let own = path.len() * 5 + 64;
        if len + own > MAX_SCRIPT && at > start {
            groups.push(&paths[start..at]);
            (start, len) = (at, 0);
        }
        len += own;
    }
    if start < paths.len() {
        groups.push(&paths[start..]);
    }
    groups
}
