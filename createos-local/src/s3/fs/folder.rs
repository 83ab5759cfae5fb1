//! An open directory: pages of a listing, one at a time in memory.

use std::collections::HashSet;
use std::time::Instant;

use fuser::Errno;

use super::cache::{Entry, name_of, parent};
use super::volume::Volume;

const PAGE: u16 = 1000;
/// More pages than any directory has; a server that never ends a listing is not believed.
const MOST_PAGES: usize = 10_000;

pub(super) struct Folder {
    pub(super) path: String,
    /// What the bucket does not know of yet.
    own: Vec<(String, Entry)>,
    pages: tokio::sync::Mutex<Pages>,
}

struct Pages {
    /// Where each page that was seen begins, and how it is asked for.
    starts: Vec<(u64, Option<String>)>,
    current: usize,
    entries: Vec<(String, Entry)>,
    /// How the page after the last one is asked for.
    next: Option<String>,
    is_loaded: bool,
    opened: Instant,
}

impl Folder {
    pub(super) fn open(volume: &Volume, path: String) -> Self {
        let right_here = |one: &str| parent(one) == path && one != path;
        let staged = volume.staged_below(&path).into_iter().filter(|(one, _)| right_here(one));
        let mut own: Vec<(String, Entry)> =
            staged.map(|(one, staged)| (name_of(&one).to_owned(), staged.entry())).collect();
        let kept = volume.cache().kept_in(&path);
        own.extend(kept.iter().map(|one| (name_of(one).to_owned(), Entry::Directory)));
        let pages = Pages {
            starts: vec![(0, None)],
            current: 0,
            entries: Vec::new(),
            next: None,
            is_loaded: false,
            opened: Instant::now(),
        };
        Self { path, own, pages: tokio::sync::Mutex::new(pages) }
    }

    /// Entries from this one on: as many as are at hand, and at least one unless that was the
    /// last.
    pub(super) async fn from(
        &self,
        volume: &Volume,
        index: u64,
    ) -> Result<Vec<(String, Entry)>, Errno> {
        let mut pages = self.pages.lock().await;
        loop {
            let start = pages.starts[pages.current].0;
            if !pages.is_loaded || index < start {
                // Back to where it was.
                let page = pages.starts.partition_point(|(start, _)| *start <= index);
                self.load(volume, &mut pages, page.saturating_sub(1)).await?;
                continue;
            }
            let end = start + pages.entries.len() as u64;
            if index < end {
                return Ok(pages.entries[(index - start) as usize..].to_vec());
            }
            match pages.next.clone() {
                Some(_) if pages.current >= MOST_PAGES => return Err(Errno::EIO),
                Some(next) => {
                    let page = pages.current + 1;
                    pages.starts.truncate(page);
                    pages.starts.push((end, Some(next)));
                    self.load(volume, &mut pages, page).await?;
                }
                None => {
                    volume.cache().list(&self.path, pages.opened);
                    let own = usize::try_from(index - end).unwrap_or(usize::MAX);
                    return Ok(self.own.get(own..).unwrap_or_default().to_vec());
                }
            }
        }
    }

    async fn load(&self, volume: &Volume, pages: &mut Pages, page: usize) -> Result<(), Errno> {
        let prefix = volume.prefix_of(&self.path);
        let from = pages.starts[page].1.clone();
        let listing = volume.heed(volume.s3.list(&prefix, true, PAGE, from.as_deref()).await)?;
        let own: HashSet<&str> = self.own.iter().map(|(name, _)| name.as_str()).collect();
        let mut seen = HashSet::new();
        let mut entries = Vec::with_capacity(listing.objects.len() + listing.prefixes.len());
        let directories = listing.prefixes.into_iter().filter_map(|common| {
            let name = common.strip_prefix(&prefix)?.strip_suffix('/')?.to_owned();
            Some((name, Entry::Directory))
        });
        let files = listing.objects.into_iter().filter_map(|(key, object)| {
            Some((key.strip_prefix(&prefix)?.to_owned(), Entry::File(object)))
        });
        for (name, entry) in directories.chain(files) {
            if is_name(&name) && !own.contains(name.as_str()) && seen.insert(name.clone()) {
                entries.push((name, entry));
            }
        }
        let mut cache = volume.cache();
        for (name, entry) in &entries {
            let path =
                if self.path.is_empty() { name.clone() } else { format!("{}/{name}", self.path) };
            cache.see(&path, Some(entry.clone()));
        }
        drop(cache);
        // A server that goes round in circles would never end.
        let next = listing.next.filter(|next| {
            !pages.starts[..=page].iter().any(|(_, seen)| seen.as_ref() == Some(next))
        });
        (pages.current, pages.entries, pages.next, pages.is_loaded) = (page, entries, next, true);
        Ok(())
    }
}

/// Whether a part of a key can be a file's name. A bucket may hold others.
fn is_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && name.len() <= 255 && !name.contains(['/', '\0'])
}
