//! Disks: S3 buckets that are mounted into sandboxes (api.md 4.17, 5.7, 6.7).

mod attach;
mod create;

use std::fmt;
use std::future::IntoFuture;
use std::sync::Arc;

use reqwest::Method;

use crate::check;
use crate::client::Client;
use crate::error::Result;
use crate::guard::{self, Ends, Guard};
use crate::handle::Handle;
use crate::id::DiskId;
use crate::operation::Operation;
use crate::options::RequestOptions;
use crate::page::List;
use crate::pending::Pending;
use crate::poll::Poll;
use crate::wire::{DiskConfig, DiskCredentials, DiskView, PatchDisk};

pub use self::attach::{AttachDisk, DetachDisk, WaitUntilMounted};
pub use self::create::CreateDisk;

const DELETE: &str = "disk.delete";

/// One disk. Cheap to clone; clones share the last-seen view.
#[derive(Clone)]
pub struct Disk(Handle<DiskId, DiskView>);

impl Disk {
    fn new(client: Client, id: DiskId, view: Option<DiskView>) -> Self {
        Self(Handle::new(client, "disks", id, view))
    }

    fn seen(client: Client, view: DiskView) -> Self {
        Self::new(client, view.id.clone(), Some(view))
    }

    /// Its id.
    pub fn id(&self) -> &DiskId {
        self.0.id()
    }

    /// What the server last said about it. It may be out of date.
    pub fn view(&self) -> Option<Arc<DiskView>> {
        self.0.view()
    }

    /// Asks the server how it is (api.md 5.7).
    pub fn refresh(&self) -> Operation<Arc<DiskView>> {
        self.0.viewing(self.0.call("disk.get", Method::GET, &[]))
    }

    /// Replaces the keys of the bucket (api.md 5.7). Sandboxes that run use the new ones after
    /// their next resume.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: an empty key. Safe to repeat.
    pub fn rotate_credentials(&self, credentials: DiskCredentials) -> Operation<Arc<DiskView>> {
        let checked = check_credentials(&credentials);
        self.0
            .viewing(self.0.call("disk.rotate_credentials", Method::PATCH, &[]))
            .json(&PatchDisk::new(credentials))
            .checked(checked)
    }

    /// Removes the disk; the bucket and what is in it stay (api.md 5.7).
    ///
    /// # Errors
    ///
    /// `Conflict`: it is attached to a sandbox. `NotFound`: there is none of this id, or a
    /// first attempt removed it and its answer was lost
    /// ([`may_have_acted`](crate::Error::may_have_acted)).
    pub fn delete(&self) -> Operation<()> {
        self.0.acknowledged(DELETE, Method::DELETE, &[])
    }

    /// Removes this disk when the guard is dropped; the bucket and what is in it stay. See
    /// [`Guard`].
    pub fn guard(&self) -> Guard<Self> {
        Guard::new(self.clone())
    }
}

impl Ends for Disk {
    fn client(&self) -> &Client {
        self.0.client()
    }

    fn with_client(&self, client: Client) -> Self {
        Self(self.0.with_client(client))
    }

    fn end(&self) -> Pending<()> {
        let disk = self.clone();
        Pending::new(async move {
            let poll = Poll {
                operation: DELETE,
                resource: disk.id().to_string(),
                awaited: "removed",
                budget: guard::LEAVING,
                options: RequestOptions::new(),
            };
            let delete = |options| disk.delete().with(options).into_future();
            guard::or_gone(poll.past_conflict(delete).await)
        })
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Disk").field(self.id()).finish()
    }
}

fn check_credentials(credentials: &DiskCredentials) -> Result<()> {
    for (field, key) in
        [("access_key", &credentials.access_key), ("secret_key", &credentials.secret_key)]
    {
        if key.expose().trim().is_empty() {
            return Err(crate::Error::invalid_argument(field, "is empty"));
        }
    }
    Ok(())
}

impl Client {
    /// Creates a disk on an S3 bucket (api.md 5.7). The server tries the bucket at once. See
    /// [`CreateDisk`].
    ///
    /// ```no_run
    /// # async fn run(client: createos_sdk::Client, sandbox: createos_sdk::Sandbox, secret: String) -> createos_sdk::Result<()> {
    /// use createos_sdk::wire::{DiskConfig, DiskCredentials};
    ///
    /// let bucket = DiskConfig::new("acme-train", "https://s3.example.org").in_region("auto");
    /// let keys = DiskCredentials::new("AK123", secret);
    /// let disk = client.create_disk("training-data", bucket, keys).await?;
    /// sandbox.attach_disk(disk.id(), "/mnt/data").await?;
    /// # Ok(()) }
    /// ```
    pub fn create_disk(
        &self,
        name: impl Into<String>,
        config: DiskConfig,
        credentials: DiskCredentials,
    ) -> CreateDisk {
        CreateDisk::new(self.clone(), name.into(), config, credentials)
    }

    /// The caller's disks (api.md 5.7).
    pub fn disks(&self) -> List<Disk> {
        let call = self.call("disk.list", Method::GET, &["v1", "disks"]);
        List::new(self.clone(), call, |client, view| Disk::seen(client.clone(), view))
    }

    /// Looks a disk up, by id or name (api.md 5.7).
    pub fn get_disk(&self, id_or_name: impl AsRef<str>) -> Operation<Disk> {
        let key = id_or_name.as_ref();
        let checked = DiskId::try_from(key).map(drop);
        let call = self.call("disk.get", Method::GET, &["v1", "disks", key]).resource(&key);
        let client = self.clone();
        Operation::data(self.clone(), call).checked(checked).map(|view| Disk::seen(client, view))
    }

    /// A handle to a disk, without any traffic.
    pub fn disk(&self, id: impl Into<DiskId>) -> Disk {
        Disk::new(self.clone(), id.into(), None)
    }

    /// The id of a disk given by id or name. Some servers drop a name without a word, and none
    /// is sure to find one when detaching (api.md 9.5), so a name is looked up first.
    pub(crate) async fn disk_id(
        &self,
        id_or_name: &str,
        operation: &'static str,
        options: &RequestOptions,
    ) -> Result<DiskId> {
        if check::is_disk_name(id_or_name) {
            let found = self.get_disk(id_or_name).with(options.clone()).await?;
            return Ok(found.id().clone());
        }
        DiskId::try_from(id_or_name).map_err(|error| error.in_operation(operation))
    }
}
