//! Changing the directory in the sandbox.

use std::collections::HashMap;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::local::LocalRoot;
use super::pack::{self, Packed};
use super::plan::Op;
use super::remote::{MAX_SCRIPT, OPERATION, Ran, RemoteRoot, failed, parse_stat, run, stat_words};
use super::script::{self, Script};
use super::tree::{Digest, Stat, split};
use crate::background;
use crate::error::{ErrorKind, Result};
use crate::files::Upload;
use crate::sandbox::Sandbox;

/// Content that is sent at a time; a larger file goes alone.
const MAX_CONTENT: u64 = 32 << 20;
/// Operations of one script: each takes a few milliseconds.
const MAX_OPS: usize = 1000;

/// What became of an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was done. A written file has this version now, and this content.
    Done {
        stat: Option<Stat>,
        digest: Option<Digest>,
    },
    /// Something else is there now; it is looked at again.
    Changed,
    Failed(String),
}

impl Outcome {
    pub(super) const DONE: Self = Self::Done { stat: None, digest: None };
}

/// Operations that one script does.
pub(super) fn next_batch(ops: &[Op]) -> usize {
    let (mut content, mut text) = (0, 0);
    for (at, op) in ops.iter().enumerate() {
        content += content_of(op);
        // A version and, escaped, a name; a link's target may be as long as its size.
        let target = match op {
            Op::Write { link: true, from, .. } => usize::try_from(from.size).unwrap_or(MAX_SCRIPT),
            _ => 0,
        };
        text += 160 + 5 * (op.path().len() + target);
        let full = content > MAX_CONTENT || text > MAX_SCRIPT - (16 << 10) || at >= MAX_OPS;
        if full && at > 0 {
            return at;
        }
    }
    ops.len()
}

fn content_of(op: &Op) -> u64 {
    match op {
        Op::Write { link: false, from, .. } => from.size,
        _ => 0,
    }
}

/// The archive of new files in the sandbox, removed when nothing else did it.
struct Archive {
    sandbox: Sandbox,
    path: String,
    there: bool,
}

impl Drop for Archive {
    fn drop(&mut self) {
        if self.there {
            let remove = self.sandbox.in_background().command("rm").args(["-f", &self.path]);
            let remove = remove.named(OPERATION);
            drop(background::start(async move { drop(remove.await) }));
        }
    }
}

/// Does these operations in the sandbox, in this order.
pub(super) async fn apply(
    root: &RemoteRoot,
    local: &Arc<LocalRoot>,
    ops: &[Op],
) -> Result<Vec<Outcome>> {
    let id = format!("{:016x}", fastrand::u64(..));
    let mut calls = Calls::new(root, &id);
    let packed = pack::pack(local.clone(), calls.assign(ops)).await?;
    let mut archive = Archive {
        sandbox: root.sandbox.clone(),
        path: format!("/tmp/.createos-sync-{id}.tar"),
        there: false,
    };
    let mut results = HashMap::new();
    if packed.has_files() {
        archive.there = true;
        results = send(&root.sandbox, &archive.path, packed).await?;
        calls.unpack(&archive.path);
    }
    calls.write(ops, &mut results, local).await;
    let (script, waiting) = calls.finish();
    let ran = run(&root.sandbox, script).await?;
    archive.there = false;
    match ran.status.code() {
        44 | 45 => {
            let why = format!("{} in the sandbox is gone", root.path);
            Err(failed(&root.sandbox, ErrorKind::NotFound, why))
        }
        0 => Ok(read(&ran, ops, &waiting, &results)),
        _ => {
            let why = format!("it cannot be stored in the sandbox: {}", ran.why());
            Ok(vec![Outcome::Failed(why); ops.len()])
        }
    }
}

/// Sends the archive; the digests of what was whole.
async fn send(
    sandbox: &Sandbox,
    path: &str,
    packed: Packed,
) -> Result<HashMap<usize, Option<Digest>>> {
    let Packed { stream, len, results, .. } = packed;
    let upload = Upload::stream(stream).with_len(len);
    sandbox.files().write(path, upload).await?;
    results.await.map_err(|_| failed(sandbox, ErrorKind::Io, "the runtime ended"))
}

/// Where the answer to a call belongs.
enum Waiting {
    All(Vec<usize>),
    Each(Vec<usize>),
}

/// The calls of a script's functions.
struct Calls<'a> {
    script: Script,
    /// The group of new files that an operation's file is in.
    groups: HashMap<usize, usize>,
    waiting: HashMap<usize, Waiting>,
    next: usize,
    root: &'a RemoteRoot,
}

impl<'a> Calls<'a> {
    fn new(root: &'a RemoteRoot, id: &str) -> Self {
        let mut script = Script::in_root(&root.path);
        script.push(&format!("S=$R/.createos-sync-{id}\n"));
        script.push(script::CHANGE);
        Self { script, groups: HashMap::new(), waiting: HashMap::new(), next: 0, root }
    }

    fn number(&mut self) -> usize {
        self.next += 1;
        self.next
    }

    /// Decides which group each new file is in; what goes into the archive.
    fn assign(&mut self, ops: &[Op]) -> Vec<pack::Item> {
        let mut by_dir: HashMap<&[u8], usize> = HashMap::new();
        let mut items = Vec::new();
        for (at, op) in ops.iter().enumerate() {
            let Op::Write { path, link, from, mode, .. } = op else { continue };
            let (dir, name) = split(path);
            let group = *by_dir.entry(dir).or_insert_with(|| {
                self.next += 1;
                self.next
            });
            self.groups.insert(at, group);
            if !link {
                let name = [group.to_string().as_bytes(), b"/", name].concat();
                let (path, stat, mode) = (path.clone(), from.clone(), *mode);
                items.push(pack::Item { at, path, name, stat, mode });
            }
        }
        items
    }

    fn unpack(&mut self, archive: &str) {
        self.script.push(&format!(
            "A={archive}; tar -x -p -m -o -f \"$A\" -C \"$S/new\"; r=$?; rm -f \"$A\"\n\
             [ $r = 0 ] || {{ rm -rf \"$S\"; exit 47; }}\n"
        ));
    }

    /// Writes the calls of the operations, neighbours of one kind and directory together.
    async fn write(
        &mut self,
        ops: &[Op],
        sent: &mut HashMap<usize, Option<Digest>>,
        local: &Arc<LocalRoot>,
    ) {
        let mut at = 0;
        while at < ops.len() {
            let alike = ops[at..].iter().take_while(|op| belongs(&ops[at], op)).count();
            let group = &ops[at..at + alike];
            match &ops[at] {
                Op::Remove { .. } => self.remove(at, group),
                Op::RemoveDir { path } => self.each("rd_", &[], split(path).0, at, group),
                Op::CreateDir { path, mode } => {
                    let mode = format!("{mode:o}");
                    self.each("mk_", &[mode], split(path).0, at, group);
                }
                Op::SetMode { path, mode, .. } => self.set_mode(*mode, split(path).0, at, group),
                Op::Write { .. } => self.put(at, group, sent, local).await,
            }
            at += alike;
        }
    }

    fn names(&mut self, ops: &[Op]) -> Vec<String> {
        ops.iter().map(|op| self.script.relative(split(op.path()).1)).collect()
    }

    fn remove(&mut self, first: usize, ops: &[Op]) {
        let number = self.number();
        let dir = self.script.word(split(ops[0].path()).0);
        let mut versions = Vec::new();
        for op in ops {
            let Op::Remove { path, link, stat } = op else { continue };
            versions.extend_from_slice(stat_words(stat, *link).as_bytes());
            versions.extend_from_slice(b" ./");
            versions.extend_from_slice(split(path).1);
            versions.push(b'\n');
        }
        // As the shell cuts what a program prints.
        while versions.last() == Some(&b'\n') {
            versions.pop();
        }
        let versions = self.script.word(&versions);
        let mut words = vec![number.to_string(), dir, versions];
        words.extend(self.names(ops));
        self.script.call("rm_", &words);
        self.waiting.insert(number, Waiting::All((first..first + ops.len()).collect()));
    }

    fn each(&mut self, name: &str, extra: &[String], dir: &[u8], first: usize, ops: &[Op]) {
        let number = self.number();
        let mut words = vec![number.to_string(), self.script.word(dir)];
        words.extend(extra.iter().cloned());
        words.extend(self.names(ops));
        self.script.call(name, &words);
        self.waiting.insert(number, Waiting::Each((first..first + ops.len()).collect()));
    }

    fn set_mode(&mut self, mode: u32, dir: &[u8], first: usize, ops: &[Op]) {
        let number = self.number();
        let mut words = vec![number.to_string(), format!("{mode:o}"), self.script.word(dir)];
        words.extend(self.names(ops));
        self.script.call("ch_", &words);
        self.waiting.insert(number, Waiting::Each((first..first + ops.len()).collect()));
    }

    /// Puts new files and links of one directory in their places.
    async fn put(
        &mut self,
        first: usize,
        ops: &[Op],
        sent: &mut HashMap<usize, Option<Digest>>,
        local: &Arc<LocalRoot>,
    ) {
        let mut new = Vec::new();
        let mut group = 0;
        let mut replacing = Vec::new();
        for (n, op) in ops.iter().enumerate() {
            let at = first + n;
            let Op::Write { path, link, from, over, .. } = op else { continue };
            group = self.groups[&at];
            let name = self.script.relative(split(path).1);
            if *link {
                let (root, path, from) = (local.clone(), path.clone(), from.clone());
                let read = tokio::task::spawn_blocking(move || root.read_link(&path, &from));
                let Ok(Ok(target)) = read.await else { continue };
                let digest = Sha256::digest(&target).into();
                let target = self.script.word(&target);
                sent.insert(at, Some(digest));
                self.script.call("sl_", &[group.to_string(), name.clone(), target]);
            } else if !matches!(sent.get(&at), Some(Some(_))) {
                continue;
            }
            match over {
                None => new.push((at, name)),
                Some(stat) => replacing.push((at, name, stat_words(stat, *link))),
            }
        }
        let dir = self.script.word(split(ops[0].path()).0);
        if !new.is_empty() {
            let mut words = vec![group.to_string(), dir.clone()];
            words.extend(new.iter().map(|(_, name)| name.clone()));
            self.script.call("pu_", &words);
            self.waiting.insert(group, Waiting::Each(new.iter().map(|(at, _)| *at).collect()));
        }
        for (at, name, version) in replacing {
            let number = self.number();
            let version = format!("'{version}'");
            let words = [number.to_string(), dir.clone(), group.to_string(), name, version];
            self.script.call("sw_", &words);
            self.waiting.insert(number, Waiting::All(vec![at]));
        }
    }

    fn finish(mut self) -> (String, HashMap<usize, Waiting>) {
        self.script.push("end\n");
        debug_assert!(self.script.len() < 128 << 10, "{}", self.root.path);
        (self.script.text(), self.waiting)
    }
}

/// Whether an operation can be done by the same call as another.
fn belongs(one: &Op, other: &Op) -> bool {
    let together = match (one, other) {
        (Op::CreateDir { mode: a, .. }, Op::CreateDir { mode: b, .. })
        | (Op::SetMode { mode: a, .. }, Op::SetMode { mode: b, .. }) => a == b,
        _ => std::mem::discriminant(one) == std::mem::discriminant(other),
    };
    together && split(one.path()).0 == split(other.path()).0
}

/// What the script said about each operation.
fn read(
    ran: &Ran,
    ops: &[Op],
    waiting: &HashMap<usize, Waiting>,
    sent: &HashMap<usize, Option<Digest>>,
) -> Vec<Outcome> {
    let not_done = match ran.stderr.trim() {
        "" => Outcome::Changed,
        _ => Outcome::Failed(ran.why()),
    };
    let mut outcomes = vec![not_done; ops.len()];
    for (at, op) in ops.iter().enumerate() {
        if matches!(op, Op::Write { link: false, .. }) && !matches!(sent.get(&at), Some(Some(_))) {
            outcomes[at] = Outcome::Changed;
        }
    }
    let text = String::from_utf8_lossy(&ran.stdout);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut words = line.splitn(3, ' ');
        let (word, number) = (words.next(), words.next().and_then(|word| word.parse().ok()));
        let rest = words.next().unwrap_or_default();
        let known = number.and_then(|number: usize| waiting.get(&number));
        match (word, known) {
            (Some("ok"), Some(Waiting::All(at))) => {
                for at in at {
                    let digest = sent.get(at).copied().flatten();
                    outcomes[*at] = Outcome::Done { stat: parse_stat(rest), digest };
                }
            }
            (Some("each"), Some(Waiting::Each(at))) => {
                for (at, _) in at.iter().zip(rest.bytes()).filter(|(_, done)| *done == b'1') {
                    outcomes[*at] = Outcome::DONE;
                }
            }
            (Some("put"), Some(Waiting::Each(at))) => {
                for (at, done) in at.iter().zip(rest.bytes()) {
                    let stat = lines.next().and_then(parse_stat);
                    if done == b'1' {
                        let digest = sent.get(at).copied().flatten();
                        outcomes[*at] = Outcome::Done { stat, digest };
                    }
                }
            }
            _ => {}
        }
    }
    outcomes
}
