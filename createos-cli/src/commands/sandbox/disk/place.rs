//! `<disk>:/mount/path`, in one word or two.

use crate::failure::Failure;

/// A disk and the path that it is at, as far as they were typed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Name or id.
    pub(super) disk: Option<String>,
    /// An absolute path, without `/` at its end.
    pub(super) path: Option<String>,
}

/// Reads `<disk>`, `<disk>:/path` or `<disk> /path`.
pub(super) fn read(disk: Option<&str>, path: Option<&str>) -> Result<Place, Failure> {
    let filled =
        |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let (disk, path) = match (filled(disk), filled(path)) {
        (Some(disk), None) => match disk.split_once(':') {
            Some((disk, path)) => (filled(Some(disk)), Some(path.trim().to_owned())),
            None => (Some(disk), None),
        },
        // The disk once more, as in `detach <sandbox> <disk> <disk>:/path`.
        (Some(disk), Some(path)) => match path.strip_prefix(&format!("{disk}:")) {
            Some(rest) => (Some(disk), Some(rest.to_owned())),
            None => (Some(disk), Some(path)),
        },
        parts => parts,
    };
    if disk.as_deref().is_none_or(|disk| disk.contains(':')) && path.is_some() {
        return Err(Failure::usage("write the disk as <disk>:/mount/path or <disk> /mount/path"));
    }
    Ok(Place { disk, path: path.map(|path| absolute(&path)).transpose()? })
}

/// A path to mount at: absolute, and without `/` at its end.
pub(super) fn absolute(path: &str) -> Result<String, Failure> {
    if !path.starts_with('/') || path.contains('\0') {
        return Err(Failure::usage(format!(
            "the mount path {path:?} does not start with /; write for example /mnt/data"
        )));
    }
    let trimmed = path.trim_end_matches('/');
    Ok(if trimmed.is_empty() { "/" } else { trimmed }.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(disk: &str, path: Option<&str>) -> Place {
        Place { disk: Some(disk.to_owned()), path: path.map(str::to_owned) }
    }

    #[test]
    fn both_forms_are_read() {
        assert_eq!(read(Some("d:/mnt/a"), None).unwrap(), place("d", Some("/mnt/a")));
        assert_eq!(read(Some("d"), Some("/mnt/a:b/")).unwrap(), place("d", Some("/mnt/a:b")));
        assert_eq!(read(Some("d"), Some("d:/mnt/a")).unwrap(), place("d", Some("/mnt/a")));
        assert_eq!(read(Some("d"), None).unwrap(), place("d", None));
        assert_eq!(read(None, None).unwrap(), Place::default());
    }

    #[test]
    fn halves_and_relative_paths_are_refused() {
        let lines = [
            ("d:", None),
            (":/mnt", None),
            ("d:mnt", None),
            ("d", Some("mnt")),
            ("d:/a", Some("/b")),
            ("d", Some("e:/a")),
        ];
        for (disk, path) in lines {
            assert!(read(Some(disk), path).is_err(), "{disk} {path:?}");
        }
    }
}
