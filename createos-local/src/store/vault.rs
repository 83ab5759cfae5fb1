//! Secrets at rest: AES-256-GCM with a key in a file of its own, beside the database.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use aes_gcm::aead::{Aead as _, Payload};
use aes_gcm::{Aes256Gcm, KeyInit as _, Nonce};
use rustix::rand::GetRandomFlags;

/// Name of the key's file.
const FILE: &str = "secret.key";
const KEY: usize = 32;
const NONCE: usize = 12;

/// Encrypts and decrypts. The key is made when it is first needed.
pub(super) struct Vault {
    path: PathBuf,
}

impl Vault {
    pub(super) fn beside(database: &Path) -> Self {
        Self { path: database.with_file_name(FILE) }
    }

    /// Encrypts a secret that belongs to what `about` names, and to nothing else.
    pub(super) fn seal(&self, about: &str, secret: &[u8]) -> io::Result<Vec<u8>> {
        let nonce: [u8; NONCE] = random()?;
        let payload = Payload { msg: secret, aad: about.as_bytes() };
        let sealed = self.cipher(true)?.encrypt(Nonce::from_slice(&nonce), payload);
        let sealed = sealed.map_err(|_| io::Error::other("the secret cannot be encrypted"))?;
        Ok([nonce.as_slice(), &sealed].concat())
    }

    /// What was sealed; an error when it was with another key, or for something else.
    pub(super) fn open(&self, about: &str, sealed: &[u8]) -> io::Result<Vec<u8>> {
        let damaged = || {
            let path = self.path.display();
            io::Error::other(format!("it was not encrypted with the key in {path}"))
        };
        let (nonce, sealed) = sealed.split_first_chunk::<NONCE>().ok_or_else(damaged)?;
        let payload = Payload { msg: sealed, aad: about.as_bytes() };
        let opened = self.cipher(false)?.decrypt(Nonce::from_slice(nonce), payload);
        opened.map_err(|_| damaged())
    }

    fn cipher(&self, make: bool) -> io::Result<Aes256Gcm> {
        let key = match self.read() {
            Err(error) if make && error.kind() == io::ErrorKind::NotFound => {
                self.make()?;
                self.read()
            }
            read => read,
        };
        key.map(|key| Aes256Gcm::new(&key.into())).map_err(|error| {
            let path = self.path.display();
            io::Error::new(error.kind(), format!("cannot use the key in {path}: {error}"))
        })
    }

    fn read(&self) -> io::Result<[u8; KEY]> {
        let mut key = Vec::with_capacity(KEY + 1);
        std::fs::File::open(&self.path)?.take(KEY as u64 + 1).read_to_end(&mut key)?;
        let wrong = |_| io::Error::new(io::ErrorKind::InvalidData, "it is not of 32 bytes");
        key.try_into().map_err(wrong)
    }

    /// The file appears with its whole content, or not at all.
    fn make(&self) -> io::Result<()> {
        let key: [u8; KEY] = random()?;
        let fresh = self.path.with_extension("new");
        let _ = std::fs::remove_file(&fresh);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh);
        let mut file = file?;
        file.write_all(&key)?;
        file.sync_all()?;
        std::fs::rename(&fresh, &self.path)
    }
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("path", &self.path).finish()
    }
}

fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled += rustix::rand::getrandom(&mut bytes[filled..], GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn secrets_open_for_what_they_were_sealed_for_and_with_their_key_alone() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::beside(&dir.path().join("state.db"));
        assert!(vault.open("a", &[0; 64]).is_err(), "opening makes no key");
        let sealed = vault.seal("a", b"hunter2").unwrap();
        assert_ne!(sealed, vault.seal("a", b"hunter2").unwrap());
        assert!(!sealed.windows(7).any(|part| part == b"hunter2"));
        let mode = std::fs::metadata(&vault.path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        assert_eq!(vault.open("a", &sealed).unwrap(), b"hunter2");
        assert!(vault.open("b", &sealed).is_err());
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(vault.open("a", &changed).is_err(), "changed at {at}");
            assert!(vault.open("a", &sealed[..at]).is_err(), "cut at {at}");
        }
        std::fs::write(&vault.path, [7; KEY]).unwrap();
        let error = vault.open("a", &sealed).unwrap_err().to_string();
        assert!(error.contains("secret.key") && !error.contains("hunter2"), "{error}");
        std::fs::write(&vault.path, [7; KEY + 1]).unwrap();
        assert!(vault.seal("a", b"x").is_err());
    }
}
