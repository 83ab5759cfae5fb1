//! A part of a bucket that is mounted: what is at its paths, and how it is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use createos_sdk::wire::DiskCredentials;
use fuser::{Errno, FileAttr, FileType, INodeNo};
use futures::future::join_all;
use tokio::runtime::Handle as Runtime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::super::{Client, S3Error};
use super::Shared;
use super::cache::{Cache, Entry};
use super::folder::Folder;
use super::nodes::{Nodes, ROOT};
use super::read::Reader;
use super::staged::Staged;

/// How often a bucket that does not answer is tried.
const AGAIN: Duration = Duration::from_secs(2);
/// How often one is tried at most.
const RARELY: Duration = Duration::from_millis(500);
/// The longest key.
const MOST_KEY: usize = 1024;
const MOST_NAME: usize = 255;
/// Files that a volume can have open.
const MOST_HANDLES: usize = 16_384;

/// How the bucket is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Health {
    /// Nobody has looked yet.
    Unknown,
    Well,
    /// For people.
    Ill(String),
}

pub(crate) struct Volume {
    pub(super) s3: Client,
    /// What the keys of this part begin with: empty, or it ends with a slash.
    prefix: String,
    owner: u32,
    pub(super) shared: Arc<Shared>,
    pub(super) runtime: Runtime,
    nodes: Mutex<Nodes>,
    cache: Mutex<Cache>,
    staged: Mutex<HashMap<u64, Arc<Staged>>>,
    handles: Mutex<HashMap<u64, Handle>>,
    next_handle: AtomicU64,
    health: Mutex<Health>,
    trouble: Notify,
    /// Cancelled to end the requests under way.
    under_way: Mutex<CancellationToken>,
    requests: AtomicUsize,
    /// Cancelled when it is unmounted.
    pub(super) closed: CancellationToken,
    began: SystemTime,
}

/// Something open.
#[derive(Clone)]
pub(super) enum Handle {
    Reading(Arc<Reader>),
    Writing(Arc<Staged>, Mode),
    Folder(Arc<Folder>),
}

/// How a file is open for writing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mode {
    pub(super) append: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while these locks are held, so a poisoned one is still whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Volume {
    pub(super) fn new(
        s3: Client,
        sub_path: &str,
        owner: u32,
        shared: Arc<Shared>,
        runtime: Runtime,
    ) -> Self {
        let prefix = if sub_path.is_empty() { String::new() } else { format!("{sub_path}/") };
        Self {
            s3,
            prefix,
            owner,
            shared,
            runtime,
            nodes: Mutex::new(Nodes::new()),
            cache: Mutex::default(),
            staged: Mutex::default(),
            handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
            health: Mutex::new(Health::Unknown),
            trouble: Notify::new(),
            under_way: Mutex::default(),
            requests: AtomicUsize::new(0),
            closed: CancellationToken::new(),
            began: SystemTime::now(),
        }
    }

    pub(crate) fn health(&self) -> Health {
        lock(&self.health).clone()
    }

    /// Uses these keys from now on.
    pub(crate) fn set_keys(&self, keys: DiskCredentials) {
        self.s3.set_keys(keys);
        self.trouble.notify_one();
    }

    /// Saves what is open and has been written, as far as that is possible in this time.
    pub(crate) async fn save_all(self: &Arc<Self>, within: Duration) {
        let volume = Arc::clone(self);
        let saving = self.runtime.spawn(async move {
            let open: Vec<Arc<Staged>> = lock(&volume.staged).values().cloned().collect();
            let saves = join_all(open.iter().map(|staged| staged.save(&volume)));
            tokio::time::timeout(within, saves).await.is_ok_and(|all| all.iter().all(Result::is_ok))
        });
        if !saving.await.unwrap_or(false) {
            tracing::warn!("files that are open on an S3 disk could not be saved");
        }
    }

    /// Waits until no request is under way. If some are after this time, these and all later
    /// ones fail, until [`Volume::go_on`].
    pub(crate) async fn settle(&self, within: Duration) {
        let quiet = async {
            while self.requests.load(Ordering::SeqCst) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(within, quiet).await.is_err() {
            lock(&self.under_way).cancel();
        }
    }

    /// Requests are served as usual.
    pub(crate) fn go_on(&self) {
        let mut under_way = lock(&self.under_way);
        if under_way.is_cancelled() {
            *under_way = CancellationToken::new();
        }
    }

    /// Nothing is served any more: whoever still waits is told that it failed.
    pub(crate) fn close(&self) {
        self.closed.cancel();
        lock(&self.under_way).cancel();
    }

    /// Looks after the bucket when something went wrong, until it is well again.
    pub(super) async fn watch_health(self: Arc<Self>) {
        let watch = async {
            loop {
                let health = match self.s3.check(&self.prefix).await {
                    Ok(()) => Health::Well,
                    Err(error) => Health::Ill(error.to_string()),
                };
                let is_well = health == Health::Well;
                *lock(&self.health) = health;
                if is_well {
                    self.trouble.notified().await;
                    tokio::time::sleep(RARELY).await;
                } else {
                    let _ = tokio::time::timeout(AGAIN, self.trouble.notified()).await;
                    tokio::time::sleep(RARELY).await;
                }
            }
        };
        self.closed.run_until_cancelled(watch).await;
    }

    /// What a program inside is told; trouble makes somebody look after the bucket.
    pub(super) fn heed<T>(&self, outcome: Result<T, S3Error>) -> Result<T, Errno> {
        outcome.map_err(|error| {
            if !error.is_missing() {
                tracing::debug!(%error, "a request to S3 failed");
                self.trouble.notify_one();
            }
            error.errno()
        })
    }

    /// A request begins, or is refused because nothing is served any more.
    pub(super) fn begin(self: &Arc<Self>) -> (Request, CancellationToken) {
        self.requests.fetch_add(1, Ordering::SeqCst);
        let token = lock(&self.under_way).clone();
        (Request(Arc::clone(self)), token)
    }

    pub(super) fn nodes(&self) -> MutexGuard<'_, Nodes> {
        lock(&self.nodes)
    }

    pub(super) fn cache(&self) -> MutexGuard<'_, Cache> {
        lock(&self.cache)
    }

    pub(super) fn key(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// What the keys of everything in a directory begin with.
    pub(super) fn prefix_of(&self, directory: &str) -> String {
        match directory {
            "" => self.prefix.clone(),
            directory => format!("{}{directory}/", self.prefix),
        }
    }

    pub(super) fn path(&self, number: u64) -> Result<String, Errno> {
        self.nodes().path(number).ok_or(Errno::ESTALE)
    }

    /// The path of something in a directory.
    pub(super) fn child(&self, parent: u64, name: &std::ffi::OsStr) -> Result<String, Errno> {
        let name = name.to_str().ok_or(Errno::EILSEQ)?;
        if name.len() > MOST_NAME {
            return Err(Errno::ENAMETOOLONG);
        }
        let path = match self.path(parent)?.as_str() {
            "" => name.to_owned(),
            parent => format!("{parent}/{name}"),
        };
        // A directory takes one more.
        if self.prefix.len() + path.len() >= MOST_KEY {
            return Err(Errno::ENAMETOOLONG);
        }
        Ok(path)
    }

    /// What is at a path.
    pub(super) async fn look(&self, path: &str) -> Result<Option<Entry>, Errno> {
        if path.is_empty() {
            return Ok(Some(Entry::Directory));
        }
        if let Some(staged) = self.staged_at(path) {
            return Ok(Some(staged.entry()));
        }
        if let Some(known) = self.cache().get(path) {
            return Ok(known);
        }
        let (key, below) = (self.key(path), self.prefix_of(path));
        let asked = futures::join!(self.s3.head(&key), self.s3.list(&below, true, 1, None));
        let (object, inside) = (self.heed(asked.0)?, self.heed(asked.1)?);
        let is_directory = !inside.objects.is_empty() || !inside.prefixes.is_empty();
        let mut cache = self.cache();
        let entry = match object {
            _ if is_directory || cache.is_kept(path) => Some(Entry::Directory),
            object => object.map(Entry::File),
        };
        cache.see(path, entry.clone());
        Ok(entry)
    }

    pub(super) async fn expect(&self, path: &str) -> Result<Entry, Errno> {
        self.look(path).await?.ok_or(Errno::ENOENT)
    }

    pub(super) fn staged_at(&self, path: &str) -> Option<Arc<Staged>> {
        let number = self.nodes().number(path)?;
        self.staged_of(number).filter(|staged| staged.is_at(path))
    }

    pub(super) fn staged_of(&self, number: u64) -> Option<Arc<Staged>> {
        lock(&self.staged).get(&number).cloned()
    }

    /// Files that are open for writing, and where they are, right in a directory or below it.
    pub(super) fn staged_below(&self, directory: &str) -> Vec<(String, Arc<Staged>)> {
        let below = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let staged = lock(&self.staged);
        let at = staged.values().filter_map(|one| Some((one.face().path?, Arc::clone(one))));
        at.filter(|(path, _)| path.starts_with(&below)).collect()
    }

    /// Opens a file for writing that may be open already: then `fresh` is not asked.
    pub(super) fn stage(
        &self,
        number: u64,
        fresh: impl FnOnce() -> Result<Staged, Errno>,
    ) -> Result<Arc<Staged>, Errno> {
        let mut staged = lock(&self.staged);
        if let Some(one) = staged.get(&number) {
            one.opens.fetch_add(1, Ordering::SeqCst);
            return Ok(Arc::clone(one));
        }
        let one = Arc::new(fresh()?);
        staged.insert(number, Arc::clone(&one));
        Ok(one)
    }

    /// One who had a file open for writing has closed it; the last one's writes are saved.
    pub(super) async fn unstage(&self, number: u64, one: &Arc<Staged>) -> Result<(), Errno> {
        let saved = one.save(self).await;
        self.let_go(number, one);
        saved
    }

    pub(super) fn let_go(&self, number: u64, one: &Arc<Staged>) {
        let mut staged = lock(&self.staged);
        one.opens.fetch_sub(1, Ordering::SeqCst);
        if !one.is_open() && staged.get(&number).is_some_and(|now| Arc::ptr_eq(now, one)) {
            staged.remove(&number);
        }
    }

    /// A handle for a file that has just been opened for writing, or is to others.
    pub(super) fn hand_out_staged(
        &self,
        number: u64,
        one: Arc<Staged>,
        mode: Mode,
    ) -> Result<u64, Errno> {
        let handed = self.hand_out(Handle::Writing(Arc::clone(&one), mode));
        handed.inspect_err(|_| self.let_go(number, &one))
    }

    pub(super) fn hand_out(&self, handle: Handle) -> Result<u64, Errno> {
        let mut handles = lock(&self.handles);
        if handles.len() >= MOST_HANDLES {
            return Err(Errno::ENFILE);
        }
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        handles.insert(number, handle);
        Ok(number)
    }

    pub(super) fn handle(&self, number: u64) -> Result<Handle, Errno> {
        lock(&self.handles).get(&number).cloned().ok_or(Errno::EBADF)
    }

    pub(super) fn take_back(&self, number: u64) -> Option<Handle> {
        lock(&self.handles).remove(&number)
    }

    pub(super) fn attributes(&self, number: u64, entry: &Entry) -> FileAttr {
        let (size, time, kind, perm) = match entry {
            Entry::Directory => (0, self.began, FileType::Directory, 0o755),
            Entry::File(object) => (object.size, object.modified, FileType::RegularFile, 0o644),
        };
        FileAttr {
            ino: INodeNo(number),
            size,
            blocks: size.div_ceil(512),
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: if number == ROOT { 2 } else { 1 },
            uid: self.owner,
            gid: self.owner,
            rdev: 0,
            blksize: 1 << 17,
            flags: 0,
        }
    }
}

/// A request under way.
pub(super) struct Request(Arc<Volume>);

impl Drop for Request {
    fn drop(&mut self) {
        self.0.requests.fetch_sub(1, Ordering::SeqCst);
    }
}
