//! The directory that holds an engine's state: private, and for one engine at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use crate::error::EngineError;
use crate::tree::remove_tree;

const LOCK: &str = "lock";
const EPHEMERAL: &str = "ephemeral";

/// Where an engine keeps its state unless told otherwise: `$XDG_DATA_HOME/createos/local`, or
/// `~/.local/share/createos/local`. `None` when neither variable holds an absolute path.
pub fn default_data_dir() -> Option<PathBuf> {
    let absolute =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let data = absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))?;
    Some(data.join("createos/local"))
}

/// A directory held by this engine. The lock goes with the value, also when the process dies.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    ephemeral: bool,
    _lock: File,
}

impl DataDir {
    /// Makes the directory where needed and takes it.
    pub(crate) fn open(path: &Path) -> Result<Self, EngineError> {
        make_private(path)?;
        let lock = lock(path)?
            .ok_or_else(|| EngineError::AlreadyRunning { path: path.into(), pid: holder(path) })?;
        Ok(Self { path: path.into(), ephemeral: false, _lock: lock })
    }

    /// Takes a fresh directory below `parent` that goes away with the engine, and removes
    /// those whose engines died.
    ///
    /// An ordinary user cannot simply delete what a dead engine's sandboxes wrote under other
    /// user ids. Such a directory is taken over instead: without its records those files are
    /// orphans, which the core has the runtime remove.
    pub(crate) fn ephemeral(parent: &Path) -> Result<Self, EngineError> {
        let all = parent.join(EPHEMERAL);
        make_private(parent)?;
        make_private(&all)?;
        let starting = open_lock(&all)?;
        flock(&starting, FlockOperation::LockExclusive)
            .map_err(|error| failed(&all, "locking it")(error.into()))?;
        let mut taken_over = None;
        for path in directories(&all) {
            let Some(lock) = lock(&path)? else { continue };
            if let Err(error) = remove(&path) {
                let shown = path.display();
                tracing::info!(path = %shown, %error, "taking over a dead engine's directory");
                taken_over = Some((path, lock));
            }
        }
        if let Some((path, lock)) = taken_over {
            return Ok(Self { path, ephemeral: true, _lock: lock });
        }
        let path = all.join(ulid::Ulid::new().to_string().to_lowercase());
        Ok(Self { ephemeral: true, ..Self::open(&path)? })
    }

    pub(crate) fn is_ephemeral(&self) -> bool {
        self.ephemeral
    }

    /// Where an ephemeral engine keeps what need not be made anew for each.
    pub(crate) fn shared_cache(&self) -> Option<PathBuf> {
        let parent = self.ephemeral.then(|| self.path.parent().and_then(Path::parent)).flatten();
        parent.map(|parent| parent.join("cache"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the directory back; an ephemeral one is removed.
    pub(crate) fn release(self) {
        if !self.ephemeral {
            return;
        }
        if let Err(error) = remove(&self.path) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the ephemeral directory is left to the next start");
        }
    }
}

fn failed(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> EngineError {
    move |source| EngineError::DataDir { path: path.into(), action, source }
}

/// Makes a directory of mode 0700. An empty one is tightened; a used one that others may enter
/// is refused, because tightening somebody's `/tmp` would be worse.
pub(crate) fn make_private(path: &Path) -> Result<(), EngineError> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(failed(path, "creating it"))?;
    let mode = fs::metadata(path).map_err(failed(path, "looking at it"))?.permissions().mode();
    if mode & 0o077 == 0 {
        return Ok(());
    }
    let mut entries = fs::read_dir(path).map_err(failed(path, "reading it"))?;
    if entries.next().is_some() {
        return Err(EngineError::DataDirNotPrivate { path: path.into(), mode: mode & 0o7777 });
    }
    fs::set_permissions(path, Permissions::from_mode(0o700))
        .map_err(failed(path, "making it private"))
}

fn open_lock(dir: &Path) -> Result<File, EngineError> {
    let path = dir.join(LOCK);
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed(&path, "opening the lock"))
}

/// Takes the lock and writes our process id into it; `None` when somebody else has it.
fn lock(dir: &Path) -> Result<Option<File>, EngineError> {
    let mut file = open_lock(dir)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(failed(dir, "locking it")(error.into())),
    }
    let write = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write(&mut file).map_err(failed(dir, "writing the lock"))?;
    Ok(Some(file))
}

/// The process that holds the lock, as it wrote it.
fn holder(dir: &Path) -> Option<u32> {
    let mut text = String::new();
    File::open(dir.join(LOCK)).ok()?.take(32).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn directories(all: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(all) else { return Vec::new() };
    entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

/// Removes a directory whose lock we hold, as much of it as can be. The lock file goes last,
/// and only when nothing else is left.
fn remove(path: &Path) -> io::Result<()> {
    let mut outcome = Ok(());
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_name() == LOCK {
            continue;
        }
        let removed = match entry.file_type()?.is_dir() {
            true => remove_tree(&entry.path()),
            false => fs::remove_file(entry.path()),
        };
        outcome = outcome.and(removed);
    }
    outcome?;
    fs::remove_file(path.join(LOCK))?;
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn a_directory_is_private_and_for_one_engine() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/b");
        let held = DataDir::open(&path).unwrap();
        assert_eq!((mode(&path), mode(&path.join(LOCK))), (0o700, 0o600));

        let error = DataDir::open(&path).unwrap_err();
        assert!(
            matches!(error, EngineError::AlreadyRunning { pid: Some(pid), .. } if pid == std::process::id()),
            "{error}"
        );
        held.release();
        assert!(path.exists());
        DataDir::open(&path).unwrap();
    }

    #[test]
    fn a_used_open_directory_is_refused_and_an_empty_one_tightened() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("open");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o755)).unwrap();
        fs::write(path.join("theirs"), "x").unwrap();
        let error = DataDir::open(&path).unwrap_err();
        assert!(error.to_string().contains("mode 755"), "{error}");
        assert_eq!(mode(&path), 0o755);

        fs::remove_file(path.join("theirs")).unwrap();
        DataDir::open(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
    }

    #[test]
    fn what_dead_ephemeral_engines_left_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let parent = temp.path().join("local");
        let living = DataDir::ephemeral(&parent).unwrap();
        let dead = DataDir::ephemeral(&parent).unwrap();
        let dead_path = dead.path().to_owned();
        fs::create_dir_all(dead_path.join("sandboxes/x")).unwrap();
        drop(dead);
        assert!(dead_path.exists(), "a kill leaves it");

        let next = DataDir::ephemeral(&parent).unwrap();
        assert!(!dead_path.exists());
        assert!(living.path().exists() && next.path().exists());
        let path = next.path().to_owned();
        next.release();
        assert!(!path.exists());
    }
}
