//! The table of delegated tokens. Tokens themselves are never written down.

use std::time::SystemTime;

use createos_sdk::SandboxId;
use rusqlite::{OptionalExtension, Row, named_params};

use super::record::{from_micros, to_micros};
use super::{Store, StoreError};

/// What a token is recognised by.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Digest(pub(crate) [u8; 32]);

/// What is known of a sandbox's token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenRecord {
    /// Its beginning and its end.
    pub(crate) hint: String,
    pub(crate) created_at: SystemTime,
    pub(crate) rotated_at: Option<SystemTime>,
}

impl Store {
    /// Gives a sandbox its token; `None` when it has one already.
    pub(crate) async fn insert_token(
        &self,
        sandbox: &SandboxId,
        digest: Digest,
        hint: String,
    ) -> Result<Option<TokenRecord>, StoreError> {
        let sandbox = sandbox.clone();
        self.call(move |connection| {
            let mut statement = connection.prepare_cached(
                "INSERT INTO access_tokens (sandbox, digest, hint, created_at)
                 VALUES (:sandbox, :digest, :hint, :now) ON CONFLICT (sandbox) DO NOTHING
                 RETURNING hint, created_at, rotated_at",
            )?;
            let values = named_params! {
                ":sandbox": sandbox.as_str(), ":digest": digest.0, ":hint": hint, ":now": now(),
            };
            Ok(statement.query_row(values, record).optional()?)
        })
        .await
    }

    /// Puts another token in the place of a sandbox's; `None` when it has none.
    pub(crate) async fn rotate_token(
        &self,
        sandbox: &SandboxId,
        digest: Digest,
        hint: String,
    ) -> Result<Option<TokenRecord>, StoreError> {
        let sandbox = sandbox.clone();
        self.call(move |connection| {
            let mut statement = connection.prepare_cached(
                "UPDATE access_tokens SET digest = :digest, hint = :hint, rotated_at = :now
                 WHERE sandbox = :sandbox RETURNING hint, created_at, rotated_at",
            )?;
            let values = named_params! {
                ":sandbox": sandbox.as_str(), ":digest": digest.0, ":hint": hint, ":now": now(),
            };
            Ok(statement.query_row(values, record).optional()?)
        })
        .await
    }

    pub(crate) async fn token(
        &self,
        sandbox: &SandboxId,
    ) -> Result<Option<TokenRecord>, StoreError> {
        let sandbox = sandbox.clone();
        self.call(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT hint, created_at, rotated_at FROM access_tokens WHERE sandbox = ?1",
            )?;
            Ok(statement.query_row([sandbox.as_str()], record).optional()?)
        })
        .await
    }

    pub(crate) async fn remove_token(&self, sandbox: &SandboxId) -> Result<(), StoreError> {
        let sandbox = sandbox.clone();
        self.call(move |connection| {
            connection
                .execute("DELETE FROM access_tokens WHERE sandbox = ?1", [sandbox.as_str()])?;
            Ok(())
        })
        .await
    }

    /// The sandbox that a token opens.
    pub(crate) async fn token_owner(
        &self,
        digest: Digest,
    ) -> Result<Option<SandboxId>, StoreError> {
        self.call(move |connection| {
            let mut statement =
                connection.prepare_cached("SELECT sandbox FROM access_tokens WHERE digest = ?1")?;
            let id: Option<String> =
                statement.query_row([digest.0], |row| row.get(0)).optional()?;
            Ok(id.and_then(|id| id.parse().ok()))
        })
        .await
    }
}

fn now() -> i64 {
    to_micros(SystemTime::now())
}

fn record(row: &Row<'_>) -> rusqlite::Result<TokenRecord> {
    Ok(TokenRecord {
        hint: row.get(0)?,
        created_at: from_micros(row.get(1)?),
        rotated_at: row.get::<_, Option<i64>>(2)?.map(from_micros),
    })
}
