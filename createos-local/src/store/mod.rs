//! What must survive the engine: SQLite behind typed functions. No SQL elsewhere.
//!
//! One thread owns the connection; calls are sent to it, so that neither disk waits nor
//! SQLite's locking touch the async threads. Every write is durable when its call returns.

mod devices;
mod migrations;
mod networks;
mod record;
mod s3_disks;
mod sandboxes;
mod settings;
mod templates;
mod tokens;
mod traffic;
mod usage;
mod vault;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::oneshot;

pub(crate) use devices::{Device, DeviceError, DeviceLink, NewDevice};
pub(crate) use networks::{Join, Member, Network, NetworkError, Removal};
pub(crate) use record::{NewSandbox, Sandbox};
pub(crate) use s3_disks::{Attached, Attachment, DiskRemoval, S3Disk, overlap};
pub(crate) use sandboxes::{Change, Counts, InsertError, Page};
pub(crate) use settings::Setting;
pub(crate) use templates::{LogLine, Template, TemplatePage};
pub(crate) use tokens::{Digest, TokenRecord};
pub(crate) use usage::{InUse, Used};

/// How long SQLite waits for another program's lock before it gives up.
const LOCK_WAIT: Duration = Duration::from_secs(2);

/// Why the store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    #[error("another program holds the database locked")]
    Locked,
    #[error("the database is damaged: {0}")]
    Corrupt(String),
    #[error("the database has version {found}, this program knows up to {supported}")]
    NewerVersion { found: usize, supported: usize },
    #[error("the disk of the database is full")]
    Full,
    #[error("the database has been closed")]
    Closed,
    #[error("the database cannot be opened: {0}")]
    Io(#[from] std::io::Error),
    #[error("the database cannot be used: {0}")]
    Other(#[source] rusqlite::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                Self::Corrupt(error.to_string())
            }
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => match error {
                rusqlite::Error::FromSqlConversionFailure(..)
                | rusqlite::Error::InvalidColumnType(..)
                | rusqlite::Error::IntegralValueOutOfRange(..) => Self::Corrupt(error.to_string()),
                error => Self::Other(error),
            },
        }
    }
}

type Job = Box<dyn FnOnce(&mut Connection) + Send>;

enum Message {
    Run(Job),
    Close(oneshot::Sender<()>),
}

/// A handle to the database thread. Clones share it; the thread ends with the last one.
#[derive(Debug, Clone)]
pub(crate) struct Store {
    thread: mpsc::Sender<Message>,
    vault: Arc<vault::Vault>,
}

impl Store {
    /// Opens or creates the database and brings it to this program's version.
    pub(crate) async fn open(path: &Path) -> Result<Self, StoreError> {
        let vault = Arc::new(vault::Vault::beside(path));
        let path = path.to_owned();
        let (opened, is_open) = oneshot::channel();
        let (thread, messages) = mpsc::channel();
        std::thread::Builder::new().name("createos-store".to_owned()).spawn(
            move || match connect(&path) {
                Ok(connection) => {
                    if opened.send(Ok(())).is_ok() {
                        serve(connection, &messages);
                    }
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                }
            },
        )?;
        is_open.await.map_err(|_| StoreError::Closed)??;
        Ok(Self { thread, vault })
    }

    /// Runs `job` on the database thread. A dropped call still runs to its end.
    async fn call<T, E>(
        &self,
        job: impl FnOnce(&mut Connection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (answer, result) = oneshot::channel();
        let job: Job = Box::new(move |connection| {
            let _ = answer.send(job(connection));
        });
        self.thread.send(Message::Run(job)).map_err(|_| StoreError::Closed)?;
        result.await.map_err(|_| E::from(StoreError::Closed))?
    }

    /// Closes the database after everything asked before; later calls fail with `Closed`.
    pub(crate) async fn close(&self) {
        let (closed, is_closed) = oneshot::channel();
        if self.thread.send(Message::Close(closed)).is_ok() {
            let _ = is_closed.await;
        }
    }
}

fn serve(mut connection: Connection, messages: &mpsc::Receiver<Message>) {
    while let Ok(message) = messages.recv() {
        match message {
            Message::Run(job) => job(&mut connection),
            Message::Close(closed) => {
                if let Err((_, error)) = connection.close() {
                    tracing::warn!(%error, "the state database did not close cleanly");
                }
                let _ = closed.send(());
                return;
            }
        }
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    // It holds environment values. SQLite gives its side files the mode of this one.
    let private =
        OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path);
    drop(private?);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
        | OpenFlags::SQLITE_OPEN_CREATE
        | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(LOCK_WAIT)?;
    // Answers the new mode; asking also proves that the file is a database we may write.
    connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", true)?;
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::Corrupt(verdict));
    }
    migrations::migrate(&mut connection)?;
    Ok(connection)
}

#[cfg(test)]
mod tests;
