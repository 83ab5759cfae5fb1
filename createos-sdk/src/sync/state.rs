//! What both sides agreed on, kept for the next time.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::local::LocalRoot;
use super::remote::RemoteRoot;
use super::tree::{Agreed, Base, Stat};

const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct File {
    version: u32,
    /// Of which directories it is.
    of: [String; 3],
    tree: Entry,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Dir(u32, BTreeMap<String, Entry>),
    File(Version),
    Link(Version),
}

/// Digest, permissions, and how each side shows it.
#[derive(Serialize, Deserialize)]
struct Version(String, u32, Side, Side);

#[derive(Serialize, Deserialize)]
struct Side(u32, u64, u64, String);

/// The agreement in a file; `None` when it is of other directories or cannot be understood.
pub(super) fn load(file: &Path, local: &LocalRoot, remote: &RemoteRoot) -> Option<Base> {
    let stored: File = serde_json::from_slice(&std::fs::read(file).ok()?).ok()?;
    (stored.version == VERSION && stored.of == of(local, remote)).then_some(())?;
    base(stored.tree)
}

/// Stores an agreement. Whoever reads the file sees the old or the new one.
pub(super) fn save(
    file: &Path,
    local: &LocalRoot,
    remote: &RemoteRoot,
    tree: &Base,
) -> io::Result<()> {
    let stored = File { version: VERSION, of: of(local, remote), tree: entry(tree) };
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut part = tempfile::NamedTempFile::new_in(dir)?;
    part.write_all(&serde_json::to_vec(&stored)?)?;
    part.persist(file).map_err(|error| error.error)?;
    Ok(())
}

/// Devices in the sandbox have another number after it was resumed, so that does not count.
fn of(local: &LocalRoot, remote: &RemoteRoot) -> [String; 3] {
    let inode = remote.identity.rsplit(':').next().unwrap_or_default();
    [
        remote.sandbox.id().to_string(),
        format!("{} {}", local.identity(), local.path().display()),
        format!("{inode} {}", remote.path),
    ]
}

fn entry(base: &Base) -> Entry {
    match base {
        Base::Dir { mode, children } => {
            let below = children.iter().map(|(name, below)| (name_text(name), entry(below)));
            Entry::Dir(*mode, below.collect())
        }
        Base::File(agreed) => Entry::File(version(agreed)),
        Base::Link(agreed) => Entry::Link(version(agreed)),
    }
}

fn version(agreed: &Agreed) -> Version {
    let side = |stat: &Stat| Side(stat.mode, stat.size, stat.inode, stat.mtime.to_string());
    Version(hex(&agreed.digest), agreed.mode, side(&agreed.local), side(&agreed.remote))
}

fn base(entry: Entry) -> Option<Base> {
    Some(match entry {
        Entry::Dir(mode, below) => {
            let one = |(name, entry): (String, Entry)| Some((name_bytes(&name)?, base(entry)?));
            let children = below.into_iter().map(one).collect::<Option<_>>()?;
            Base::Dir { mode, children }
        }
        Entry::File(version) => Base::File(agreed(version)?),
        Entry::Link(version) => Base::Link(agreed(version)?),
    })
}

fn agreed(Version(digest, mode, local, remote): Version) -> Option<Agreed> {
    let digest = unhex(&digest)?.try_into().ok()?;
    let stat = |Side(mode, size, inode, mtime)| Stat { mode, size, inode, mtime: mtime.into() };
    Some(Agreed { digest, mode, local: stat(local), remote: stat(remote) })
}

/// A name as text. One that is not text is in hexadecimal behind a NUL, which no name has.
fn name_text(name: &[u8]) -> String {
    match std::str::from_utf8(name) {
        Ok(text) => text.to_owned(),
        Err(_) => format!("\0{}", hex(name)),
    }
}

fn name_bytes(text: &str) -> Option<Box<[u8]>> {
    match text.strip_prefix('\0') {
        Some(digits) => unhex(digits).map(Into::into),
        None => Some(text.as_bytes().into()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_version_survives() {
        let stat = |n: u64| Stat { mode: 0o644, size: n, inode: n, mtime: format!("{n}.5").into() };
        let mut tree = Base::root();
        tree.agree(b"d", Base::Dir { mode: 0o755, children: BTreeMap::new() });
        let one = Agreed { digest: [7; 32], mode: 0o600, local: stat(1), remote: stat(2) };
        for name in [&b"d/\xff\n"[..], b"d/a b", b"caf\xc3\xa9"] {
            tree.agree(name, Base::File(one.clone()));
        }
        tree.agree(b"l", Base::Link(one));
        let text = serde_json::to_string(&entry(&tree)).unwrap();
        assert_eq!(base(serde_json::from_str(&text).unwrap()), Some(tree));
    }
}
