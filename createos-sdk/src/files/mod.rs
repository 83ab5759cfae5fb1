//! Files of a sandbox (api.md 4.13).

mod directory;
mod download;
mod excerpt;
mod guest;
mod info;
mod pack;
pub(crate) mod pieces;
mod progress;
mod read;
mod tree;
mod unpack;
mod upload;
mod write;

use crate::error::{Error, Result};
use crate::sandbox::Sandbox;

pub use self::directory::{DirectorySummary, DownloadDir, DownloadPaths, FetchedPaths, UploadDir};
pub use self::download::{Download, DownloadFile, DownloadTo};
pub use self::excerpt::ReadExcerpt;
pub use self::guest::FileOperation;
pub use self::info::{DirEntry, FileInfo, FileKind};
pub use self::progress::Progress;
pub use self::read::{ReadFile, ReadText};
pub use self::tree::{LocalTree, SelectTree, TreeSource};
pub use self::upload::Upload;
pub use self::write::WriteFile;

pub(crate) use self::progress::ProgressFn;
pub(crate) use self::upload::ByteStream;

/// Largest file that can be moved: 500 MiB (api.md 9.34). What is known to be larger is
/// refused before anything is sent.
pub const MAX_FILE_BYTES: u64 = 500 << 20;

/// The files of one sandbox. Made with [`Sandbox::files`].
///
/// Paths are absolute paths inside the sandbox. Anything else, and a path with a NUL
/// character, is refused with
/// [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) before any traffic.
///
/// ```no_run
/// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
/// let files = sandbox.files();
/// files.write("/work/main.py", "print(6 * 7)").await?;
/// assert_eq!(files.read_string("/work/main.py").await?, "print(6 * 7)");
/// files.download_to("/work/main.py", "main.py").await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct Files {
    sandbox: Sandbox,
}

impl Files {
    pub(crate) fn new(sandbox: Sandbox) -> Self {
        Self { sandbox }
    }

    /// Stores a file, replacing what is there; parent directories are made.
    ///
    /// `content` is bytes, text, a local path or a reader: see [`Upload`]. Bytes and paths
    /// are sent again after a passing failure, readers and streams are not.
    pub fn write(&self, path: impl Into<String>, content: impl Into<Upload>) -> WriteFile {
        WriteFile::new(self.sandbox.clone(), path.into(), content.into())
    }

    /// Reads a whole file into memory.
    pub fn read(&self, path: impl Into<String>) -> ReadFile {
        ReadFile::new(self.sandbox.clone(), path.into())
    }

    /// Reads a whole file as text. A file that is not UTF-8 is an error, not altered.
    pub fn read_string(&self, path: impl Into<String>) -> ReadText {
        ReadText::new(self.read(path))
    }

    /// Reads no more than the first `head` and the last `tail` bytes of a file of any length, in
    /// constant memory and traffic. See [`ReadExcerpt`].
    ///
    /// ```no_run
    /// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
    /// let log = sandbox.files().read_excerpt("/var/log/build.log", 2 << 10, 16 << 10).await?;
    /// println!("{}", log.marked());
    /// # Ok(()) }
    /// ```
    pub fn read_excerpt(&self, path: impl AsRef<[u8]>, head: usize, tail: usize) -> ReadExcerpt {
        ReadExcerpt::new(self.sandbox.clone(), path.as_ref().to_vec(), head, tail)
    }

    /// Opens a file as a stream, in constant memory.
    pub fn download(&self, path: impl Into<String>) -> DownloadFile {
        DownloadFile::new(self.sandbox.clone(), path.into())
    }

    /// Stores a file of the sandbox on this machine. The local file is replaced only when
    /// all of it has arrived; before that, and after a failure, the old one is untouched.
    pub fn download_to(
        &self,
        path: impl Into<String>,
        local: impl Into<std::path::PathBuf>,
    ) -> DownloadTo {
        DownloadTo::new(self.download(path), local.into())
    }

    /// Puts the content of a local directory into a directory of the sandbox.
    ///
    /// ```no_run
    /// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
    /// sandbox.files().upload_dir("project", "/work/project").await?;
    /// sandbox.command("make").args(["-C", "/work/project"]).await?.ensure_success()?;
    /// let moved = sandbox.files().download_dir("/work/project/out", "out").await?;
    /// println!("{} files", moved.files);
    /// # Ok(()) }
    /// ```
    pub fn upload_dir(
        &self,
        local: impl Into<std::path::PathBuf>,
        path: impl AsRef<[u8]>,
    ) -> UploadDir {
        UploadDir::new(self.sandbox.clone(), local.into(), path.as_ref().to_vec())
    }

    /// Puts a selection of a local directory into a directory of the sandbox.
    pub fn upload_tree(&self, tree: &LocalTree, path: impl AsRef<[u8]>) -> UploadDir {
        UploadDir::of_tree(self.sandbox.clone(), tree, path.as_ref().to_vec())
    }

    /// Gets files and directories that are below a directory of the sandbox, as what they are
    /// there below a local one. See [`DownloadPaths`].
    ///
    /// ```no_run
    /// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
    /// let fetched = sandbox.files().download_paths("/work", ["report.xml", "out/logs"], ".").await?;
    /// println!("{} files; not there: {:?}", fetched.summary.files, fetched.missing);
    /// # Ok(()) }
    /// ```
    pub fn download_paths<P: Into<String>>(
        &self,
        path: impl AsRef<[u8]>,
        wanted: impl IntoIterator<Item = P>,
        local: impl Into<std::path::PathBuf>,
    ) -> DownloadPaths {
        let wanted = wanted.into_iter().map(Into::into).collect();
        DownloadPaths::new(self.sandbox.clone(), path.as_ref().to_vec(), wanted, local.into())
    }

    /// Puts the content of a directory of the sandbox into a local directory.
    pub fn download_dir(
        &self,
        path: impl AsRef<[u8]>,
        local: impl Into<std::path::PathBuf>,
    ) -> DownloadDir {
        DownloadDir::new(self.sandbox.clone(), path.as_ref().to_vec(), local.into())
    }

    fn operation<T: Send + 'static>(
        &self,
        operation: &'static str,
        script: &'static str,
        paths: Vec<Vec<u8>>,
        parse: fn(&[u8]) -> Option<T>,
    ) -> FileOperation<T> {
        FileOperation::new(self.sandbox.clone(), operation, script, paths, parse)
    }

    /// What is in a directory, in no particular order. The path may be any bytes, as the
    /// names that come back are. A link to a directory is followed; the entries are not.
    pub fn list(&self, path: impl AsRef<[u8]>) -> FileOperation<Vec<DirEntry>> {
        let paths = vec![path.as_ref().to_vec()];
        self.operation("files.list", scripts::LIST, paths, info::parse_list)
    }

    /// What is known about a file, directory or link. A link at the end of the path is not
    /// followed.
    pub fn stat(&self, path: impl AsRef<[u8]>) -> FileOperation<FileInfo> {
        let paths = vec![path.as_ref().to_vec()];
        self.operation("files.stat", scripts::STAT, paths, info::parse_stat)
    }

    /// Makes a directory, and its parents as needed. One that is there already is fine.
    pub fn create_dir(&self, path: impl AsRef<[u8]>) -> FileOperation<()> {
        let paths = vec![path.as_ref().to_vec()];
        self.operation("files.create_dir", scripts::CREATE_DIR, paths, nothing)
    }

    /// Removes a file, a link (not what it points to) or an empty directory.
    pub fn remove(&self, path: impl AsRef<[u8]>) -> FileOperation<()> {
        let paths = vec![path.as_ref().to_vec()];
        self.operation("files.remove", scripts::REMOVE, paths, nothing)
    }

    /// Removes a file, a link or a directory with everything in it.
    pub fn remove_all(&self, path: impl AsRef<[u8]>) -> FileOperation<()> {
        let paths = vec![path.as_ref().to_vec()];
        self.operation("files.remove_all", scripts::REMOVE_ALL, paths, nothing)
    }

    /// Gives a file or directory another path. A file at the new path is replaced; a
    /// directory there is a `Conflict`.
    pub fn rename(&self, from: impl AsRef<[u8]>, to: impl AsRef<[u8]>) -> FileOperation<()> {
        let paths = vec![from.as_ref().to_vec(), to.as_ref().to_vec()];
        self.operation("files.rename", scripts::RENAME, paths, nothing)
    }
}

fn nothing(output: &[u8]) -> Option<()> {
    output.is_empty().then_some(())
}

/// See [`guest`] for what they can rely on.
mod scripts {
    pub(super) use super::info::{LIST, STAT};

    pub(super) const CREATE_DIR: &str = r#"[ -d "$p" ] && exit 0
[ -e "$p" ] || [ -L "$p" ] && exit 46
mkdir -p "$p"
"#;
    pub(super) const REMOVE: &str = r#"[ -e "$p" ] || [ -L "$p" ] || exit 44
if [ ! -d "$p" ] || [ -L "$p" ]; then rm -f "$p"; exit; fi
[ -z "$(ls -A "$p")" ] || exit 47
rmdir "$p"
"#;
    pub(super) const REMOVE_ALL: &str = r#"[ -e "$p" ] || [ -L "$p" ] || exit 44
rm -rf "$p"
"#;
    pub(super) const RENAME: &str = r#"[ -e "$p" ] || [ -L "$p" ] || exit 44
[ -d "$q" ] && exit 46
mv -f "$p" "$q"
"#;
}

/// Refuses what the server would refuse, before any traffic.
pub(crate) fn check_path(path: &str) -> Result<()> {
    let why = match () {
        () if !path.starts_with('/') => "must be absolute",
        () if path.contains('\0') => "must not contain a NUL character",
        () if path.split('/').any(|part| part == "..") => "must not contain `..`",
        () if path.ends_with('/') => "must name a file, not a directory",
        () => return Ok(()),
    };
    Err(Error::invalid_argument("path", format!("{path:?} {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_of_files_are_sent() {
        for path in ["/a", "/a b/ü", "/a/./b", "/a/..b", "/work/a.txt"] {
            check_path(path).unwrap();
        }
        for path in ["", "a", "./a", "~/a", "/a\0b", "/a/../b", "/..", "/", "/a/"] {
            let error = check_path(path).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::InvalidArgument, "{path:?}");
            assert!(error.message().starts_with("path"), "{error}");
        }
    }
}
