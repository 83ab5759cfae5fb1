//! What a sandbox is layered from, as it is kept beside its files.
//!
//! A chain changes by replacing its file, so it is read whole whenever the engine dies.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

const FILE: &str = "chain.json";

/// Name of a layer's directory.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct LayerId(String);

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl LayerId {
    /// Short, because all of a chain's paths must fit into one mount option on some kernels.
    pub(crate) fn new() -> Self {
        const DIGITS: &[u8] = b"0123456789abcdefghjkmnpqrstvwxyz";
        Self((0..12).map(|_| char::from(DIGITS[fastrand::usize(..DIGITS.len())])).collect())
    }

    /// Reads a directory's name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let valid = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        valid.then(|| Self(name.to_owned()))
    }

    /// Where it lies, relative to the data directory.
    pub(crate) fn directory(&self) -> String {
        format!("layers/{}", self.0)
    }
}

/// What lies below all layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Base {
    /// This machine's own system.
    #[default]
    Host,
    /// Mount points and nothing else: the lowest layer is a whole system.
    Bare,
}

/// The shared, read-only layers between a sandbox's own layer and its base.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chain {
    /// Topmost first.
    pub(crate) layers: Vec<LayerId>,
    /// How much of the disk's size they hold.
    pub(crate) held_mib: u64,
    #[serde(default)]
    pub(crate) base: Base,
    /// The layer that the sandbox's own one is about to become, once its directory has
    /// been moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) sealing: Option<Sealing>,
}

/// A seal under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sealing {
    pub(crate) layer: LayerId,
    pub(crate) held_mib: u64,
}

impl Chain {
    /// The chain of the sandbox in `directory`; an empty one where there is none.
    pub(crate) fn read(directory: &Path) -> io::Result<Self> {
        let path = directory.join(FILE);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text).map_err(|error| {
                let message = format!("{} is damaged: {error}", path.display());
                io::Error::new(io::ErrorKind::InvalidData, message)
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Puts it in place, durably.
    pub(crate) fn write(&self, directory: &Path) -> io::Result<()> {
        let fresh = directory.join(".chain.new");
        let mut file = File::create(&fresh)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        fs::rename(&fresh, directory.join(FILE))?;
        sync(directory)
    }
}

/// Makes renames in a directory durable.
pub(crate) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_reads_back_and_damage_is_named() {
        let dir = tempfile::tempdir().expect("directory");
        assert_eq!(Chain::read(dir.path()).expect("none yet"), Chain::default());
        let chain = Chain {
            layers: vec![LayerId::new(), LayerId::new()],
            held_mib: 7,
            base: Base::Bare,
            sealing: Some(Sealing { layer: LayerId::new(), held_mib: 9 }),
        };
        chain.write(dir.path()).expect("write");
        assert_eq!(Chain::read(dir.path()).expect("read"), chain);
        fs::write(dir.path().join(FILE), "{").expect("damage");
        assert!(Chain::read(dir.path()).unwrap_err().to_string().contains("damaged"));
    }

    #[test]
    fn layer_names_are_plain() {
        let id = LayerId::new();
        let name = id.directory().strip_prefix("layers/").expect("a prefix").to_owned();
        assert_eq!(LayerId::parse(&name), Some(id));
        for bad in ["", "..", "a/b", ".new"] {
            assert_eq!(LayerId::parse(bad), None, "{bad}");
        }
    }
}
