//! What `push` and `pull` share: paths inside and the guard for disks.

use createos_sdk::{ErrorKind, Sandbox};

use crate::failure::Failure;
use crate::resolve::Found;

/// A path inside a sandbox has to be absolute.
pub(super) fn remote_path(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err("it contains a NUL byte".to_owned());
    }
    if !text.starts_with('/') {
        return Err("a path inside a sandbox starts with /, for example /root/file".to_owned());
    }
    Ok(text.to_owned())
}

/// Refuses paths on a mounted disk: the file endpoint is reported to break
/// such mounts and to lose the file (api.md 9.35).
pub(super) async fn guard(sandbox: &Sandbox, found: &Found, remote: &str) -> Result<(), Failure> {
    let disks = match sandbox.disks().await {
        Ok(disks) => disks,
        // A control plane without disks has none attached.
        Err(error) if matches!(error.status(), Some(404 | 405)) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::NotAuthenticated => return Err(error.into()),
        Err(error) => {
            let cause = Failure::from(error);
            let text = format!("cannot tell whether {remote} is on a disk: {}", cause.message());
            return Err(cause
                .saying(text)
                .hint("if the sandbox has no disks there, repeat with --no-disk-check"));
        }
    };
    let remote = clean(remote);
    match disks.iter().find(|disk| is_below(&remote, &clean(&disk.mount_path))) {
        None => Ok(()),
        Some(disk) => {
            let text = format!(
                "{remote} is on the disk {} mounted at {}; moving files there directly can lose them",
                disk.name, disk.mount_path
            );
            let name = found.handle();
            let copy = format!("createos sandbox exec {name} -- cp /tmp/file {remote}");
            Err(Failure::local(text).hint(format!("go through /tmp and copy inside: {copy}")))
        }
    }
}

/// Removes `.`, `..` and doubled slashes without looking at links.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

fn is_below(path: &str, mount: &str) -> bool {
    path.strip_prefix(mount)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || mount == "/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_paths_are_absolute() {
        assert!(remote_path("/a b/ü").is_ok());
        for path in ["", "a", "./a", "~/a", "/a\0b"] {
            assert!(remote_path(path).is_err(), "{path:?}");
        }
    }

    #[test]
    fn paths_are_cleaned_like_the_kernel_would_without_links() {
        let cases = [
            ("/", "/"),
            ("//a///b/", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/../../a", "/a"),
            ("/mnt/data/../data2", "/mnt/data2"),
        ];
        for (path, cleaned) in cases {
            assert_eq!(clean(path), cleaned);
        }
    }

    #[test]
    fn only_whole_components_count() {
        assert!(is_below("/mnt/data", "/mnt/data"));
        assert!(is_below("/mnt/data/x", "/mnt/data"));
        assert!(!is_below("/mnt/data2", "/mnt/data"));
        assert!(!is_below("/mnt", "/mnt/data"));
        assert!(is_below("/anything", "/"));
    }
}
