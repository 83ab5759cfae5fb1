//! The stored sign-in, in the places of the official command (cli.md 1.11).

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use createos_sdk::Secret;
use createos_sdk::oauth::Tokens;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Paths, private_file};
use crate::failure::Failure;
use crate::output::Printer;

/// Longest wait for another command that renews the session.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A stored credential.
pub(crate) enum Stored {
    /// An API key from `login --token`.
    ApiKey(String),
    /// An OAuth session, of this command or the official one.
    Session(Session),
}

/// The OAuth session file.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Session {
    pub(crate) access_token: Secret,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refresh_token: Option<Secret>,
    /// Unix seconds; 0 when nobody knows.
    #[serde(default)]
    expires_at: u64,
    #[serde(default)]
    token_endpoint: String,
    /// Who renews it; the official command has its own and does not write it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) client_id: Option<String>,
    /// What another version wrote, and gets back.
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl Session {
    /// A session that was just begun.
    pub(crate) fn new(tokens: Tokens, client_id: &str) -> Self {
        Self {
            expires_at: tokens.expires_at_unix(),
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
            token_endpoint: tokens.token_endpoint,
            client_id: Some(client_id.to_owned()),
            other: Map::new(),
        }
    }

    /// The same session with new tokens.
    pub(crate) fn renewed(&self, tokens: Tokens) -> Self {
        Self {
            expires_at: tokens.expires_at_unix(),
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
            ..self.clone()
        }
    }

    pub(crate) fn tokens(&self) -> Tokens {
        let expires_at = UNIX_EPOCH.checked_add(Duration::from_secs(self.expires_at));
        Tokens::new(
            self.access_token.clone(),
            self.refresh_token.clone(),
            expires_at.unwrap_or_else(SystemTime::now),
            self.token_endpoint.clone(),
        )
    }

    /// Whether the access token runs out that soon. Without a time the server decides.
    pub(crate) fn expires_within(&self, margin: Duration) -> bool {
        self.expires_at > 0 && self.tokens().expires_within(margin)
    }
}

/// The two credential files, and the lock that renewals and changes take.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    token: PathBuf,
    session: PathBuf,
    lock: PathBuf,
}

/// Held while the files are changed; dropping it lets others in.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "closing it unlocks")] File);

impl Store {
    pub(crate) fn open(paths: &Paths) -> Result<Self, Failure> {
        let dir = paths.account()?;
        Ok(Self { token: dir.join(".token"), session: dir.join(".oauth"), lock: dir.join(".lock") })
    }

    /// The sign-in: a session beats a key, as in the official command.
    pub(crate) fn load(&self, out: &Printer) -> Result<Option<Stored>, Failure> {
        if let Some(text) = read(&self.session, Some(out))? {
            return self.parse(&text).map(|session| Some(Stored::Session(session)));
        }
        let key = read(&self.token, Some(out))?.map(|text| text.trim().to_owned());
        Ok(key.filter(|key| !key.is_empty()).map(Stored::ApiKey))
    }

    /// The session alone, as it is now.
    pub(crate) fn session(&self) -> Result<Option<Session>, Failure> {
        read(&self.session, None)?.map(|text| self.parse(&text)).transpose()
    }

    fn parse(&self, text: &str) -> Result<Session, Failure> {
        serde_json::from_str(text).map_err(|_| {
            Failure::local(format!("{} is not a session file", self.session.display()))
                .hint("sign in again: createos login")
        })
    }

    /// Waits until no other command renews or changes the sign-in.
    pub(crate) async fn lock(&self) -> Result<Lock, Failure> {
        let cannot = |error: &std::io::Error| {
            Failure::io(format!("cannot lock {}", self.lock.display()), error)
        };
        let file = private_file::create(&self.lock).map_err(|error| cannot(&error))?;
        let until = tokio::time::Instant::now() + LOCK_PATIENCE;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Lock(file)),
                Err(TryLockError::Error(error)) => return Err(cannot(&error)),
                Err(TryLockError::WouldBlock) if tokio::time::Instant::now() >= until => {
                    let path = self.lock.display();
                    return Err(Failure::local(format!("another program keeps {path} locked"))
                        .hint("end it, then repeat"));
                }
                Err(TryLockError::WouldBlock) => tokio::time::sleep(LOCK_PAUSE).await,
            }
        }
    }

    /// Stores a verified key; an older session would otherwise shadow it.
    pub(crate) async fn save_key(&self, key: &str) -> Result<(), Failure> {
        let _lock = self.lock().await?;
        write(&self.token, key)?;
        remove(&self.session).map(drop)
    }

    /// Stores a session; an older key would never be used again.
    pub(crate) async fn save_session(&self, session: &Session) -> Result<(), Failure> {
        let _lock = self.lock().await?;
        self.write_session(session)?;
        remove(&self.token).map(drop)
    }

    /// Replaces the session. For who holds the lock.
    pub(crate) fn write_session(&self, session: &Session) -> Result<(), Failure> {
        let text = serde_json::to_string(session)
            .map_err(|error| Failure::local(format!("cannot store the session: {error}")))?;
        write(&self.session, &text)
    }

    /// Deletes both files; `false` when there was neither.
    pub(crate) async fn clear(&self) -> Result<bool, Failure> {
        if !self.token.exists() && !self.session.exists() {
            return Ok(false);
        }
        let _lock = self.lock().await?;
        let session = remove(&self.session)?;
        let token = remove(&self.token)?;
        Ok(session || token)
    }
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    private_file::write(path, text)
        .map_err(|error| Failure::io(format!("cannot store {}", path.display()), &error))
}

/// Reads a file, and warns where somebody can be warned.
fn read(path: &Path, out: Option<&Printer>) -> Result<Option<String>, Failure> {
    let content = private_file::read(path)
        .map_err(|error| Failure::io(format!("cannot read {}", path.display()), &error))?;
    let Some(content) = content else { return Ok(None) };
    if let Some(out) = out.filter(|_| content.exposed) {
        let path = path.display();
        out.warn(&format!("other users can read {path}; close it with: chmod 600 {path}"));
    }
    Ok(Some(content.text))
}

fn remove(path: &Path) -> Result<bool, Failure> {
    private_file::remove(path)
        .map_err(|error| Failure::io(format!("cannot delete {}", path.display()), &error))
}
