//! What to do, from what both sides have and had.
//!
//! Nothing here reads or writes a file. Whatever is planned carries the version that it
//! expects to find, and is not done when that version is not there any more.

use std::collections::{BTreeSet, HashMap};

use super::SyncMode;
use super::event::SyncSide;
use super::tree::{Agreed, Base, Digest, Dir, Name, Node, Stat, join};

/// One change of one side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Op {
    /// Removes a file or link of this version.
    Remove {
        path: Vec<u8>,
        link: bool,
        stat: Stat,
    },
    /// Removes an empty directory.
    RemoveDir {
        path: Vec<u8>,
    },
    CreateDir {
        path: Vec<u8>,
        mode: u32,
    },
    /// Takes this version from the other side, over the version that is here.
    Write {
        path: Vec<u8>,
        link: bool,
        from: Stat,
        over: Option<Stat>,
        mode: u32,
    },
    SetMode {
        path: Vec<u8>,
        dir: bool,
        mode: u32,
    },
}

impl Op {
    pub(super) fn path(&self) -> &[u8] {
        match self {
            Self::Remove { path, .. }
            | Self::RemoveDir { path }
            | Self::CreateDir { path, .. }
            | Self::Write { path, .. }
            | Self::SetMode { path, .. } => path,
        }
    }
}

/// What to do on each side, and what both agree on already.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) local: Vec<Op>,
    pub(super) remote: Vec<Op>,
    pub(super) agreed: Vec<(Vec<u8>, Base)>,
    pub(super) forgotten: Vec<Vec<u8>>,
    pub(super) conflicts: Vec<(Vec<u8>, &'static str)>,
    /// Content that has to be known before it can be decided.
    pub(super) unknown: BTreeSet<(SyncSideKey, Vec<u8>)>,
    /// Removals that were not planned because a side has lost everything.
    pub(super) held: bool,
}

/// Local first.
pub(super) type SyncSideKey = bool;
pub(super) const LOCAL: SyncSideKey = false;
pub(super) const REMOTE: SyncSideKey = true;

/// Digests of versions, by side and path.
pub(super) type Digests = HashMap<(SyncSideKey, Vec<u8>), (Stat, Digest)>;

/// What the plan is made from.
pub(super) struct Sides<'a> {
    pub(super) mode: SyncMode,
    pub(super) base: &'a Base,
    pub(super) local: &'a Dir,
    pub(super) remote: &'a Dir,
    pub(super) digests: &'a Digests,
    /// Whether to remove nothing for a side that has lost everything.
    pub(super) hold: bool,
}

impl Sides<'_> {
    pub(super) fn plan(&self) -> Plan {
        let had = self.base.children().map_or(0, |children| children.len());
        let lost = |dir: &Dir| self.hold && had > 0 && dir.children.is_empty();
        let mut planner = Planner {
            sides: self,
            plan: Plan::default(),
            hold_local: lost(self.remote) && !lost(self.local),
            hold_remote: lost(self.local) && !lost(self.remote),
        };
        planner.children(b"", Some(self.base), Some(self.local), Some(self.remote));
        planner.plan
    }
}

struct Planner<'a> {
    sides: &'a Sides<'a>,
    plan: Plan,
    /// Nothing is removed here: the other side has lost everything at once.
    hold_local: bool,
    hold_remote: bool,
}

type Two<'a> = (Option<&'a Node>, Option<&'a Node>);

impl Planner<'_> {
    /// Plans everything in a directory; whether something is left on (local, remote).
    fn children(
        &mut self,
        path: &[u8],
        base: Option<&Base>,
        local: Option<&Dir>,
        remote: Option<&Dir>,
    ) -> (bool, bool) {
        let mut names: BTreeSet<&Name> = BTreeSet::new();
        names.extend(base.and_then(Base::children).into_iter().flat_map(|map| map.keys()));
        names.extend(local.into_iter().flat_map(|dir| dir.children.keys()));
        names.extend(remote.into_iter().flat_map(|dir| dir.children.keys()));
        let mut left = (false, false);
        for name in names {
            let below = join(path, name);
            let was = base.and_then(Base::children).and_then(|map| map.get(name));
            let here = local.and_then(|dir| dir.children.get(name));
            let there = remote.and_then(|dir| dir.children.get(name));
            let (a, b) = self.path(&below, was, (here, there));
            left = (left.0 | a, left.1 | b);
        }
        left
    }

    /// Plans one path and everything below it; whether it will be there on (local, remote).
    fn path(&mut self, path: &[u8], base: Option<&Base>, nodes: Two<'_>) -> (bool, bool) {
        match nodes {
            (None, None) => {
                self.plan.forgotten.push(path.to_vec());
                (false, false)
            }
            (Some(Node::Opaque(why)), other) | (other, Some(Node::Opaque(why))) => {
                if base.is_some() || matches!(other, Some(node) if !matches!(node, Node::Opaque(_)))
                {
                    self.plan.conflicts.push((path.to_vec(), why));
                }
                (nodes.0.is_some(), nodes.1.is_some())
            }
            (Some(Node::Dir(local)), Some(Node::Dir(remote))) => {
                self.both_directories(path, base, local, remote);
                (true, true)
            }
            (Some(Node::File(local)), Some(Node::File(remote))) => {
                let was = match base {
                    Some(Base::File(agreed)) => Some(agreed),
                    _ => None,
                };
                self.both_files(path, was, local, remote, false);
                (true, true)
            }
            (Some(Node::Link(local)), Some(Node::Link(remote))) => {
                let was = match base {
                    Some(Base::Link(agreed)) => Some(agreed),
                    _ => None,
                };
                self.both_files(path, was, local, remote, true);
                (true, true)
            }
            (Some(local), Some(remote)) => self.different_kinds(path, base, local, remote),
            (Some(node), None) => self.one_sided(path, base, node, SyncSide::Local),
            (None, Some(node)) => self.one_sided(path, base, node, SyncSide::Remote),
        }
    }

    fn op(&mut self, side: SyncSide, op: Op) {
        match side {
            SyncSide::Local => self.plan.local.push(op),
            SyncSide::Remote => self.plan.remote.push(op),
        }
    }

    fn may_change(&self, side: SyncSide) -> bool {
        side == SyncSide::Remote || self.sides.mode == SyncMode::TwoWay
    }

    fn both_directories(&mut self, path: &[u8], base: Option<&Base>, local: &Dir, remote: &Dir) {
        let was = match base {
            Some(Base::Dir { mode, .. }) => Some(*mode),
            _ => None,
        };
        let mode = self.common_mode(was, local.mode, remote.mode);
        self.same_mode(path, true, mode, local.mode, remote.mode);
        // Where permissions differ, they are agreed on when they have been set.
        if was.is_none() || (was != Some(mode) && local.mode == remote.mode) {
            let now = Base::Dir { mode, children: Default::default() };
            self.plan.agreed.push((path.to_vec(), now));
        }
        self.children(path, base, Some(local), Some(remote));
    }

    /// The permissions that were changed win; where both were, those of the local side.
    fn common_mode(&self, was: Option<u32>, local: u32, remote: u32) -> u32 {
        let remote_counts = self.may_change(SyncSide::Local);
        if remote_counts && was == Some(local) { remote } else { local }
    }

    fn same_mode(&mut self, path: &[u8], dir: bool, mode: u32, local: u32, remote: u32) {
        let mut set = |side, differs: bool| {
            if differs {
                self.op(side, Op::SetMode { path: path.to_vec(), dir, mode });
            }
        };
        set(SyncSide::Local, local != mode);
        set(SyncSide::Remote, remote != mode);
    }

    /// Two files, or two links.
    fn both_files(
        &mut self,
        path: &[u8],
        was: Option<&Agreed>,
        local: &Stat,
        remote: &Stat,
        link: bool,
    ) {
        let local_changed = was.is_none_or(|was| !was.local.same_content(local));
        let remote_changed = was.is_none_or(|was| !was.remote.same_content(remote));
        let modes = (local.permissions(), remote.permissions());
        let mode = self.common_mode(was.map(|was| was.mode), modes.0, modes.1);
        let mirror = self.sides.mode == SyncMode::Mirror;
        let take = match (local_changed, remote_changed) {
            (false, false) => {
                let Some(was) = was else { return };
                if !link {
                    self.same_mode(path, false, mode, modes.0, modes.1);
                    if was.mode != mode && modes.0 == modes.1 {
                        let kept = (was.local.clone(), was.remote.clone());
                        self.agree(path, link, was.digest, mode, kept.0, kept.1);
                    }
                }
                return;
            }
            (true, false) | (false, true) => {
                let (key, stat) = if local_changed { (LOCAL, local) } else { (REMOTE, remote) };
                match (self.is_known(path, key, stat, was), was) {
                    (None, _) => return,
                    // Touched, not changed.
                    (Some(true), Some(was)) => {
                        if !link {
                            self.same_mode(path, false, mode, modes.0, modes.1);
                        }
                        let (local, remote) = (local.clone(), remote.clone());
                        let mode = if modes.0 == modes.1 { mode } else { was.mode };
                        return self.agree(path, link, was.digest, mode, local, remote);
                    }
                    _ => {}
                }
                match (local_changed, self.sides.mode) {
                    (true, _) | (_, SyncMode::Mirror) => Some(SyncSide::Local),
                    (false, SyncMode::TwoWay) => Some(SyncSide::Remote),
                    (false, SyncMode::OneWay) => None,
                }
            }
            (true, true) => match self.both_changed(path, was, local, remote) {
                None => return,
                Some(Verdict::Same(digest)) => {
                    if !link {
                        self.same_mode(path, false, mode, modes.0, modes.1);
                    }
                    let kept = was.filter(|_| modes.0 != modes.1).map_or(mode, |was| was.mode);
                    return self.agree(path, link, digest, kept, local.clone(), remote.clone());
                }
                Some(Verdict::Take(SyncSide::Remote)) if !self.may_change(SyncSide::Local) => {
                    if mirror {
                        Some(SyncSide::Local)
                    } else {
                        None
                    }
                }
                Some(Verdict::Take(side)) => Some(side),
                Some(Verdict::Conflict) if mirror => Some(SyncSide::Local),
                Some(Verdict::Conflict) => None,
            },
        };
        let Some(side) = take else {
            let why = match self.sides.mode {
                SyncMode::OneWay => "it was changed in the sandbox",
                _ if was.is_none() => "both sides have it, with different content",
                _ => "it was changed on both sides",
            };
            self.plan.conflicts.push((path.to_vec(), why));
            return;
        };
        let (from, over) = match side {
            SyncSide::Local => (local, remote),
            SyncSide::Remote => (remote, local),
        };
        if !link && from.permissions() != mode {
            self.op(side, Op::SetMode { path: path.to_vec(), dir: false, mode });
        }
        let (from, over) = (from.clone(), Some(over.clone()));
        self.op(side.other(), Op::Write { path: path.to_vec(), link, from, over, mode });
    }

    fn agree(
        &mut self,
        path: &[u8],
        link: bool,
        digest: Digest,
        mode: u32,
        local: Stat,
        remote: Stat,
    ) {
        let agreed = Agreed { digest, mode, local, remote };
        let now = if link { Base::Link(agreed) } else { Base::File(agreed) };
        self.plan.agreed.push((path.to_vec(), now));
    }

    /// The digest of a version, which is asked for when it is not known.
    fn digest(&mut self, path: &[u8], side: SyncSideKey, stat: &Stat) -> Option<Digest> {
        let key = (side, path.to_vec());
        match self.sides.digests.get(&key) {
            Some((of, digest)) if of.same_content(stat) => Some(*digest),
            _ => {
                self.plan.unknown.insert(key);
                None
            }
        }
    }

    /// Whether a version has the content that was agreed on; `None` when that is not known yet.
    fn is_known(
        &mut self,
        path: &[u8],
        side: SyncSideKey,
        stat: &Stat,
        was: Option<&Agreed>,
    ) -> Option<bool> {
        let Some(was) = was else { return Some(false) };
        let size = if side == REMOTE { was.remote.size } else { was.local.size };
        if size != stat.size {
            return Some(false);
        }
        self.digest(path, side, stat).map(|digest| digest == was.digest)
    }

    fn both_changed(
        &mut self,
        path: &[u8],
        was: Option<&Agreed>,
        local: &Stat,
        remote: &Stat,
    ) -> Option<Verdict> {
        if local.size == remote.size {
            // Both are asked for before either is waited for.
            let (here, there) =
                (self.digest(path, LOCAL, local), self.digest(path, REMOTE, remote));
            let (here, there) = (here?, there?);
            if here == there {
                return Some(Verdict::Same(here));
            }
        }
        if self.is_known(path, LOCAL, local, was)? {
            return Some(Verdict::Take(SyncSide::Remote));
        }
        if self.is_known(path, REMOTE, remote, was)? {
            return Some(Verdict::Take(SyncSide::Local));
        }
        Some(Verdict::Conflict)
    }

    /// A path that only one side has.
    fn one_sided(
        &mut self,
        path: &[u8],
        base: Option<&Base>,
        node: &Node,
        side: SyncSide,
    ) -> (bool, bool) {
        let missing = side.other();
        let here = |left: bool| match side {
            SyncSide::Local => (left, false),
            SyncSide::Remote => (false, left),
        };
        let (spread, remove) = self.one_sided_fate(base, side);
        match node {
            Node::Dir(dir) => {
                let nodes = match side {
                    SyncSide::Local => (Some(dir), None),
                    SyncSide::Remote => (None, Some(dir)),
                };
                let known = matches!(base, Some(Base::Dir { .. }));
                let at = self.mark();
                let left = self.children(path, base, nodes.0, nodes.1);
                let alive = match missing {
                    SyncSide::Local => left.0,
                    SyncSide::Remote => left.1,
                };
                let stays = match side {
                    SyncSide::Local => left.0,
                    SyncSide::Remote => left.1,
                };
                if alive || (spread && !(known && remove)) {
                    let create = Op::CreateDir { path: path.to_vec(), mode: dir.mode };
                    self.insert(missing, at, create);
                    return (true, true);
                }
                if !stays && remove && (known || self.sides.mode == SyncMode::Mirror) {
                    if self.holds(side) {
                        self.plan.held = true;
                        return here(true);
                    }
                    self.op(side, Op::RemoveDir { path: path.to_vec() });
                    return (false, false);
                }
                here(true)
            }
            Node::File(stat) | Node::Link(stat) => {
                let link = matches!(node, Node::Link(_));
                if remove && !self.differs(node, base, side) {
                    if self.holds(side) {
                        self.plan.held = true;
                        return here(true);
                    }
                    let stat = stat.clone();
                    self.op(side, Op::Remove { path: path.to_vec(), link, stat });
                    return (false, false);
                }
                if !spread {
                    return here(true);
                }
                let (from, mode) = (stat.clone(), stat.permissions());
                self.op(missing, Op::Write { path: path.to_vec(), link, from, over: None, mode });
                (true, true)
            }
            Node::Opaque(_) => here(true),
        }
    }

    /// Whether what only `side` has goes to the other one, and whether it may be removed
    /// where it is still what was agreed on.
    fn one_sided_fate(&self, base: Option<&Base>, side: SyncSide) -> (bool, bool) {
        match (self.sides.mode, side) {
            (SyncMode::TwoWay, _) => (true, base.is_some()),
            (_, SyncSide::Local) => (true, false),
            (SyncMode::OneWay, SyncSide::Remote) => (false, base.is_some()),
            (SyncMode::Mirror, SyncSide::Remote) => (false, true),
        }
    }

    fn holds(&self, side: SyncSide) -> bool {
        match side {
            SyncSide::Local => self.hold_local,
            SyncSide::Remote => self.hold_remote,
        }
    }

    /// Whether a file or link is not what was agreed on. A mirror does not care.
    fn differs(&self, node: &Node, base: Option<&Base>, side: SyncSide) -> bool {
        if self.sides.mode == SyncMode::Mirror && side == SyncSide::Remote {
            return false;
        }
        changed(node, base, side)
    }

    /// Where the next operation of each side will be.
    fn mark(&self) -> (usize, usize) {
        (self.plan.local.len(), self.plan.remote.len())
    }

    /// Adds an operation before those that were added since.
    fn insert(&mut self, side: SyncSide, at: (usize, usize), op: Op) {
        match side {
            SyncSide::Local => self.plan.local.insert(at.0, op),
            SyncSide::Remote => self.plan.remote.insert(at.1, op),
        }
    }

    /// A file on one side and a directory on the other, for instance.
    fn different_kinds(
        &mut self,
        path: &[u8],
        base: Option<&Base>,
        local: &Node,
        remote: &Node,
    ) -> (bool, bool) {
        let local_changed = changed(local, base, SyncSide::Local);
        let remote_changed = changed(remote, base, SyncSide::Remote);
        let side = match (self.sides.mode, local_changed, remote_changed) {
            (SyncMode::Mirror, _, _) | (_, true, false) => SyncSide::Local,
            (SyncMode::TwoWay, false, true) => SyncSide::Remote,
            _ => {
                let why = "it is of another kind on each side, and both were changed";
                self.plan.conflicts.push((path.to_vec(), why));
                return (true, true);
            }
        };
        let (new, old) = match side {
            SyncSide::Local => (local, remote),
            SyncSide::Remote => (remote, local),
        };
        if !self.clear(path, old, side.other()) {
            let why = "a directory here holds what cannot be synced, so nothing replaces it";
            self.plan.conflicts.push((path.to_vec(), why));
            return (true, true);
        }
        self.spread(path, new, side);
        (true, true)
    }

    /// Plans to remove everything at a path, whose versions are as they were scanned.
    fn clear(&mut self, path: &[u8], node: &Node, side: SyncSide) -> bool {
        match node {
            Node::Opaque(_) => return false,
            Node::File(stat) | Node::Link(stat) => {
                let (link, stat) = (matches!(node, Node::Link(_)), stat.clone());
                self.op(side, Op::Remove { path: path.to_vec(), link, stat });
            }
            Node::Dir(dir) => {
                if !is_clear(dir) {
                    return false;
                }
                for (name, below) in &dir.children {
                    self.clear(&join(path, name), below, side);
                }
                self.op(side, Op::RemoveDir { path: path.to_vec() });
            }
        }
        true
    }

    /// Plans to take everything at a path of this side to the other.
    fn spread(&mut self, path: &[u8], node: &Node, side: SyncSide) {
        let to = side.other();
        match node {
            Node::Opaque(_) => {}
            Node::File(stat) | Node::Link(stat) => {
                let link = matches!(node, Node::Link(_));
                let (from, mode) = (stat.clone(), stat.permissions());
                self.op(to, Op::Write { path: path.to_vec(), link, from, over: None, mode });
            }
            Node::Dir(dir) => {
                self.op(to, Op::CreateDir { path: path.to_vec(), mode: dir.mode });
                for (name, below) in &dir.children {
                    self.spread(&join(path, name), below, side);
                }
            }
        }
    }
}

enum Verdict {
    Same(Digest),
    Take(SyncSide),
    Conflict,
}

fn is_clear(dir: &Dir) -> bool {
    dir.children.values().all(|node| match node {
        Node::Opaque(_) => false,
        Node::Dir(dir) => is_clear(dir),
        _ => true,
    })
}

/// Whether something at or below a path is not what was agreed on. What is missing does not
/// count: nothing of it can be lost.
fn changed(node: &Node, base: Option<&Base>, side: SyncSide) -> bool {
    let of = |agreed: &Agreed| match side {
        SyncSide::Local => agreed.local.clone(),
        SyncSide::Remote => agreed.remote.clone(),
    };
    match (node, base) {
        (Node::File(stat), Some(Base::File(agreed))) => {
            !of(agreed).same_content(stat) || stat.permissions() != agreed.mode
        }
        (Node::Link(stat), Some(Base::Link(agreed))) => !of(agreed).same_content(stat),
        (Node::Dir(dir), Some(Base::Dir { children, .. })) => {
            dir.children.iter().any(|(name, below)| changed(below, children.get(name), side))
        }
        _ => true,
    }
}
