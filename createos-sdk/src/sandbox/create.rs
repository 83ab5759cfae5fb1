//! Creating a sandbox.

use std::future::IntoFuture;
use std::time::Duration;

use reqwest::Method;
use tokio::time::Instant;

use super::Sandbox;
use crate::check;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::id::{DiskId, NetworkId};
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::secret::Secret;
use crate::transport::request::{Call, Pace};
use crate::transport::{envelope, send};
use crate::wire::{self, CreatedSandbox, DiskMount, NetworkRef};

/// The first boot of a template on a host takes seconds to minutes (api.md 4.1), and giving
/// up early leaves a sandbox behind.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// Creates a sandbox. Made with [`Client::create_sandbox`]; awaiting it gives a running one.
///
/// `host_id` and `bandwidth_quota_bytes` of the API are not offered: servers ignore the one
/// and refuse the other.
///
/// # Errors
///
/// `InvalidArgument`: unknown shape or root filesystem, or a value refused here before any
/// traffic. `Conflict`: the name is taken. `PermissionDenied`: the plan does not allow the
/// shape, size or number. `PaymentRequired`: out of credit. `NotFound`: an unknown network,
/// disk or template. `Unavailable`: no capacity.
///
/// Creating is not idempotent, so it is repeated only when nothing was created. After an
/// error that [may have acted](crate::Error::may_have_acted) a sandbox may be there: give
/// every sandbox a name, and look for it before creating it again, or let
/// [`adopt`](Self::adopt) do that.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct CreateSandbox {
    pub(super) client: Client,
    pub(super) request: wire::CreateSandbox,
    pub(super) auto_pause: Option<Duration>,
    pub(super) adopt: bool,
    pub(super) options: RequestOptions,
}

impl CreateSandbox {
    pub(crate) fn new(client: Client, shape: String) -> Self {
        let request = wire::CreateSandbox::new(shape);
        Self { client, request, auto_pause: None, adopt: false, options: RequestOptions::new() }
    }

    /// Root filesystem: a catalog name, template id or template name. Default: the
    /// catalog's.
    pub fn rootfs(mut self, rootfs: impl Into<String>) -> Self {
        self.request.rootfs = Some(rootfs.into());
        self
    }

    /// Name, unique among the caller's live sandboxes; also the hostname. Letters, digits
    /// and hyphens; servers take at least 22 of them. Default: chosen by the server.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.request.name = Some(name.into());
        self
    }

    /// Disk size in MiB. Default: the shape's.
    pub fn disk_mib(mut self, mib: u64) -> Self {
        self.request.disk_mib = Some(mib);
        self
    }

    /// Joins a private network, by id. It has an address there some seconds after it runs: see
    /// [`Sandbox::wait_until_joined`].
    pub fn network(self, id: impl Into<NetworkId>) -> Self {
        self.network_named(id.into().as_str())
    }

    /// Joins a private network, by name.
    pub fn network_named(mut self, name: impl Into<String>) -> Self {
        self.request.networks.push(NetworkRef::new(name));
        self
    }

    /// Mounts a disk at an absolute path. It is mounted some seconds after the sandbox runs: see
    /// [`Sandbox::wait_until_mounted`].
    pub fn disk(self, id: impl Into<DiskId>, mount_path: impl Into<String>) -> Self {
        self.mount(id.into(), mount_path.into(), None)
    }

    /// Mounts a part of a disk, a relative path in its bucket, at an absolute path.
    pub fn disk_part(
        self,
        id: impl Into<DiskId>,
        mount_path: impl Into<String>,
        sub_path: impl Into<String>,
    ) -> Self {
        self.mount(id.into(), mount_path.into(), Some(sub_path.into()))
    }

    /// Mounts a disk, given by name, at an absolute path. The name is looked up first, because
    /// some servers drop it without a word (api.md 9.5).
    pub fn disk_named(mut self, name: impl Into<String>, mount_path: impl Into<String>) -> Self {
        self.request.disks.push(DiskMount::new(name, mount_path));
        self
    }

    fn mount(mut self, id: DiskId, mount_path: String, sub_path: Option<String>) -> Self {
        let mut mount = DiskMount::new(id.as_str(), mount_path);
        mount.sub_path = sub_path;
        self.request.disks.push(mount);
        self
    }

    /// Adds outbound rules (api.md 6.4). Without any, everything may be reached.
    pub fn egress<R: Into<String>>(mut self, rules: impl IntoIterator<Item = R>) -> Self {
        self.request.egress.extend(rules.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable of every command.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.request.envs.insert(name.into(), value.into());
        self
    }

    /// Sets environment variables of every command. At most 64, each value at most 4096
    /// bytes, together at most 64 KiB.
    pub fn envs<N: Into<String>, V: Into<Secret>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        for (name, value) in variables {
            self = self.env(name, value);
        }
        self
    }

    /// Admits an OpenSSH public key.
    pub fn ssh_pubkey(mut self, key: impl Into<String>) -> Self {
        self.request.ssh_pubkeys.push(key.into());
        self
    }

    /// Makes its ports reachable from outside. Default off.
    pub fn ingress(mut self, enabled: bool) -> Self {
        self.request.ingress_enabled = Some(enabled);
        self
    }

    /// Pauses it after this time without activity: whole seconds, 60 s to 24 h. Default never.
    pub fn auto_pause_after(mut self, idle: Duration) -> Self {
        self.auto_pause = Some(idle);
        self
    }

    /// Region; must be the server's own.
    pub fn region(mut self, region: impl Into<String>) -> Self {
        self.request.region = Some(region.into());
        self
    }

    /// Adds a placement label.
    pub fn node_selector(mut self, label: impl Into<String>, value: impl Into<String>) -> Self {
        self.request.node_selector.insert(label.into(), value.into());
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    fn checked(&mut self) -> Result<()> {
        if let Some(idle) = self.auto_pause {
            self.request.auto_pause_after_seconds = Some(check::auto_pause(idle)?);
        }
        let request = &self.request;
        let named = [
            ("shape", Some(&request.shape)),
            ("rootfs", request.rootfs.as_ref()),
            ("region", request.region.as_ref()),
        ];
        for (what, text) in named {
            text.map_or(Ok(()), |text| check::one_line(what, text))?;
        }
        match &request.name {
            Some(name) => check::sandbox_name(name)?,
            None if self.adopt => {
                return Err(Error::invalid_argument("name", "is needed to adopt by it"));
            }
            None => {}
        }
        for network in &request.networks {
            check::one_line("network", &network.id)?;
        }
        for mount in &request.disks {
            check::one_line("disk", &mount.disk_id)?;
            check::mount(&mount.mount_path, mount.sub_path.as_deref())?;
        }
        check::egress(&request.egress)?;
        check::ssh_pubkeys(&request.ssh_pubkeys)?;
        check::envs(&request.envs)
    }

    async fn run(self) -> Result<Sandbox> {
        if self.adopt { super::adopt::create(self).await } else { self.create().await }
    }

    pub(super) async fn create(mut self) -> Result<Sandbox> {
        let operation = "sandbox.create";
        self.checked().map_err(|error| error.in_operation(operation))?;
        let started = Instant::now();
        for mount in &mut self.request.disks {
            let options = self.options.left_since(started);
            let id = self.client.disk_id(&mount.disk_id, operation, &options).await?;
            mount.disk_id = id.to_string();
        }
        let call =
            self.client.call(operation, Method::POST, &["v1", "sandboxes"]).json(&self.request)?;
        let options = self.options.left_since(started);
        let call = Call { pace: Pace::AtLeast(PATIENCE), options, ..call };
        send::send(self.client.inner(), &call, |reply| {
            let answer: CreatedSandbox = envelope::data(&reply)?;
            Ok(Sandbox::created_as(self.client.clone(), answer))
        })
        .await
    }
}

impl IntoFuture for CreateSandbox {
    type Output = Result<Sandbox>;
    type IntoFuture = Pending<Sandbox>;

    fn into_future(self) -> Pending<Sandbox> {
        Pending::new(self.run())
    }
}
