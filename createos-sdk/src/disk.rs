//! Disks: S3 buckets that are mounted into sandboxes (api.md 4.17, 5.7, 6.7).

use std::fmt;
use std::future::IntoFuture;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use tokio::time::Instant;

use crate::check;
use crate::client::Client;
use crate::error::Result;
use crate::handle::Handle;
use crate::id::DiskId;
use crate::operation::Operation;
use crate::options::RequestOptions;
use crate::page::List;
use crate::pending::Pending;
use crate::poll::Poll;
use crate::sandbox::Sandbox;
use crate::transport::request::Call;
use crate::transport::{envelope, send};
use crate::wire::{
    CreateDisk, DiskAttachment, DiskConfig, DiskCredentials, DiskMount, DiskView, MountStatus,
    PatchDisk,
};

const BUDGET: Duration = Duration::from_secs(120);

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
        self.0.acknowledged("disk.delete", Method::DELETE, &[])
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

fn check_config(config: &DiskConfig) -> Result<()> {
    if config.bucket.trim().is_empty() {
        return Err(crate::Error::invalid_argument("bucket", "is empty"));
    }
    match url::Url::parse(&config.endpoint) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(()),
        // It may hold a password, so it is not repeated.
        _ => Err(crate::Error::invalid_argument("endpoint", "is not an http(s) URL")),
    }
}

impl Client {
    /// Creates a disk on an S3 bucket (api.md 5.7). The server tries the bucket at once.
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
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: the name is not of a-z, 0-9 and `-`, or the bucket cannot be reached
    /// with these keys. `Conflict`: the name is taken. `PaymentRequired`: out of credit.
    /// `Unavailable`: this server has no disks.
    pub fn create_disk(
        &self,
        name: impl Into<String>,
        config: DiskConfig,
        credentials: DiskCredentials,
    ) -> Operation<Disk> {
        let name = name.into();
        let checked = check::disk_name(&name)
            .and_then(|()| check_config(&config))
            .and_then(|()| check_credentials(&credentials));
        let call = self.call("disk.create", Method::POST, &["v1", "disks"]);
        let client = self.clone();
        Operation::data(self.clone(), call)
            .json(&CreateDisk::new(name, config, credentials))
            .checked(checked)
            .map(|view| Disk::seen(client, view))
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

impl Sandbox {
    /// The disks attached to it (api.md 4.17).
    pub fn disks(&self) -> List<DiskAttachment> {
        let call = self.call("sandbox.disks", Method::GET, &["disks"]);
        List::new(self.client().clone(), call, |_, row: DiskAttachment| row)
    }

    /// Mounts a disk, given by id or name, at an absolute path (api.md 4.17). See
    /// [`AttachDisk`].
    pub fn attach_disk(
        &self,
        id_or_name: impl AsRef<str>,
        mount_path: impl Into<String>,
    ) -> AttachDisk {
        AttachDisk {
            sandbox: self.clone(),
            disk: id_or_name.as_ref().to_owned(),
            mount_path: mount_path.into(),
            sub_path: None,
            wait: true,
            budget: BUDGET,
            options: RequestOptions::new(),
        }
    }

    /// Unmounts a disk, given by id or name, from a path (api.md 4.17). What was written is
    /// flushed; the bucket keeps it. See [`DetachDisk`].
    pub fn detach_disk(
        &self,
        id_or_name: impl AsRef<str>,
        mount_path: impl Into<String>,
    ) -> DetachDisk {
        DetachDisk {
            sandbox: self.clone(),
            disk: id_or_name.as_ref().to_owned(),
            mount_path: mount_path.into(),
            options: RequestOptions::new(),
        }
    }
}

/// Mounts a disk into a sandbox. Made with [`Sandbox::attach_disk`].
///
/// It waits until the disk is mounted, unless [`no_wait`](Self::no_wait) is set. A name is
/// looked up first. Do not read or write files inside the mount with [`Sandbox::files`]: on
/// the hosted platform that breaks the mount; use commands.
///
/// # Errors
///
/// `NotFound`: no such disk. `Conflict`: the sandbox does not run, or the path is taken.
/// `UnexpectedState`: the mount failed; the message says why. `Timeout`: not mounted within
/// the [`budget`](Self::budget); the disk is attached then.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct AttachDisk {
    sandbox: Sandbox,
    disk: String,
    mount_path: String,
    sub_path: Option<String>,
    wait: bool,
    budget: Duration,
    options: RequestOptions,
}

impl AttachDisk {
    /// Mounts this part of the bucket alone; a relative path.
    pub fn sub_path(mut self, path: impl Into<String>) -> Self {
        self.sub_path = Some(path.into());
        self
    }

    /// Does not wait: the mount may still be pending, or fail. See [`Sandbox::disks`].
    pub fn no_wait(mut self) -> Self {
        self.wait = false;
        self
    }

    /// Longest time to wait for the mount. Default 120 s.
    pub fn budget(mut self, limit: Duration) -> Self {
        self.budget = limit;
        self
    }

    /// Sets options of every call that is made. A deadline counts for all of them together.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<()> {
        let started = Instant::now();
        let operation = "sandbox.attach_disk";
        check::mount(&self.mount_path, self.sub_path.as_deref())
            .map_err(|error| error.in_operation(operation))?;
        let client = self.sandbox.client();
        let id = client.disk_id(&self.disk, operation, &self.options).await?;
        let mut mount = DiskMount::new(id.as_str(), &self.mount_path);
        mount.sub_path = self.sub_path.clone();
        let call = self.sandbox.call(operation, Method::POST, &["disks"]).json(&mount)?;
        let call = Call { options: self.options.left_since(started), ..call };
        send::send(client.inner(), &call, |reply| envelope::acknowledged(&reply)).await?;
        if self.wait {
            self.mounted(&id, started).await.map_err(crate::Error::not_repeatable)
        } else {
            Ok(())
        }
    }

    async fn mounted(&self, id: &DiskId, started: Instant) -> Result<()> {
        let poll = Poll {
            operation: "sandbox.attach_disk",
            resource: self.sandbox.id().to_string(),
            awaited: "mounted",
            budget: self.budget,
            options: self.options.left_since(started),
        };
        poll.until(|options| async {
            let rows = self.sandbox.disks().with(options).await?;
            let ours =
                |row: &&DiskAttachment| row.disk_id == *id && row.mount_path == self.mount_path;
            let Some(row) = rows.iter().find(ours) else {
                return Ok(ControlFlow::Continue("not listed".to_owned()));
            };
            match &row.mount_status {
                MountStatus::Mounted => Ok(ControlFlow::Break(())),
                // A live server says `failed`, which is in no type (api.md 9.20).
                status if *status == MountStatus::Error || status.as_str() == "failed" => {
                    let why = row.mount_error.as_deref().unwrap_or("no reason given");
                    Err(poll.hopeless(format!("the mount failed: {why}")))
                }
                status => Ok(ControlFlow::Continue(status.to_string())),
            }
        })
        .await
    }
}

impl IntoFuture for AttachDisk {
    type Output = Result<()>;
    type IntoFuture = Pending<()>;

    fn into_future(self) -> Pending<()> {
        Pending::new(self.run())
    }
}

/// Unmounts a disk from a sandbox. Made with [`Sandbox::detach_disk`].
///
/// # Errors
///
/// `NotFound`: no such disk, or it is not mounted there; also when a first attempt did it and
/// its answer was lost ([`may_have_acted`](crate::Error::may_have_acted)).
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct DetachDisk {
    sandbox: Sandbox,
    disk: String,
    mount_path: String,
    options: RequestOptions,
}

impl DetachDisk {
    /// Sets options of the call, and of the lookup of a name. A deadline counts for both
    /// together.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<()> {
        let started = Instant::now();
        let operation = "sandbox.detach_disk";
        check::mount(&self.mount_path, None).map_err(|error| error.in_operation(operation))?;
        let client = self.sandbox.client();
        let id = client.disk_id(&self.disk, operation, &self.options).await?;
        let call = self
            .sandbox
            .call(operation, Method::DELETE, &["disks", id.as_str()])
            .query("mount_path", &self.mount_path);
        let call = Call { options: self.options.left_since(started), ..call };
        send::send(client.inner(), &call, |reply| envelope::acknowledged(&reply)).await
    }
}

impl IntoFuture for DetachDisk {
    type Output = Result<()>;
    type IntoFuture = Pending<()>;

    fn into_future(self) -> Pending<()> {
        Pending::new(self.run())
    }
}
