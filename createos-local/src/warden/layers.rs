//! Root filesystems out of layers: read-only ones below, a private one on top.

use crate::failure::{Context, Result};
use crate::sys::{self, NewFilesystem};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Who creates the mount.
#[derive(Clone, Copy)]
pub(crate) enum Creator {
    /// Host root, over layers whose ids are mapped: 0 on disk is this id for the kernel.
    Root { base: u32 },
    /// Root of a user namespace that maps to an ordinary user.
    User,
}

/// The longest text that the kernel takes as one option.
const OPTION: usize = 255;

/// An overlay of `lower` (topmost first) and the private layer in `private/{upper,work}`,
/// as a detached mount.
pub(crate) fn overlay(lower: &[String], private: &Path, creator: Creator) -> Result<OwnedFd> {
    let joined = lower.join(":");
    let doing = format!("set up an overlay of {joined} in {}", private.display());
    let filesystem = NewFilesystem::open("overlay").context("use overlay filesystems")?;
    if joined.len() <= OPTION {
        filesystem.set_path("lowerdir", Path::new(&joined)).context(&doing)?;
    } else {
        for layer in lower {
            filesystem
                .set_path("lowerdir+", Path::new(layer))
                .context(&format!("{doing} (that many layers need Linux 6.8 or newer)"))?;
        }
    }
    filesystem.set_path("upperdir", &private.join("upper")).context(&doing)?;
    filesystem.set_path("workdir", &private.join("work")).context(&doing)?;
    // A layer that was private once is read by other sandboxes later, so it must not depend
    // on options that a kernel may have as its defaults.
    for option in ["index", "metacopy"] {
        filesystem.set_text(option, "off").context(&doing)?;
    }
    match creator {
        Creator::User => {
            // Ordinary users cannot write the trusted attributes that overlays use otherwise.
            filesystem.set_flag("userxattr").context(&doing)?;
            filesystem.create().context(&doing)?;
        }
        Creator::Root { base } => {
            // What comes from a layer below can be renamed, directories too, and all files
            // have the numbers of one filesystem though the layers are on several.
            filesystem.set_text("redirect_dir", "on").context(&doing)?;
            filesystem.set_text("xino", "on").context(&doing)?;
            // The kernel makes the work directory with our filesystem ids. Id 0 does not
            // exist under the mapping: the overlay would silently become read-only.
            sys::set_filesystem_ids(base);
            let created = sys::raise_effective_capabilities().and_then(|()| filesystem.create());
            sys::set_filesystem_ids(0);
            created.context(&doing)?;
        }
    }
    filesystem.mount().context(&doing)
}

/// A user namespace that exists only to map ids: `0..count` to `base..base+count`.
pub(crate) fn id_mapping(base: u32, count: u32) -> Result<OwnedFd> {
    let (hold, release) = sys::pipe().context("make a pipe")?;
    let cloned = sys::clone_into(sys::NEW_USER, None).context("create a user namespace")?;
    let sys::Cloned::Parent { pid, .. } = cloned else {
        drop(release);
        // Ends when the parent has opened the namespace, or is gone.
        let _ = std::io::Read::read(&mut std::fs::File::from(hold), &mut [0]);
        sys::exit_now(0);
    };
    let namespace = write_id_maps(pid, base, count).and_then(|()| {
        let path = format!("/proc/{pid}/ns/user");
        std::fs::File::open(path).context("open the user namespace")
    });
    drop(release);
    let _ = sys::wait_for(pid);
    namespace.map(OwnedFd::from)
}

pub(crate) fn write_id_maps(pid: i32, base: u32, count: u32) -> Result<()> {
    for kind in ["uid", "gid"] {
        std::fs::write(format!("/proc/{pid}/{kind}_map"), format!("0 {base} {count}\n"))
            .context(&format!("map {kind}s {base} to {}", base + (count - 1)))?;
    }
    Ok(())
}

/// Lets the user namespace of a child have every id that this process's has.
pub(crate) fn write_same_id_maps(pid: i32) -> Result<()> {
    for kind in ["uid", "gid"] {
        let own = std::fs::read_to_string(format!("/proc/self/{kind}_map"));
        let own = own.context("look at the ids of this machine")?;
        let extents = own.lines().filter_map(|line| {
            let mut numbers = line.split_whitespace();
            let (first, _, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
            Some(format!("{first} {first} {count}\n"))
        });
        std::fs::write(format!("/proc/{pid}/{kind}_map"), extents.collect::<String>())
            .context(&format!("map all {kind}s"))?;
    }
    Ok(())
}

/// Shows `source` at `target` with ids mapped.
pub(crate) fn attach_mapped(source: &Path, target: &Path, mapping: &OwnedFd) -> Result<()> {
    let doing = format!("map the ids of {}", source.display());
    std::fs::create_dir_all(target).context(&doing)?;
    let mount = sys::clone_mount(source).context(&doing)?;
    sys::map_ids(&mount, mapping).context(&format!(
        "{doing} (its filesystem must be ext4, xfs, btrfs or tmpfs, and the kernel 5.19 or newer)"
    ))?;
    sys::attach_mount(&mount, target).context(&doing)
}
