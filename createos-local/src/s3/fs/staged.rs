//! A file that is open for writing.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use bytes::Bytes;
use fuser::Errno;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::super::answer::Object;
use super::Shared;
use super::cache::Entry;
use super::staging::errno;
use super::volume::Volume;

/// The largest object that is put at once; larger ones go in parts.
const WHOLE: u64 = 8 << 20;
const PART: u64 = 8 << 20;
/// S3 takes no more parts than this, so those of large files are larger.
const MOST_PARTS: u64 = 9_000;
/// Parts that are under way at once.
const AT_ONCE: usize = 4;

/// One file, however many have it open.
pub(super) struct Staged {
    file: File,
    shared: Arc<Shared>,
    pub(super) content: tokio::sync::Mutex<Content>,
    face: Mutex<Face>,
    pub(super) opens: AtomicUsize,
}

/// What is in it, and what of that the bucket has.
pub(super) struct Content {
    /// The object with the content, as long as nothing of it had to be staged.
    base: Option<Object>,
    pub(super) dirty: bool,
    /// The bucket has nothing of this name from here.
    pub(super) fresh: bool,
}

/// What others see of it at any time.
#[derive(Debug, Clone)]
pub(super) struct Face {
    /// Gone when it has been removed.
    pub(super) path: Option<String>,
    pub(super) size: u64,
    pub(super) modified: SystemTime,
}

impl Staged {
    /// A new file, or one with the content of an object.
    pub(super) fn new(
        shared: &Arc<Shared>,
        path: &str,
        base: Option<Object>,
    ) -> Result<Self, Errno> {
        let (size, modified) = match &base {
            Some(object) => (object.size, object.modified),
            None => (0, SystemTime::now()),
        };
        shared.staging.take(size)?;
        let fresh = base.is_none();
        Ok(Self {
            file: shared.staging.file().inspect_err(|_| shared.staging.give_back(size))?,
            shared: Arc::clone(shared),
            content: tokio::sync::Mutex::new(Content { base, dirty: fresh, fresh }),
            face: Mutex::new(Face { path: Some(path.to_owned()), size, modified }),
            opens: AtomicUsize::new(1),
        })
    }

    fn face_mut(&self) -> MutexGuard<'_, Face> {
        self.face.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn face(&self) -> Face {
        self.face_mut().clone()
    }

    pub(super) fn is_at(&self, path: &str) -> bool {
        self.face_mut().path.as_deref() == Some(path)
    }

    pub(super) fn move_to(&self, path: Option<String>) {
        self.face_mut().path = path;
    }

    pub(super) fn entry(&self) -> Entry {
        let Face { size, modified, .. } = self.face();
        Entry::File(Object { size, modified, etag: String::new() })
    }

    pub(super) async fn read(
        &self,
        volume: &Volume,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, Errno> {
        let content = self.content.lock().await;
        let Face { path, size, .. } = self.face();
        let length = length.min(size.saturating_sub(offset));
        if let (Some(object), Some(path)) = (&content.base, path) {
            let got = volume.s3.get(&volume.key(&path), offset, length, &object.etag).await;
            return volume.heed(got);
        }
        let mut bytes = vec![0; usize::try_from(length).map_err(|_| Errno::EINVAL)?];
        self.file.read_exact_at(&mut bytes, offset).map_err(|error| errno(&error))?;
        Ok(bytes.into())
    }

    pub(super) async fn write(
        &self,
        volume: &Volume,
        offset: u64,
        data: &[u8],
        append: bool,
    ) -> Result<(), Errno> {
        let mut content = self.content.lock().await;
        self.load(volume, &mut content).await?;
        let offset = if append { self.face().size } else { offset };
        let end = offset.checked_add(data.len() as u64).ok_or(Errno::EFBIG)?;
        self.grow_to(end)?;
        content.dirty = true;
        let written = self.file.write_all_at(data, offset);
        self.face_mut().modified = SystemTime::now();
        written.map_err(|error| errno(&error))
    }

    pub(super) async fn truncate(&self, volume: &Volume, size: u64) -> Result<(), Errno> {
        let mut content = self.content.lock().await;
        if size == 0 {
            content.base = None;
        }
        self.load(volume, &mut content).await?;
        if size == self.face().size && !content.fresh && size > 0 {
            return Ok(());
        }
        content.dirty = true;
        self.grow_to(size)?;
        self.file.set_len(size).map_err(|error| errno(&error))?;
        let mut face = self.face_mut();
        self.shared.staging.give_back(face.size.saturating_sub(size));
        (face.size, face.modified) = (size, SystemTime::now());
        Ok(())
    }

    /// Takes note of an end that may be further than before.
    fn grow_to(&self, end: u64) -> Result<(), Errno> {
        let mut face = self.face_mut();
        if end > face.size {
            self.shared.staging.take(end - face.size)?;
            face.size = end;
        }
        Ok(())
    }

    /// Stages what the object has, which is about to be changed.
    async fn load(&self, volume: &Volume, content: &mut Content) -> Result<(), Errno> {
        let Some(object) = &content.base else { return Ok(()) };
        let path = self.face().path.ok_or(Errno::ESTALE)?;
        let key = volume.key(&path);
        let starts = (0..object.size).step_by(PART as usize);
        let pieces = stream::iter(starts).map(|start| {
            let length = PART.min(object.size - start);
            let (key, etag) = (&key, &object.etag);
            async move { Ok((start, volume.s3.get(key, start, length, etag).await?)) }
        });
        let write = |(start, bytes): (u64, Bytes)| async move {
            let written = self.file.write_all_at(&bytes, start);
            written.map_err(|error| super::super::S3Error::Own(error.to_string()))
        };
        volume.heed(pieces.buffer_unordered(AT_ONCE).try_for_each(write).await)?;
        content.base = None;
        Ok(())
    }

    /// Makes it an object, if the bucket has not got it as it is.
    pub(super) async fn save(&self, volume: &Volume) -> Result<(), Errno> {
        let mut content = self.content.lock().await;
        self.save_content(volume, &mut content).await
    }

    pub(super) async fn save_content(
        &self,
        volume: &Volume,
        content: &mut Content,
    ) -> Result<(), Errno> {
        let Face { path, size, .. } = self.face();
        let Some(path) = path.filter(|_| content.dirty) else { return Ok(()) };
        let etag = volume.heed(self.upload(volume, &volume.key(&path), size).await)?;
        (content.dirty, content.fresh) = (false, false);
        let object = Object { size, modified: SystemTime::now(), etag };
        self.face_mut().modified = object.modified;
        volume.cache().see(&path, Some(Entry::File(object)));
        Ok(())
    }

    async fn upload(
        &self,
        volume: &Volume,
        key: &str,
        size: u64,
    ) -> Result<String, super::super::S3Error> {
        if size <= WHOLE {
            return volume.s3.put(key, self.piece(0, size)?).await;
        }
        let upload = volume.s3.begin(key).await?;
        let part = PART.max(size.div_ceil(MOST_PARTS).next_multiple_of(1 << 20));
        let parts = stream::iter((1..).zip((0..size).step_by(part as usize)));
        let parts = parts.map(|(number, start)| {
            let (length, upload) = (part.min(size - start), &upload);
            async move { volume.s3.part(key, upload, number, self.piece(start, length)?).await }
        });
        let sent: Result<Vec<String>, _> = parts.buffered(AT_ONCE).try_collect().await;
        let done = match sent {
            Ok(tags) => volume.s3.complete(key, &upload, &tags).await,
            Err(error) => Err(error),
        };
        if done.is_err() {
            // Parts that belong to no object cost whoever owns the bucket.
            let _ = volume.s3.abort(key, &upload).await;
        }
        done
    }

    fn piece(&self, start: u64, length: u64) -> Result<Bytes, super::super::S3Error> {
        let own = |error: std::io::Error| super::super::S3Error::Own(error.to_string());
        let length =
            usize::try_from(length).map_err(|_| own(std::io::ErrorKind::FileTooLarge.into()))?;
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, start).map_err(own)?;
        Ok(bytes.into())
    }

    pub(super) fn is_open(&self) -> bool {
        self.opens.load(Ordering::SeqCst) > 0
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        self.shared.staging.give_back(self.face().size);
    }
}
