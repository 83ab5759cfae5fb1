//! Which directories of a sandbox are not synced (cli.md 3.4). Nothing lifts this.

use crate::failure::Failure;

const SYSTEM: [&str; 11] =
    ["etc", "usr", "bin", "sbin", "lib", "lib64", "boot", "proc", "sys", "dev", "run"];

/// The path without `.`, `..` and needless slashes, if it may be synced.
pub(super) fn check(path: &str, user: &str) -> Result<String, Failure> {
    let wrong = |why: &str| Failure::usage(format!("--remote {path:?} {why}"));
    if path.is_empty() {
        return Err(wrong("is empty; write an absolute path, for example /root/work"));
    }
    if !path.starts_with('/') {
        return Err(wrong("is not absolute; for example: /root/work"));
    }
    if path.contains(['\0', '\n']) {
        return Err(wrong("holds a line break or a NUL"));
    }
    let clean = clean(path);
    match refusal(&clean, user) {
        Some(why) => Err(Failure::usage(format!("{clean} in the sandbox is not synced: {why}"))),
        None => Ok(clean),
    }
}

/// Why a clean path is not synced.
pub(super) fn refusal(path: &str, user: &str) -> Option<&'static str> {
    let home = match user {
        "root" => "/root".to_owned(),
        user => format!("/home/{user}"),
    };
    if path == "/" {
        return Some("it is the root of the file system");
    }
    let first = path.split('/').find(|part| !part.is_empty()).unwrap_or_default();
    if SYSTEM.contains(&first) {
        return Some("it belongs to the system");
    }
    if is_in(&home, path) || path == "/root" {
        return Some("it is a home directory, with the keys that let people in");
    }
    let keys = |home: &str| is_in(path, &format!("{home}/.ssh"));
    (keys(&home) || keys("/root")).then_some("the keys that let people in are there")
}

/// Whether a path is a directory or below it.
pub(super) fn is_in(path: &str, dir: &str) -> bool {
    let below = path.strip_prefix(dir.trim_end_matches('/'));
    below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_and_what_is_not() {
        let said = |path: &str, user: &str| match check(path, user) {
            Ok(path) => path,
            Err(failure) => format!("refused: {}", failure.message()),
        };
        for path in ["", "work", "~/work", "/a\nb", "/a\0"] {
            assert!(said(path, "root").starts_with("refused: --remote"), "{path:?}");
        }
        for path in [
            "/",
            "//",
            "/.",
            "/a/..",
            "/etc",
            "/etc/x",
            "/a/../etc",
            "/usr/src",
            "/run/x",
            "/root",
            "/root/",
            "/root/.ssh",
            "/root/x/../.ssh/y",
            "/./root",
            "/dev/shm",
            "/lib64",
        ] {
            assert!(said(path, "root").contains("not synced"), "{path:?}: {}", said(path, "root"));
        }
        for (path, user) in
            [("/home/web", "web"), ("/home/web/.ssh", "web"), ("/home", "web"), ("/root", "web")]
        {
            assert!(said(path, user).contains("not synced"), "{path} as {user}");
        }
        for (path, clean) in [
            ("/root/work", "/root/work"),
            ("/root//work/./x/", "/root/work/x"),
            ("/etcetera", "/etcetera"),
            ("/workspace", "/workspace"),
            ("/var/www", "/var/www"),
            ("/root/.sshd", "/root/.sshd"),
            ("/home/other", "/home/other"),
            ("/tmp/x", "/tmp/x"),
        ] {
            assert_eq!(said(path, "root"), clean);
        }
        assert_eq!(said("/home/web/work", "web"), "/home/web/work");
    }
}
