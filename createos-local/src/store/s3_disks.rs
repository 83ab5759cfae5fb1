//! The tables of S3 disks and of where they are attached (api.md 4.17, 5.7).

use std::time::SystemTime;

use createos_sdk::wire::{DiskConfig, DiskCredentials};
use createos_sdk::{DiskId, SandboxId};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};

use super::record::{from_micros, to_json, to_micros};
use super::sandboxes::get;
use super::{Sandbox, Store, StoreError};
use crate::core::State;

/// Sandboxes in these states hold their disks no more.
const OVER: &str = "('destroying', 'destroyed', 'failed')";

/// A bucket that can be mounted.
#[derive(Debug, Clone)]
pub(crate) struct S3Disk {
    pub(crate) id: DiskId,
    pub(crate) name: String,
    pub(crate) config: DiskConfig,
    pub(crate) created_at: SystemTime,
    sealed: Vec<u8>,
}

/// Where a disk is to be seen in a sandbox.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    pub(crate) disk: S3Disk,
    pub(crate) mount_path: String,
    /// The part of the bucket that is seen; empty is all of it.
    pub(crate) sub_path: String,
}

/// What an attachment came to.
#[derive(Debug)]
pub(crate) enum Attached {
    Done,
    /// The sandbox is in a state that allows no attachments.
    Refused(Box<Sandbox>),
    /// Something else is attached there, above or below.
    Taken(String),
    TooMany,
    NoSandbox,
}

/// What the removal of a disk came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum DiskRemoval {
    Removed,
    /// It is attached to this sandbox.
    Attached(String),
    Unknown,
}

const COLUMNS: &str = "d.id, d.name, d.config, d.keys, d.created_at";

fn disk(row: &Row<'_>) -> rusqlite::Result<S3Disk> {
    let wrong = |column| {
        let error = format!("column {column} holds an unknown value").into();
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, error)
    };
    Ok(S3Disk {
        id: row.get::<_, String>(0)?.parse().map_err(|_| wrong(0))?,
        name: row.get(1)?,
        config: serde_json::from_str(&row.get::<_, String>(2)?).map_err(|_| wrong(2))?,
        sealed: row.get(3)?,
        created_at: from_micros(row.get(4)?),
    })
}

impl Store {
    /// Writes a new disk; `None` when the name is taken.
    pub(crate) async fn insert_s3_disk(
        &self,
        id: DiskId,
        name: String,
        config: DiskConfig,
        keys: &DiskCredentials,
    ) -> Result<Option<S3Disk>, StoreError> {
        let sealed = self.seal(&id, keys)?;
        let new = S3Disk { id, name, config, created_at: SystemTime::now(), sealed };
        self.call(move |connection| {
            let inserted = connection.execute(
                "INSERT INTO s3_disks (id, name, config, keys, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    new.id.as_str(),
                    new.name,
                    to_json(&new.config)?,
                    new.sealed,
                    to_micros(new.created_at)
                ],
            );
            match inserted {
                Ok(_) => Ok(Some(new)),
                // The id is fresh: only the name is left.
                Err(error) if error.sqlite_error_code() == Some(ErrorCode::ConstraintViolation) => {
                    Ok(None)
                }
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    /// Every disk, newest first.
    pub(crate) async fn s3_disks(&self) -> Result<Vec<S3Disk>, StoreError> {
        self.call(|connection| {
            let sql = format!("SELECT {COLUMNS} FROM s3_disks d ORDER BY created_at DESC, id DESC");
            let mut statement = connection.prepare_cached(&sql)?;
            Ok(statement.query_map([], disk)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// The disk with this id or name.
    pub(crate) async fn s3_disk(&self, key: &str) -> Result<Option<S3Disk>, StoreError> {
        let key = key.to_owned();
        self.call(move |connection| find(connection, &key)).await
    }

    /// Puts other keys in the place of a disk's; `None` when there is no such disk.
    pub(crate) async fn set_s3_keys(
        &self,
        id: &DiskId,
        keys: &DiskCredentials,
    ) -> Result<Option<S3Disk>, StoreError> {
        let (id, sealed) = (id.clone(), self.seal(id, keys)?);
        self.call(move |connection| {
            let change = "UPDATE s3_disks SET keys = ?2 WHERE id = ?1";
            connection.execute(change, params![id.as_str(), sealed])?;
            find(connection, id.as_str())
        })
        .await
    }

    /// The keys of a disk. An error says why they cannot be read any more.
    pub(crate) fn s3_keys(&self, disk: &S3Disk) -> std::io::Result<DiskCredentials> {
        let opened = self.vault.open(disk.id.as_str(), &disk.sealed)?;
        // The error would repeat what it cannot read.
        serde_json::from_slice(&opened).map_err(|_| std::io::Error::other("they are damaged"))
    }

    fn seal(&self, id: &DiskId, keys: &DiskCredentials) -> Result<Vec<u8>, StoreError> {
        let text = serde_json::to_vec(keys).map_err(std::io::Error::other)?;
        Ok(self.vault.seal(id.as_str(), &text)?)
    }

    /// Removes a disk that no living sandbox has.
    pub(crate) async fn remove_s3_disk(&self, id: &DiskId) -> Result<DiskRemoval, StoreError> {
        let id = id.clone();
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            let sql = format!(
                "SELECT s.name FROM attachments a JOIN sandboxes s ON s.id = a.sandbox
                 WHERE a.disk = ?1 AND s.status NOT IN {OVER} LIMIT 1"
            );
            let holder: Option<String> =
                transaction.query_row(&sql, [id.as_str()], |row| row.get(0)).optional()?;
            if let Some(holder) = holder {
                return Ok(DiskRemoval::Attached(holder));
            }
            let removed =
                transaction.execute("DELETE FROM s3_disks WHERE id = ?1", [id.as_str()])?;
            transaction.commit()?;
            Ok(if removed > 0 { DiskRemoval::Removed } else { DiskRemoval::Unknown })
        })
        .await
    }

    /// Attaches a disk to a sandbox that is in one of these states.
    pub(crate) async fn attach_disk(
        &self,
        sandbox: &SandboxId,
        states: &[State],
        attachment: Attachment,
        most: usize,
    ) -> Result<Attached, StoreError> {
        let (id, states) = (sandbox.clone(), states.to_vec());
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            match get(&transaction, &id)? {
                Some(sandbox) if states.contains(&sandbox.state) => {}
                Some(sandbox) => return Ok(Attached::Refused(Box::new(sandbox))),
                None => return Ok(Attached::NoSandbox),
            }
            let others = attachments(&transaction, &id)?;
            if others.len() >= most {
                return Ok(Attached::TooMany);
            }
            let path = &attachment.mount_path;
            if let Some(other) = others.into_iter().find(|one| overlap(&one.mount_path, path)) {
                return Ok(Attached::Taken(other.mount_path));
            }
            transaction.execute(
                "INSERT INTO attachments (sandbox, disk, mount_path, sub_path)
                 VALUES (?1, ?2, ?3, ?4)",
                params![id.as_str(), attachment.disk.id.as_str(), path, attachment.sub_path],
            )?;
            transaction.commit()?;
            Ok(Attached::Done)
        })
        .await
    }

    /// What is attached to a sandbox, by path.
    pub(crate) async fn attachments(
        &self,
        sandbox: &SandboxId,
    ) -> Result<Vec<Attachment>, StoreError> {
        let sandbox = sandbox.clone();
        self.call(move |connection| attachments(connection, &sandbox)).await
    }

    /// Forgets an attachment, or with no path all of a sandbox.
    pub(crate) async fn detach_disks(
        &self,
        sandbox: &SandboxId,
        mount_path: Option<&str>,
    ) -> Result<(), StoreError> {
        let (sandbox, path) = (sandbox.clone(), mount_path.map(str::to_owned));
        self.call(move |connection| {
            connection.execute(
                "DELETE FROM attachments
                 WHERE sandbox = ?1 AND (?2 IS NULL OR mount_path = ?2)",
                params![sandbox.as_str(), path],
            )?;
            Ok(())
        })
        .await
    }
}

fn find(connection: &Connection, key: &str) -> Result<Option<S3Disk>, StoreError> {
    // A name cannot have an underscore, so it is nobody's id.
    let sql = format!("SELECT {COLUMNS} FROM s3_disks d WHERE id = ?1 OR name = ?1");
    Ok(connection.prepare_cached(&sql)?.query_row([key], disk).optional()?)
}

fn attachments(
    connection: &Connection,
    sandbox: &SandboxId,
) -> Result<Vec<Attachment>, StoreError> {
    let sql = format!(
        "SELECT {COLUMNS}, a.mount_path, a.sub_path
         FROM attachments a JOIN s3_disks d ON d.id = a.disk
         WHERE a.sandbox = ?1 ORDER BY a.mount_path"
    );
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([sandbox.as_str()], |row| {
        Ok(Attachment { disk: disk(row)?, mount_path: row.get(5)?, sub_path: row.get(6)? })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Whether two paths are the same, or one is below the other.
pub(crate) fn overlap(one: &str, other: &str) -> bool {
    let (short, long) = if one.len() < other.len() { (one, other) } else { (other, one) };
    long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
