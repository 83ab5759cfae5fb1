//! Many rounds of random changes on both sides at once, against a model of what must survive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use createos_sdk::sync::SyncMode;
use createos_tests::Fixture;
use fastrand::Rng;

use crate::support::{Entry, Pair, Tree};

const ROUNDS: u64 = 25;
const NAMES: [&str; 7] = ["a", "b", "c d", "-e", "f'", "new\nline", "é"];

#[tokio::test(flavor = "multi_thread")]
async fn random_changes_on_both_sides_lose_nothing() {
    let seed = match std::env::var("CREATEOS_SYNC_SEED") {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("CREATEOS_SYNC_SEED={seed}");
    let fixture = Fixture::start().await;
    let sandbox = fixture.sandbox().await;
    let pair = Pair::new(&sandbox, "/root/model");
    sandbox.command("mkdir").args(["-p", &pair.remote]).await.expect("mkdir");
    let state = tempfile::tempdir().expect("a directory");
    let state = state.path().join("state");
    let mut rng = Rng::with_seed(seed);
    let mut agreed = Tree::new();
    let mut differing = BTreeSet::new();
    for round in 0..ROUNDS {
        let mut here = Changes::default();
        for _ in 0..rng.usize(0..8) {
            here.random(&mut rng, &pair.local(), "here", round);
            here.apply_here(pair.dir.path());
        }
        let mut there = Changes::default();
        let mut tree = pair.remote().await;
        for _ in 0..rng.usize(0..8) {
            let script = there.random(&mut rng, &tree, "there", round);
            pair.sh(&script).await;
            tree = pair.remote().await;
        }
        let (before_here, before_there) = (pair.local(), tree);
        let sync = pair.sandbox.sync(pair.dir.path(), &pair.remote).remember_in(&state);
        let report = sync.once().await.unwrap_or_else(|error| panic!("round {round}: {error}"));
        assert!(!report.has_problems, "round {round}: {report:?}");
        let (after_here, after_there) = (pair.local(), pair.remote().await);
        let conflicts: BTreeSet<Vec<u8>> =
            report.conflicts.iter().map(|path| path.as_bytes().to_vec()).collect();
        check(round, "here", &agreed, &before_here, &after_here, &after_there, &conflicts);
        check(round, "there", &agreed, &before_there, &after_there, &after_here, &conflicts);
        alike(round, &after_here, &after_there, &conflicts);
        nothing_is_invented(round, &before_here, &before_there, &after_here, &after_there);
        deletions(round, &agreed, &before_here, &before_there, &after_here, &conflicts, &differing);
        // What is in conflict was last agreed on before.
        let older = agreed.into_iter().filter(|(path, _)| under(path, &conflicts));
        agreed = older.chain(common(&after_here, &after_there)).collect();
        differing = conflicts;
    }
    let mirror = sandbox.sync(pair.dir.path(), &pair.remote).mode(SyncMode::Mirror);
    assert!(mirror.once().await.expect("a mirror").is_clean());
    pair.assert_same().await;
    fixture.end().await;
}

/// A version that a side made since the last agreement is still where it was made.
fn check(
    round: u64,
    side: &str,
    agreed: &Tree,
    before: &Tree,
    after: &Tree,
    other: &Tree,
    conflicts: &BTreeSet<Vec<u8>>,
) {
    for (path, entry) in before {
        let known = agreed.get(path);
        // Permissions of one side may meet the content of the other.
        let only_mode = matches!((known, entry),
            (Some(Entry::File(_, was)), Entry::File(_, now)) if was == now);
        if matches!(entry, Entry::Dir(_)) || known == Some(entry) || only_mode {
            continue;
        }
        let name = String::from_utf8_lossy(path);
        let (is, wanted) = (content(after.get(path)), content(Some(entry)));
        assert_eq!(is, wanted, "round {round}, {side}: {name:?} was changed");
        if !under(path, conflicts) {
            let there = content(other.get(path));
            assert_eq!(there, wanted, "round {round}, {side}: {name:?} travels");
        }
    }
}

fn content(entry: Option<&Entry>) -> Option<&[u8]> {
    match entry? {
        Entry::Dir(_) => None,
        Entry::File(_, content) => Some(content),
        Entry::Link(target) => Some(target),
    }
}

fn under(path: &[u8], conflicts: &BTreeSet<Vec<u8>>) -> bool {
    conflicts.iter().any(|conflict| {
        path == &conflict[..]
            || (path.starts_with(conflict) && path.get(conflict.len()) == Some(&b'/'))
    })
}

fn alike(round: u64, here: &Tree, there: &Tree, conflicts: &BTreeSet<Vec<u8>>) {
    let paths: BTreeSet<&Vec<u8>> = here.keys().chain(there.keys()).collect();
    for path in paths.into_iter().filter(|path| !under(path, conflicts)) {
        let name = String::from_utf8_lossy(path);
        assert_eq!(here.get(path), there.get(path), "round {round}: {name:?} here, there");
    }
}

fn nothing_is_invented(round: u64, a: &Tree, b: &Tree, here: &Tree, there: &Tree) {
    for (path, entry) in here.iter().chain(there) {
        let name = String::from_utf8_lossy(path);
        if !matches!(entry, Entry::Dir(_)) {
            let own = content(Some(entry));
            let known = content(a.get(path)) == own || content(b.get(path)) == own;
            assert!(known, "round {round}: {name:?} has content from nowhere");
        }
    }
}

/// What one side deleted and the other left alone is gone.
fn deletions(
    round: u64,
    agreed: &Tree,
    here: &Tree,
    there: &Tree,
    after: &Tree,
    conflicts: &BTreeSet<Vec<u8>>,
    differed: &BTreeSet<Vec<u8>>,
) {
    // What a side lost all of is brought back.
    if here.is_empty() || there.is_empty() {
        return;
    }
    for (path, entry) in agreed.iter().filter(|(_, entry)| !matches!(entry, Entry::Dir(_))) {
        let deleted = match (here.get(path), there.get(path)) {
            (None, Some(left)) | (Some(left), None) => left == entry,
            (None, None) => true,
            _ => false,
        };
        if deleted && !under(path, conflicts) && !under(path, differed) {
            let name = String::from_utf8_lossy(path);
            assert_eq!(after.get(path), None, "round {round}: {name:?} was deleted");
        }
    }
}

fn common(here: &Tree, there: &Tree) -> Tree {
    let same = here.iter().filter(|(path, entry)| there.get(*path) == Some(entry));
    same.map(|(path, entry)| (path.clone(), entry.clone())).collect()
}

/// Changes of one side, each as a line of shell.
#[derive(Default)]
struct Changes {
    script: String,
    made: BTreeMap<String, u32>,
}

impl Changes {
    fn random(&mut self, rng: &mut Rng, tree: &Tree, side: &str, round: u64) -> String {
        let number = self.made.entry(side.to_owned()).or_default();
        *number += 1;
        let content = format!("{side} {round} {number} {}", "x".repeat(rng.usize(0..40)));
        let files: Vec<&Vec<u8>> = tree
            .iter()
            .filter(|(_, entry)| matches!(entry, Entry::File(..)))
            .map(|(path, _)| path)
            .collect();
        let all: Vec<&Vec<u8>> = tree.keys().collect();
        let old = |rng: &mut Rng, from: &[&Vec<u8>]| match from {
            [] => None,
            some => Some(String::from_utf8(some[rng.usize(0..some.len())].clone()).expect("text")),
        };
        let new = |rng: &mut Rng| {
            let depth = rng.usize(1..4);
            let parts: Vec<_> = (0..depth).map(|_| NAMES[rng.usize(0..NAMES.len())]).collect();
            parts.join("/")
        };
        let quote = |text: &str| format!("'./{}'", text.replace('\'', r"'\''"));
        let target = quote(&new(rng));
        let line = match (rng.u32(0..100), old(rng, &files), old(rng, &all)) {
            (0..30, Some(file), _) => format!("printf %s '{content}' > {}", quote(&file)),
            (30..38, Some(file), _) => {
                let file = quote(&file);
                format!("printf %s '{content}' > ./tmp && mv -f ./tmp {file}")
            }
            (38..52, _, Some(any)) => format!("rm -rf {}", quote(&any)),
            (52..62, _, Some(any)) => format!("mv -n {} {target} 2>/dev/null", quote(&any)),
            (62..68, Some(file), _) => {
                let mode = ["600", "644", "755", "700"][rng.usize(0..4)];
                format!("chmod {mode} {}", quote(&file))
            }
            (68..74, _, Some(any)) => {
                let any = quote(&any);
                format!("rm -rf {any} && mkdir {any} && printf %s '{content}' > {any}/in")
            }
            (74..80, _, Some(any)) => {
                format!("rm -rf {0} && printf %s '{content}' > {0}", quote(&any))
            }
            (80..86, _, _) => {
                format!("mkdir -p \"$(dirname {target})\" && ln -s '{content}' {target}")
            }
            _ => format!(
                "mkdir -p \"$(dirname {target})\" && [ ! -d {target} ] && [ ! -L {target} ] && \
                 printf %s '{content}' > {target}"
            ),
        };
        self.script = format!("({line}) 2>/dev/null || true");
        self.script.clone()
    }

    fn apply_here(&self, root: &Path) {
        assert!(fs::metadata(root).is_ok());
        let mut sh = std::process::Command::new("sh");
        let status = sh.args(["-c", &self.script]).current_dir(root).status().expect("sh");
        assert!(status.success());
    }
}
