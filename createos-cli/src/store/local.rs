//! Which engine of this machine the commands talk to.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Paths, private_file};
use crate::failure::Failure;

/// An engine that was started in the background.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LocalEngine {
    /// Where it serves.
    pub(crate) url: String,
    /// Its key; sent to `url` and nowhere else.
    pub(crate) api_key: String,
    /// The process.
    pub(crate) pid: u32,
    /// When the process started, in the kernel's clock ticks: a later process
    /// with the same number is another one.
    pub(crate) started: u64,
    /// Where it keeps its state.
    pub(crate) data_dir: PathBuf,
    /// The version that was started.
    pub(crate) version: String,
    /// Whether commands go there; `login` turns this off, the engine keeps running.
    pub(crate) active: bool,
}

impl fmt::Debug for LocalEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalEngine")
            .field("url", &self.url)
            .field("pid", &self.pid)
            .field("data_dir", &self.data_dir)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

impl LocalEngine {
    /// Whether the very process that was started still runs.
    pub(crate) fn is_alive(&self) -> bool {
        started_at(self.pid) == Some(self.started)
    }
}

/// The record `local.json` in the configuration directory.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
}

impl Store {
    pub(crate) fn open(paths: &Paths) -> Result<Self, Failure> {
        Ok(Self { path: paths.config()?.join("local.json") })
    }

    /// The recorded engine, running or not.
    pub(crate) fn load(&self) -> Result<Option<LocalEngine>, Failure> {
        let content = private_file::read(&self.path)
            .map_err(|error| Failure::io(format!("cannot read {}", self.path.display()), &error))?;
        let Some(content) = content else { return Ok(None) };
        let engine = serde_json::from_str(&content.text).map_err(|_| {
            Failure::local(format!("{} cannot be understood", self.path.display()))
                .hint(format!("delete it, then: createos local start  ({})", self.path.display()))
        })?;
        Ok(Some(engine))
    }

    pub(crate) fn save(&self, engine: &LocalEngine) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(engine)
            .map_err(|error| Failure::local(format!("cannot record the engine: {error}")))?;
        private_file::write(&self.path, &text)
            .map_err(|error| Failure::io(format!("cannot store {}", self.path.display()), &error))
    }

    pub(crate) fn clear(&self) -> Result<(), Failure> {
        let removed = private_file::remove(&self.path);
        removed
            .map(drop)
            .map_err(|error| Failure::io(format!("cannot delete {}", self.path.display()), &error))
    }
}

/// When a process started; `None` when it does not run any more.
///
/// Field 22 of `/proc/<pid>/stat`. The command name in field 2 may hold blanks
/// and brackets, so fields are counted behind its last bracket. A zombie has
/// ended and only waits for its parent.
#[cfg(target_os = "linux")]
pub(crate) fn started_at(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Engines run on Linux alone.
#[cfg(not(target_os = "linux"))]
pub(crate) fn started_at(_pid: u32) -> Option<u64> {
    None
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn engine(pid: u32, started: u64) -> LocalEngine {
        LocalEngine {
            url: "http://127.0.0.1:1".to_owned(),
            api_key: "skp_local_secret".to_owned(),
            pid,
            started,
            data_dir: PathBuf::from("/data"),
            version: "0.1.0".to_owned(),
            active: true,
        }
    }

    #[test]
    fn the_record_survives_and_hides_its_key() {
        let root = tempfile::tempdir().unwrap();
        let store = Store { path: root.path().join("createos/local.json") };
        assert_eq!(store.load().unwrap(), None);
        store.save(&engine(7, 9)).unwrap();
        assert_eq!(store.load().unwrap(), Some(engine(7, 9)));
        assert!(!format!("{:?}", engine(7, 9)).contains("secret"));
        store.clear().unwrap();
        assert_eq!(store.load().unwrap(), None);
    }

    #[test]
    fn a_damaged_record_is_named() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("local.json");
        std::fs::write(&path, "{\"url\":").unwrap();
        let failure = Store { path }.load().unwrap_err();
        assert!(failure.message().contains("local.json"), "{failure:?}");
    }

    #[test]
    fn only_the_same_process_is_alive() {
        let mut child = Command::new("sleep").arg("60").stdout(Stdio::null()).spawn().unwrap();
        let started = started_at(child.id()).unwrap();
        assert!(engine(child.id(), started).is_alive());
        assert!(!engine(child.id(), started + 1).is_alive(), "another process with this number");
        child.kill().unwrap();
        while started_at(child.id()).is_some() {
            std::thread::yield_now();
        }
        assert!(!engine(child.id(), started).is_alive(), "a zombie has ended");
        child.wait().unwrap();
        assert_eq!(started_at(child.id()), None);
    }
}
