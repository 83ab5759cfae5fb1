//! User ids of running sandboxes: a range for each, and the layers shown with it.
//!
//! The kernel counts pipes, watches and more per user id. With ranges of their own,
//! no sandbox can use up what belongs to another, or to host root.

use crate::failure::{Context, Failure, Result};
use crate::layers;
use crate::sys;
use std::hash::{Hash, Hasher};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Ids in a range, as many as a machine of its own has.
pub(crate) const IDS: u32 = 65536;
/// Where the first range may begin. The first choice lies above what systemd and
/// container tools hand out, so it owns nothing on the host.
const FIRST: [u32; 3] = [0x7000_0000, 0x0008_0000, 100_000];
/// Beyond it, ids are no longer positive in every program.
const LAST: u32 = 0x7fff_0000;

pub(crate) struct Ranges {
    data_dir: PathBuf,
    first: u32,
    /// Which range is taken first.
    start: u32,
    shown: Vec<Show>,
}

/// A range whose layers can be seen.
struct Show {
    mapping: Rc<OwnedFd>,
    busy: bool,
}

/// The ids of one sandbox, and where its layers are.
#[derive(Clone)]
pub(crate) struct Range {
    pub(crate) index: usize,
    /// The host's id for root inside.
    pub(crate) base: u32,
    /// Directory with `cache`, `sandboxes`, `layers` and `usr`, their ids mapped.
    pub(crate) stage: String,
    /// A user namespace with this range, for what is to be shown besides.
    pub(crate) mapping: Rc<OwnedFd>,
}

impl Ranges {
    /// Leaves this process in a mount namespace of its own, in an empty directory there,
    /// and finds ids that this machine lets us map.
    pub(crate) fn prepare(data_dir: &Path) -> Result<Self> {
        let stage = data_dir.join("stage");
        sys::unshare_namespaces(sys::NEW_NS).context("create a mount namespace")?;
        sys::change_mount(Path::new("/"), sys::MS_REC | sys::MS_PRIVATE)
            .context("keep mounts private")?;
        std::fs::create_dir_all(&stage).context("create the staging directory")?;
        let flags = sys::MS_NOSUID | sys::MS_NODEV;
        sys::mount_fs("tmpfs", &stage, flags, "mode=755,size=64k").context("mount a tmpfs")?;
        std::env::set_current_dir(&stage).context("enter the staging directory")?;
        std::fs::create_dir("mnt").context("create the mount point")?;

        let mut refusal: Option<Failure> = None;
        let starts = std::iter::once((FIRST[0], scatter(data_dir) % total(FIRST[0])));
        for (first, start) in starts.chain(FIRST.map(|first| (first, 0))) {
            let mut ranges =
                Self { data_dir: data_dir.to_owned(), first, start, shown: Vec::new() };
            match layers::id_mapping(ranges.base_of(0).unwrap_or(first), IDS) {
                Ok(_) => {
                    ranges.show_next()?;
                    return Ok(ranges);
                }
                Err(error) => drop(refusal.get_or_insert(error)),
            }
        }
        Err(refusal.unwrap_or_else(|| "no ids to map".into()))
    }

    /// The lowest free range. Where the machine has no more ids to map, as in some
    /// containers, sandboxes share the first one.
    pub(crate) fn take(&mut self) -> Range {
        let free = self.shown.iter().position(|range| !range.busy);
        let index = free.or_else(|| {
            let next = self.shown.len();
            self.show_next().is_ok().then_some(next)
        });
        let index = index.unwrap_or(0);
        self.shown[index].busy = true;
        self.range(index)
    }

    pub(crate) fn release(&mut self, index: usize) {
        if let Some(range) = self.shown.get_mut(index) {
            range.busy = false;
        }
    }

    pub(crate) fn range(&self, index: usize) -> Range {
        let base = self.base_of(index).unwrap_or(self.first);
        let mapping = Rc::clone(&self.shown[index].mapping);
        Range { index, base, stage: index.to_string(), mapping }
    }

    fn base_of(&self, index: usize) -> Option<u32> {
        let (index, total) = (u32::try_from(index).ok()?, total(self.first));
        (index < total).then(|| self.first + IDS * ((self.start + index) % total))
    }

    /// Mounts, once, what sandboxes are layered from with the ids of one more range.
    fn show_next(&mut self) -> Result<()> {
        let index = self.shown.len();
        let base = self.base_of(index).ok_or("no more ids")?;
        let mapping = layers::id_mapping(base, IDS)?;
        let stage = PathBuf::from(index.to_string());
        for name in ["cache", "sandboxes", "layers"] {
            layers::attach_mapped(&self.data_dir.join(name), &stage.join(name), &mapping)?;
        }
        layers::attach_mapped(Path::new("/usr"), &stage.join("usr"), &mapping)?;
        self.shown.push(Show { mapping: Rc::new(mapping), busy: false });
        Ok(())
    }
}

/// How many ranges there are from `first` on.
fn total(first: u32) -> u32 {
    (LAST - first) / IDS
}

/// A number for the engine at `data_dir`, so that engines on one machine do not all begin
/// with the same ids and share what the kernel counts for them.
fn scatter(data_dir: &Path) -> u32 {
    let mut hasher = std::hash::DefaultHasher::new();
    data_dir.hash(&mut hasher);
    u32::try_from(hasher.finish() >> 32).unwrap_or(0)
}

impl Range {
    /// An id that owns the sandbox's user namespace and nothing else: what the kernel
    /// counts against owners is then counted for each sandbox alone.
    pub(crate) fn owner(&self) -> u32 {
        LAST + (self.base / IDS) % IDS
    }
}
