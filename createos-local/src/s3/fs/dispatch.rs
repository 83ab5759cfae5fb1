//! The kernel's requests, each one a task that ends with an answer.

use std::ffi::OsStr;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use bytes::Bytes;
use fuser::{
    BsdFileFlags, Errno, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use scopeguard::ScopeGuard;

use super::cache::{Entry, VALID};
use super::folder::Folder;
use super::read::Reader;
use super::staged::Staged;
use super::volume::{Handle, Mode, Volume};

/// The largest read or write at once.
const LARGEST: u32 = 1 << 20;
/// What the kernel is told of entries whose number it has not asked for.
const UNKNOWN: u64 = 0xffff_ffff;
/// Numbers of entries begin after those of the directory itself and of the one above.
const DOTS: u64 = 2;

pub(super) struct Dispatch {
    volume: Arc<Volume>,
}

/// A reply that can be an error.
trait Refuse: Send + 'static {
    fn refuse(self, error: Errno);
}

macro_rules! refuse {
    ($($reply:ty),*) => {
        $(impl Refuse for $reply {
            fn refuse(self, error: Errno) {
                self.error(error);
            }
        })*
    };
}
refuse!(ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty);
refuse!(ReplyEntry, ReplyOpen, ReplyWrite);

impl Dispatch {
    pub(super) fn new(volume: Arc<Volume>) -> Self {
        Self { volume }
    }

    /// Does the work in a task of its own. Whatever becomes of it, there is an answer.
    fn answer<R: Refuse, T, F>(
        &self,
        reply: R,
        work: impl FnOnce(Arc<Volume>) -> F,
        give: impl FnOnce(R, T) + Send + 'static,
    ) where
        T: Send + 'static,
        F: Future<Output = Result<T, Errno>> + Send + 'static,
    {
        let (request, end) = self.volume.begin();
        let work = work(Arc::clone(&self.volume));
        self.volume.runtime.spawn(async move {
            match end.run_until_cancelled(work).await.unwrap_or(Err(Errno::EIO)) {
                Ok(done) => give(reply, done),
                Err(error) => reply.refuse(error),
            }
            drop(request);
        });
    }

    fn done<F>(&self, reply: ReplyEmpty, work: impl FnOnce(Arc<Volume>) -> F)
    where
        F: Future<Output = Result<(), Errno>> + Send + 'static,
    {
        self.answer(reply, work, |reply, ()| reply.ok());
    }

    fn save(&self, handle: FileHandle, reply: ReplyEmpty) {
        self.done(reply, async move |volume: Arc<Volume>| match volume.handle(handle.0)? {
            Handle::Writing(staged, _) => staged.save(&volume).await,
            Handle::Reading(_) | Handle::Folder(_) => Ok(()),
        });
    }
}

impl Volume {
    /// A number for the kernel, and what is there.
    fn told(&self, path: &str, entry: &Entry) -> fuser::FileAttr {
        let number = self.nodes().enter(path);
        self.attributes(number, entry)
    }

    async fn look_at(&self, number: u64) -> Result<Entry, Errno> {
        // Also when it has no name any more.
        match self.staged_of(number) {
            Some(staged) => Ok(staged.entry()),
            None => self.expect(&self.path(number)?).await,
        }
    }

    /// Opens a file that exists for writing.
    pub(super) async fn stage_existing(&self, number: u64) -> Result<Arc<Staged>, Errno> {
        let path = self.path(number)?;
        let Entry::File(object) = self.expect(&path).await? else { return Err(Errno::EISDIR) };
        self.stage(number, || Staged::new(&self.shared, &path, Some(object)))
    }

    async fn open(&self, number: u64, flags: OpenFlags) -> Result<u64, Errno> {
        let mode = Mode { append: flags.0 & libc::O_APPEND != 0 };
        if flags.acc_mode() == OpenAccMode::O_RDONLY {
            if let Some(staged) = self.staged_of(number) {
                staged.opens.fetch_add(1, Ordering::SeqCst);
                return self.hand_out_staged(number, staged, mode);
            }
            let path = self.path(number)?;
            let Entry::File(object) = self.expect(&path).await? else {
                return Err(Errno::EISDIR);
            };
            return self.hand_out(Handle::Reading(Arc::new(Reader::new(path, object))));
        }
        // Also when the request is cut off.
        let let_go = |one: Arc<Staged>| self.let_go(number, &one);
        let staged = scopeguard::guard(self.stage_existing(number).await?, let_go);
        if flags.0 & libc::O_TRUNC != 0 {
            staged.truncate(self, 0).await?;
        }
        self.hand_out_staged(number, ScopeGuard::into_inner(staged), mode)
    }

    async fn create(&self, path: &str, flags: i32) -> Result<(fuser::FileAttr, u64), Errno> {
        let mode = Mode { append: flags & libc::O_APPEND != 0 };
        let found = self.look(path).await?;
        if found.is_some() && flags & libc::O_EXCL != 0 {
            return Err(Errno::EEXIST);
        }
        let base = match found {
            Some(Entry::Directory) => return Err(Errno::EISDIR),
            Some(Entry::File(object)) if flags & libc::O_TRUNC == 0 => Some(object),
            _ => None,
        };
        let number = self.nodes().enter(path);
        let staged = self.stage(number, || Staged::new(&self.shared, path, base));
        let handed = staged.and_then(|staged| {
            let entry = staged.entry();
            Ok((entry, self.hand_out_staged(number, staged, mode)?))
        });
        match handed {
            Ok((entry, handle)) => Ok((self.attributes(number, &entry), handle)),
            Err(error) => {
                self.nodes().forget(number, 1);
                Err(error)
            }
        }
    }

    /// The entries of a directory from `offset` on, with the offsets of those after them.
    async fn entries(
        &self,
        handle: u64,
        offset: u64,
    ) -> Result<(Arc<Folder>, Vec<(u64, String, Entry)>), Errno> {
        let Handle::Folder(folder) = self.handle(handle)? else { return Err(Errno::ENOTDIR) };
        let dots = [(1, "."), (2, "..")].into_iter().filter(|(after, _)| *after > offset);
        let mut entries: Vec<_> =
            dots.map(|(after, name)| (after, name.to_owned(), Entry::Directory)).collect();
        let first = offset.saturating_sub(DOTS);
        let more = folder.from(self, first).await?;
        let after = (first + DOTS + 1..).zip(more);
        entries.extend(after.map(|(after, (name, entry))| (after, name, entry)));
        Ok((folder, entries))
    }
}

fn path_in(folder: &Folder, name: &str) -> String {
    if folder.path.is_empty() { name.to_owned() } else { format!("{}/{name}", folder.path) }
}

impl Filesystem for Dispatch {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for wanted in [
            InitFlags::FUSE_ASYNC_READ,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_MAX_PAGES,
        ] {
            // Where the kernel has it not, it is done without.
            let _ = config.add_capabilities(wanted);
        }
        let _ = config.set_max_write(LARGEST);
        let _ = config.set_max_readahead(LARGEST);
        let _ = config.set_max_background(64);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let path = self.volume.child(parent.0, name);
        let work = async move |volume: Arc<Volume>| {
            let path = path?;
            let entry = volume.expect(&path).await?;
            Ok(volume.told(&path, &entry))
        };
        self.answer(reply, work, |reply, attr| reply.entry(&VALID, &attr, Generation(0)));
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        self.volume.nodes().forget(number.0, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let work = async move |volume: Arc<Volume>| {
            let entry = volume.look_at(number.0).await?;
            Ok(volume.attributes(number.0, &entry))
        };
        self.answer(reply, work, |reply, attr| reply.attr(&VALID, &attr));
    }

    /// Owners, permissions and times are not kept; saying so would stop programs that set
    /// them as a matter of course.
    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let work = async move |volume: Arc<Volume>| {
            if let Some(size) = size {
                volume.truncate(number.0, size).await?;
            }
            let entry = volume.look_at(number.0).await?;
            Ok(volume.attributes(number.0, &entry))
        };
        self.answer(reply, work, |reply, attr| reply.attr(&VALID, &attr));
    }

    fn mknod(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _mode: u32,
        _umask: u32,
        _rdev: u32,
        reply: ReplyEntry,
    ) {
        reply.error(Errno::EPERM);
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let path = self.volume.child(parent.0, name);
        let work = async move |volume: Arc<Volume>| {
            let path = path?;
            volume.make_directory(&path).await?;
            Ok(volume.told(&path, &Entry::Directory))
        };
        self.answer(reply, work, |reply, attr| reply.entry(&VALID, &attr, Generation(0)));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let path = self.volume.child(parent.0, name);
        self.done(reply, async move |volume: Arc<Volume>| volume.remove_file(&path?).await);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let path = self.volume.child(parent.0, name);
        self.done(reply, async move |volume: Arc<Volume>| volume.remove_directory(&path?).await);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        to_parent: INodeNo,
        to_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) =
            (self.volume.child(parent.0, name), self.volume.child(to_parent.0, to_name));
        self.done(reply, async move |volume: Arc<Volume>| volume.rename(&from?, &to?, flags).await);
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let work = async move |volume: Arc<Volume>| volume.open(number.0, flags).await;
        self.answer(reply, work, |reply, handle| {
            reply.opened(FileHandle(handle), FopenFlags::empty());
        });
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let path = self.volume.child(parent.0, name);
        let work = async move |volume: Arc<Volume>| volume.create(&path?, flags).await;
        self.answer(reply, work, |reply, (attr, handle)| {
            let handle = FileHandle(handle);
            reply.created(&VALID, &attr, Generation(0), handle, FopenFlags::empty());
        });
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let work = async move |volume: Arc<Volume>| match volume.handle(handle.0)? {
            Handle::Reading(reader) => reader.read(&volume, offset, size.into()).await,
            Handle::Writing(staged, _) => staged.read(&volume, offset, size.into()).await,
            Handle::Folder(_) => Err(Errno::EISDIR),
        };
        self.answer(reply, work, |reply, bytes: Bytes| reply.data(&bytes));
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        flags: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let data = data.to_vec();
        // Pages of a mapping have their place, whatever the file was opened for.
        let is_mapped = flags.contains(WriteFlags::FUSE_WRITE_CACHE);
        let work = async move |volume: Arc<Volume>| {
            let Handle::Writing(staged, mode) = volume.handle(handle.0)? else {
                return Err(Errno::EBADF);
            };
            staged.write(&volume, offset, &data, mode.append && !is_mapped).await?;
            u32::try_from(data.len()).map_err(|_| Errno::EINVAL)
        };
        self.answer(reply, work, |reply, length| reply.written(length));
    }

    fn flush(&self, _: &Request, _: INodeNo, handle: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        self.save(handle, reply);
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        self.save(handle, reply);
    }

    fn release(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.done(reply, async move |volume: Arc<Volume>| match volume.take_back(handle.0) {
            Some(Handle::Writing(staged, _)) => volume.unstage(number.0, &staged).await,
            _ => Ok(()),
        });
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let opened = self.volume.path(number.0).and_then(|path| {
            let folder = Folder::open(&self.volume, path);
            self.volume.hand_out(Handle::Folder(Arc::new(folder)))
        });
        match opened {
            Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
            Err(error) => reply.error(error),
        }
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectory,
    ) {
        let work = async move |volume: Arc<Volume>| {
            let (folder, entries) = volume.entries(handle.0, offset).await?;
            Ok((volume, folder, entries))
        };
        self.answer(reply, work, |mut reply, (volume, folder, entries)| {
            for (after, name, entry) in entries {
                let number = volume.nodes().number(&path_in(&folder, &name)).unwrap_or(UNKNOWN);
                let kind = match entry {
                    Entry::Directory => FileType::Directory,
                    Entry::File(_) => FileType::RegularFile,
                };
                if reply.add(INodeNo(number), after, kind, &name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let work = async move |volume: Arc<Volume>| {
            let (folder, entries) = volume.entries(handle.0, offset).await?;
            Ok((volume, folder, entries))
        };
        self.answer(reply, work, |mut reply, (volume, folder, entries)| {
            for (after, name, entry) in entries {
                if after <= DOTS {
                    // Those two are not counted as looked up.
                    let attr = volume.attributes(UNKNOWN, &entry);
                    if reply.add(INodeNo(UNKNOWN), after, &name, &VALID, &attr, Generation(0)) {
                        break;
                    }
                    continue;
                }
                let attr = volume.told(&path_in(&folder, &name), &entry);
                if reply.add(attr.ino, after, &name, &VALID, &attr, Generation(0)) {
                    // It did not fit, so the kernel does not know of it.
                    volume.nodes().forget(attr.ino.0, 1);
                    break;
                }
            }
            reply.ok();
        });
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.volume.take_back(handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    /// A bucket has no end; some programs want to see room.
    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        const BLOCKS: u64 = 1 << 38;
        const FILES: u64 = 1 << 40;
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, FILES, FILES, 4096, 255, 4096);
    }

    fn getxattr(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn listxattr(&self, _: &Request, _: INodeNo, _: u32, reply: ReplyXattr) {
        reply.error(Errno::ENOSYS);
    }

    fn setxattr(
        &self,
        _: &Request,
        _: INodeNo,
        _: &OsStr,
        _: &[u8],
        _: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        reply.error(Errno::ENOSYS);
    }

    fn access(&self, _: &Request, _: INodeNo, _: fuser::AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }
}
