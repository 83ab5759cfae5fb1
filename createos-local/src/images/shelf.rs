//! Where imported root filesystems lie, and their names.
//!
//! ```text
//! images/lock                  held while names change
//! images/<name>/image.json     what it is
//! images/<name>/chain.json     the one layer that it is
//! layers/.new-*                one on its way in, locked by who writes it
//! ```
//!
//! Any process of the user may add to it, be an engine running on the directory or not: names
//! change under the lock, and what a name means is read anew each time.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::runtime::chain::{Base, Chain, LayerId, sync};
use crate::runtime::{HOST_ROOTFS, ImageConfig};
use crate::tree::remove_tree;

const IMAGES: &str = "images";
const LAYERS: &str = "layers";
const RECORD: &str = "image.json";
/// How the directories of images begin that are on their way in or out.
const UNFINISHED: &str = ".new-";
const LONGEST_NAME: usize = 128;

/// What is known of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    /// Where it came from: a file, or a reference.
    pub(crate) source: String,
    /// Of the image's manifest, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) digest: Option<String>,
    /// Bytes of its files.
    pub(crate) size_bytes: u64,
    /// Milliseconds since 1970.
    pub(crate) created: u64,
    #[serde(default)]
    pub(crate) config: ImageConfig,
}

/// The images of one data directory.
#[derive(Debug, Clone)]
pub(crate) struct Shelf {
    data_dir: PathBuf,
}

/// Held while names change.
#[derive(Debug)]
pub(crate) struct Locked {
    _file: File,
}

/// An image on its way in. Dropped before [`Shelf::put`], nothing of it stays.
#[derive(Debug)]
pub(crate) struct Incoming {
    layer: Option<TempDir>,
    _lock: File,
}

impl Incoming {
    /// Where its files belong.
    pub(crate) fn files(&self) -> PathBuf {
        self.layer.as_ref().map(|layer| layer.path().join("root/upper")).unwrap_or_default()
    }

    /// A place for what is needed on the way.
    pub(crate) fn scratch(&self) -> PathBuf {
        self.layer.as_ref().map(|layer| layer.path().join("scratch")).unwrap_or_default()
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        if let Some(layer) = self.layer.take() {
            // What is in it may have any mode, which the directory's own removal minds.
            let _ = remove_tree(&layer.keep());
        }
    }
}

impl Shelf {
    pub(crate) fn of(data_dir: &Path) -> io::Result<Self> {
        for name in [IMAGES, LAYERS] {
            DirBuilder::new().recursive(true).mode(0o700).create(data_dir.join(name))?;
        }
        Ok(Self { data_dir: data_dir.to_owned() })
    }

    fn images(&self) -> PathBuf {
        self.data_dir.join(IMAGES)
    }

    /// Waits for whoever changes names; that takes moments.
    pub(crate) fn lock(&self) -> io::Result<Locked> {
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(self.images().join("lock"))?;
        flock(&file, FlockOperation::LockExclusive)?;
        Ok(Locked { _file: file })
    }

    pub(crate) fn directory(&self, name: &str) -> PathBuf {
        self.images().join(name.replace('/', "+"))
    }

    /// The directories of all images.
    pub(crate) fn directories(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.images())? {
            let entry = entry?;
            let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
            if !hidden && entry.file_type()?.is_dir() {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    /// All images, by name. One whose record cannot be read is left out.
    pub(crate) fn list(&self) -> io::Result<Vec<Record>> {
        let read = |directory: PathBuf| -> Option<Record> {
            let text = fs::read(directory.join(RECORD)).ok()?;
            let record: Record = serde_json::from_slice(&text).ok()?;
            (self.directory(&record.name) == directory).then_some(record)
        };
        let mut found: Vec<Record> = self.directories()?.into_iter().filter_map(read).collect();
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Whether a directory among the layers is an image on its way in.
    pub(crate) fn is_unfinished(name: &str) -> bool {
        name.starts_with(UNFINISHED)
    }

    /// Removes it, unless somebody is still at it.
    pub(crate) fn clear(&self, path: &Path) -> io::Result<()> {
        let directory = File::open(path)?;
        match flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => remove_tree(path),
            Err(rustix::io::Errno::WOULDBLOCK) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what programs that were killed have left on its way in. The caller holds the
    /// lock.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.data_dir.join(LAYERS))? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(Self::is_unfinished) {
                self.clear(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Makes room for a new image.
    pub(crate) fn begin(&self) -> io::Result<Incoming> {
        let layers = self.data_dir.join(LAYERS);
        // Between its making and its own lock nobody may take it for an abandoned one.
        let _locked = self.lock()?;
        self.sweep()?;
        let layer = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(layers)?;
        let lock = File::open(layer.path())?;
        flock(&lock, FlockOperation::LockExclusive)?;
        let incoming = Incoming { layer: Some(layer), _lock: lock };
        let mut builder = DirBuilder::new();
        builder.recursive(true).mode(0o755);
        builder.create(incoming.files())?;
        builder.create(incoming.scratch())?;
        Ok(incoming)
    }

    /// Gives a complete image its name; an earlier one of that name loses it.
    pub(crate) fn put(&self, mut incoming: Incoming, record: &Record) -> io::Result<()> {
        remove_tree(&incoming.scratch())?;
        let Some(layer) = incoming.layer.take() else { return Ok(()) };
        let fresh = layer.keep();
        let id = LayerId::new();
        let (place, images) = (self.data_dir.join(id.directory()), self.images());
        let named = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&images)?;
        let chain = Chain { layers: vec![id], base: Base::Bare, ..Chain::default() };
        chain.write(named.path())?;
        let mut file = File::create(named.path().join(RECORD))?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.sync_all()?;

        let _locked = self.lock()?;
        fs::rename(&fresh, &place).inspect_err(|_| drop(remove_tree(&fresh)))?;
        let directory = self.directory(&record.name);
        let replaced = self.take_name(&directory)?;
        let named = named.keep();
        fs::rename(&named, &directory)?;
        sync(&images)?;
        if let Some(replaced) = replaced {
            remove_tree(&replaced)?;
        }
        Ok(())
    }

    /// Takes an image's name away. Its files go when no sandbox has them any more.
    pub(crate) fn remove(&self, name: &str) -> io::Result<bool> {
        let _locked = self.lock()?;
        match self.take_name(&self.directory(name))? {
            Some(taken) => remove_tree(&taken).map(|()| true),
            None => Ok(false),
        }
    }

    fn take_name(&self, directory: &Path) -> io::Result<Option<PathBuf>> {
        let aside = self.images().join(format!("{UNFINISHED}{}", LayerId::new()));
        match fs::rename(directory, &aside) {
            Ok(()) => Ok(Some(aside)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Brings a name to its full form, `name:tag`, or says what is wrong with it.
pub(crate) fn full_name(name: &str) -> Result<String, String> {
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (name, "latest"),
    };
    let part = |part: &str| {
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        part.starts_with(|c: char| c.is_ascii_alphanumeric()) && part.chars().all(inner)
    };
    let is_tag = tag.starts_with(|c: char| c.is_ascii_alphanumeric())
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if name.len() > LONGEST_NAME || !path.split('/').all(part) || !is_tag {
        return Err(format!(
            "an image's name is lower-case letters, digits, `.`, `_`, `-` and `/`, then perhaps \
             `:` and a tag, and has at most {LONGEST_NAME} characters"
        ));
    }
    let full = format!("{path}:{tag}");
    if full == HOST_ROOTFS || full == "desktop:1" {
        return Err(format!("{full} is this machine's own; choose another name"));
    }
    Ok(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_brought_to_their_full_form() {
        for (given, full) in [
            ("alpine", "alpine:latest"),
            ("alpine:3.20", "alpine:3.20"),
            ("team/base_1:V2", "team/base_1:V2"),
        ] {
            assert_eq!(full_name(given).as_deref(), Ok(full));
        }
        let long = "a".repeat(200);
        for bad in [
            "", ":1", "a:", "../x", "a/../b", "/a", "a/", "A", "a b", "a:b c", "a\0", ".a",
            "devbox:1", "a:1:2", &long,
        ] {
            assert!(full_name(bad).is_err(), "{bad:?}");
        }
    }

    fn import(shelf: &Shelf, name: &str) -> Record {
        let incoming = shelf.begin().expect("room");
        fs::write(incoming.files().join("f"), name).expect("file");
        let record = Record {
            name: name.to_owned(),
            source: "test".to_owned(),
            digest: None,
            size_bytes: 1,
            created: 0,
            config: ImageConfig::default(),
        };
        shelf.put(incoming, &record).expect("put");
        record
    }

    #[test]
    fn images_are_put_replaced_and_removed() {
        let data = tempfile::tempdir().expect("directory");
        let shelf = Shelf::of(data.path()).expect("shelf");
        let record = import(&shelf, "team/a:1");
        let first = Chain::read(&shelf.directory("team/a:1")).expect("chain");
        assert_eq!(shelf.list().expect("list"), [record]);
        import(&shelf, "team/a:1");
        assert_ne!(Chain::read(&shelf.directory("team/a:1")).expect("chain"), first);
        assert_eq!(shelf.directories().expect("directories").len(), 1);
        assert!(shelf.remove("team/a:1").expect("remove"));
        assert!(!shelf.remove("team/a:1").expect("again"));
        assert!(shelf.list().expect("list").is_empty());
    }

    #[test]
    fn what_is_given_up_leaves_nothing_and_what_is_under_way_is_spared() {
        let data = tempfile::tempdir().expect("directory");
        let shelf = Shelf::of(data.path()).expect("shelf");
        let incoming = shelf.begin().expect("room");
        let path = incoming.files().ancestors().nth(2).expect("layer").to_owned();
        shelf.clear(&path).expect("somebody is at it");
        assert!(path.exists());
        let other = shelf.begin().expect("room for another one");
        assert!(path.exists(), "its lock is held");
        drop((incoming, other));
        assert!(!path.exists());
        let stray = data.path().join(LAYERS).join(format!("{UNFINISHED}stray"));
        fs::create_dir(&stray).expect("directory");
        let _incoming = shelf.begin().expect("room");
        assert!(!stray.exists(), "nobody is at it");
    }
}
