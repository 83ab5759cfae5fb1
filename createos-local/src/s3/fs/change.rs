//! Changes of names: made, removed, renamed.

use std::sync::Arc;

use fuser::{Errno, RenameFlags};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::super::S3Error;
use super::super::answer::Object;
use super::cache::{Entry, parent};
use super::volume::Volume;

/// A directory with more than this in it is not renamed by one call: programs move what is
/// in it one by one when they are told so.
const MOST: usize = 1000;
/// Objects that are copied at once.
const AT_ONCE: usize = 8;

impl Volume {
    pub(super) async fn make_directory(&self, path: &str) -> Result<(), Errno> {
        if self.look(path).await?.is_some() {
            return Err(Errno::EEXIST);
        }
        let marker = self.prefix_of(path);
        self.heed(self.s3.put(&marker, bytes::Bytes::new()).await)?;
        self.cache().see(path, Some(Entry::Directory));
        Ok(())
    }

    pub(super) async fn remove_file(&self, path: &str) -> Result<(), Errno> {
        match self.expect(path).await? {
            Entry::Directory => return Err(Errno::EISDIR),
            Entry::File(_) => {}
        }
        if let Some(staged) = self.staged_at(path) {
            // Whatever is being saved is, before.
            let content = staged.content.lock().await;
            if !content.fresh {
                self.heed(self.s3.delete(&self.key(path)).await)?;
            }
            staged.move_to(None);
        } else {
            self.heed(self.s3.delete(&self.key(path)).await)?;
        }
        self.is_gone(path);
        Ok(())
    }

    pub(super) async fn remove_directory(&self, path: &str) -> Result<(), Errno> {
        match self.expect(path).await? {
            Entry::Directory => {}
            Entry::File(_) => return Err(Errno::ENOTDIR),
        }
        self.expect_empty(path).await?;
        self.heed(self.s3.delete(&self.prefix_of(path)).await)?;
        self.cache().drop_kept(path);
        self.is_gone(path);
        Ok(())
    }

    async fn expect_empty(&self, path: &str) -> Result<(), Errno> {
        let marker = self.prefix_of(path);
        let found = self.heed(self.s3.list(&marker, true, 2, None).await)?;
        let is_marker = |(key, _): &(String, Object)| *key == marker;
        let is_empty = found.prefixes.is_empty() && found.objects.iter().all(is_marker);
        let kept = self.cache().kept_in(path);
        if is_empty && kept.is_empty() && self.staged_below(path).is_empty() {
            return Ok(());
        }
        Err(Errno::ENOTEMPTY)
    }

    /// Nothing is at a path any more; the directory it was in stays.
    fn is_gone(&self, path: &str) {
        self.nodes().remove(path);
        let mut cache = self.cache();
        cache.see(path, None);
        cache.keep(parent(path));
    }

    pub(super) async fn rename(
        &self,
        from: &str,
        to: &str,
        flags: RenameFlags,
    ) -> Result<(), Errno> {
        if !flags.difference(RenameFlags::RENAME_NOREPLACE).is_empty() {
            return Err(Errno::EINVAL);
        }
        let entry = self.expect(from).await?;
        let target = self.look(to).await?;
        if target.is_some() && flags.contains(RenameFlags::RENAME_NOREPLACE) {
            return Err(Errno::EEXIST);
        }
        if from == to {
            return Ok(());
        }
        match (entry, target) {
            (Entry::File(_), Some(Entry::Directory)) => Err(Errno::EISDIR),
            (Entry::File(object), _) => self.rename_file(from, to, &object).await,
            (Entry::Directory, Some(Entry::File(_))) => Err(Errno::ENOTDIR),
            (Entry::Directory, target) => {
                if target.is_some() {
                    self.expect_empty(to).await?;
                }
                self.rename_directory(from, to).await
            }
        }
    }

    async fn rename_file(&self, from: &str, to: &str, object: &Object) -> Result<(), Errno> {
        let replaced = self.staged_at(to);
        let moved = match self.staged_at(from) {
            Some(staged) => {
                let mut content = staged.content.lock().await;
                let was_fresh = content.fresh;
                if !content.dirty {
                    let copied = self.s3.copy(&self.key(from), &self.key(to), object.size).await;
                    self.heed(copied)?;
                }
                staged.move_to(Some(to.to_owned()));
                let saved = staged.save_content(self, &mut content).await;
                if saved.is_err() {
                    staged.move_to(Some(from.to_owned()));
                }
                saved.map(|()| was_fresh)
            }
            None => {
                let copied = self.s3.copy(&self.key(from), &self.key(to), object.size).await;
                self.heed(copied).map(|()| false)
            }
        };
        let was_fresh = moved?;
        if let Some(replaced) = replaced {
            replaced.move_to(None);
        }
        self.nodes().rename(from, to);
        {
            let mut cache = self.cache();
            cache.forget(to);
            cache.see(from, None);
            cache.keep(parent(from));
        }
        if was_fresh { Ok(()) } else { self.heed(self.s3.delete(&self.key(from)).await) }
    }

    async fn rename_directory(&self, from: &str, to: &str) -> Result<(), Errno> {
        let (source, target) = (self.prefix_of(from), self.prefix_of(to));
        let mut objects = Vec::new();
        let mut next: Option<String> = None;
        // As many pages as objects at most: a server might send empty ones without end.
        for _ in 0..MOST {
            let page = self.heed(self.s3.list(&source, false, 1000, next.as_deref()).await)?;
            objects.extend(page.objects);
            if objects.len() > MOST {
                return Err(Errno::EXDEV);
            }
            next = page.next;
            if next.is_none() {
                break;
            }
        }
        if next.is_some() {
            return Err(Errno::EXDEV);
        }
        let pairs: Vec<(String, String, u64)> = objects
            .into_iter()
            .map(|(key, object)| {
                let renamed = format!("{target}{}", &key[source.len()..]);
                (key, renamed, object.size)
            })
            .collect();
        if pairs.iter().any(|(_, renamed, _)| renamed.len() > 1024) {
            return Err(Errno::ENAMETOOLONG);
        }
        let mut copies = Vec::with_capacity(pairs.len());
        for (key, renamed, size) in &pairs {
            copies.push(self.s3.copy(key, renamed, *size));
        }
        let copies = stream::iter(copies).buffer_unordered(AT_ONCE);
        let copied: Result<Vec<()>, _> = copies.try_collect().await;
        if copied.is_err() {
            // Better the old ones alone than both.
            let _ = self.remove_all(pairs.iter().map(|(_, renamed, _)| renamed)).await;
        }
        self.heed(copied)?;
        if pairs.is_empty() {
            self.heed(self.s3.put(&target, bytes::Bytes::new()).await)?;
        }
        for (path, staged) in self.staged_below(from) {
            staged.move_to(Some(format!("{to}{}", &path[from.len()..])));
        }
        self.nodes().rename(from, to);
        {
            let mut cache = self.cache();
            cache.forget_all();
            cache.drop_kept(from);
            cache.keep(parent(from));
        }
        self.heed(self.remove_all(pairs.iter().map(|(key, ..)| key)).await)
    }

    async fn remove_all<'a>(&self, keys: impl Iterator<Item = &'a String>) -> Result<(), S3Error> {
        let removals: Vec<_> = keys.map(|key| self.s3.delete(key)).collect();
        let removals = stream::iter(removals).buffer_unordered(AT_ONCE);
        removals.try_collect::<Vec<()>>().await.map(drop)
    }

    /// A file of another size, open or not.
    pub(super) async fn truncate(self: &Arc<Self>, number: u64, size: u64) -> Result<(), Errno> {
        if let Some(staged) = self.staged_of(number) {
            return staged.truncate(self, size).await;
        }
        // Also when the request is cut off.
        let let_go = |one: Arc<super::staged::Staged>| self.let_go(number, &one);
        let staged = scopeguard::guard(self.stage_existing(number).await?, let_go);
        staged.truncate(self, size).await?;
        staged.save(self).await
    }
}
