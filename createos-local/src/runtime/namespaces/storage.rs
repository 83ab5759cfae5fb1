//! Directories of sandboxes: made, listed, and removed whatever a guest left in them.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use createos_sdk::SandboxId;

/// Depth and length of path at which removal moves a subtree to the top instead of
/// descending: a guest can nest directories deeper than any stack or path allows.
const DEPTH: usize = 64;
const LENGTH: usize = 2048;

/// Makes what a boot needs below `data_dir`; what exists already stays.
pub(crate) fn prepare(data_dir: &Path, id: &SandboxId) -> io::Result<String> {
    let relative = format!("sandboxes/{id}");
    let dir = data_dir.join(&relative);
    for part in ["root", "usr"] {
        for layer in ["upper", "work"] {
            let path = dir.join(part).join(layer);
            if !path.is_dir() {
                fs::create_dir_all(&path)?;
                // Whatever the umask: this becomes `/` and `/usr` of the sandbox.
                fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
            }
        }
    }
    Ok(relative)
}

/// Names of the sandbox directories on disk. Anything else there is not ours.
pub(crate) fn list(data_dir: &Path) -> io::Result<Vec<SandboxId>> {
    let entries = fs::read_dir(data_dir.join("sandboxes"))?;
    entries
        .map(|entry| Ok(entry?.file_name().to_str().and_then(|name| name.parse().ok())))
        .filter_map(Result::transpose)
        .collect()
}

/// Removes a sandbox's directory. Nothing of it may be running. Idempotent.
pub(crate) fn remove(data_dir: &Path, id: &SandboxId) -> io::Result<()> {
    remove_tree(&data_dir.join(format!("sandboxes/{id}")))
}

/// Removes a directory tree of any depth and any permissions.
pub(crate) fn remove_tree(top: &Path) -> io::Result<()> {
    let mut moved = 0;
    loop {
        match empty(top, top, 0, &mut moved) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        match fs::remove_dir(top) {
            // Subtrees were moved up meanwhile: another round takes them.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            other => return other,
        }
    }
}

fn empty(top: &Path, dir: &Path, depth: usize, moved: &mut u64) -> io::Result<()> {
    let entries = fs::read_dir(dir).or_else(|error| {
        if error.kind() != io::ErrorKind::PermissionDenied {
            return Err(error);
        }
        // Overlay work directories have mode 0; so may anything that a guest made.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        fs::read_dir(dir)
    })?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if !entry.file_type()?.is_dir() {
            unlink(dir, &path)?;
        } else if depth < DEPTH && path.as_os_str().len() < LENGTH {
            empty(top, &path, depth + 1, moved)?;
            fs::remove_dir(&path)?;
        } else {
            move_up(top, &path, moved)?;
        }
    }
    Ok(())
}

fn move_up(top: &Path, path: &Path, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        match fs::rename(path, top.join(format!(".deep-{moved}"))) {
            // Left there by a removal that did not come to its end.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::DirectoryNotEmpty
                        | io::ErrorKind::AlreadyExists
                        | io::ErrorKind::NotADirectory
                ) => {}
            other => return other,
        }
    }
}

fn unlink(dir: &Path, path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
            fs::remove_file(path)
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prepared_directories_are_listed_and_removed() {
        let data = tempfile::tempdir().expect("directory");
        let id: SandboxId = "sb-01k4m2c9zq8v7n5t3r1p0x6y2w".parse().expect("id");
        let relative = prepare(data.path(), &id).expect("prepare");
        fs::write(data.path().join(&relative).join("root/upper/f"), "x").expect("file");
        prepare(data.path(), &id).expect("a second time");
        assert_eq!(list(data.path()).expect("list"), std::slice::from_ref(&id));
        remove(data.path(), &id).expect("remove");
        remove(data.path(), &id).expect("a second time");
        assert!(list(data.path()).expect("list").is_empty());
    }

    #[test]
    fn a_tree_deeper_than_any_path_is_removed() {
        let data = tempfile::tempdir().expect("directory");
        let top = data.path().join("top");
        // Short names, 3,000 of them; and long ones, a few of which fill a path.
        for (name, levels) in [("d".to_owned(), 100), ("n".repeat(250), 10)] {
            fs::create_dir(&top).expect("directory");
            for _ in 0..30 {
                let chain: std::path::PathBuf = std::iter::repeat_n(&name, levels).collect();
                let next = data.path().join("next");
                fs::create_dir_all(next.join(&chain)).expect("chain");
                fs::rename(&top, next.join(&chain).join("deeper")).expect("nest");
                fs::rename(&next, &top).expect("swap");
            }
            fs::create_dir_all(top.join(".deep-1/left")).expect("left by another removal");
            remove_tree(&top).expect("remove");
            assert!(!top.exists());
        }
    }

    #[test]
    fn closed_directories_and_links_out_are_no_obstacle() {
        let data = tempfile::tempdir().expect("directory");
        let outside = data.path().join("outside");
        fs::write(&outside, "stays").expect("file");
        let top = data.path().join("top");
        fs::create_dir_all(top.join("closed/inner")).expect("directory");
        std::os::unix::fs::symlink(&outside, top.join("link")).expect("link");
        std::os::unix::fs::symlink("/", top.join("closed/inner/root")).expect("link");
        let closed = fs::Permissions::from_mode(0o000);
        fs::set_permissions(top.join("closed"), closed).expect("mode");
        remove_tree(&top).expect("remove");
        assert_eq!(fs::read_to_string(&outside).expect("file"), "stays");
    }
}
