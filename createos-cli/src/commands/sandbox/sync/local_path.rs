//! Which directories of this machine are not synced (cli.md 3.4).

use std::path::{Component, Path, PathBuf};

use crate::failure::Failure;
use crate::value::ssh_key;

const SYSTEM: [&str; 16] = [
    "/etc",
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib64",
    "/boot",
    "/proc",
    "/sys",
    "/dev",
    "/run",
    "/var",
    "/System",
    "/Library",
    "/Applications",
    "/private/etc",
];
const SYSTEM_WINDOWS: [&str; 3] = ["windows", "program files", "program files (x86)"];
const SECRET: [&str; 13] = [
    ".ssh",
    ".gnupg",
    ".aws",
    ".config",
    ".docker",
    ".kube",
    ".gcloud",
    ".azure",
    ".createos",
    ".password-store",
    ".pki",
    ".mozilla",
    "Keychains",
];

/// The directory as an absolute path, if it may be synced. `--force` lifts what can be meant.
pub(super) fn check(path: &Path, home: Option<&Path>, force: bool) -> Result<PathBuf, Failure> {
    if path.as_os_str().is_empty() {
        return Err(Failure::usage("--local is empty; name a directory"));
    }
    let given = ssh_key::expand(path, home);
    let given = std::path::absolute(&given)
        .map_err(|error| Failure::io(format!("cannot find {}", given.display()), &error))?;
    let given = clean(&given);
    let temp = std::env::temp_dir();
    let places = Places { homes: forms(home), temps: forms(Some(&temp)) };
    // What is refused whatever it is needs not be there.
    if let Some(why) = places.never(&given) {
        return Err(refused(&given, &given, why));
    }
    let real = given
        .canonicalize()
        .map_err(|error| Failure::io(format!("cannot sync {}", given.display()), &error))?;
    if !real.is_dir() {
        return Err(Failure::local(format!("{} is not a directory", given.display())));
    }
    for form in [&given, &real] {
        if let Some(why) = places.never(form) {
            return Err(refused(&given, form, why));
        }
    }
    for form in [&given, &real] {
        match places.unless_forced(form) {
            Some(why) if !force => {
                return Err(refused(&given, form, &why).hint("sync it all the same: --force"));
            }
            _ => {}
        }
    }
    Ok(given)
}

fn refused(given: &Path, form: &Path, why: &str) -> Failure {
    let leads = match given == form {
        true => String::new(),
        false => format!(" (it leads to {})", form.display()),
    };
    Failure::usage(format!("{} is not synced{leads}: {why}", given.display()))
}

/// A path and what it leads to.
fn forms(path: Option<&Path>) -> Vec<PathBuf> {
    let real = path.and_then(|path| path.canonicalize().ok());
    path.map(clean).into_iter().chain(real).collect()
}

/// Without `.` and `..`, by the text alone.
fn clean(path: &Path) -> PathBuf {
    let mut cleaned = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => drop(cleaned.pop()),
            part => cleaned.push(part),
        }
    }
    cleaned
}

struct Places {
    homes: Vec<PathBuf>,
    temps: Vec<PathBuf>,
}

impl Places {
    fn never(&self, path: &Path) -> Option<&'static str> {
        if path.parent().is_none() {
            return Some("it is the root of the file system");
        }
        if self.homes.iter().any(|home| home.starts_with(path)) {
            return Some("it is your home directory, or holds it; name a directory in it");
        }
        let is_temp = self.temps.iter().any(|temp| path.starts_with(temp) && path != temp);
        let is_system = SYSTEM.iter().any(|system| path.starts_with(system)) || windows(path);
        (is_system && !is_temp).then_some("it belongs to the system")
    }

    fn unless_forced(&self, path: &Path) -> Option<String> {
        let names = path.components().filter_map(|part| part.as_os_str().to_str());
        if let Some(secret) = names.into_iter().find(|name| SECRET.contains(name)) {
            return Some(format!("{secret} is where secrets are kept"));
        }
        let inside = |places: &[PathBuf]| places.iter().any(|place| path.starts_with(place));
        let outside = !inside(&self.homes) && !inside(&self.temps);
        outside.then(|| "it is outside of your home directory".to_owned())
    }
}

/// `C:\Windows` and the like.
fn windows(path: &Path) -> bool {
    let mut parts = path.components();
    let has_drive = matches!(parts.next(), Some(Component::Prefix(_)));
    let first = parts.find_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy().to_lowercase()),
        _ => None,
    });
    has_drive && first.is_some_and(|name| SYSTEM_WINDOWS.contains(&name.as_str()))
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    /// A home in a directory that is neither a temporary nor a system one.
    fn places(root: &Path) -> (PathBuf, Places) {
        let home = root.join("home/me");
        for dir in ["work", ".ssh", "x/.aws/y", ".config/app", "Keychains"] {
            std::fs::create_dir_all(home.join(dir)).unwrap();
        }
        std::fs::create_dir_all(root.join("outside")).unwrap();
        let places = Places { homes: forms(Some(&home)), temps: vec!["/nowhere".into()] };
        (home, places)
    }

    #[test]
    fn what_is_never_synced() {
        let dir = tempfile::tempdir().unwrap();
        let (home, places) = places(dir.path());
        for path in
            ["/", "/etc", "/usr/local/src", "/proc/1", "/var/www", "/run/user", "/Library/x"]
        {
            assert!(places.never(Path::new(path)).is_some(), "{path}");
        }
        for path in [home.clone(), home.parent().unwrap().to_owned(), dir.path().to_owned()] {
            assert!(places.never(&path).is_some(), "{path:?}");
        }
        for path in [home.join("work"), home.join(".ssh"), "/etcetera".into(), "/srv/x".into()] {
            assert_eq!(places.never(&path), None, "{path:?}");
        }
        let temp = Places { homes: Vec::new(), temps: vec!["/var/folders/x/T".into()] };
        assert_eq!(temp.never(Path::new("/var/folders/x/T/work")), None);
        assert!(temp.never(Path::new("/var/folders")).is_some());
    }

    #[test]
    fn what_force_lifts() {
        let dir = tempfile::tempdir().unwrap();
        let (home, places) = places(dir.path());
        for path in [".ssh", "x/.aws/y", "x/.aws", ".config/app", "Keychains"] {
            assert!(places.unless_forced(&home.join(path)).is_some(), "{path}");
        }
        assert!(places.unless_forced(&dir.path().join("outside")).is_some());
        assert_eq!(places.unless_forced(&home.join("work")), None);
    }

    #[test]
    fn links_do_not_lead_around_it() {
        let dir = tempfile::tempdir().unwrap();
        let (home, _) = places(dir.path());
        let said = |path: &Path, force| match check(path, Some(&home), force) {
            Ok(path) => format!("ok {}", path.display()),
            Err(failure) => failure.message().to_owned(),
        };
        for (name, target) in [("e", "/etc"), ("h", home.to_str().unwrap()), ("r", "/")] {
            symlink(target, home.join("work").join(name)).unwrap();
            let said = said(&home.join("work").join(name), true);
            assert!(said.contains("not synced") && said.contains("leads to"), "{said}");
        }
        symlink(home.join(".ssh"), home.join("work/s")).unwrap();
        assert!(said(&home.join("work/s"), false).contains("secrets"));
        assert!(said(&home.join("work/s"), true).starts_with("ok "));
        let dotted = home.join("work/../../me");
        assert!(said(&dotted, true).contains("home directory"), "{}", said(&dotted, true));
        assert!(said(Path::new("~"), true).contains("home directory"));
        assert!(said(Path::new("~/work"), false).starts_with("ok "));
        assert!(said(Path::new("~/gone"), false).contains("gone"));
        std::fs::write(home.join("work/file"), "").unwrap();
        assert!(said(&home.join("work/file"), false).contains("not a directory"));
    }
}
