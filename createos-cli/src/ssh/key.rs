//! Key pairs of this machine (cli.md 2.11, 3.6).

use std::path::{Path, PathBuf};

use createos_sdk::SshPublicKey;

use crate::failure::Failure;
use crate::store::Paths;
use crate::value::ssh_key;

/// Where ssh itself looks, in our order.
const USUAL: [&str; 3] = ["id_ed25519", "id_rsa", "id_ecdsa"];

/// A private key that stays here, and its public half.
#[derive(Debug)]
pub(crate) struct KeyPair {
    pub(crate) private: PathBuf,
    /// The file of the public half.
    pub(crate) file: PathBuf,
    pub(crate) public: SshPublicKey,
}

/// The pair that was named, or the first usual one.
///
/// # Errors
/// A half is missing or unreadable, or there is no pair at all.
pub(crate) fn choose(paths: &Paths, named: Option<&Path>) -> Result<KeyPair, Failure> {
    if let Some(named) = named {
        return open(&ssh_key::expand(named, paths.home()));
    }
    find(paths)?.ok_or_else(|| {
        Failure::local(
            "there is no SSH key in ~/.ssh (id_ed25519, id_rsa or id_ecdsa with its .pub)",
        )
        .hint(
            "make one: ssh-keygen -t ed25519\n\
                 or name one: -i <private key>\n\
                 or do without SSH: createos sandbox shell",
        )
    })
}

/// The first usual pair, if there is one.
pub(crate) fn find(paths: &Paths) -> Result<Option<KeyPair>, Failure> {
    let Some(home) = paths.home() else { return Ok(None) };
    let private = USUAL.iter().map(|name| home.join(".ssh").join(name));
    let has_public = |private: &PathBuf| private.is_file() && public_file(private).is_file();
    private.filter(has_public).map(|private| open(&private)).next().transpose()
}

/// The pair of this private key.
pub(crate) fn open(private: &Path) -> Result<KeyPair, Failure> {
    if let Some(half) = other_half(private) {
        let text = format!("{} is the public half of a key", private.display());
        return Err(
            Failure::usage(text).hint(format!("name the private one: -i {}", half.display()))
        );
    }
    // ssh would ask for a password instead of saying that it cannot read its key.
    std::fs::File::open(private).map_err(|error| {
        Failure::io(format!("cannot read the SSH key {}", private.display()), &error)
    })?;
    let file = public_file(private);
    let text = std::fs::read_to_string(&file).map_err(|error| {
        let what = format!("cannot read the public half of the SSH key, {}", file.display());
        let make = format!("make it: ssh-keygen -y -f {} > {}", private.display(), file.display());
        Failure::io(what, &error).hint(make)
    })?;
    let public = text.parse().map_err(|error: createos_sdk::Error| {
        Failure::local(format!("{}: {}", file.display(), error.message()))
    })?;
    Ok(KeyPair { private: private.to_owned(), file, public })
}

fn public_file(private: &Path) -> PathBuf {
    let mut name = private.as_os_str().to_owned();
    name.push(".pub");
    name.into()
}

/// `id` for `id.pub` where both are there.
fn other_half(path: &Path) -> Option<PathBuf> {
    let private = path.with_extension("");
    (path.extension()? == "pub" && private.is_file()).then_some(private)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLIC: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0jbyYn0Qq6AvS4oPmtjPYqUYuhNPhPwoKvP1VWG0Jw me\n";

    fn pair() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let private = dir.path().join("id.work");
        std::fs::write(&private, "private").unwrap();
        std::fs::write(public_file(&private), PUBLIC).unwrap();
        (dir, private)
    }

    #[test]
    fn both_halves_are_needed_and_the_missing_one_is_named() {
        let (_dir, private) = pair();
        assert_eq!(open(&private).unwrap().public.comment(), "me");
        let failure = open(&public_file(&private)).unwrap_err();
        assert!(failure.message().contains("public half"), "{failure:?}");
        std::fs::remove_file(public_file(&private)).unwrap();
        let failure = open(&private).unwrap_err();
        assert!(failure.message().contains("id.work.pub"), "{failure:?}");
        std::fs::remove_file(&private).unwrap();
        let failure = open(&private).unwrap_err();
        assert!(failure.message().ends_with("no such file or directory"), "{failure:?}");
    }

    #[test]
    fn a_public_half_that_is_none_is_refused_without_being_shown() {
        let (_dir, private) = pair();
        std::fs::write(public_file(&private), "-----BEGIN PRIVATE KEY-----\nsecret").unwrap();
        let failure = open(&private).unwrap_err();
        assert!(failure.message().contains("private key"), "{failure:?}");
        assert!(!format!("{failure:?}").contains("secret"));
    }
}
