//! Where Mutagen is.

use std::path::{Path, PathBuf};

use crate::store::Paths;

/// The file of the program.
pub(super) const NAME: &str = if cfg!(windows) { "mutagen.exe" } else { "mutagen" };

/// On the search path, else where it was downloaded to.
pub(crate) fn find(paths: &Paths) -> Option<PathBuf> {
    on_search_path(NAME).or_else(|| Some(place(paths)?.join(NAME)).filter(|file| is_program(file)))
}

/// Where a download goes: `~/.config/createos/bin`.
pub(super) fn place(paths: &Paths) -> Option<PathBuf> {
    paths.config().ok().map(|config| config.join("bin"))
}

pub(super) fn on_search_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // A relative entry would run what lies in the current directory.
    let dirs = std::env::split_paths(&path).filter(|dir| dir.is_absolute());
    dirs.map(|dir| dir.join(name)).find(|file| is_program(file))
}

#[cfg(unix)]
fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    file.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(file: &Path) -> bool {
    file.is_file()
}
