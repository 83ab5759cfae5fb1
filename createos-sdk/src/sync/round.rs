//! One comparison of both sides, and what follows from it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::SyncMode;
use super::change::{self, Outcome};
use super::event::{SyncAction, SyncEvent, SyncPath, SyncReport, SyncSide};
use super::fetch::{Fetched, fetch};
use super::filter::Filter;
use super::local::{LocalRoot, Refusal};
use super::plan::{Digests, LOCAL, Op, Plan, REMOTE, Sides};
use super::remote::{OPERATION, RemoteRoot};
use super::tree::{Agreed, Base, Dir, Node, split};
use crate::error::{Error, ErrorKind, Result};
use crate::files::MAX_FILE_BYTES;

/// Content is read no sooner after it was looked at: clocks of file systems tick every few
/// milliseconds, and a change within one tick could not be told from none.
const TICK: Duration = Duration::from_millis(25);
/// How often in a row something may be found changed before that is told.
const PATIENT: u32 = 5;
/// Times that digests are asked for in one round.
const ASKS: u32 = 4;

/// Where events wait for whoever asks for them.
#[derive(Debug, Clone, Default)]
pub(super) struct Events(Arc<Mutex<VecDeque<SyncEvent>>>);

impl Events {
    pub(super) fn push(&self, event: SyncEvent) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(event);
    }

    pub(super) fn pop(&self) -> Option<SyncEvent> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// How a round went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    /// Something was done, so there may be more to do.
    Progress,
    /// Nothing could be done because things change; it is tried again soon.
    Unsteady,
    /// One side has lost everything. It is looked at again before that is believed.
    Emptied,
    /// Nothing is left that can be done.
    Settled,
}

/// What a sync knows.
pub(super) struct Syncer {
    pub(super) mode: SyncMode,
    pub(super) filter: Arc<Filter>,
    pub(super) local: Arc<LocalRoot>,
    pub(super) remote: RemoteRoot,
    pub(super) base: Base,
    /// Whether the base has changed since it was stored.
    pub(super) unsaved: bool,
    pub(super) events: Events,
    pub(super) report: SyncReport,
    pub(super) stopped: tokio::sync::watch::Receiver<bool>,
    digests: Digests,
    seen: Option<(Dir, Dir)>,
    conflicts: BTreeMap<Vec<u8>, &'static str>,
    problems: BTreeMap<Vec<u8>, String>,
    found: BTreeMap<Vec<u8>, String>,
    unsteady: HashMap<Vec<u8>, u32>,
    emptied: bool,
    progress: bool,
    retry: bool,
}

impl Syncer {
    pub(super) fn new(
        mode: SyncMode,
        filter: Filter,
        local: Arc<LocalRoot>,
        remote: RemoteRoot,
        base: Option<Base>,
        stopped: tokio::sync::watch::Receiver<bool>,
    ) -> Self {
        Self {
            mode,
            filter: Arc::new(filter),
            local,
            remote,
            base: base.unwrap_or_else(Base::root),
            unsaved: false,
            events: Events::default(),
            report: SyncReport::default(),
            stopped,
            digests: Digests::new(),
            seen: None,
            conflicts: BTreeMap::new(),
            problems: BTreeMap::new(),
            found: BTreeMap::new(),
            unsteady: HashMap::new(),
            emptied: false,
            progress: false,
            retry: false,
        }
    }

    /// Looks at the sides that may have changed, and makes them the same as far as it can.
    pub(super) async fn round(&mut self, look: (bool, bool)) -> Result<Round> {
        let first = self.seen.is_none();
        let (local, remote) = self.scan((look.0 || first, look.1 || first)).await?;
        let looked = Instant::now();
        if first && (local.children.is_empty() || remote.children.is_empty()) {
            // Whatever was remembered, an empty side may just as well have been lost.
            self.base = Base::root();
        }
        (self.progress, self.retry) = (false, false);
        self.found.clear();
        let plan = self.plan(&local, &remote, looked).await?;
        self.report.local_entries = local.count();
        self.report.remote_entries = remote.count();
        self.seen = Some((local, remote));
        self.tell_conflicts(&plan);
        if plan.held && !self.emptied {
            self.emptied = true;
            return Ok(Round::Emptied);
        }
        self.emptied = false;
        self.unsaved |= !plan.agreed.is_empty();
        for (path, now) in plan.agreed {
            self.base.agree(&path, now);
        }
        for path in plan.forgotten {
            self.unsaved = true;
            self.base.forget(&path);
        }
        tokio::time::sleep_until(looked + TICK).await;
        self.change_remote(in_order(plan.remote)).await?;
        self.change_local(in_order(plan.local)).await?;
        self.tell_problems();
        self.unsaved |= self.progress;
        Ok(match (self.progress, self.retry) {
            (true, _) => Round::Progress,
            (false, true) => Round::Unsteady,
            (false, false) => Round::Settled,
        })
    }

    async fn scan(&mut self, look: (bool, bool)) -> Result<(Dir, Dir)> {
        let (old_local, old_remote) = match self.seen.take() {
            Some((local, remote)) => (Some(local), Some(remote)),
            None => (None, None),
        };
        let here = async {
            match old_local.filter(|_| !look.0) {
                Some(old) => Ok(old),
                None => self.scan_local().await,
            }
        };
        let there = async {
            match old_remote.filter(|_| !look.1) {
                Some(old) => Ok(old),
                None => self.remote.scan(&self.filter).await,
            }
        };
        tokio::try_join!(here, there)
    }

    async fn scan_local(&self) -> Result<Dir> {
        let (local, filter) = (self.local.clone(), self.filter.clone());
        let scanned = tokio::task::spawn_blocking(move || local.scan(&filter)).await;
        scanned.unwrap_or_else(|error| Err(std::io::Error::other(error))).map_err(|error| {
            let path = self.local.path().display();
            let why = match error.kind() {
                std::io::ErrorKind::NotFound => format!(
                    "{path} is gone, or is another directory now; nothing was removed in the sandbox"
                ),
                _ => format!("{path} cannot be listed: {error}"),
            };
            Error::new(ErrorKind::Io, why).in_operation(OPERATION).with_source(error)
        })
    }

    /// Makes a plan; content that has to be known for it is read.
    async fn plan(&mut self, local: &Dir, remote: &Dir, looked: Instant) -> Result<Plan> {
        let mut asks = 0;
        loop {
            let sides = Sides {
                mode: self.mode,
                base: &self.base,
                local,
                remote,
                digests: &self.digests,
                hold: !self.emptied,
            };
            let plan = sides.plan();
            if plan.unknown.is_empty() {
                // Those of versions that are gone are of no use.
                self.digests.clear();
                return Ok(plan);
            }
            if asks == ASKS {
                self.retry = true;
                return Ok(plan);
            }
            asks += 1;
            tokio::time::sleep_until(looked + TICK).await;
            self.learn(&plan, local, remote).await?;
        }
    }

    /// Reads the content that a plan asks for.
    async fn learn(&mut self, plan: &Plan, local: &Dir, remote: &Dir) -> Result<()> {
        let of = |side| plan.unknown.iter().filter(move |(of, _)| *of == side);
        let here: Vec<_> = of(LOCAL)
            .filter_map(|(_, path)| Some((path.clone(), local.get(path)?.clone())))
            .collect();
        let root = self.local.clone();
        let read = tokio::task::spawn_blocking(move || {
            let digest = |(path, node): (Vec<u8>, Node)| {
                let digest = root.digest(&path, &node);
                (path, node, digest)
            };
            here.into_iter().map(digest).collect::<Vec<_>>()
        });
        for (path, node, digest) in read.await.unwrap_or_default() {
            match (digest, node.stat()) {
                (Ok(digest), Some(stat)) => {
                    self.digests.insert((LOCAL, path), (stat.clone(), digest));
                }
                (Err(Refusal::Failed(error)), _) => {
                    self.found.insert(path, format!("it cannot be read here: {error}"));
                }
                _ => {}
            }
        }
        let (mut links, mut files) = (Vec::new(), Vec::new());
        for (_, path) in of(REMOTE) {
            match remote.get(path) {
                Some(Node::Link(stat)) => links.push(Op::Write {
                    path: path.clone(),
                    link: true,
                    from: stat.clone(),
                    over: None,
                    mode: 0,
                }),
                Some(Node::File(_)) => files.push(path.clone()),
                _ => {}
            }
        }
        for (path, digest) in self.remote.digests(&files).await? {
            if let Some(stat) = remote.get(&path).and_then(Node::stat) {
                self.digests.insert((REMOTE, path), (stat.clone(), digest));
            }
        }
        self.learn_links(&links).await
    }

    /// What links of the sandbox point to is learned by taking them.
    async fn learn_links(&mut self, mut links: &[Op]) -> Result<()> {
        while !links.is_empty() {
            let (batch, rest) = links.split_at(change::next_batch(links));
            links = rest;
            for (op, fetched) in batch.iter().zip(fetch(&self.remote, &self.local, batch).await?) {
                if let (Fetched::Staged(staged), Op::Write { path, from, .. }) = (fetched, op) {
                    self.digests.insert((REMOTE, path.clone()), (from.clone(), staged.digest));
                    self.local.discard(&staged);
                }
            }
        }
        Ok(())
    }

    fn tell_conflicts(&mut self, plan: &Plan) {
        let now: BTreeMap<Vec<u8>, &'static str> = plan.conflicts.iter().cloned().collect();
        for (path, reason) in &now {
            if self.conflicts.get(path) != Some(reason) {
                let (path, reason) = (SyncPath::new(path), (*reason).to_owned());
                self.events.push(SyncEvent::Conflict { path, reason });
            }
        }
        for path in self.conflicts.keys().filter(|path| !now.contains_key(*path)) {
            self.events.push(SyncEvent::Resolved { path: SyncPath::new(path) });
        }
        self.report.conflicts = now.keys().map(|path| SyncPath::new(path)).collect();
        self.conflicts = now;
    }

    fn tell_problems(&mut self) {
        for (path, message) in &self.found {
            if self.problems.get(path) != Some(message) {
                let path = Some(SyncPath::new(path));
                self.events.push(SyncEvent::Problem { path, message: message.clone() });
            }
        }
        self.problems = std::mem::take(&mut self.found);
        self.report.has_problems = !self.problems.is_empty();
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.borrow()
    }

    async fn change_remote(&mut self, ops: Vec<Op>) -> Result<()> {
        let ops = self.without_too_large(ops);
        let mut rest = &ops[..];
        while !rest.is_empty() && !self.is_stopped() {
            let (batch, later) = rest.split_at(change::next_batch(rest));
            rest = later;
            let outcomes = change::apply(&self.remote, &self.local, batch).await?;
            for (op, outcome) in batch.iter().zip(outcomes) {
                self.note(SyncSide::Remote, op, outcome);
            }
        }
        Ok(())
    }

    fn without_too_large(&mut self, ops: Vec<Op>) -> Vec<Op> {
        let limit = MAX_FILE_BYTES - (1 << 20);
        let (fine, large): (Vec<Op>, Vec<Op>) = ops.into_iter().partition(
            |op| !matches!(op, Op::Write { link: false, from, .. } if from.size > limit),
        );
        for op in large {
            let why = format!("it is larger than {} MiB and cannot be synced", limit >> 20);
            self.found.insert(op.path().to_vec(), why);
        }
        fine
    }

    async fn change_local(&mut self, ops: Vec<Op>) -> Result<()> {
        let mut rest = &ops[..];
        while !rest.is_empty() && !self.is_stopped() {
            let writes = matches!(rest[0], Op::Write { .. });
            let alike =
                rest.iter().take_while(|op| matches!(op, Op::Write { .. }) == writes).count();
            let count = change::next_batch(&rest[..alike]);
            let (batch, later) = rest.split_at(count);
            rest = later;
            let outcomes = match writes {
                true => self.write_local(batch).await?,
                false => self.do_local(batch).await?,
            };
            for (op, outcome) in batch.iter().zip(outcomes) {
                self.note(SyncSide::Local, op, outcome);
            }
        }
        Ok(())
    }

    async fn do_local(&self, ops: &[Op]) -> Result<Vec<Outcome>> {
        let (root, ops) = (self.local.clone(), ops.to_vec());
        let work = move || {
            let one = |op: &Op| match op {
                Op::Remove { path, stat, .. } => root.remove(path, stat),
                Op::RemoveDir { path } => root.remove_dir(path),
                Op::CreateDir { path, mode } => root.create_dir(path, *mode),
                Op::SetMode { path, dir, mode } => root.set_mode(path, *dir, *mode),
                Op::Write { .. } => Err(Refusal::Changed),
            };
            ops.iter().map(|op| outcome(one(op))).collect()
        };
        tokio::task::spawn_blocking(work).await.map_err(ended)
    }

    async fn write_local(&self, ops: &[Op]) -> Result<Vec<Outcome>> {
        let fetched = fetch(&self.remote, &self.local, ops).await?;
        let (root, ops) = (self.local.clone(), ops.to_vec());
        let work = move || {
            let place = |(op, fetched): (&Op, Fetched)| match (op, fetched) {
                (Op::Write { over, .. }, Fetched::Staged(staged)) => {
                    match root.place(&staged, over.as_ref()) {
                        Ok(()) => {
                            let (stat, digest) = (Some(staged.stat), Some(staged.digest));
                            Outcome::Done { stat, digest }
                        }
                        refused => outcome(refused),
                    }
                }
                (_, Fetched::Failed(error)) => Outcome::Failed(failure(&error)),
                _ => Outcome::Changed,
            };
            ops.iter().zip(fetched).map(place).collect()
        };
        tokio::task::spawn_blocking(work).await.map_err(ended)
    }

    /// Remembers and tells what became of an operation.
    fn note(&mut self, side: SyncSide, op: &Op, outcome: Outcome) {
        let path = op.path().to_vec();
        let (stat, digest) = match outcome {
            Outcome::Done { stat, digest } => (stat, digest),
            Outcome::Changed => {
                let times = self.unsteady.entry(path.clone()).or_default();
                *times += 1;
                match *times > PATIENT {
                    true => drop(self.found.insert(path, "it keeps changing".to_owned())),
                    false => self.retry = true,
                }
                return;
            }
            Outcome::Failed(why) => return drop(self.found.insert(path, why)),
        };
        self.progress = true;
        self.unsteady.remove(&path);
        let action = match op {
            Op::Remove { .. } | Op::RemoveDir { .. } => {
                self.base.forget(&path);
                SyncAction::Removed
            }
            Op::CreateDir { mode, .. } => {
                self.base.agree(&path, Base::Dir { mode: *mode, children: BTreeMap::new() });
                SyncAction::DirectoryCreated
            }
            Op::SetMode { mode, .. } => {
                self.base.agree_mode(&path, *mode);
                SyncAction::ModeChanged
            }
            Op::Write { link, from, mode, .. } => {
                if let (Some(stat), Some(digest)) = (stat, digest) {
                    let (local, remote) = match side {
                        SyncSide::Remote => (from.clone(), stat),
                        SyncSide::Local => (stat, from.clone()),
                    };
                    let agreed = Agreed { digest, mode: *mode, local, remote };
                    let now = if *link { Base::Link(agreed) } else { Base::File(agreed) };
                    self.base.agree(&path, now);
                }
                SyncAction::Written
            }
        };
        let bytes = match op {
            Op::Write { link: false, from, .. } => from.size,
            _ => 0,
        };
        match side {
            SyncSide::Local => self.report.local_changes += 1,
            SyncSide::Remote => self.report.remote_changes += 1,
        }
        self.report.bytes += bytes;
        self.events.push(SyncEvent::Changed { side, action, path: SyncPath::new(&path), bytes });
    }
}

/// In the order in which they can be done, those of one directory together.
fn in_order(mut ops: Vec<Op>) -> Vec<Op> {
    let phase = |op: &Op| match op {
        Op::Remove { .. } => 0,
        Op::RemoveDir { .. } => 1,
        Op::CreateDir { .. } => 2,
        Op::Write { .. } => 3,
        Op::SetMode { .. } => 4,
    };
    ops.sort_by(|one, other| {
        let by_dir = match one {
            // These have their order already: what is inside goes first, or comes last.
            Op::RemoveDir { .. } | Op::CreateDir { .. } => std::cmp::Ordering::Equal,
            _ => split(one.path()).0.cmp(split(other.path()).0),
        };
        phase(one).cmp(&phase(other)).then(by_dir)
    });
    // A directory that its owner may not write to is filled first.
    let closed: Vec<Op> = ops
        .iter()
        .filter_map(|op| match op {
            Op::CreateDir { path, mode } if mode & 0o700 != 0o700 => {
                Some(Op::SetMode { path: path.clone(), dir: true, mode: *mode })
            }
            _ => None,
        })
        .collect();
    ops.extend(closed.into_iter().rev());
    ops
}

fn outcome(done: Result<(), Refusal>) -> Outcome {
    match done {
        Ok(()) => Outcome::DONE,
        Err(Refusal::Changed) => Outcome::Changed,
        Err(Refusal::Failed(error)) => match error.kind() {
            std::io::ErrorKind::NotFound | std::io::ErrorKind::AlreadyExists => Outcome::Changed,
            _ => Outcome::Failed(failure(&error)),
        },
    }
}

fn failure(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::StorageFull => "no space is left on this machine".to_owned(),
        _ => format!("it cannot be changed here: {error}"),
    }
}

fn ended(_: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Io, "the runtime ended during a sync").in_operation(OPERATION)
}
