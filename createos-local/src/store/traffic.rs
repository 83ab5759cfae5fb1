//! What sandboxes have sent and received.

use createos_sdk::SandboxId;
use rusqlite::{Connection, OptionalExtension, named_params};

use super::{Store, StoreError};
use crate::net::Traffic;

impl Store {
    /// The counters of a sandbox; those of a new one where none are kept yet.
    pub(crate) async fn traffic(&self, id: &SandboxId) -> Result<Traffic, StoreError> {
        let id = id.clone();
        self.call(move |connection| read(connection, &id)).await
    }

    /// Gives a sandbox a quota of its own.
    pub(crate) async fn set_quota(&self, id: &SandboxId, quota: i64) -> Result<(), StoreError> {
        let id = id.clone();
        self.call(move |connection| write(connection, &id, Traffic { quota, ..Traffic::default() }))
            .await
    }

    /// Adds to a quota and returns it.
    pub(crate) async fn recharge(&self, id: &SandboxId, bytes: i64) -> Result<i64, StoreError> {
        let id = id.clone();
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            let traffic = read(&transaction, &id)?.recharged(bytes);
            write(&transaction, &id, traffic)?;
            transaction.commit()?;
            Ok(traffic.quota)
        })
        .await
    }

    /// Writes down how far the counters have come.
    pub(crate) async fn keep_traffic(
        &self,
        id: &SandboxId,
        sent: u64,
        received: u64,
    ) -> Result<(), StoreError> {
        let id = id.clone();
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            let traffic = read(&transaction, &id)?;
            write(&transaction, &id, Traffic { sent, received, ..traffic })?;
            Ok(transaction.commit()?)
        })
        .await
    }
}

fn read(connection: &Connection, id: &SandboxId) -> Result<Traffic, StoreError> {
    let mut statement = connection
        .prepare_cached("SELECT quota, sent, received FROM traffic WHERE sandbox = ?1")?;
    let traffic = statement.query_row([id.as_str()], |row| {
        Ok(Traffic { quota: row.get(0)?, sent: row.get(1)?, received: row.get(2)? })
    });
    Ok(traffic.optional()?.unwrap_or_default())
}

/// Of a sandbox that is gone, nothing is kept.
fn write(connection: &Connection, id: &SandboxId, traffic: Traffic) -> Result<(), StoreError> {
    let most = i64::MAX.unsigned_abs();
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO traffic (sandbox, quota, sent, received)
             SELECT id, :quota, :sent, :received FROM sandboxes WHERE id = :id",
        )?
        .execute(named_params! {
            ":id": id.as_str(),
            ":quota": traffic.quota,
            ":sent": traffic.sent.min(most),
            ":received": traffic.received.min(most),
        })?;
    Ok(())
}
