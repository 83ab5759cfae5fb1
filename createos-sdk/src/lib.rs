//! Strongly typed async client for CreateOS sandboxes.

mod check;
mod client;
mod config;
mod error;
mod exec;
mod files;
mod http;
mod id;
mod operation;
mod options;
mod page;
mod pending;
mod sandbox;
mod secret;
mod time;
mod transport;
pub mod wire;

pub use self::client::{Client, ClientBuilder};
pub use self::error::{Error, ErrorKind, Result};
pub use self::exec::{Command, ExecEvent, ExecStream, ExitStatus, Output};
pub use self::files::{
    Download, DownloadFile, DownloadTo, Files, MAX_FILE_BYTES, Progress, ReadFile, ReadText,
    Upload, WriteFile,
};
pub use self::id::{DeviceId, DiskId, NetworkId, ProcessId, SandboxId, TemplateId};
pub use self::operation::Operation;
pub use self::options::{RequestOptions, RetryPolicy};
pub use self::page::{Items, List};
pub use self::pending::Pending;
pub use self::sandbox::{CreateSandbox, Sandbox, WaitUntil};
pub use self::secret::Secret;
pub use self::time::Timestamp;
