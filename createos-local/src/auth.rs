//! The access key: made at the first start, kept in a file only its owner reads.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use createos_sdk::Secret;
use rustix::rand::{GetRandomFlags, getrandom};
use subtle::ConstantTimeEq as _;

use crate::error::EngineError;

const FILE: &str = "api.key";
const PREFIX: &str = "skp_local_";
/// 30 bytes are 40 characters of base64url.
const RANDOM_BYTES: usize = 30;
const MAX_LEN: usize = 512;

/// The key that requests must carry.
#[derive(Debug, Clone)]
pub(crate) struct ApiKey(Secret);

impl ApiKey {
    /// A key chosen by the program. It is not written down.
    pub(crate) fn given(key: Secret) -> Result<Self, EngineError> {
        check(key.expose()).then_some(Self(key)).ok_or(EngineError::BadKey { path: None })
    }

    /// The key of a data directory, made when it has none.
    pub(crate) fn of_dir(dir: &Path) -> Result<Self, EngineError> {
        let path = dir.join(FILE);
        let failed = |action| {
            let path = path.clone();
            move |source| EngineError::DataDir { path, action, source }
        };
        match fs::read_to_string(&path) {
            Ok(text) => {
                // Whoever widened it, the key is ours alone again from here on.
                fs::set_permissions(&path, Permissions::from_mode(0o600))
                    .map_err(failed("making the key private"))?;
                let key = text.trim();
                check(key)
                    .then(|| Self(key.into()))
                    .ok_or_else(|| EngineError::BadKey { path: Some(path.clone()) })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let key = random_key(PREFIX).map_err(failed("making a key"))?;
                write(&path, &key).map_err(failed("writing the key"))?;
                Ok(Self(key.into()))
            }
            Err(error) => Err(failed("reading the key")(error)),
        }
    }

    pub(crate) fn secret(&self) -> &Secret {
        &self.0
    }

    /// Compares in constant time; only the length can be learned from how long it takes.
    pub(crate) fn matches(&self, candidate: &[u8]) -> bool {
        self.0.expose().as_bytes().ct_eq(candidate).into()
    }
}

fn check(key: &str) -> bool {
    (1..=MAX_LEN).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

/// A fresh key or token that begins with `prefix`.
pub(crate) fn random_key(prefix: &str) -> io::Result<String> {
    let mut random = [0; RANDOM_BYTES];
    let mut filled = 0;
    while filled < random.len() {
        filled += getrandom(&mut random[filled..], GetRandomFlags::empty())?;
    }
    Ok(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random)))
}

/// Writes beside and renames, so that a kill never leaves half a key.
fn write(path: &Path, key: &str) -> io::Result<()> {
    let beside = path.with_extension("key.new");
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    writeln!(file, "{key}")?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_kept_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = ApiKey::of_dir(dir.path()).unwrap();
        let key = first.secret().expose();
        assert!(key.starts_with(PREFIX) && key.len() == PREFIX.len() + 40, "{}", key.len());
        let path = dir.path().join(FILE);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let again = ApiKey::of_dir(dir.path()).unwrap();
        assert_eq!(again.secret(), first.secret());
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

        let other = tempfile::tempdir().unwrap();
        assert_ne!(ApiKey::of_dir(other.path()).unwrap().secret(), first.secret());
    }

    #[test]
    fn broken_keys_are_refused_without_showing_them() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["", " \n", "two words", "ümlaut", &"x".repeat(513)] {
            fs::write(dir.path().join(FILE), bad).unwrap();
            let error = ApiKey::of_dir(dir.path()).unwrap_err();
            assert!(matches!(error, EngineError::BadKey { path: Some(_) }), "{error}");
            assert!(ApiKey::given(bad.into()).is_err());
        }
        assert!(!format!("{:?}", ApiKey::given("hunter2".into()).unwrap()).contains("hunter2"));
    }

    #[test]
    fn only_the_whole_key_matches() {
        let key = ApiKey::given("skp_abc".into()).unwrap();
        assert!(key.matches(b"skp_abc"));
        for wrong in ["", "skp_ab", "skp_abcd", "skp_abC", "SKP_ABC", "skp_abc "] {
            assert!(!key.matches(wrong.as_bytes()), "{wrong:?}");
        }
    }
}
