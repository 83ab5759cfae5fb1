//! Who this machine is on private networks: `device.json`, with its private key.

use std::fmt;
use std::path::PathBuf;

use createos_sdk::{DeviceId, Secret};
use serde::{Deserialize, Serialize};

use super::{Paths, private_file};
use crate::failure::Failure;

/// A device that is this machine.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) id: DeviceId,
    pub(crate) name: String,
    pub(crate) client_ip: String,
    pub(crate) public_key: String,
    /// Of WireGuard; never sent anywhere.
    pub(crate) private_key: Secret,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The file in the configuration directory.
#[derive(Debug)]
pub(crate) struct Store {
    path: PathBuf,
}

impl Store {
    pub(crate) fn open(paths: &Paths) -> Result<Self, Failure> {
        Ok(Self { path: paths.config()?.join("device.json") })
    }

    pub(crate) fn load(&self) -> Result<Option<Identity>, Failure> {
        let shown = self.path.display();
        let content = private_file::read(&self.path)
            .map_err(|error| Failure::io(format!("cannot read {shown}"), &error))?;
        let Some(content) = content else { return Ok(None) };
        let identity = serde_json::from_str(&content.text).map_err(|_| {
            Failure::local(format!("{shown} cannot be understood"))
                .hint("delete it, then: createos sandbox devices register")
        })?;
        Ok(Some(identity))
    }

    pub(crate) fn save(&self, identity: &Identity) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(identity)
            .map_err(|error| Failure::local(format!("cannot record the device: {error}")))?;
        private_file::write(&self.path, &text)
            .map_err(|error| Failure::io(format!("cannot store {}", self.path.display()), &error))
    }

    /// False when there was nothing to forget.
    pub(crate) fn clear(&self) -> Result<bool, Failure> {
        let shown = self.path.display();
        private_file::remove(&self.path)
            .map_err(|error| Failure::io(format!("cannot delete {shown}"), &error))
    }
}
