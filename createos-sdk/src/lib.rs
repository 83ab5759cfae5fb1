//! Strongly typed async client for CreateOS sandboxes.

mod error;
mod id;
mod secret;
mod time;
pub mod wire;

pub use self::error::{Error, ErrorKind, Result};
pub use self::id::{DeviceId, DiskId, NetworkId, ProcessId, SandboxId, TemplateId};
pub use self::secret::Secret;
pub use self::time::Timestamp;
