//! Public key files of `--ssh-key`.

use std::path::{Path, PathBuf};

use crate::failure::Failure;

/// Public keys are a few hundred bytes; anything far above is another file.
const MAX_BYTES: u64 = 1024 * 1024;

/// The public keys of all files, in order.
///
/// # Errors
/// Names the file that cannot be read, holds no public key, or holds a private one.
pub(crate) fn read_all(paths: &[PathBuf], home: Option<&Path>) -> Result<Vec<String>, Failure> {
    let mut keys = Vec::new();
    for path in paths {
        keys.extend(read(&expand(path, home))?);
    }
    Ok(keys)
}

/// `~/x` is left to the program when it stands behind `--ssh-key=`.
pub(crate) fn expand(path: &Path, home: Option<&Path>) -> PathBuf {
    match (path.strip_prefix("~"), home) {
        (Ok(rest), Some(home)) => home.join(rest),
        _ => path.to_owned(),
    }
}

fn read(path: &Path) -> Result<Vec<String>, Failure> {
    let cannot = |error| Failure::io(format!("cannot read the SSH key {}", path.display()), &error);
    if std::fs::metadata(path).map_err(cannot)?.len() > MAX_BYTES {
        return Err(no_key(path));
    }
    let content = std::fs::read(path).map_err(cannot)?;
    let content = String::from_utf8_lossy(&content);
    if content.contains("PRIVATE KEY") {
        return Err(Failure::usage(format!("{} is a private key; it stays here", path.display()))
            .hint(format!("send the public half: --ssh-key {}.pub", path.display())));
    }
    let keys: Vec<String> =
        content.lines().map(str::trim).filter(|line| is_public(line)).map(str::to_owned).collect();
    if keys.is_empty() { Err(no_key(path)) } else { Ok(keys) }
}

fn no_key(path: &Path) -> Failure {
    Failure::usage(format!("{} holds no SSH public key", path.display()))
        .hint("a public key file usually ends in .pub, for example ~/.ssh/id_ed25519.pub")
}

fn is_public(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    let kind = words.next().unwrap_or_default();
    let known = ["ssh-", "ecdsa-", "sk-"].iter().any(|prefix| kind.starts_with(prefix));
    known && words.next().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pub");
        std::fs::write(&path, content).unwrap();
        (dir, path)
    }

    #[test]
    fn every_public_line_is_taken() {
        let (_dir, path) =
            file("# mine\nssh-ed25519 AAAA me\n\n  ecdsa-sha2-nistp256 BBBB you \nrubbish\n");
        let keys = read_all(&[path], None).unwrap();
        assert_eq!(keys, ["ssh-ed25519 AAAA me", "ecdsa-sha2-nistp256 BBBB you"]);
    }

    #[test]
    fn a_private_key_is_refused() {
        let (_dir, path) = file("-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n");
        let failure = read_all(&[path], None).unwrap_err();
        assert!(failure.message().contains("private key"), "{failure:?}");
        assert!(!format!("{failure:?}").contains("abc"));
    }

    #[test]
    fn a_missing_or_empty_file_is_named() {
        let (dir, path) = file("nothing here\n");
        let failure = read_all(&[path], None).unwrap_err();
        assert!(failure.message().contains("no SSH public key"));
        let missing = dir.path().join("gone.pub");
        let failure = read_all(std::slice::from_ref(&missing), None).unwrap_err();
        assert!(failure.message().contains("gone.pub"), "{failure:?}");
        assert!(failure.message().contains("no such file"), "{failure:?}");
    }

    #[test]
    fn a_tilde_is_the_home_directory() {
        let (dir, _path) = file("ssh-ed25519 AAAA me\n");
        let keys = read_all(&[PathBuf::from("~/key.pub")], Some(dir.path())).unwrap();
        assert_eq!(keys.len(), 1);
    }
}
