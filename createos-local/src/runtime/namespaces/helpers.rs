//! The embedded helper programs, put where they can be executed.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/agent"));
const WARDEN: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/warden"));

/// Where the helpers of this version of the engine lie.
#[derive(Debug, Clone)]
pub(crate) struct Helpers {
    pub(crate) warden: PathBuf,
    /// The agent's layer, relative to the data directory.
    pub(crate) agent_layer: String,
}

/// Writes the helpers below `data_dir/cache` unless they are there. Their directory
/// is named after their content, so versions never overwrite each other and a
/// program that runs is never written to.
pub(crate) fn install(data_dir: &Path) -> io::Result<Helpers> {
    let mut hasher = DefaultHasher::new();
    (AGENT, WARDEN).hash(&mut hasher);
    let relative = format!("cache/helpers/{:016x}", hasher.finish());
    let dir = data_dir.join(&relative);
    let helpers = Helpers { warden: dir.join("warden"), agent_layer: format!("{relative}/layer") };
    if dir.is_dir() {
        return Ok(helpers);
    }
    let parent = data_dir.join("cache/helpers");
    fs::create_dir_all(&parent)?;
    let fresh = tempfile::Builder::new().prefix(".new-").tempdir_in(&parent)?;
    // World-readable inside; the data directory keeps others out.
    for shared in ["", "layer", "layer/.cos", "layer/.cos/run"] {
        let path = fresh.path().join(shared);
        fs::create_dir_all(&path)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    }
    write_program(&fresh.path().join("warden"), WARDEN)?;
    write_program(&fresh.path().join("layer/.cos/agent"), AGENT)?;
    match fs::rename(fresh.path(), &dir) {
        Ok(()) => drop(fresh.keep()),
        // Another engine was faster, with the same content.
        Err(_) if dir.is_dir() => {}
        Err(error) => return Err(error),
    }
    Ok(helpers)
}

fn write_program(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(path)?;
    file.write_all(content)?;
    file.sync_all()
}
