//! The stored sign-in, in the places of the official command (cli.md 1.11).

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::{Paths, private_file};
use crate::failure::Failure;
use crate::output::Printer;

/// A stored credential.
pub(crate) enum Stored {
    /// An API key from `login --token`.
    ApiKey(String),
    /// An OAuth session of the official command.
    Session(Session),
}

/// The OAuth session file.
#[derive(Deserialize)]
pub(crate) struct Session {
    pub(crate) access_token: String,
    /// Unix seconds.
    #[serde(default)]
    pub(crate) expires_at: i64,
}

impl Session {
    /// Whether the access token has run out. Without a time the server decides.
    pub(crate) fn has_ended(&self) -> bool {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now = now.map_or(0, |time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX));
        self.expires_at > 0 && self.expires_at <= now
    }
}

/// The two credential files.
#[derive(Debug)]
pub(crate) struct Store {
    token: PathBuf,
    session: PathBuf,
}

impl Store {
    pub(crate) fn open(paths: &Paths) -> Result<Self, Failure> {
        let dir = paths.account()?;
        Ok(Self { token: dir.join(".token"), session: dir.join(".oauth") })
    }

    /// The sign-in: a session beats a key, as in the official command.
    pub(crate) fn load(&self, out: &Printer) -> Result<Option<Stored>, Failure> {
        if let Some(text) = read(&self.session, out)? {
            let session = serde_json::from_str(&text).map_err(|_| {
                Failure::local(format!("{} is not a session file", self.session.display()))
                    .hint("sign in again: createos login --token <key>")
            })?;
            return Ok(Some(Stored::Session(session)));
        }
        let key = read(&self.token, out)?.map(|text| text.trim().to_owned());
        Ok(key.filter(|key| !key.is_empty()).map(Stored::ApiKey))
    }

    /// Stores a verified key; an older session would otherwise shadow it.
    pub(crate) fn save_key(&self, key: &str) -> Result<(), Failure> {
        private_file::write(&self.token, key).map_err(|error| {
            Failure::io(format!("cannot store {}", self.token.display()), &error)
        })?;
        remove(&self.session).map(drop)
    }

    /// Deletes both files; `false` when there was neither.
    pub(crate) fn clear(&self) -> Result<bool, Failure> {
        let session = remove(&self.session)?;
        let token = remove(&self.token)?;
        Ok(session || token)
    }
}

fn read(path: &Path, out: &Printer) -> Result<Option<String>, Failure> {
    let content = private_file::read(path)
        .map_err(|error| Failure::io(format!("cannot read {}", path.display()), &error))?;
    let Some(content) = content else { return Ok(None) };
    if content.exposed {
        let path = path.display();
        out.warn(&format!("other users can read {path}; close it with: chmod 600 {path}"));
    }
    Ok(Some(content.text))
}

fn remove(path: &Path) -> Result<bool, Failure> {
    private_file::remove(path)
        .map_err(|error| Failure::io(format!("cannot delete {}", path.display()), &error))
}
