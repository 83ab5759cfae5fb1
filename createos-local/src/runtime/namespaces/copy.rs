//! A directory tree, copied with all that a private layer can hold: owners, modes, times,
//! extended attributes, holes, hard links, links, sockets, and the devices that mark removals.
//!
//! A guest made the tree, so nothing in it is followed and no depth is too deep: the walk holds
//! one directory of each side open and finds its way back over `..`.

use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    Access, AtFlags, Dir, FileType, Gid, Mode, OFlags, SeekFrom, Stat, Timespec, Timestamps, Uid,
    XattrFlags,
};
use rustix::io::Errno;

/// Copied as one piece where the kernel does not do it by itself.
const PIECE: usize = 1 << 20;
const LARGEST_ATTRIBUTE: usize = 64 << 10;

/// Copies the contents and attributes of `from` to `to`, an existing empty directory on the
/// same filesystem. `links` is another one, for the time being. Nothing may change `from`
/// meanwhile. Blocks.
pub(super) fn copy_tree(from: &Path, to: &Path, links: &Path) -> io::Result<()> {
    let (source, target) = (open_top(from)?, open_top(to)?);
    let copy = Copy { links: open_top(links)?, linked: HashSet::new(), can_clone: true };
    let levels = vec![Level::of(&source, &target, None)?];
    let mut walk = Walk { copy, source, target, levels };
    let copied = walk.run();
    // What had to be opened by force is closed again in any case.
    while copied.is_err() && walk.levels.len() > 1 {
        walk.end_level(false)?;
    }
    copied
}

fn open_top(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

struct Walk {
    copy: Copy,
    /// The directories that the walk is in.
    source: OwnedFd,
    target: OwnedFd,
    /// From the top down to them.
    levels: Vec<Level>,
}

struct Level {
    source: Stat,
    target: Stat,
    names: std::vec::IntoIter<CString>,
    /// The mode it has, where another one was needed to read it.
    closed: Option<Mode>,
}

impl Level {
    fn of(source: &OwnedFd, target: &OwnedFd, closed: Option<Mode>) -> io::Result<Self> {
        let mut stat = rustix::fs::fstat(source)?;
        if let Some(mode) = closed {
            stat.st_mode = (stat.st_mode & !0o7777) | mode.as_raw_mode();
        }
        let mut names = Vec::new();
        for entry in Dir::read_from(source)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        let target = rustix::fs::fstat(target)?;
        Ok(Self { source: stat, target, names: names.into_iter(), closed })
    }
}

impl Walk {
    fn run(&mut self) -> io::Result<()> {
        while let Some(level) = self.levels.last_mut() {
            let Some(name) = level.names.next() else {
                self.end_level(true)?;
                continue;
            };
            let stat = rustix::fs::statat(&self.source, &*name, AtFlags::SYMLINK_NOFOLLOW)?;
            if file_type(&stat) == FileType::Directory {
                self.enter(&name, &stat)?;
            } else {
                self.copy.entry(&self.source, &self.target, &name, &stat)?;
            }
        }
        Ok(())
    }

    fn enter(&mut self, name: &CStr, stat: &Stat) -> io::Result<()> {
        rustix::fs::mkdirat(&self.target, name, Mode::RWXU)?;
        let target = open_at(&self.target, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
        let (source, closed) = open_by_force(&self.source, name, stat)?;
        let level = Level::of(&source, &target, closed).inspect_err(|_| {
            let _ = closed.map(|mode| rustix::fs::fchmod(&source, mode));
        })?;
        self.levels.push(level);
        (self.source, self.target) = (source, target);
        Ok(())
    }

    /// Goes back to the directory above; a complete one gets its attributes.
    fn end_level(&mut self, is_complete: bool) -> io::Result<()> {
        let Some(level) = self.levels.pop() else { return Ok(()) };
        // Before attributes close the way.
        let above = self.levels.last().map(|above| self.open_above(above)).transpose();
        let complete = || attributes(&self.source, &self.target, c".", &level.source);
        let outcome = if is_complete { complete() } else { Ok(()) };
        if let Some(mode) = level.closed {
            rustix::fs::fchmod(&self.source, mode)?;
        }
        outcome?;
        if let Some((source, target)) = above? {
            (self.source, self.target) = (source, target);
        }
        Ok(())
    }

    fn open_above(&self, above: &Level) -> io::Result<(OwnedFd, OwnedFd)> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let source = open_at(&self.source, c"..", flags)?;
        let target = open_at(&self.target, c"..", flags)?;
        if is_same(&source, &above.source)? && is_same(&target, &above.target)? {
            return Ok((source, target));
        }
        Err(io::Error::other("the files changed while they were being copied"))
    }
}

fn is_same(directory: &OwnedFd, known: &Stat) -> io::Result<bool> {
    let found = rustix::fs::fstat(directory)?;
    Ok((found.st_dev, found.st_ino) == (known.st_dev, known.st_ino))
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn mode(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode)
}

fn open_at(directory: &OwnedFd, name: &CStr, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, name, flags, Mode::RUSR | Mode::WUSR)?)
}

/// Opens for reading what an ordinary user may have closed to itself. Returns the mode to set
/// back, which a file needs no longer once it is open.
fn open_by_force(
    directory: &OwnedFd,
    name: &CStr,
    stat: &Stat,
) -> io::Result<(OwnedFd, Option<Mode>)> {
    // Regular files and directories only: no device, no FIFO is opened.
    let (flags, needed, access) = match file_type(stat) {
        FileType::Directory => {
            (OFlags::DIRECTORY, Mode::RUSR | Mode::XUSR, Access::READ_OK | Access::EXEC_OK)
        }
        _ => (OFlags::empty(), Mode::RUSR, Access::READ_OK),
    };
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | flags;
    if mode(stat).contains(needed)
        || rustix::fs::accessat(directory, name, access, AtFlags::EACCESS).is_ok()
    {
        return Ok((open_at(directory, name, flags)?, None));
    }
    rustix::fs::chmodat(directory, name, mode(stat) | Mode::RWXU, AtFlags::empty())?;
    Ok((open_at(directory, name, flags)?, Some(mode(stat))))
}

/// Copying of single entries.
struct Copy {
    /// Where files with several names are found again.
    links: OwnedFd,
    linked: HashSet<u64>,
    /// Whether the filesystem can share the data of two files.
    can_clone: bool,
}

impl Copy {
    fn entry(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<()> {
        let link = CString::new(stat.st_ino.to_string())?;
        if stat.st_nlink > 1 && self.linked.contains(&stat.st_ino) {
            rustix::fs::linkat(&self.links, &*link, target, name, AtFlags::empty())?;
            return Ok(());
        }
        match file_type(stat) {
            FileType::RegularFile => self.file(source, target, name, stat)?,
            FileType::Symlink => {
                let place = rustix::fs::readlinkat(source, name, Vec::new())?;
                rustix::fs::symlinkat(&*place, target, name)?;
            }
            kind => rustix::fs::mknodat(target, name, kind, mode(stat), stat.st_rdev)?,
        }
        attributes(source, target, name, stat)?;
        if stat.st_nlink > 1 {
            rustix::fs::linkat(target, name, &self.links, &*link, AtFlags::empty())?;
            self.linked.insert(stat.st_ino);
        }
        Ok(())
    }

    fn file(
        &mut self,
        source: &OwnedFd,
        target: &OwnedFd,
        name: &CStr,
        stat: &Stat,
    ) -> io::Result<()> {
        let (from, closed) = open_by_force(source, name, stat)?;
        if let Some(mode) = closed {
            rustix::fs::fchmod(&from, mode)?;
        }
        let to = open_at(target, name, OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL)?;
        if self.can_clone {
            match rustix::fs::ioctl_ficlone(&to, &from) {
                Ok(()) => return Ok(()),
                Err(Errno::OPNOTSUPP | Errno::XDEV | Errno::INVAL | Errno::NOTTY) => {
                    self.can_clone = false;
                }
                Err(error) => return Err(error.into()),
            }
        }
        copy_data(&from.into(), &to.into(), stat.st_size.cast_unsigned())
    }
}

/// Owner first, because a change of it takes rights away; mode last, because it may close the
/// way.
fn attributes(source: &OwnedFd, target: &OwnedFd, name: &CStr, stat: &Stat) -> io::Result<()> {
    let no_follow = AtFlags::SYMLINK_NOFOLLOW;
    let owner = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(target, name, Some(owner.0), Some(owner.1), no_follow)?;
    extended_attributes(&place(source, name), &place(target, name))?;
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanoseconds(stat.st_atime_nsec) },
        last_modification: Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: nanoseconds(stat.st_mtime_nsec),
        },
    };
    rustix::fs::utimensat(target, name, &times, no_follow)?;
    if file_type(stat) != FileType::Symlink {
        rustix::fs::chmodat(target, name, mode(stat), AtFlags::empty())?;
    }
    Ok(())
}

fn nanoseconds(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(0)
}

/// A way to an entry of any kind that follows no link of the guest's.
fn place(directory: &OwnedFd, name: &CStr) -> PathBuf {
    Path::new(&format!("/proc/self/fd/{}", directory.as_raw_fd()))
        .join(OsStr::from_bytes(name.to_bytes()))
}

fn extended_attributes(from: &Path, to: &Path) -> io::Result<()> {
    let mut names = vec![0; LARGEST_ATTRIBUTE];
    let length = match rustix::fs::llistxattr(from, &mut names[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(()),
        other => other?,
    };
    let mut value = Vec::new();
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        // Tells one layer from all others.
        if name.ends_with(b".overlay.uuid") {
            continue;
        }
        value.resize(LARGEST_ATTRIBUTE, 0);
        let length = rustix::fs::lgetxattr(from, name, &mut value[..])?;
        match rustix::fs::lsetxattr(to, name, &value[..length], XattrFlags::empty()) {
            // Labels of the machine's security module are made anew by it; and what an
            // ordinary user's sandbox has of rights is worth nothing outside of it.
            Err(Errno::PERM | Errno::OPNOTSUPP) if name.starts_with(b"security.") => {}
            other => other?,
        }
    }
    Ok(())
}

/// Copies what is not a hole.
fn copy_data(from: &File, to: &File, size: u64) -> io::Result<()> {
    to.set_len(size)?;
    let mut position = 0;
    while position < size {
        let data = match rustix::fs::seek(from, SeekFrom::Data(position)) {
            // Nothing but a hole is left.
            Err(Errno::NXIO) => return Ok(()),
            other => other?,
        };
        position = rustix::fs::seek(from, SeekFrom::Hole(data))?;
        copy_range(from, to, data, position)?;
    }
    Ok(())
}

fn copy_range(from: &File, to: &File, begin: u64, end: u64) -> io::Result<()> {
    let (mut read, mut written) = (begin, begin);
    while written < end {
        let left = usize::try_from(end - written).unwrap_or(usize::MAX);
        let (into, out_of) = (Some(&mut written), Some(&mut read));
        match rustix::fs::copy_file_range(from, out_of, to, into, left) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::NOSYS | Errno::XDEV | Errno::INVAL | Errno::OPNOTSUPP) => {
                return copy_pieces(from, to, written, end);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn copy_pieces(from: &File, to: &File, begin: u64, end: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut position = begin;
    while position < end {
        let length = usize::try_from(end - position).unwrap_or(PIECE).min(PIECE);
        from.read_exact_at(&mut piece[..length], position)?;
        to.write_all_at(&piece[..length], position)?;
        position += length as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    struct Trees {
        dir: tempfile::TempDir,
    }

    impl Trees {
        fn new() -> Self {
            let dir = tempfile::tempdir().expect("directory");
            for name in ["from", "to", "links"] {
                fs::create_dir(dir.path().join(name)).expect("directory");
            }
            Self { dir }
        }

        fn from(&self, name: &str) -> PathBuf {
            self.dir.path().join("from").join(name)
        }

        fn to(&self, name: &str) -> PathBuf {
            self.dir.path().join("to").join(name)
        }

        fn copy(&self) -> io::Result<()> {
            copy_tree(&self.from(""), &self.to(""), &self.dir.path().join("links"))
        }
    }

    #[test]
    fn everything_about_a_file_is_copied() {
        let trees = Trees::new();
        fs::create_dir_all(trees.from("a/b")).expect("directory");
        fs::write(trees.from("a/b/file"), "content").expect("file");
        fs::set_permissions(trees.from("a/b/file"), fs::Permissions::from_mode(0o4751))
            .expect("mode");
        let name = "user.note";
        rustix::fs::lsetxattr(trees.from("a/b/file"), name, b"kept", XattrFlags::empty())
            .expect("attribute");
        fs::hard_link(trees.from("a/b/file"), trees.from("same")).expect("link");
        symlink("/nowhere/at all", trees.from("link")).expect("link");
        let dir = open_top(&trees.from("a")).expect("open");
        rustix::fs::mknodat(&dir, "fifo", FileType::Fifo, Mode::RUSR, 0).expect("fifo");
        rustix::fs::mknodat(&dir, "gone", FileType::CharacterDevice, Mode::empty(), 0)
            .expect("whiteout");
        let odd = OsStr::from_bytes(b"\xff\n\\");
        fs::write(trees.from("").join(odd), "odd").expect("file");
        let old =
            std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_nanos(1_234_567_890_123);
        for name in ["a/b/file", "a"] {
            File::open(trees.from(name)).expect("open").set_modified(old).expect("time");
        }
        fs::set_permissions(trees.from("a"), fs::Permissions::from_mode(0o1500)).expect("mode");

        trees.copy().expect("copy");
        assert_eq!(fs::read_to_string(trees.to("a/b/file")).expect("file"), "content");
        let file = fs::metadata(trees.to("a/b/file")).expect("file");
        assert_eq!(file.mode() & 0o7777, 0o4751);
        assert_eq!(file.modified().expect("time"), old);
        assert_eq!(file.ino(), fs::metadata(trees.to("same")).expect("file").ino());
        assert_eq!(file.nlink(), 3, "two names, and one for the time being");
        let mut note = [0; 9];
        let length = rustix::fs::lgetxattr(trees.to("same"), name, &mut note[..]);
        assert_eq!(&note[..length.expect("attribute")], b"kept");
        assert_eq!(fs::read_link(trees.to("link")).expect("link"), Path::new("/nowhere/at all"));
        assert_eq!(fs::read_to_string(trees.to("").join(odd)).expect("file"), "odd");
        let a = fs::metadata(trees.to("a")).expect("directory");
        assert_eq!((a.mode() & 0o7777, a.modified().expect("time")), (0o1500, old));
        let gone = fs::symlink_metadata(trees.to("a/gone")).expect("whiteout");
        assert_eq!((gone.mode() & 0o170_000, gone.rdev()), (0o020_000, 0));
        let fifo = fs::symlink_metadata(trees.to("a/fifo")).expect("fifo");
        assert_eq!(fifo.mode() & 0o170_000, 0o010_000);
    }

    #[test]
    fn holes_stay_holes_and_data_stays_data() {
        let trees = Trees::new();
        let file = File::create(trees.from("sparse")).expect("file");
        file.set_len(1 << 30).expect("size");
        file.write_all_at(b"in the middle", 512 << 20).expect("data");
        File::create(trees.from("hole")).expect("file").set_len(1 << 30).expect("size");
        File::create(trees.from("empty")).expect("file");
        trees.copy().expect("copy");
        for (name, most) in [("sparse", 2048), ("hole", 0), ("empty", 0)] {
            let copied = fs::metadata(trees.to(name)).expect("file");
            assert_eq!(copied.len(), fs::metadata(trees.from(name)).expect("file").len());
            assert!(copied.blocks() <= most, "{name} takes {} blocks", copied.blocks());
        }
        let mut data = [0; 13];
        let copied = File::open(trees.to("sparse")).expect("file");
        copied.read_exact_at(&mut data, 512 << 20).expect("data");
        assert_eq!(&data, b"in the middle");
    }

    #[test]
    fn data_is_copied_in_pieces_where_the_kernel_does_not_copy() {
        let trees = Trees::new();
        let content: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
        fs::write(trees.from("file"), &content).expect("file");
        let (from, to) = (File::open(trees.from("file")), File::create(trees.to("file")));
        copy_pieces(&from.expect("file"), &to.expect("file"), 0, content.len() as u64)
            .expect("copy");
        assert_eq!(fs::read(trees.to("file")).expect("file"), content);
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_copied() {
        let trees = Trees::new();
        let chain: PathBuf = std::iter::repeat_n("n".repeat(200), 10).collect();
        for _ in 0..20 {
            let next = trees.dir.path().join("next");
            fs::create_dir_all(next.join(&chain)).expect("chain");
            fs::rename(trees.from(""), next.join(&chain).join("d")).expect("nest");
            fs::rename(&next, trees.from("")).expect("swap");
        }
        trees.copy().expect("copy");
        let mut depth = 0;
        let mut at = open_top(&trees.to("")).expect("open");
        while let Some(name) = Dir::read_from(&at).expect("list").find_map(|entry| {
            let name = entry.expect("entry").file_name().to_owned();
            (!name.to_bytes().starts_with(b".")).then_some(name)
        }) {
            at = open_at(&at, &name, OFlags::RDONLY | OFlags::DIRECTORY).expect("open");
            depth += 1;
        }
        assert_eq!(depth, 20 * 11);
        for name in ["from", "to"] {
            crate::tree::remove_tree(&trees.dir.path().join(name)).expect("remove");
        }
    }

    #[test]
    fn what_is_in_the_way_is_an_error_and_the_source_is_as_it_was() {
        let trees = Trees::new();
        fs::create_dir_all(trees.from("closed/inner")).expect("directory");
        fs::write(trees.from("closed/inner/file"), "x").expect("file");
        fs::set_permissions(trees.from("closed"), fs::Permissions::from_mode(0o000)).expect("mode");
        fs::create_dir_all(trees.to("closed")).expect("directory");
        let error = trees.copy().expect_err("in the way");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        let mode = fs::metadata(trees.from("closed")).expect("directory").mode();
        assert_eq!(mode & 0o7777, 0);
        fs::remove_dir(trees.to("closed")).expect("out of the way");
        trees.copy().expect("copy");
        let copied = fs::metadata(trees.to("closed")).expect("directory").mode();
        assert_eq!(copied & 0o7777, 0);
        for name in ["from", "to"] {
            crate::tree::remove_tree(&trees.dir.path().join(name)).expect("remove");
        }
    }
}
