//! Whether this machine has the programs of a desktop.

use std::path::Path;

/// What a desktop needs of `/usr`, and the package that Debian has it in.
const NEEDED: [(&str, &str); 8] = [
    ("bin/Xtigervnc", "tigervnc-standalone-server"),
    ("bin/xkbcomp", "x11-xkb-utils"),
    ("bin/openbox", "openbox"),
    ("bin/websockify", "websockify"),
    ("share/novnc/vnc.html", "novnc"),
    ("bin/xclip", "xclip"),
    ("bin/xdg-open", "xdg-utils"),
    ("bin/xterm", "xterm"),
];

/// What to do where programs of a desktop are missing.
pub(crate) const DESKTOP_REMEDY: &str = "apt install --no-install-recommends tigervnc-standalone-server openbox novnc websockify \
     xclip xdg-utils xterm, and restart the engine";

/// Names what is missing.
pub(crate) fn desktop_programs() -> Result<(), String> {
    missing_below(Path::new("/usr"))
}

fn missing_below(usr: &Path) -> Result<(), String> {
    let missing = NEEDED.iter().filter(|(path, _)| !usr.join(path).exists());
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if packages.is_empty() {
        return Ok(());
    }
    Err(format!("this machine lacks programs of a desktop ({})", packages.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let usr = tempfile::tempdir().unwrap();
        let missing = missing_below(usr.path()).unwrap_err();
        for (_, package) in NEEDED {
            assert!(missing.contains(package), "{missing}");
        }
        for (path, _) in &NEEDED[1..] {
            let path = usr.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, "").unwrap();
        }
        assert!(missing_below(usr.path()).unwrap_err().ends_with("(tigervnc-standalone-server)"));
    }
}
