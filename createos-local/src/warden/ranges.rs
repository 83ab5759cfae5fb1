//! User ids of running sandboxes: a range for each, and the layers shown with it.
//!
//! The kernel counts pipes, watches and more per user id. With ranges of their own,
//! no sandbox can use up what belongs to another, or to host root.

use crate::failure::{Context, Failure, Result};
use crate::layers;
use crate::sys;
use std::path::{Path, PathBuf};

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
    busy: Vec<bool>,
}

/// The ids of one sandbox, and where its layers are.
#[derive(Clone)]
pub(crate) struct Range {
    pub(crate) index: usize,
    /// The host's id for root inside.
    pub(crate) base: u32,
    /// Directory with `cache`, `sandboxes` and `usr`, their ids mapped.
    pub(crate) stage: String,
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
        for first in FIRST {
            match layers::id_mapping(first, IDS) {
                Ok(_) => {
                    let busy = vec![false];
                    let ranges = Self { data_dir: data_dir.to_owned(), first, busy };
                    ranges.show(0)?;
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
        let free = self.busy.iter().position(|busy| !busy);
        let index = free.or_else(|| {
            let next = self.busy.len();
            let fits = self.base_of(next).is_some_and(|base| base < LAST);
            (fits && self.show(next).is_ok()).then(|| {
                self.busy.push(false);
                next
            })
        });
        let index = index.unwrap_or(0);
        self.busy[index] = true;
        self.range(index)
    }

    pub(crate) fn release(&mut self, index: usize) {
        if let Some(busy) = self.busy.get_mut(index) {
            *busy = false;
        }
    }

    pub(crate) fn range(&self, index: usize) -> Range {
        let base = self.base_of(index).unwrap_or(self.first);
        Range { index, base, stage: index.to_string() }
    }

    fn base_of(&self, index: usize) -> Option<u32> {
        self.first.checked_add(IDS.checked_mul(u32::try_from(index).ok()?)?)
    }

    /// Mounts, once, what sandboxes are layered from with the ids of a range.
    fn show(&self, index: usize) -> Result<()> {
        let range = self.range(index);
        let mapping = layers::id_mapping(range.base, IDS)?;
        let stage = Path::new(&range.stage);
        for name in ["cache", "sandboxes"] {
            layers::attach_mapped(&self.data_dir.join(name), &stage.join(name), &mapping)?;
        }
        layers::attach_mapped(Path::new("/usr"), &stage.join("usr"), &mapping)
    }
}

impl Range {
    /// An id that owns the sandbox's user namespace and nothing else: what the kernel
    /// counts against owners is then counted for each sandbox alone.
    pub(crate) fn owner(&self) -> u32 {
        LAST + u32::try_from(self.index).unwrap_or(0) % IDS
    }
}
