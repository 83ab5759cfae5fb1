//! Directories of sandboxes and layers: made, sealed, shared, removed.
//!
//! ```text
//! sandboxes/<id>/chain.json     what lies between `private` and the base
//! sandboxes/<id>/private/       disk.img, or {root,usr}/{upper,work}
//! templates/<id>/chain.json     the layers that a template keeps
//! images/<name>/chain.json      those of an imported root filesystem, below nothing else
//! layers/<layer>/               a `private` that became read-only and may be shared
//! ```
//!
//! A layer lives as long as a chain names it. Nothing counts: the chains themselves are
//! looked at, so there is no count that a crash could leave wrong.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use createos_sdk::{SandboxId, TemplateId};

use super::chain::{Base, Chain, LayerId, Sealing, sync};
use crate::images::Shelf;
use crate::tree::remove_tree;

const SANDBOXES: &str = "sandboxes";
const LAYERS: &str = "layers";
const TEMPLATES: &str = "templates";
const PRIVATE: &str = "private";
const IMAGE: &str = "disk.img";
/// How names of layers begin that are being removed.
const ASIDE: &str = ".gone-";

/// The smallest disk that can be made.
const SMALLEST_MIB: u64 = 300;
/// What the image of an empty disk takes.
const EMPTY_IMAGE_MIB: u64 = 3;
/// More layers than this make every boot and every lookup of a file slower, and kernels
/// before Linux 6.8 cannot mount many more. A fork beyond it copies.
const MOST_LAYERS: usize = 10;

/// The directories below one data directory.
pub(crate) struct Storage {
    data_dir: PathBuf,
    /// Imported root filesystems, which other processes may add to.
    shelf: Shelf,
    /// Held while chains and layers change together.
    changing: Mutex<()>,
}

/// What a boot is layered from; paths are relative to the data directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Files {
    pub(crate) private: String,
    /// Size of the disk; 0 for plain directories.
    pub(crate) disk_mib: u64,
    pub(crate) layers: Vec<String>,
    pub(crate) base: Base,
}

/// What a sandbox has besides shared layers.
pub(crate) enum Own {
    Nothing,
    /// A disk image in `from`; paths are relative to the data directory.
    Disk {
        from: String,
        to: String,
    },
    /// Plain directories.
    Directories {
        from: PathBuf,
        to: PathBuf,
    },
}

impl Storage {
    /// Opens the storage of a data directory; what an engine that was killed left half-done
    /// is finished or undone.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let shelf = Shelf::of(data_dir)?;
        let storage = Self { data_dir: data_dir.to_owned(), shelf, changing: Mutex::new(()) };
        for id in storage.list()? {
            if let Err(error) = storage.finish_seal(&storage.sandbox(&id)) {
                tracing::warn!(sandbox = %id, %error, "its layers cannot be used");
            }
        }
        let mut layers = BTreeSet::new();
        for entry in fs::read_dir(data_dir.join(LAYERS))? {
            let entry = entry?;
            let name = entry.file_name();
            match name.to_str() {
                Some(name) if name.starts_with(ASIDE) => remove_tree(&entry.path())?,
                Some(name) if Shelf::is_unfinished(name) => storage.shelf.clear(&entry.path())?,
                name => layers.extend(name.and_then(LayerId::parse)),
            }
        }
        storage.remove_unnamed(layers)?;
        Ok(storage)
    }

    fn sandbox(&self, id: &SandboxId) -> PathBuf {
        self.data_dir.join(SANDBOXES).join(id.as_str())
    }

    /// Where a sandbox's own layer lies, relative to the data directory.
    pub(crate) fn private(id: &SandboxId) -> String {
        format!("{SANDBOXES}/{id}/{PRIVATE}")
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes what a boot needs; what exists already stays. `disk_mib` is the size that the
    /// sandbox's own layer and those below it may have together, where `with_disks`.
    pub(crate) fn prepare(
        &self,
        id: &SandboxId,
        with_disks: bool,
        disk_mib: u64,
    ) -> io::Result<Files> {
        let chain = Chain::read(&self.sandbox(id))?;
        let relative = Self::private(id);
        let private = self.data_dir.join(&relative);
        let layers: Vec<String> = chain.layers.iter().map(LayerId::directory).collect();
        let is_image = |directory: &String| self.data_dir.join(directory).join(IMAGE).exists();
        if !with_disks && layers.iter().chain([&relative]).any(is_image) {
            return Err(io::Error::other(
                "its files are in disk images, which the engine cannot mount now; run the engine \
                 as root again, with mkfs.xfs installed and loop devices at hand",
            ));
        }
        let has_directories = private.join("root").is_dir();
        let disk_mib = if with_disks && !has_directories {
            fs::create_dir_all(&private)?;
            disk_mib.saturating_sub(chain.held_mib).max(SMALLEST_MIB)
        } else {
            make_directories(&private)?;
            0
        };
        Ok(Files { private: relative, disk_mib, layers, base: chain.base })
    }

    /// The size for the sandbox's own disk when it and the layers below are to have
    /// `disk_mib` together.
    pub(crate) fn own_share(&self, id: &SandboxId, disk_mib: u64) -> io::Result<u64> {
        let held = Chain::read(&self.sandbox(id))?.held_mib;
        Ok(disk_mib.saturating_sub(held).max(SMALLEST_MIB))
    }

    /// Makes the own layer of a sandbox a read-only one that others can share, and gives the
    /// sandbox a new, empty one at its next boot. No file is copied.
    ///
    /// The sandbox must not run and its disk must be closed. Without a layer of its own, a
    /// sandbox stays as it is. The caller holds the lock.
    fn seal(&self, id: &SandboxId) -> io::Result<()> {
        let directory = self.sandbox(id);
        let mut chain = Chain::read(&directory)?;
        let private = directory.join(PRIVATE);
        if !private.join(IMAGE).exists() && !private.join("root").is_dir() {
            return Ok(());
        }
        let held_mib = chain.held_mib + used_mib(&private.join(IMAGE))?;
        chain.sealing = Some(Sealing { layer: LayerId::new(), held_mib });
        chain.write(&directory)?;
        self.finish_seal(&directory)
    }

    /// Takes a seal to its end from wherever it was left.
    fn finish_seal(&self, directory: &Path) -> io::Result<()> {
        let mut chain = Chain::read(directory)?;
        let Some(Sealing { layer, held_mib }) = chain.sealing.take() else { return Ok(()) };
        let layer_directory = self.data_dir.join(layer.directory());
        match fs::rename(directory.join(PRIVATE), &layer_directory) {
            Ok(()) => sync(&self.data_dir.join(LAYERS))?,
            // Moved before the engine died.
            Err(error) if error.kind() == io::ErrorKind::NotFound && layer_directory.is_dir() => {}
            Err(error) => return Err(error),
        }
        chain.layers.insert(0, layer);
        chain.held_mib = held_mib;
        chain.write(directory)
    }

    /// Gives `child`, which must have no files yet, the files of `source` as they are now.
    /// No file is copied: the source is sealed and both go on from the same layers.
    ///
    /// The source must not run and its disk must be closed.
    pub(crate) fn fork(&self, source: &SandboxId, child: &SandboxId) -> io::Result<()> {
        let _changing = self.lock();
        self.seal(source)?;
        let chain = Chain::read(&self.sandbox(source))?;
        let directory = self.sandbox(child);
        fs::create_dir(&directory)?;
        chain.write(&directory)?;
        sync(&self.data_dir.join(SANDBOXES))
    }

    /// Makes the files of an ended sandbox a template's; none is copied. Returns how many bytes
    /// the template's layers take.
    pub(crate) fn keep(&self, id: &SandboxId, template: &TemplateId) -> io::Result<u64> {
        let _changing = self.lock();
        self.seal(id)?;
        let chain = Chain::read(&self.sandbox(id))?;
        let directory = self.template(template);
        fs::create_dir_all(&directory)?;
        chain.write(&directory)?;
        sync(&self.data_dir.join(TEMPLATES))?;
        let sizes = chain.layers.iter().map(|layer| taken(&self.data_dir.join(layer.directory())));
        sizes.sum()
    }

    /// Gives up a template, and the layers that nobody else names.
    pub(crate) fn forget(&self, template: &TemplateId) -> io::Result<()> {
        let directory = self.template(template);
        let chain = Chain::read(&directory).unwrap_or_default();
        remove_tree(&directory)?;
        self.remove_unnamed(chain.layers.into_iter().collect())
    }

    fn template(&self, id: &TemplateId) -> PathBuf {
        self.data_dir.join(TEMPLATES).join(id.as_str())
    }

    /// Templates that are kept. Anything else there is not ours.
    pub(crate) fn templates(&self) -> io::Result<Vec<TemplateId>> {
        let names = names(&self.data_dir.join(TEMPLATES))?;
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Gives a sandbox that has no files yet those of a template or an image; none is copied.
    pub(crate) fn begin(&self, id: &SandboxId, origin: &Begin) -> io::Result<()> {
        let _changing = self.lock();
        // An image may be replaced or removed by another process until its layers are named.
        let _shelf = self.shelf.lock()?;
        let from = match origin {
            Begin::Template(template) => self.template(template),
            Begin::Image(name) => self.shelf.directory(name),
        };
        if !from.is_dir() {
            return Err(io::ErrorKind::NotFound.into());
        }
        // What it begins with is not charged to its disk, be it this machine's system, an image
        // or a template. (A disk of the usual size is also one that waits ready-made.)
        let chain = Chain { held_mib: 0, ..Chain::read(&from)? };
        let directory = self.sandbox(id);
        fs::create_dir_all(&directory)?;
        chain.write(&directory)
    }

    pub(crate) fn shelf(&self) -> &Shelf {
        &self.shelf
    }

    /// Removes layers that nobody names any more, such as those of an image that another
    /// process has removed.
    pub(crate) fn tidy(&self) -> io::Result<()> {
        let layers = names(&self.data_dir.join(LAYERS))?;
        self.remove_unnamed(layers.iter().filter_map(|name| LayerId::parse(name)).collect())
    }

    /// Every directory that holds a chain.
    fn owners(&self) -> io::Result<Vec<PathBuf>> {
        let mut owners: Vec<_> = self.list()?.iter().map(|id| self.sandbox(id)).collect();
        owners.extend(self.templates()?.iter().map(|id| self.template(id)));
        owners.extend(self.shelf.directories()?);
        Ok(owners)
    }

    /// Whether a fork can share the source's files: a chain must not become too long.
    pub(crate) fn can_share(&self, source: &SandboxId) -> io::Result<bool> {
        Ok(Chain::read(&self.sandbox(source))?.layers.len() < MOST_LAYERS)
    }

    /// Gives `child`, which must have no files yet, the layers of `source`, and says what
    /// is still to be copied of the source's own.
    pub(crate) fn inherit(&self, source: &SandboxId, child: &SandboxId) -> io::Result<Own> {
        let _changing = self.lock();
        let chain = Chain::read(&self.sandbox(source))?;
        let directory = self.sandbox(child);
        fs::create_dir_all(directory.join(PRIVATE))?;
        chain.write(&directory)?;
        let (from, to) = (self.sandbox(source).join(PRIVATE), directory.join(PRIVATE));
        if from.join(IMAGE).exists() {
            return Ok(Own::Disk { from: Self::private(source), to: Self::private(child) });
        }
        if from.join("root").is_dir() {
            make_directories(&to)?;
            return Ok(Own::Directories { from, to });
        }
        Ok(Own::Nothing)
    }

    /// Names of the sandbox directories on disk. Anything else there is not ours.
    pub(crate) fn list(&self) -> io::Result<Vec<SandboxId>> {
        let entries = fs::read_dir(self.data_dir.join(SANDBOXES))?;
        entries
            .map(|entry| Ok(entry?.file_name().to_str().and_then(|name| name.parse().ok())))
            .filter_map(Result::transpose)
            .collect()
    }

    /// Removes a sandbox's directory, and the layers that no other one shares. Nothing of
    /// it may be running. Idempotent.
    pub(crate) fn remove(&self, id: &SandboxId) -> io::Result<()> {
        let directory = self.sandbox(id);
        // A chain that cannot be read: its layers are left to the next start.
        let chain = Chain::read(&directory).unwrap_or_default();
        remove_tree(&directory)?;
        self.remove_unnamed(chain.layers.into_iter().collect())
    }

    /// Removes those of the layers that no chain names.
    fn remove_unnamed(&self, layers: BTreeSet<LayerId>) -> io::Result<()> {
        let removed = self.set_aside_unnamed(layers)?;
        removed.iter().try_for_each(|directory| remove_tree(directory))
    }

    /// Moves the unnamed of the layers away, where no new chain can find them.
    fn set_aside_unnamed(&self, mut layers: BTreeSet<LayerId>) -> io::Result<Vec<PathBuf>> {
        if layers.is_empty() {
            return Ok(Vec::new());
        }
        let _changing = self.lock();
        let _shelf = self.shelf.lock()?;
        for owner in self.owners()? {
            let chain = match Chain::read(&owner) {
                Ok(chain) => chain,
                Err(error) => {
                    let owner = owner.display();
                    tracing::warn!(%owner, %error, "no layer is removed: this may name it");
                    return Ok(Vec::new());
                }
            };
            let sealing = chain.sealing.map(|sealing| sealing.layer);
            for layer in chain.layers.iter().chain(&sealing) {
                layers.remove(layer);
            }
        }
        let set_aside = |layer: &LayerId| {
            let directory = self.data_dir.join(layer.directory());
            let aside = directory.with_file_name(format!("{ASIDE}{}", LayerId::new()));
            match fs::rename(directory, &aside) {
                // Another removal was faster.
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                other => Some(other.map(|()| aside)),
            }
        };
        layers.iter().filter_map(set_aside).collect()
    }
}

/// What a sandbox can begin with besides this machine's system.
pub(crate) enum Begin {
    Template(TemplateId),
    Image(String),
}

/// Names in a directory, which need not be there.
fn names(directory: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().unwrap_or_default()));
    names.collect()
}

/// How many bytes a tree takes on disk.
fn taken(top: &Path) -> io::Result<u64> {
    let mut bytes = 0;
    let mut todo = vec![top.to_owned()];
    while let Some(directory) = todo.pop() {
        // A guest made it: what cannot be looked at is not counted.
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for entry in entries {
            let entry = entry?;
            let Ok(metadata) = entry.metadata() else { continue };
            bytes += metadata.blocks() * 512;
            if metadata.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok(bytes)
}

/// What an image holds. Sparse: what was never written, or is deleted, takes nothing.
fn used_mib(image: &Path) -> io::Result<u64> {
    match fs::metadata(image) {
        Ok(metadata) => {
            let mib = (metadata.blocks() * 512).div_ceil(1 << 20);
            Ok(mib.saturating_sub(EMPTY_IMAGE_MIB))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

fn make_directories(private: &Path) -> io::Result<()> {
    for part in ["root", "usr"] {
        for layer in ["upper", "work"] {
            let path = private.join(part).join(layer);
            if !path.is_dir() {
                fs::create_dir_all(&path)?;
                // Whatever the umask: this becomes `/` and `/usr` of the sandbox.
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "sb-01k4m2c9zq8v7n5t3r1p0x6y2w";
    const CHILD: &str = "sb-01k4m2c9zq8v7n5t3r1p0x6y2x";

    fn id(text: &str) -> SandboxId {
        text.parse().expect("id")
    }

    fn open(data: &Path) -> Storage {
        fs::create_dir_all(data.join(SANDBOXES)).expect("directory");
        fs::create_dir_all(data.join(LAYERS)).expect("directory");
        Storage::open(data).expect("storage")
    }

    /// A sandbox with a file in its own layer.
    fn with_file(storage: &Storage, text: &str) -> SandboxId {
        let id = id(text);
        let files = storage.prepare(&id, false, 0).expect("prepare");
        let private = storage.data_dir.join(files.private);
        fs::write(private.join("root/upper/f"), "x").expect("file");
        id
    }

    fn layers(storage: &Storage) -> usize {
        fs::read_dir(storage.data_dir.join(LAYERS)).expect("layers").count()
    }

    #[test]
    fn prepared_directories_are_listed_and_removed() {
        let data = tempfile::tempdir().expect("directory");
        let storage = open(data.path());
        let id = with_file(&storage, SOURCE);
        storage.prepare(&id, false, 0).expect("a second time");
        assert!(data.path().join(Storage::private(&id)).join("root/upper/f").exists());
        assert_eq!(storage.list().expect("list"), std::slice::from_ref(&id));
        storage.remove(&id).expect("remove");
        storage.remove(&id).expect("a second time");
        assert!(storage.list().expect("list").is_empty());
    }

    #[test]
    fn layers_live_as_long_as_a_chain_names_them() {
        let data = tempfile::tempdir().expect("directory");
        let storage = open(data.path());
        let (source, child) = (with_file(&storage, SOURCE), id(CHILD));
        storage.fork(&source, &child).expect("fork");
        assert_eq!(layers(&storage), 1, "one layer for both");
        let files = storage.prepare(&child, false, 0).expect("prepare");
        assert!(data.path().join(&files.layers[0]).join("root/upper/f").exists());
        assert!(!data.path().join(&files.private).join("root/upper/f").exists());
        storage.fork(&source, &id("sb-01k4m2c9zq8v7n5t3r1p0x6y2z")).expect("nothing to seal");
        assert_eq!(layers(&storage), 1, "a sandbox without a layer of its own is not sealed");

        storage.remove(&source).expect("remove");
        assert_eq!(layers(&storage), 1);
        storage.remove(&child).expect("remove");
        assert_eq!(layers(&storage), 1);
        storage.remove(&id("sb-01k4m2c9zq8v7n5t3r1p0x6y2z")).expect("remove");
        assert_eq!(layers(&storage), 0);
    }

    #[test]
    fn a_seal_that_was_cut_short_is_finished_wherever_it_was() {
        for moved in [false, true] {
            let data = tempfile::tempdir().expect("directory");
            let storage = open(data.path());
            let id = with_file(&storage, SOURCE);
            let directory = storage.sandbox(&id);
            let sealing = Sealing { layer: LayerId::new(), held_mib: 5 };
            let place = data.path().join(sealing.layer.directory());
            Chain { sealing: Some(sealing), ..Chain::default() }.write(&directory).expect("intent");
            if moved {
                fs::rename(directory.join(PRIVATE), &place).expect("move");
            }
            drop(storage);

            open(data.path());
            let chain = Chain::read(&directory).expect("chain");
            assert_eq!((chain.layers.len(), chain.held_mib, chain.sealing), (1, 5, None));
            assert!(place.join("root/upper/f").exists(), "moved: {moved}");
            assert!(!directory.join(PRIVATE).exists());
        }
    }

    #[test]
    fn a_start_removes_what_nobody_names_and_spares_what_somebody_may() {
        let data = tempfile::tempdir().expect("directory");
        let storage = open(data.path());
        let (source, child) = (with_file(&storage, SOURCE), id(CHILD));
        storage.fork(&source, &child).expect("fork");
        for stray in [LayerId::new().directory(), format!("{LAYERS}/{ASIDE}x")] {
            fs::create_dir_all(data.path().join(stray).join("root/upper")).expect("stray");
        }
        drop(storage);
        assert_eq!(layers(&open(data.path())), 1, "only the named one stays");

        fs::write(data.path().join(SANDBOXES).join(CHILD).join("chain.json"), "{").expect("damage");
        fs::create_dir(data.path().join(LayerId::new().directory())).expect("stray");
        assert_eq!(layers(&open(data.path())), 2, "the damaged chain may name it");
    }

    #[test]
    fn what_layers_hold_is_taken_off_the_disk_s_size() {
        let data = tempfile::tempdir().expect("directory");
        let storage = open(data.path());
        let id = id(SOURCE);
        fs::create_dir_all(storage.sandbox(&id)).expect("directory");
        let chain = Chain { held_mib: 600, ..Chain::default() };
        chain.write(&storage.sandbox(&id)).expect("chain");
        assert_eq!(storage.prepare(&id, true, 1000).expect("prepare").disk_mib, 400);
        assert_eq!(storage.own_share(&id, 2000).expect("share"), 1400);
        // No filesystem is smaller than this one.
        assert_eq!(storage.own_share(&id, 700).expect("share"), SMALLEST_MIB);
    }

    #[test]
    fn images_without_the_means_to_mount_them_are_named() {
        let data = tempfile::tempdir().expect("directory");
        let storage = open(data.path());
        let id = id(SOURCE);
        let files = storage.prepare(&id, true, 1000).expect("prepare");
        assert_eq!(files.disk_mib, 1000);
        fs::write(data.path().join(files.private).join(IMAGE), "").expect("image");
        let error = storage.prepare(&id, false, 1000).expect_err("no disks").to_string();
        assert!(error.contains("mkfs.xfs"), "{error}");
    }
}
