//! What is known about a file.

use std::borrow::Cow;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use crate::time::Timestamp;

/// What kind of file it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileKind {
    /// An ordinary file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, pipe or socket.
    Other,
}

/// What is known about a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct FileInfo {
    /// What kind of file it is. A link is itself, not what it points to.
    pub kind: FileKind,
    /// Size in bytes.
    pub size: u64,
    /// Permissions, such as `0o644`; with the special bits, up to `0o7777`.
    pub mode: u32,
    /// When the content last changed, in whole seconds; `None` when out of range.
    pub modified: Option<Timestamp>,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// What a symbolic link points to; told by [`Files::stat`](super::Files::stat) only.
    pub link_target: Option<Bytes>,
}

impl FileInfo {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Whether it is an ordinary file.
    pub fn is_file(&self) -> bool {
        self.kind == FileKind::File
    }

    /// Reads `%f %s %Y %u %g` of `stat`.
    fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let mut fields = text.split(' ');
        let mode = u32::from_str_radix(fields.next()?, 16).ok()?;
        let size = fields.next()?.parse().ok()?;
        let modified = moment(fields.next()?.parse().ok()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        let kind = match mode & 0o170_000 {
            0o100_000 => FileKind::File,
            0o040_000 => FileKind::Directory,
            0o120_000 => FileKind::Symlink,
            _ => FileKind::Other,
        };
        let whole = fields.next().is_none();
        let mode = mode & 0o7777;
        whole.then_some(Self { kind, size, mode, modified, uid, gid, link_target: None })
    }
}

fn moment(seconds: i64) -> Option<Timestamp> {
    let distance = Duration::from_secs(seconds.unsigned_abs());
    let at = match seconds {
        0.. => SystemTime::UNIX_EPOCH.checked_add(distance),
        _ => SystemTime::UNIX_EPOCH.checked_sub(distance),
    };
    Timestamp::try_from(at?).ok()
}

/// A name in a directory, and what it names.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirEntry {
    /// The name, exactly: any bytes but NUL and `/`.
    pub name: Bytes,
    /// What it names.
    pub info: FileInfo,
}

impl DirEntry {
    /// The name as text, with `U+FFFD` for what is not UTF-8.
    pub fn name_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.name)
    }
}

/// What lists a directory. Every entry is `<stat> ./<name>`, and a name has no `/`, so the
/// slashes separate exactly, whatever the names are. The end is the exit code of `find`.
pub(super) const LIST: &str = r#"[ -e "$p" ] || [ -L "$p" ] || exit 44
[ -d "$p" ] || exit 45
cd "$p" || exit 1
{ find . -mindepth 1 -maxdepth 1 -exec stat -c '%f %s %Y %u %g %n' {} +
printf '%s /' "$?"; } | od -v -A n -t x1
"#;

pub(super) fn parse_list(bytes: &[u8]) -> Option<Vec<DirEntry>> {
    let mut pieces = bytes.strip_suffix(b"/")?.split(|byte| *byte == b'/');
    let mut info = pieces.next()?;
    let mut entries = Vec::new();
    for piece in pieces {
        // The name, a line break, and the beginning of the next entry.
        let end = piece.iter().rposition(|byte| *byte == b'\n')?;
        let name = Bytes::copy_from_slice(&piece[..end]);
        let fields = info.strip_suffix(b" .")?;
        entries.push(DirEntry { name, info: FileInfo::parse(fields)? });
        info = &piece[end + 1..];
    }
    (info == b"0 ").then_some(entries)
}

pub(super) const STAT: &str = r#"[ -e "$p" ] || [ -L "$p" ] || exit 44
{ stat -c '%f %s %Y %u %g' "$p" && { [ ! -L "$p" ] || readlink "$p"; }
printf '%s' "$?"; } | od -v -A n -t x1
"#;

pub(super) fn parse_stat(bytes: &[u8]) -> Option<FileInfo> {
    let rest = bytes.strip_suffix(b"\n0")?;
    let (fields, target) = match rest.iter().position(|byte| *byte == b'\n') {
        None => (rest, None),
        Some(end) => (&rest[..end], Some(Bytes::copy_from_slice(&rest[end + 1..]))),
    };
    let info = FileInfo::parse(fields)?;
    Some(FileInfo { link_target: target, ..info })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_read_whatever_the_names_are() {
        let list = b"81a4 5 1700000000 0 0 ./a\n41ed 4096 0 1 2 ./x\n81a4 9 9 9 9 .\nb\n\
            a1ff 1 -5 0 0 ./\xff \n0 /";
        let entries = parse_list(list).unwrap();
        let names: Vec<_> = entries.iter().map(|entry| &entry.name[..]).collect();
        assert_eq!(names, [&b"a"[..], b"x\n81a4 9 9 9 9 .\nb", b"\xff "]);
        assert_eq!((entries[0].info.mode, entries[0].info.size), (0o644, 5));
        assert_eq!(entries[0].info.modified.unwrap().to_string(), "2023-11-14T22:13:20Z");
        assert!(entries[1].info.is_dir() && entries[1].info.gid == 2);
        assert_eq!(entries[2].info.kind, FileKind::Symlink);
        assert_eq!(entries[2].info.modified.unwrap().to_string(), "1969-12-31T23:59:55Z");
        assert_eq!(parse_list(b"0 /").unwrap(), []);
    }

    #[test]
    fn anything_else_is_refused() {
        for bad in [
            &b""[..],
            b"0 ",
            b"1 /",
            b"81a4 5 1 0 0 ./a\n",
            b"81a4 5 1 0 0 ./a\n1 /",
            b"81a4 5 1 0 0 ./a0 /",
            b"81a4 5 1 0 ./a\n0 /",
            b"81a4 5 1 0 0 0 ./a\n0 /",
            b"81a4 -5 1 0 0 ./a\n0 /",
            b"zz 5 1 0 0 ./a\n0 /",
        ] {
            assert!(parse_list(bad).is_none(), "{:?}", String::from_utf8_lossy(bad));
        }
        for bad in [&b""[..], b"81a4 5 1 0 0\n", b"81a4 5 1 0 0\n1", b"81a4 5 1 0\n0"] {
            assert!(parse_stat(bad).is_none(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn a_link_tells_its_target() {
        assert_eq!(parse_stat(b"81a4 5 1 0 0\n0").unwrap().link_target, None);
        let link = parse_stat(b"a1ff 5 1 0 0\n/a\nb\n0").unwrap();
        assert_eq!(link.link_target.unwrap(), "/a\nb");
    }
}
