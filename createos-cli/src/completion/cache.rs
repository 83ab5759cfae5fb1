//! What the last completion found, so that the next key is answered at once.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::PathBuf;
use std::time::Duration;

use super::names::{Kind, Name};
use crate::context::{Credential, Plane};
use crate::store::Paths;

/// Younger names are given without asking.
const FRESH: Duration = Duration::from_secs(5);
/// Older names are not even given when nobody answers.
const STALE: Duration = Duration::from_secs(3600);

/// The names on one control plane, as one account sees them.
pub(super) struct Cache {
    dir: Option<PathBuf>,
}

impl Cache {
    pub(super) fn of(paths: &Paths, plane: &Plane) -> Self {
        let mut account = DefaultHasher::new();
        plane.target.url().hash(&mut account);
        match &plane.credential {
            Credential::Key { key, .. } => key.hash(&mut account),
            Credential::Session(session) | Credential::NewSession(session) => {
                session.client_id.hash(&mut account);
            }
        }
        let account = format!("{:016x}", account.finish());
        Self { dir: paths.cache().map(|dir| dir.join("completion").join(account)) }
    }

    /// What was found a moment ago.
    pub(super) fn fresh(&self, kind: Kind) -> Option<Vec<Name>> {
        self.younger_than(FRESH, kind)
    }

    /// What was found in the last hour.
    pub(super) fn stale(&self, kind: Kind) -> Option<Vec<Name>> {
        self.younger_than(STALE, kind)
    }

    fn younger_than(&self, age: Duration, kind: Kind) -> Option<Vec<Name>> {
        let file = self.file(kind)?;
        let written = fs::metadata(&file).ok()?.modified().ok()?;
        if written.elapsed().ok()? > age {
            return None;
        }
        serde_json::from_slice(&fs::read(file).ok()?).ok()
    }

    /// Remembers; where that fails the next completion asks again.
    pub(super) fn store(&self, kind: Kind, names: &[Name]) {
        let (Some(file), Ok(text)) = (self.file(kind), serde_json::to_string(names)) else {
            return;
        };
        let _ = crate::store::write_private(&file, &text);
    }

    fn file(&self, kind: Kind) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(format!("{kind:?}.json").to_lowercase()))
    }
}
