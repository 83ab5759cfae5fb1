//! What was last seen in the bucket, for a moment, and what is true here alone.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::super::answer::Object;

/// How long what was seen is believed.
pub(super) const VALID: Duration = Duration::from_secs(1);
const MOST: usize = 50_000;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    Directory,
    File(Object),
}

#[derive(Default)]
pub(super) struct Cache {
    seen: HashMap<String, (Option<Entry>, Instant)>,
    /// Directories that were listed to their end: what is not seen there is not there.
    listed: HashMap<String, Instant>,
    /// Directories without anything in the bucket that would say so, because the last file
    /// was taken out of them.
    kept: HashSet<String>,
}

impl Cache {
    /// What is known of a path: `Some(None)` that nothing is there.
    pub(super) fn get(&self, path: &str) -> Option<Option<Entry>> {
        if let Some((entry, _)) = self.seen.get(path).filter(|(_, at)| at.elapsed() < VALID) {
            return Some(entry.clone());
        }
        let is_listed = self.listed.get(parent(path)).is_some_and(|at| at.elapsed() < VALID);
        (is_listed && !self.kept.contains(path)).then_some(None)
    }

    pub(super) fn see(&mut self, path: &str, entry: Option<Entry>) {
        if self.seen.len() >= MOST {
            self.seen.clear();
            self.listed.clear();
        }
        self.seen.insert(path.to_owned(), (entry, Instant::now()));
    }

    /// A directory was listed to its end, beginning at that time.
    pub(super) fn list(&mut self, directory: &str, since: Instant) {
        if self.listed.len() >= MOST {
            self.listed.clear();
        }
        self.listed.insert(directory.to_owned(), since);
    }

    /// What was seen of a path is out of date.
    pub(super) fn forget(&mut self, path: &str) {
        self.seen.remove(path);
        self.listed.remove(parent(path));
    }

    pub(super) fn forget_all(&mut self) {
        self.seen.clear();
        self.listed.clear();
    }

    /// Something was taken out of this directory, which stays.
    pub(super) fn keep(&mut self, directory: &str) {
        if !directory.is_empty() && self.kept.len() < MOST {
            self.kept.insert(directory.to_owned());
        }
    }

    pub(super) fn is_kept(&self, directory: &str) -> bool {
        self.kept.contains(directory)
    }

    /// Kept directories right in this one.
    pub(super) fn kept_in(&self, directory: &str) -> Vec<String> {
        self.kept.iter().filter(|path| parent(path) == directory).cloned().collect()
    }

    /// This directory and what is below it is not here any more.
    pub(super) fn drop_kept(&mut self, directory: &str) {
        let below = format!("{directory}/");
        self.kept.retain(|path| path != directory && !path.starts_with(&below));
    }
}

pub(super) fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

pub(super) fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}
