//! `<disk>:/mount/path` of `--disk`.

/// A disk and where it appears inside the sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DiskMount {
    /// Name or id, sent as typed.
    pub(crate) disk: String,
    /// Absolute path.
    pub(crate) path: String,
}

/// Cuts at the first `:`; both halves are needed and the path is absolute.
pub(crate) fn parse(text: &str) -> Result<DiskMount, String> {
    let form = || "write it as <disk>:/mount/path, for example my-disk:/mnt/data".to_owned();
    let (disk, path) = text.split_once(':').ok_or_else(form)?;
    let (disk, path) = (disk.trim(), path.trim());
    if disk.is_empty() || !path.starts_with('/') {
        return Err(form());
    }
    Ok(DiskMount { disk: disk.to_owned(), path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_halves_are_kept() {
        let mount = parse("data:/mnt/a:b").unwrap();
        assert_eq!((mount.disk.as_str(), mount.path.as_str()), ("data", "/mnt/a:b"));
    }

    #[test]
    fn half_a_mount_is_refused() {
        for text in ["data", "data:", ":/mnt", "data:mnt", "", " :/mnt"] {
            assert!(parse(text).unwrap_err().contains(":/mount/path"), "{text:?}");
        }
    }
}
