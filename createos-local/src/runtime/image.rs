//! What sandboxes begin with: images, and templates made from ended sandboxes.

use std::collections::BTreeMap;

use createos_sdk::{SandboxId, TemplateId};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};

use super::RuntimeError;
pub(crate) use crate::guest_protocol::Place;

/// What programs in a sandbox get from the image that it was made from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ImageConfig {
    /// Variables below those that the sandbox declares.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) env: BTreeMap<String, String>,
    /// Where programs start; the home directory unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) directory: Option<String>,
    /// Whom they run as; root unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<String>,
}

impl ImageConfig {
    pub(crate) fn place(&self) -> Place {
        Place { directory: self.directory.clone(), user: self.user.clone() }
    }
}

/// What the files of a new sandbox begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// This machine's own system.
    Host,
    /// A root filesystem that was imported under this name.
    Image(String),
    Template(TemplateId),
}

/// A root filesystem that was imported.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    pub(crate) name: String,
    pub(crate) config: ImageConfig,
}

/// The part of a runtime that is about what sandboxes begin with.
pub(crate) trait Images: Send + Sync {
    /// Gives a sandbox that has no files yet those of its origin, before its first boot. What
    /// is not there any more is `RuntimeError::NoSuchFile`.
    fn begin<'a>(
        &'a self,
        id: &'a SandboxId,
        origin: &'a Origin,
    ) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Makes the files of an ended sandbox a template's, and returns how many bytes they take
    /// on disk. The sandbox can be removed afterwards.
    fn keep<'a>(
        &'a self,
        id: &'a SandboxId,
        template: &'a TemplateId,
    ) -> BoxFuture<'a, Result<u64, RuntimeError>>;

    /// Gives up a template's files; sandboxes that began with them go on. Idempotent.
    fn forget<'a>(&'a self, template: &'a TemplateId) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Templates whose files are kept: start-up compares them with the store.
    fn templates(&self) -> BoxFuture<'_, Result<Vec<TemplateId>, RuntimeError>>;

    /// Root filesystems that were imported, by name.
    fn images(&self) -> BoxFuture<'_, Result<Vec<Image>, RuntimeError>>;

    /// Removes files that nothing needs any more.
    fn tidy(&self) -> BoxFuture<'_, Result<(), RuntimeError>>;
}
