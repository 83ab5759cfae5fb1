//! What the command keeps on this machine: credentials and the local target.

pub(crate) mod credentials;
pub(crate) mod device;
pub(crate) mod local;
mod private_file;

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Where this user's files are.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    home: Option<PathBuf>,
    config: Option<PathBuf>,
    cache: Option<PathBuf>,
}

impl Paths {
    /// Reads `HOME`, `XDG_CONFIG_HOME` and, on Windows, `APPDATA`.
    pub(crate) fn detect() -> Self {
        let home = std::env::home_dir().filter(|path| path.is_absolute());
        let variable = if cfg!(windows) { "APPDATA" } else { "XDG_CONFIG_HOME" };
        let base = std::env::var_os(variable)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| home.as_ref().map(|home| home.join(".config")));
        let cache = std::env::var_os("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
            .or_else(|| home.as_ref().map(|home| home.join(".cache")));
        let ours = |base: PathBuf| base.join("createos");
        Self { config: base.map(ours), cache: cache.map(ours), home }
    }

    /// The home directory, when there is one.
    pub(crate) fn home(&self) -> Option<&Path> {
        self.home.as_deref()
    }

    /// `~/.createos`, shared with the official command.
    fn account(&self) -> Result<PathBuf, Failure> {
        let home = self.home().ok_or_else(no_home)?;
        Ok(home.join(".createos"))
    }

    /// `~/.cache/createos`: what can be lost.
    pub(crate) fn cache(&self) -> Option<&Path> {
        self.cache.as_deref()
    }

    /// A directory below `~/.config/createos` for this user alone, made when it is missing.
    pub(crate) fn private_dir(&self, name: &str) -> Result<PathBuf, Failure> {
        let dir = self.config()?.join(name);
        private_file::create_private_dir(&dir)
            .map_err(|error| Failure::io(format!("cannot make {}", dir.display()), &error))?;
        Ok(dir)
    }

    /// `~/.config/createos`.
    pub(crate) fn config(&self) -> Result<&Path, Failure> {
        self.config.as_deref().ok_or_else(no_home)
    }
}

/// Replaces a file that only its owner may read.
pub(crate) fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    private_file::write(path, text)
}

fn no_home() -> Failure {
    Failure::local("this user has no home directory").hint("set HOME to a directory of yours")
}
