//! Disks in sandboxes: mounting, waiting for it, unmounting (api.md 4.17).

use std::future::IntoFuture;
use std::ops::ControlFlow;
use std::time::Duration;

use reqwest::Method;
use tokio::time::Instant;

use crate::check;
use crate::error::{Error, Result};
use crate::id::DiskId;
use crate::options::RequestOptions;
use crate::page::List;
use crate::pending::Pending;
use crate::poll::Poll;
use crate::sandbox::Sandbox;
use crate::transport::request::Call;
use crate::transport::{envelope, send};
use crate::wire::{DiskAttachment, DiskMount, MountStatus};

const BUDGET: Duration = Duration::from_secs(120);

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

    /// Waits until the disk at this path is mounted: one that was given when the sandbox was
    /// created, or attached without waiting (api.md 4.17). See [`WaitUntilMounted`].
    pub fn wait_until_mounted(&self, mount_path: impl Into<String>) -> WaitUntilMounted {
        WaitUntilMounted {
            sandbox: self.clone(),
            disk: None,
            mount_path: mount_path.into(),
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

    /// Does not wait: the mount may still be pending, or fail. See
    /// [`Sandbox::wait_until_mounted`].
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
        if !self.wait {
            return Ok(());
        }
        let mounted = WaitUntilMounted {
            options: self.options.left_since(started),
            sandbox: self.sandbox,
            disk: Some(id),
            mount_path: self.mount_path,
            budget: self.budget,
        };
        mounted.run(operation).await.map(drop).map_err(Error::not_repeatable)
    }
}

impl IntoFuture for AttachDisk {
    type Output = Result<()>;
    type IntoFuture = Pending<()>;

    fn into_future(self) -> Pending<()> {
        Pending::new(self.run())
    }
}

/// Waits until a disk is mounted into a sandbox. Made with [`Sandbox::wait_until_mounted`];
/// gives its row of [`Sandbox::disks`].
///
/// ```no_run
/// # async fn run(client: createos_sdk::Client) -> createos_sdk::Result<()> {
/// let creating = client.create_sandbox("s-1vcpu-1gb").disk_named("training-data", "/mnt/data");
/// let sandbox = creating.await?;
/// sandbox.wait_until_mounted("/mnt/data").await?;
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// `InvalidArgument`: the path cannot be one. `NotFound`: no such sandbox. `UnexpectedState`:
/// the mount failed; the message says why. `Timeout`: not mounted within the
/// [`budget`](Self::budget), also when no disk was attached there; the message says which.
/// Waiting changes nothing, so it is safe to repeat.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct WaitUntilMounted {
    sandbox: Sandbox,
    /// Whatever is at the path, unless given.
    disk: Option<DiskId>,
    mount_path: String,
    budget: Duration,
    options: RequestOptions,
}

impl WaitUntilMounted {
    /// Longest time to wait. Default 120 s.
    pub fn budget(mut self, limit: Duration) -> Self {
        self.budget = limit;
        self
    }

    /// Sets options of each question. A deadline shortens the budget.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self, operation: &'static str) -> Result<DiskAttachment> {
        check::mount(&self.mount_path, None).map_err(|error| error.in_operation(operation))?;
        let poll = Poll {
            operation,
            resource: self.sandbox.id().to_string(),
            awaited: "mounted",
            budget: self.budget,
            options: self.options,
        };
        let ours = |row: &DiskAttachment| {
            row.mount_path == self.mount_path
                && self.disk.as_ref().is_none_or(|disk| row.disk_id == *disk)
        };
        poll.until(|options| async {
            let rows = self.sandbox.disks().with(options).await?;
            let Some(row) = rows.into_iter().find(ours) else {
                return Ok(ControlFlow::Continue("not listed".to_owned()));
            };
            match &row.mount_status {
                MountStatus::Mounted => Ok(ControlFlow::Break(row)),
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

impl IntoFuture for WaitUntilMounted {
    type Output = Result<DiskAttachment>;
    type IntoFuture = Pending<DiskAttachment>;

    fn into_future(self) -> Pending<DiskAttachment> {
        Pending::new(self.run("disk.wait"))
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
