//! What of a local directory is worth moving: what git knows of, or all but what is made from it.

use std::collections::BTreeSet;
use std::fs;
use std::future::IntoFuture;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use crate::error::{Error, ErrorKind, Result};
use crate::pending::Pending;

const OPERATION: &str = "files.local_tree";
/// Directories that a walk leaves out: they are fetched or made, and large.
const MADE: [&str; 12] = [
    ".git",
    "node_modules",
    "target",
    "__pycache__",
    ".venv",
    "venv",
    "dist",
    "build",
    ".next",
    ".turbo",
    ".cache",
    "vendor",
];

/// A selection of the files of a local directory, for
/// [`Files::upload_tree`](super::Files::upload_tree). Made with [`LocalTree::select`].
///
/// ```no_run
/// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
/// use createos_sdk::LocalTree;
///
/// let tree = LocalTree::select("project").exclude("docs/big.pdf").exclude("*.tmp").await?;
/// println!("{} files, {} bytes", tree.len(), tree.archive_bytes());
/// sandbox.files().upload_tree(&tree, "/work").await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct LocalTree {
    root: PathBuf,
    paths: Vec<PathBuf>,
    archive_bytes: u64,
    skipped: u64,
    source: TreeSource,
}

/// Who said what belongs to a [`LocalTree`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum TreeSource {
    /// git: what it tracks, and what is new and not ignored.
    Git,
    /// A walk over everything but directories that are fetched or made, such as `node_modules`.
    Walk,
}

impl LocalTree {
    /// A selection of this directory, to be awaited. Nothing is read before. See
    /// [`SelectTree`].
    pub fn select(root: impl Into<PathBuf>) -> SelectTree {
        SelectTree { root: root.into(), exclude: Vec::new() }
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What is selected, relative to the directory, in the order of their names. Links are
    /// there as links.
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }

    /// How many files, links and directories are selected.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }

    /// How large the archive of it is, in bytes, as far as can be known beforehand.
    pub fn archive_bytes(&self) -> u64 {
        self.archive_bytes
    }

    /// Sockets, pipes and devices, which are left out.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Who said what belongs to it.
    pub fn source(&self) -> TreeSource {
        self.source
    }
}

/// Selects the files of a local directory. Made with [`LocalTree::select`]; a future.
///
/// Inside a git work tree these are the files that git tracks, and new ones that it does not
/// ignore. Elsewhere, and where there is no git, everything but directories named `.git`,
/// `node_modules`, `target`, `__pycache__`, `.venv`, `venv`, `dist`, `build`, `.next`, `.turbo`,
/// `.cache` and `vendor`. Symbolic links are not followed.
///
/// # Errors
///
/// `InvalidArgument`: the directory is none. `Io`: something in it cannot be read.
#[derive(Debug, Clone)]
#[must_use = "nothing is read until awaited"]
pub struct SelectTree {
    root: PathBuf,
    exclude: Vec<String>,
}

impl SelectTree {
    /// Leaves out what is at this path or below it; a word without `/` leaves out everything of
    /// that name, wherever it is. `*` stands for any letters of one name.
    pub fn exclude(mut self, pattern: impl Into<String>) -> Self {
        self.exclude.push(pattern.into());
        self
    }

    fn run(self) -> Result<LocalTree> {
        let Self { root, exclude } = self;
        if !fs::metadata(&root).is_ok_and(|meta| meta.is_dir()) {
            let why = format!("{} is not a directory", root.display());
            return Err(Error::invalid_argument("local path", why).in_operation(OPERATION));
        }
        let patterns: Vec<Pattern> = exclude.iter().map(|text| Pattern::new(text)).collect();
        let mut found = Found::default();
        let source = match of_git(&root) {
            Some(listed) => {
                for path in listed {
                    found.take(&root, path, &patterns)?;
                }
                TreeSource::Git
            }
            None => {
                found.walk(&root, Path::new(""), &patterns)?;
                TreeSource::Walk
            }
        };
        let Found { paths, archive_bytes, skipped } = found;
        Ok(LocalTree {
            root,
            paths: paths.into_iter().collect(),
            // The end of the archive.
            archive_bytes: archive_bytes + 1024,
            skipped,
            source,
        })
    }
}

impl IntoFuture for SelectTree {
    type Output = Result<LocalTree>;
    type IntoFuture = Pending<LocalTree>;

    fn into_future(self) -> Self::IntoFuture {
        Pending::new(async move {
            let selecting = tokio::task::spawn_blocking(move || self.run());
            selecting.await.unwrap_or_else(|_| {
                let message = "the runtime ended while a directory was being read";
                Err(Error::new(ErrorKind::Io, message).in_operation(OPERATION))
            })
        })
    }
}

/// What git lists, relative to the directory; `None` outside of a work tree.
fn of_git(root: &Path) -> Option<Vec<PathBuf>> {
    let output = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()?;
    let names = output.stdout.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    output.status.success().then(|| names.filter_map(path_of).collect())
}

#[cfg(unix)]
fn path_of(name: &[u8]) -> Option<PathBuf> {
    let name: std::ffi::OsString = std::os::unix::ffi::OsStringExt::from_vec(name.to_vec());
    Some(name.into())
}

#[cfg(not(unix))]
fn path_of(name: &[u8]) -> Option<PathBuf> {
    std::str::from_utf8(name).ok().map(PathBuf::from)
}

#[derive(Default)]
struct Found {
    paths: BTreeSet<PathBuf>,
    archive_bytes: u64,
    skipped: u64,
}

impl Found {
    /// Takes one path; a directory, such as another repository inside, as it is walked.
    fn take(&mut self, root: &Path, path: PathBuf, patterns: &[Pattern]) -> Result<()> {
        if path.components().any(|part| !matches!(part, Component::Normal(_)))
            || patterns.iter().any(|pattern| pattern.fits(&path))
        {
            return Ok(());
        }
        let meta = match fs::symlink_metadata(root.join(&path)) {
            Ok(meta) => meta,
            // Tracked, and deleted since; or deleted just now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(unreadable(&root.join(path), error)),
        };
        if meta.is_dir() {
            return self.walk(root, &path, patterns);
        }
        self.add(path, &meta);
        Ok(())
    }

    fn add(&mut self, path: PathBuf, meta: &fs::Metadata) {
        let kind = meta.file_type();
        let content = if kind.is_file() { meta.len() } else { 0 };
        if !(kind.is_file() || kind.is_symlink() || kind.is_dir()) {
            self.skipped += 1;
            return;
        }
        // A header, another two for a long name, and the content in whole blocks.
        let name = path.as_os_str().len() as u64;
        let long = if name > 99 { 512 + name.next_multiple_of(512) } else { 0 };
        if self.paths.insert(path) {
            self.archive_bytes += 512 + long + content.next_multiple_of(512);
        }
    }

    fn walk(&mut self, root: &Path, below: &Path, patterns: &[Pattern]) -> Result<()> {
        let mut waiting = vec![below.to_owned()];
        while let Some(directory) = waiting.pop() {
            let whole = root.join(&directory);
            for entry in fs::read_dir(&whole).map_err(|error| unreadable(&whole, error))? {
                let entry = entry.map_err(|error| unreadable(&whole, error))?;
                let name = entry.file_name();
                let path = directory.join(&name);
                if patterns.iter().any(|pattern| pattern.fits(&path)) {
                    continue;
                }
                let meta = match entry.metadata() {
                    Ok(meta) => meta,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(unreadable(&entry.path(), error)),
                };
                if meta.is_dir() {
                    if name.to_str().is_some_and(|name| MADE.contains(&name)) {
                        continue;
                    }
                    waiting.push(path.clone());
                }
                self.add(path, &meta);
            }
        }
        Ok(())
    }
}

fn unreadable(path: &Path, error: io::Error) -> Error {
    let message = format!("cannot read {}: {error}", path.display());
    Error::new(ErrorKind::Io, message).with_source(error).in_operation(OPERATION)
}

/// What is left out.
enum Pattern {
    /// Everything of this name.
    Name(String),
    /// A path, part by part, and what is below it.
    Path(Vec<String>),
}

impl Pattern {
    fn new(text: &str) -> Self {
        let whole = text.strip_prefix("./").unwrap_or(text);
        let parts: Vec<String> =
            whole.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        match parts.as_slice() {
            // A slash at the end alone, as in `cache/`, still is a name.
            [name] if whole == text && !text.starts_with('/') => Self::Name(name.clone()),
            _ => Self::Path(parts),
        }
    }

    fn fits(&self, path: &Path) -> bool {
        let mut parts = path.components().map(|part| part.as_os_str().to_string_lossy());
        match self {
            Self::Name(name) => parts.any(|part| matches(name, &part)),
            Self::Path(wanted) => {
                !wanted.is_empty()
                    && wanted
                        .iter()
                        .all(|want| parts.next().is_some_and(|part| matches(want, &part)))
            }
        }
    }
}

/// Whether a name fits a pattern in which `*` stands for any letters.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, tail)) = pattern.split_once('*') else { return pattern == name };
    let Some(rest) = name.strip_prefix(head) else { return false };
    let mut starts = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
    starts.any(|at| matches(tail, &rest[at..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn touch(root: &Path, name: &str) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x").unwrap();
    }

    fn selected(root: &Path, exclude: &[&str]) -> (Vec<String>, LocalTree) {
        let mut select = LocalTree::select(root);
        for pattern in exclude {
            select = select.exclude(*pattern);
        }
        let tree = select.run().unwrap();
        let files = tree.paths().iter().filter(|path| !root.join(path).is_dir());
        (files.map(|path| path.display().to_string()).collect(), tree)
    }

    fn git(root: &Path, line: &str) {
        let mut command = Command::new("git");
        command.arg("-C").arg(root).args(["-c", "user.name=t", "-c", "user.email=t@example.org"]);
        let output = command.args(line.split(' ')).output().unwrap();
        assert!(output.status.success(), "{line}: {output:?}");
    }

    #[test]
    fn a_walk_leaves_out_what_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let names =
            ["a", "src/b", "src/target/c", "node_modules/d", "vendor/e", ".hidden", "x/build"];
        names.iter().for_each(|name| touch(dir.path(), name));
        fs::create_dir(dir.path().join("empty")).unwrap();
        let (files, tree) = selected(dir.path(), &[]);
        // A file of such a name is none of them.
        assert_eq!(files, [".hidden", "a", "src/b", "x/build"]);
        assert_eq!(tree.source(), TreeSource::Walk);
        assert!(tree.paths().contains(&PathBuf::from("empty")));
        // Four files, three directories, the end.
        assert_eq!(tree.archive_bytes(), 4 * 1024 + 3 * 512 + 1024);
    }

    #[test]
    fn git_says_what_belongs_to_its_work_tree() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        for name in ["kept", "gone", "sub/new\nline", "ignored.log", "sub/ignored.log", "build/out"]
        {
            touch(root, name);
        }
        fs::write(root.join(".gitignore"), "*.log\n").unwrap();
        git(root, "init -q");
        git(root, "add kept gone .gitignore");
        git(root, "commit -qm one");
        fs::remove_file(root.join("gone")).unwrap();
        let (files, tree) = selected(root, &[]);
        assert_eq!(files, [".gitignore", "build/out", "kept", "sub/new\nline"]);
        assert_eq!(tree.source(), TreeSource::Git);
        // Below the top, its own files alone.
        assert_eq!(selected(&root.join("sub"), &[]).0, ["new\nline"]);
    }

    #[test]
    fn repositories_inside_are_walked() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), "top");
        touch(dir.path(), "inner/file");
        git(dir.path(), "init -q");
        git(&dir.path().join("inner"), "init -q");
        assert_eq!(selected(dir.path(), &[]).0, ["inner/file", "top"]);
    }

    #[test]
    fn patterns_are_names_or_paths() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["docs/a", "src/docs/b", "src/c.tmp", "d.tmp", "src/deep/e"] {
            touch(dir.path(), name);
        }
        let files = |exclude: &[&str]| selected(dir.path(), exclude).0;
        assert_eq!(files(&["docs"]), ["d.tmp", "src/c.tmp", "src/deep/e"]);
        assert_eq!(files(&["docs/"]), files(&["docs"]));
        assert_eq!(files(&["/docs"]), ["d.tmp", "src/c.tmp", "src/deep/e", "src/docs/b"]);
        assert_eq!(files(&["./docs"]), files(&["/docs"]));
        assert_eq!(files(&["src/d"]).len(), 5, "whole names count");
        assert_eq!(files(&["src/deep", "*.tmp"]), ["docs/a", "src/docs/b"]);
        assert_eq!(files(&["*"]), [""; 0]);
    }

    #[test]
    #[cfg(unix)]
    fn links_are_taken_as_they_are_and_pipes_are_not() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), "sub/a");
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
        let (_, tree) = selected(dir.path(), &[]);
        assert_eq!(tree.paths(), ["out", "sub", "sub/a"].map(PathBuf::from));
        assert_eq!(tree.skipped(), 1);
    }

    #[test]
    fn what_is_no_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        touch(dir.path(), "file");
        for name in ["file", "nowhere"] {
            let error = LocalTree::select(dir.path().join(name)).run().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
    }
}
