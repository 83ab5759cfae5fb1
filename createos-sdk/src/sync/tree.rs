//! What is in a directory, and what both sides agreed on last.

use std::collections::BTreeMap;

/// One name in a directory: any bytes but NUL and `/`.
pub(super) type Name = Box<[u8]>;

/// What tells a version of a file from every other one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stat {
    /// Permissions with the special bits, `0o7777` at most.
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) inode: u64,
    /// As fine as the side tells it, and in its words; only compared.
    pub(super) mtime: Box<str>,
}

impl Stat {
    /// The permissions that travel: without set-user-id and the like.
    pub(super) fn permissions(&self) -> u32 {
        self.mode & 0o777
    }

    /// Whether it is the same version, whatever its permissions are.
    pub(super) fn same_content(&self, other: &Self) -> bool {
        self.size == other.size && self.inode == other.inode && self.mtime == other.mtime
    }
}

/// Something in a directory of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Dir(Dir),
    File(Stat),
    Link(Stat),
    /// A device, pipe or socket; or a directory that cannot be listed.
    Opaque(&'static str),
}

impl Node {
    pub(super) fn stat(&self) -> Option<&Stat> {
        match self {
            Self::File(stat) | Self::Link(stat) => Some(stat),
            _ => None,
        }
    }
}

/// A directory of one side.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Dir {
    pub(super) mode: u32,
    pub(super) children: BTreeMap<Name, Node>,
}

impl Dir {
    /// Adds what is at a path below; `false` where its directory was not added before.
    pub(super) fn insert(&mut self, path: &[u8], node: Node) -> bool {
        let mut dir = self;
        let mut parts = path.split(|byte| *byte == b'/').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                dir.children.insert(part.into(), node);
                return true;
            }
            match dir.children.get_mut(part) {
                Some(Node::Dir(below)) => dir = below,
                _ => return false,
            }
        }
        false
    }

    pub(super) fn get(&self, path: &[u8]) -> Option<&Node> {
        let (first, rest) = cut(path);
        let node = self.children.get(first)?;
        match (rest, node) {
            (None, node) => Some(node),
            (Some(rest), Node::Dir(dir)) => dir.get(rest),
            _ => None,
        }
    }

    /// Files, links and directories below.
    pub(super) fn count(&self) -> u64 {
        let below = |node: &Node| match node {
            Node::Dir(dir) => 1 + dir.count(),
            _ => 1,
        };
        self.children.values().map(below).sum()
    }
}

/// What both sides had at a path when they were last the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Base {
    Dir { mode: u32, children: BTreeMap<Name, Base> },
    File(Agreed),
    Link(Agreed),
}

/// A version of a file that both sides had, and how each of them shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) digest: Digest,
    pub(super) mode: u32,
    pub(super) local: Stat,
    pub(super) remote: Stat,
}

/// SHA-256 of a file's content, or of what a link points to.
pub(super) type Digest = [u8; 32];

impl Base {
    pub(super) fn root() -> Self {
        Self::Dir { mode: 0, children: BTreeMap::new() }
    }

    pub(super) fn children(&self) -> Option<&BTreeMap<Name, Base>> {
        match self {
            Self::Dir { children, .. } => Some(children),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, path: &[u8]) -> Option<&mut Base> {
        let (first, rest) = cut(path);
        let Self::Dir { children, .. } = self else { return None };
        let child = children.get_mut(first)?;
        match rest {
            None => Some(child),
            Some(rest) => child.get_mut(rest),
        }
    }

    /// Both sides now have this at the path. Directories above must have been agreed on.
    pub(super) fn agree(&mut self, path: &[u8], now: Base) {
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (self.get_mut(&path[..at]), &path[at + 1..]),
            None => (Some(self), path),
        };
        let Some(Self::Dir { children, .. }) = above else { return };
        match (children.get_mut(name), now) {
            (Some(Self::Dir { mode, .. }), Self::Dir { mode: new, .. }) => *mode = new,
            (_, now) => drop(children.insert(name.into(), now)),
        }
    }

    /// Neither side has anything at the path now.
    pub(super) fn forget(&mut self, path: &[u8]) {
        let (above, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (self.get_mut(&path[..at]), &path[at + 1..]),
            None => (Some(self), path),
        };
        if let Some(Self::Dir { children, .. }) = above {
            children.remove(name);
        }
    }

    /// Both sides now have these permissions.
    pub(super) fn agree_mode(&mut self, path: &[u8], new: u32) {
        let now = self.get_mut(path);
        if let Some(Self::Dir { mode, .. } | Self::File(Agreed { mode, .. })) = now {
            *mode = new;
        }
    }
}

fn cut(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    match path.iter().position(|byte| *byte == b'/') {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

/// A path and a name below it.
pub(super) fn join(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut joined = path.to_vec();
    if !joined.is_empty() {
        joined.push(b'/');
    }
    joined.extend_from_slice(name);
    joined
}

/// The directory of a path, and its name there.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}
