//! Whole directories, as one archive.

use std::future::IntoFuture;
use std::path::PathBuf;

use futures::StreamExt;

use super::guest;
use super::pack::pack;
use super::unpack::{Policy, unpack};
use super::{DownloadFile, LocalTree, Progress, ProgressFn, Upload, WriteFile};
use crate::background;
use crate::error::{Error, ErrorKind, Result};
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::sandbox::Sandbox;

const UPLOAD: &str = "files.upload_dir";
const DOWNLOAD: &str = "files.download_dir";

/// `$p` is the archive, `$q` the directory. Ownership stays with who unpacks.
const UNPACK: &str = r#"if [ -e "$q" ] && [ ! -d "$q" ]; then exit 46; fi
mkdir -p "$q" && tar -x -p -o -f "$p" -C "$q"
"#;
/// `$p` is the directory, `$q` the archive.
const PACK: &str = r#"[ -e "$p" ] || exit 44
[ -d "$p" ] || exit 45
tar -c -f "$q" -C "$p" .
"#;
/// As [`PACK`], of the paths that follow; prints the number of each that is not there.
const PACK_PATHS: &str = r#"[ -e "$p" ] || exit 44
[ -d "$p" ] || exit 45
shift 2
all=$# at=0
while [ $at -lt $all ]; do
    n=$(printf '%b.' "$1") && n=./${n%.}
    shift
    if [ -e "$p/$n" ] || [ -L "$p/$n" ]; then set -- "$@" "$n"; else echo $at; fi
    at=$((at + 1))
done
[ $# -eq 0 ] || tar -c -f "$q" -C "$p" "$@"
"#;

/// What a transfer of a directory moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectorySummary {
    /// Ordinary files.
    pub files: u64,
    /// Directories, the outermost not counted.
    pub directories: u64,
    /// Symbolic links.
    pub symlinks: u64,
    /// Devices, pipes and sockets, which were left out; and links that point elsewhere, where
    /// that was allowed.
    pub skipped: u64,
    /// Bytes of content.
    pub bytes: u64,
}

/// The archive in the sandbox, removed when this is dropped.
struct Archive {
    sandbox: Sandbox,
    path: String,
}

impl Archive {
    fn new(sandbox: &Sandbox) -> Self {
        let path = format!("/tmp/.createos-{:016x}.tar", fastrand::u64(..));
        Self { sandbox: sandbox.clone(), path }
    }
}

impl Drop for Archive {
    fn drop(&mut self) {
        let sandbox = self.sandbox.in_background();
        let remove = sandbox.command("rm").args(["-f", &self.path]).named("files.directory");
        // What is left behind when this fails is a file in a sandbox that cannot be reached.
        drop(background::start(async move { drop(remove.await) }));
    }
}

/// Puts a local directory, or a selection of it, into the sandbox. Made with
/// [`Files::upload_dir`](super::Files::upload_dir) and
/// [`Files::upload_tree`](super::Files::upload_tree).
///
/// The content of the directory goes into the one named, which is made when it is not there;
/// what is there already stays unless something of the same name replaces it. Permissions,
/// times and symbolic links are kept; the owner is the sandbox's root. Devices, pipes and
/// sockets are left out and counted.
///
/// Memory is constant. The archive is built while it is sent, stored in the sandbox's `/tmp`
/// and unpacked there by its `tar`, so it must fit there, and into
/// [`MAX_FILE_BYTES`](super::MAX_FILE_BYTES).
///
/// # Errors
///
/// As [`WriteFile`] and [`FileOperation`](super::FileOperation). `Io`: something cannot be
/// read, or changed its size while it was. A failure can leave part of the content behind.
#[derive(Debug)]
#[must_use = "nothing is sent until awaited"]
pub struct UploadDir {
    sandbox: Sandbox,
    local: PathBuf,
    only: Option<Vec<PathBuf>>,
    remote: Vec<u8>,
    progress: Option<ProgressFn>,
    options: RequestOptions,
}

impl UploadDir {
    pub(super) fn new(sandbox: Sandbox, local: PathBuf, remote: Vec<u8>) -> Self {
        let options = RequestOptions::new();
        Self { sandbox, local, only: None, remote, progress: None, options }
    }

    pub(super) fn of_tree(sandbox: Sandbox, tree: &LocalTree, remote: Vec<u8>) -> Self {
        let only = Some(tree.paths().to_vec());
        Self { only, ..Self::new(sandbox, tree.root().to_owned(), remote) }
    }

    /// Calls `callback` for every piece of the archive handed to the connection. The whole
    /// size is not known. It must not block.
    pub fn progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(ProgressFn::new(callback));
        self
    }

    /// Sets options of the calls that it takes.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<DirectorySummary> {
        let in_operation = |error: Error| error.in_operation(UPLOAD);
        guest::check(&self.remote, false).map_err(in_operation)?;
        let local = &self.local;
        if !tokio::fs::metadata(local).await.is_ok_and(|meta| meta.is_dir()) {
            let why = format!("{} is not a directory", local.display());
            return Err(in_operation(Error::invalid_argument("local path", why)));
        }
        let (content, summary) = pack(self.local.clone(), self.only);
        let archive = Archive::new(&self.sandbox);
        let mut write =
            WriteFile::new(self.sandbox.clone(), archive.path.clone(), Upload::stream(content));
        if let Some(progress) = self.progress {
            write = write.progress(move |at| progress.report(at));
        }
        write.with(self.options.clone()).await?;
        let paths = [archive.path.clone().into_bytes(), self.remote];
        guest::run(&self.sandbox, UPLOAD, UNPACK, &paths, self.options).await?;
        summary.await.map_err(|_| ended())
    }
}

impl IntoFuture for UploadDir {
    type Output = Result<DirectorySummary>;
    type IntoFuture = Pending<DirectorySummary>;

    fn into_future(self) -> Self::IntoFuture {
        Pending::new(self.run())
    }
}

/// Gets a directory of the sandbox. Made with
/// [`Files::download_dir`](super::Files::download_dir).
///
/// The content of the directory goes into the local one, which is made when it is not there;
/// what is there already stays unless something of the same name replaces it, and each file
/// is replaced only when all of it is there. Permissions (without set-user-id and the like)
/// and symbolic links are kept. Devices, pipes and sockets are left out and counted.
///
/// Nothing is written outside of the local directory, whatever the sandbox sends: entries
/// with absolute paths or `..`, entries below a link, and links that are absolute or lead out
/// of the directory end the transfer with an error.
///
/// Memory is constant. The archive is made by the sandbox's `tar` in its `/tmp` and unpacked
/// while it arrives, so it must fit there, and into [`MAX_FILE_BYTES`](super::MAX_FILE_BYTES).
///
/// # Errors
///
/// As [`Download`](super::Download) and [`FileOperation`](super::FileOperation). `Protocol`:
/// the archive is damaged or hostile. `Io`: something cannot be written here. What was
/// unpacked before a failure stays.
#[derive(Debug)]
#[must_use = "nothing is sent until awaited"]
pub struct DownloadDir {
    sandbox: Sandbox,
    remote: Vec<u8>,
    local: PathBuf,
    skip_links: bool,
    progress: Option<ProgressFn>,
    options: RequestOptions,
}

impl DownloadDir {
    pub(super) fn new(sandbox: Sandbox, remote: Vec<u8>, local: PathBuf) -> Self {
        let options = RequestOptions::new();
        Self { sandbox, remote, local, skip_links: false, progress: None, options }
    }

    /// Leaves out links that lead out of the directory, and counts them, instead of refusing
    /// the whole.
    pub fn skip_outside_links(mut self) -> Self {
        self.skip_links = true;
        self
    }

    /// Calls `callback` for every piece of the archive that arrived. It must not block.
    pub fn progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(ProgressFn::new(callback));
        self
    }

    /// Sets options of the calls that it takes.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<DirectorySummary> {
        guest::check(&self.remote, false).map_err(|error| error.in_operation(DOWNLOAD))?;
        let archive = Archive::new(&self.sandbox);
        let paths = [self.remote, archive.path.clone().into_bytes()];
        guest::run(&self.sandbox, DOWNLOAD, PACK, &paths, self.options.clone()).await?;
        let policy = Policy::directory(self.skip_links);
        let fetch = Fetch { sandbox: self.sandbox, options: self.options, progress: self.progress };
        fetch.run(archive, self.local, policy).await
    }
}

/// Downloads an archive and unpacks it while it arrives.
struct Fetch {
    sandbox: Sandbox,
    options: RequestOptions,
    progress: Option<ProgressFn>,
}

impl Fetch {
    async fn run(
        self,
        archive: Archive,
        local: PathBuf,
        policy: Policy,
    ) -> Result<DirectorySummary> {
        let mut download = DownloadFile::new(self.sandbox.clone(), archive.path.clone());
        if let Some(progress) = self.progress {
            download = download.progress(move |at| progress.report(at));
        }
        let mut download = download.with(self.options).await?;
        let (pieces, unpacking) = unpack(local, policy);
        while let Some(piece) = download.next().await {
            // Refused when unpacking has failed, which is told below.
            if pieces.send(Some(piece?)).await.is_err() {
                break;
            }
        }
        let _ = pieces.send(None).await;
        let error = match unpacking.await {
            Ok(Ok(summary)) => return Ok(summary),
            Ok(Err(error)) => error,
            Err(_) => ended(),
        };
        Err(error.in_operation(DOWNLOAD).with_resource(self.sandbox.id()))
    }
}

impl IntoFuture for DownloadDir {
    type Output = Result<DirectorySummary>;
    type IntoFuture = Pending<DirectorySummary>;

    fn into_future(self) -> Self::IntoFuture {
        Pending::new(self.run())
    }
}

/// What [`DownloadPaths`] got.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FetchedPaths {
    /// What was moved. Symbolic links were left out, and counted as skipped.
    pub summary: DirectorySummary,
    /// Those of the wanted paths that do not exist.
    pub missing: Vec<String>,
}

/// Gets files and directories that are below a directory of the sandbox. Made with
/// [`Files::download_paths`](super::Files::download_paths).
///
/// For results of work that is not trusted: what is written is nothing but plain files and
/// directories, at or below the wanted paths, whatever the sandbox sends. They are relative and
/// without `..`. Symbolic links and all else are left out and counted; nothing is written through a local
/// link. Permissions are `rwxr-xr-x` at most, a file is 2 GiB at most. A file is replaced only
/// when all of it is there. A path that does not exist is no error, and told.
///
/// # Errors
///
/// As [`DownloadDir`]; also `InvalidArgument`: a path is absolute, empty or has `..`.
#[derive(Debug)]
#[must_use = "nothing is sent until awaited"]
pub struct DownloadPaths {
    sandbox: Sandbox,
    remote: Vec<u8>,
    wanted: Vec<String>,
    local: PathBuf,
    progress: Option<ProgressFn>,
    options: RequestOptions,
}

impl DownloadPaths {
    pub(super) fn new(
        sandbox: Sandbox,
        remote: Vec<u8>,
        wanted: Vec<String>,
        local: PathBuf,
    ) -> Self {
        let options = RequestOptions::new();
        Self { sandbox, remote, wanted, local, progress: None, options }
    }

    /// Calls `callback` for every piece of the archive that arrived. It must not block.
    pub fn progress(mut self, callback: impl Fn(Progress) + Send + Sync + 'static) -> Self {
        self.progress = Some(ProgressFn::new(callback));
        self
    }

    /// Sets options of the calls that it takes.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<FetchedPaths> {
        let in_operation = |error: Error| error.in_operation(DOWNLOAD);
        guest::check(&self.remote, false).map_err(in_operation)?;
        let mut only = Vec::new();
        for path in &self.wanted {
            only.push(relative(path).map_err(in_operation)?);
        }
        let archive = Archive::new(&self.sandbox);
        let mut paths = vec![self.remote, archive.path.clone().into_bytes()];
        paths.extend(self.wanted.iter().map(|path| path.as_bytes().to_vec()));
        let options = self.options.clone();
        let packed = guest::run(&self.sandbox, DOWNLOAD, PACK_PATHS, &paths, options).await?;
        let numbers = packed.stdout_lossy();
        let missing = numbers.split_whitespace().filter_map(|number| number.parse::<usize>().ok());
        let missing: Vec<String> = missing.filter_map(|at| self.wanted.get(at).cloned()).collect();
        if missing.len() == self.wanted.len() {
            return Ok(FetchedPaths { missing, ..FetchedPaths::default() });
        }
        let fetch = Fetch { sandbox: self.sandbox, options: self.options, progress: self.progress };
        let summary = fetch.run(archive, self.local, Policy::results(only)).await?;
        Ok(FetchedPaths { summary, missing })
    }
}

impl IntoFuture for DownloadPaths {
    type Output = Result<FetchedPaths>;
    type IntoFuture = Pending<FetchedPaths>;

    fn into_future(self) -> Self::IntoFuture {
        Pending::new(self.run())
    }
}

/// A wanted path without `.`.
fn relative(text: &str) -> Result<PathBuf> {
    let parts = || text.split('/').filter(|part| !part.is_empty() && *part != ".");
    let bad = text.starts_with('/') || text.contains('\0') || parts().any(|part| part == "..");
    if bad || text.is_empty() {
        let why = format!("{text:?} is not a relative path without `..`");
        return Err(Error::invalid_argument("path", why));
    }
    Ok(parts().collect())
}

fn ended() -> Error {
    Error::new(ErrorKind::Io, "the runtime ended while a directory was being moved")
}
