//! One disk: an image file with an XFS in it, shown through a loop device.
//!
//! An image is a sparse file, so a disk takes what is on it and little more. XFS because
//! it is the one filesystem that grows while it is mounted without a privilege beyond
//! root's usual ones.
//!
//! An open image is locked. The loop device holds the lock, and the kernel takes the
//! device down when its last mount is gone, so the lock tells for sure whether an image
//! is in use, be it by the remains of a warden that was killed.

use crate::failure::{Context, Failure, Result};
use crate::sys::{self, LoopDevice};
use crate::tree::remove_tree;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Name of the image in its directory.
pub(crate) const IMAGE: &str = "disk.img";

/// What XFS keeps for its journal. It comes on top of a disk's size, so that all of that
/// is there to be used.
const JOURNAL_MIB: u64 = 64;
const BLOCK: u32 = 4096;
/// Raised when images are made differently.
const FORMAT: u32 = 1;
/// How long an image that is being closed may take.
const CLOSING: Duration = Duration::from_secs(30);
const CLOSING_STEP: Duration = Duration::from_millis(2);
/// A disk with more than this on it is thrown away, not cleaned.
const CLEANED_FILES: u64 = 1024;
const CLEANED_BYTES: u64 = 64 << 20;

/// Which directories hold what is private to a sandbox, for each of its overlays.
const DIRECTORIES: [&str; 4] = ["root/upper", "root/work", "usr/upper", "usr/work"];

/// Who writes to a disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Private,
    /// A layer: read by many, written by nobody.
    Shared,
}

/// Makes disks. Formatting takes longer than copying, so the usual size is formatted once.
pub(crate) struct Maker {
    mkfs: PathBuf,
    template: PathBuf,
    usual_mib: u64,
}

impl Maker {
    pub(crate) fn prepare(data_dir: &Path, usual_mib: u64) -> Result<Self> {
        let mkfs = find_program("mkfs.xfs").ok_or("mkfs.xfs is not installed")?;
        let dir = data_dir.join("cache/disks");
        fs::create_dir_all(&dir).context("create the cache of disks")?;
        let template = dir.join(format!("xfs-{FORMAT}-{usual_mib}.img"));
        let maker = Self { mkfs, template, usual_mib };
        if !maker.template.exists() {
            let fresh = dir.join(format!(".new-{}", std::process::id()));
            let made = maker
                .format(&fresh, usual_mib)
                .and_then(|()| fs::rename(&fresh, &maker.template).context("keep an empty disk"));
            if made.is_err() {
                let _ = fs::remove_file(&fresh);
            }
            made?;
        }
        Ok(maker)
    }

    pub(crate) fn usual_mib(&self) -> u64 {
        self.usual_mib
    }

    /// Makes the image of an empty disk.
    pub(crate) fn make(&self, image: &Path, mib: u64) -> Result<()> {
        if mib == self.usual_mib {
            copy_sparse(&self.template, image).context("make a disk")
        } else {
            self.format(image, mib)
        }
    }

    fn format(&self, image: &Path, mib: u64) -> Result<()> {
        let raw = image.with_extension("raw");
        let formatted = self.run_mkfs(&raw, mib).and_then(|()| {
            // mkfs reserves room for the journal that it never writes to.
            copy_sparse(&raw, image).context("make a disk")
        });
        let _ = fs::remove_file(&raw);
        formatted
    }

    fn run_mkfs(&self, raw: &Path, mib: u64) -> Result<()> {
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(raw);
        file.and_then(|file| file.set_len(bytes(mib))).context("create an image")?;
        let output = Command::new(&self.mkfs)
            .args(["-q", "-f", "-s", &format!("size={BLOCK}"), "-b", &format!("size={BLOCK}")])
            .args(["-l", &format!("size={JOURNAL_MIB}m")])
            .arg(raw)
            .stdin(Stdio::null())
            .output()
            .context("run mkfs.xfs")?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().next().unwrap_or("it gave no reason").to_owned();
        Err(format!("mkfs.xfs failed: {said}").into())
    }
}

fn bytes(mib: u64) -> u64 {
    (mib + JOURNAL_MIB) << 20
}

fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let usual = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let mut dirs = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).chain(usual);
    dirs.find_map(|dir| Some(dir.join(name)).filter(|path| path.is_file()))
}

fn copy_sparse(from: &Path, to: &Path) -> std::io::Result<()> {
    let from = File::open(from)?;
    let to = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    if sys::share_data(&from, &to).is_ok() {
        return Ok(());
    }
    to.set_len(from.metadata()?.len())?;
    let mut buffer = vec![0; 256 << 10];
    let mut position = 0;
    while let Some((start, end)) = sys::next_data(&from, position)? {
        position = start;
        while position < end {
            let most = buffer.len().min(usize::try_from(end - position).unwrap_or(usize::MAX));
            let count = from.read_at(&mut buffer[..most], position)?;
            if count == 0 {
                return Ok(());
            }
            to.write_all_at(&buffer[..count], position)?;
            position += count as u64;
        }
    }
    Ok(())
}

/// Mounts an image at `target` and returns the number of its loop device. Waits while the
/// image is on its way out of an earlier use.
pub(crate) fn open(image: &Path, target: &Path, access: Access) -> Result<u32> {
    let doing = format!("open the disk {}", image.display());
    let file = File::options().read(true).write(true).open(image).context(&doing)?;
    wait_until_closed(&file, image)?;
    let loop_device = LoopDevice::attach(&file, BLOCK)
        .context(&format!("{doing} with a loop device (/dev/loop-control, /dev/loop*)"))?;
    fs::create_dir_all(target).context(&doing)?;
    // Copies of one formatted image all have its identity.
    let (flags, options) = match access {
        Access::Private => (0, "nouuid,discard"),
        Access::Shared => (sys::MS_RDONLY, "nouuid"),
    };
    let device = sys::device_path(loop_device.number);
    let flags = flags | sys::MS_NOSUID | sys::MS_NODEV;
    sys::mount_device(&device, "xfs", target, flags, options).context(&doing)?;
    if access == Access::Private {
        make_directories(target)?;
    }
    Ok(loop_device.number)
}

fn make_directories(top: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o755);
    for name in DIRECTORIES {
        builder.create(top.join(name)).context("lay out a disk")?;
    }
    Ok(())
}

/// Unmounts what [`open`] mounted and returns when the image is closed.
pub(crate) fn close(image: &Path, target: &Path) -> Result<()> {
    sys::detach_mount(target).context("unmount a disk")?;
    let _ = fs::remove_dir(target);
    match File::open(image) {
        Ok(file) => wait_until_closed(&file, image),
        // Removed with its sandbox meanwhile.
        Err(_) => Ok(()),
    }
}

/// Takes the image's lock once nobody has it.
fn wait_until_closed(file: &File, image: &Path) -> Result<()> {
    let deadline = Instant::now() + CLOSING;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(CLOSING_STEP);
            }
            Err(TryLockError::WouldBlock) => {
                return Err(format!("the disk {} stays in use", image.display()).into());
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).context(&format!("lock the disk {}", image.display()));
            }
        }
    }
}

/// Copies an image as it is at one moment; `mounted` is where it is in use, if it is. What is
/// there of an earlier copy is replaced.
pub(crate) fn copy(from: &Path, mounted: Option<&Path>, to: &Path) -> Result<()> {
    let doing = format!("copy the disk {}", from.display());
    if let Err(error) = fs::remove_file(to)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error).context(&doing);
    }
    let Some(mounted) = mounted else { return copy_sparse(from, to).context(&doing) };
    sys::hold_writers(mounted).context(&doing)?;
    let copied = copy_sparse(from, to);
    sys::release_writers(mounted).context(&doing)?;
    copied.context(&doing)
}

/// Makes a mounted disk larger. One that is larger already stays as it is.
pub(crate) fn grow(image: &Path, target: &Path, device: u32, mib: u64) -> Result<()> {
    let doing = format!("grow the disk {}", image.display());
    let size = bytes(mib);
    let file = File::options().write(true).open(image).context(&doing)?;
    if file.metadata().context(&doing)?.len() < size {
        file.set_len(size).context(&doing)?;
    }
    let size = file.metadata().context(&doing)?.len();
    sys::update_capacity(device)
        .and_then(|()| sys::grow_xfs(target, size / u64::from(BLOCK)))
        .context(&doing)
}

/// Empties a mounted disk of the usual size, so that it is as good as a new one. One that
/// holds much, or is not wanted, is thrown away and is a failure.
pub(crate) fn clean(image: &Path, target: &Path, usual_mib: Option<u64>) -> Result<()> {
    let cleaned = worth_cleaning(image, target, usual_mib).and_then(|()| {
        ["root", "usr"]
            .iter()
            .try_for_each(|name| remove_tree(&target.join(name)))
            .context("empty a disk")?;
        make_directories(target)
    });
    if cleaned.is_err() {
        let _ = fs::remove_file(image);
        close(image, target)?;
    }
    cleaned
}

fn worth_cleaning(image: &Path, target: &Path, usual_mib: Option<u64>) -> Result<()> {
    let metadata = fs::metadata(image).context("look at a disk")?;
    let files = sys::taken(target).context("look at a disk")?.files;
    let is_usual = usual_mib.is_some_and(|mib| metadata.len() == bytes(mib));
    if is_usual && metadata.blocks() * 512 <= CLEANED_BYTES && files <= CLEANED_FILES {
        return Ok(());
    }
    Err(Failure::from("a new disk is cheaper than a clean one"))
}
