//! Inode numbers: what the kernel knows files by.

use std::collections::HashMap;

pub(super) const ROOT: u64 = 1;

struct Node {
    /// Gone when it has been removed.
    path: Option<String>,
    /// How many times the kernel has been told of it.
    lookups: u64,
}

/// As many as the kernel remembers.
pub(super) struct Nodes {
    nodes: HashMap<u64, Node>,
    numbers: HashMap<String, u64>,
    next: u64,
}

impl Nodes {
    pub(super) fn new() -> Self {
        let root = Node { path: Some(String::new()), lookups: 1 };
        Self {
            nodes: HashMap::from([(ROOT, root)]),
            numbers: HashMap::from([(String::new(), ROOT)]),
            next: ROOT,
        }
    }

    /// Where a node is; `None` when it has been removed.
    pub(super) fn path(&self, number: u64) -> Option<String> {
        self.nodes.get(&number)?.path.clone()
    }

    pub(super) fn number(&self, path: &str) -> Option<u64> {
        self.numbers.get(path).copied()
    }

    /// The number of a path of which the kernel is told now.
    pub(super) fn enter(&mut self, path: &str) -> u64 {
        let number = *self.numbers.entry(path.to_owned()).or_insert_with(|| {
            self.next += 1;
            self.next
        });
        let fresh = || Node { path: Some(path.to_owned()), lookups: 0 };
        self.nodes.entry(number).or_insert_with(fresh).lookups += 1;
        number
    }

    pub(super) fn forget(&mut self, number: u64, lookups: u64) {
        let Some(node) = self.nodes.get_mut(&number) else { return };
        node.lookups = node.lookups.saturating_sub(lookups);
        if node.lookups == 0 && number != ROOT {
            let node = self.nodes.remove(&number);
            if let Some(path) = node.and_then(|node| node.path) {
                self.numbers.remove(&path);
            }
        }
    }

    /// Nothing is at this path any more.
    pub(super) fn remove(&mut self, path: &str) {
        let number = self.numbers.remove(path);
        if let Some(node) = number.and_then(|number| self.nodes.get_mut(&number)) {
            node.path = None;
        }
    }

    /// What is at and below `from` is at `to` now, and what was there is not.
    pub(super) fn rename(&mut self, from: &str, to: &str) {
        self.remove(to);
        let below = format!("{from}/");
        let moved: Vec<String> = self
            .numbers
            .keys()
            .filter(|path| *path == from || path.starts_with(&below))
            .cloned()
            .collect();
        for path in moved {
            let Some(number) = self.numbers.remove(&path) else { continue };
            let renamed = format!("{to}{}", &path[from.len()..]);
            if let Some(node) = self.nodes.get_mut(&number) {
                node.path = Some(renamed.clone());
            }
            self.numbers.insert(renamed, number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_through_renames_and_go_when_forgotten() {
        let mut nodes = Nodes::new();
        let (dir, file, other) = (nodes.enter("a"), nodes.enter("a/x"), nodes.enter("ab"));
        assert_eq!(nodes.enter("a/x"), file);
        nodes.rename("a", "c");
        assert_eq!(nodes.path(file).as_deref(), Some("c/x"));
        assert_eq!((nodes.number("c"), nodes.number("ab")), (Some(dir), Some(other)));
        nodes.rename("ab", "c/x");
        assert_eq!(nodes.path(file), None);
        assert_eq!(nodes.path(other).as_deref(), Some("c/x"));
        nodes.forget(other, 1);
        assert_eq!((nodes.number("c/x"), nodes.path(other)), (None, None));
        nodes.forget(file, 1);
        nodes.forget(file, 1);
        assert!(nodes.enter("c/x") > other);
        nodes.forget(ROOT, 99);
        assert_eq!(nodes.path(ROOT).as_deref(), Some(""));
    }
}
