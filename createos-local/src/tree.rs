//! Removing directory trees, whatever a guest left in them.
//!
//! The engine removes sandboxes' directories, the warden what is on their disks.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Depth and length of path at which removal moves a subtree to the top instead of
/// descending: a guest can nest directories deeper than any stack or path allows.
const DEPTH: usize = 64;
const LENGTH: usize = 2048;

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
