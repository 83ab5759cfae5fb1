//! Creating a sandbox (api.md 4.1).

use std::time::SystemTime;

use createos_sdk::SandboxId;
use createos_sdk::wire::CreateSandbox;
use ulid::Ulid;

use super::error::Fields;
use super::lifecycle::boot_spec;
use super::settings::ssh_keys;
use super::templates::begin_error;
use super::{Core, CoreError, REGION, State, names, outbound, validate};
use crate::catalog::Shape;
use crate::runtime::{BootInfo, ImageConfig, Origin};
use crate::store::{Attachment, Change, InsertError, Network, NewSandbox, Sandbox};

/// Tries to find a free generated name.
const NAME_TRIES: u32 = 32;

/// A valid request: everything of the new sandbox but its id and, perhaps, its name.
struct Plan {
    name: Option<String>,
    shape: &'static Shape,
    rootfs: String,
    origin: Origin,
    image: ImageConfig,
    request: CreateSandbox,
    ssh_pubkeys: Vec<String>,
    disk_mib: u64,
    nesting: bool,
    networks: Vec<Network>,
    attachments: Vec<Attachment>,
}

impl Core {
    /// Creates a sandbox and returns when it runs. On an error nothing of it is left but a
    /// `failed` record. A caller that goes away does not stop it half-way.
    pub(crate) async fn create(&self, request: CreateSandbox) -> Result<Sandbox, CoreError> {
        let mut plan = self.plan(request).await?;
        plan.attachments = self.plan_attachments(&plan.request.disks).await?;
        let core = self.clone();
        self.run_to_end(async move {
            // The lock is taken before anybody else can know the id.
            let id = new_id()?;
            let slot = core.inner.slots.get(&id);
            let _work = slot.work().await;
            core.insert_and_boot(&id, plan).await
        })?
        .await
    }

    async fn insert_and_boot(&self, id: &SandboxId, mut plan: Plan) -> Result<Sandbox, CoreError> {
        let (origin, networks) = (plan.origin.clone(), plan.networks.clone());
        let attachments = std::mem::take(&mut plan.attachments);
        let sandbox = match self.insert(id, plan).await {
            Ok(sandbox) => sandbox,
            Err(error) => {
                self.inner.slots.remove(id);
                return Err(error);
            }
        };
        if let Err(error) = self.insert_attachments(id, attachments).await {
            self.roll_back(id, &error).await;
            return Err(error);
        }
        let error = match self.begin_and_boot(&sandbox, &origin, &networks).await {
            Ok(boot) => {
                self.mount_all(&sandbox).await;
                let slot = self.inner.slots.get(id);
                self.hear(id, &slot).await;
                self.connect_out(&sandbox, &slot).await;
                let booted = Change::Booted(boot.spawn);
                let store = &self.inner.store;
                match store.change(id, &[State::Creating], State::Running, booted).await {
                    Ok(Some(running)) => {
                        self.begin_idle_time(&running);
                        self.try_install_ssh_pubkeys(&running).await;
                        self.begin_desktop(&running, &self.inner.slots.get(id));
                        return Ok(running);
                    }
                    // A destroy came in between and waits for the lock; the rest is its work.
                    Ok(None) => {
                        return Err(CoreError::Conflict(
                            "the sandbox was destroyed while it was being created".to_owned(),
                        ));
                    }
                    Err(error) => error.into(),
                }
            }
            Err(error) => {
                tracing::warn!(sandbox = %id, %error, "the sandbox could not be created");
                error
            }
        };
        self.roll_back(id, &error).await;
        Err(error)
    }

    async fn begin_and_boot(
        &self,
        sandbox: &Sandbox,
        origin: &Origin,
        networks: &[Network],
    ) -> Result<BootInfo, CoreError> {
        let runtime = &self.inner.runtime;
        self.reserve(sandbox.id(), networks).await?;
        runtime.begin(sandbox.id(), origin).await.map_err(begin_error)?;
        let boot = runtime.boot(boot_spec(sandbox)).await?;
        self.link(sandbox).await?;
        Ok(boot)
    }

    /// Leaves nothing of a failed create but its record.
    async fn roll_back(&self, id: &SandboxId, error: &CoreError) {
        self.inner.private_names.remove(id);
        if let Err(error) = self.inner.runtime.remove(id).await {
            // Without an owner the files are removed at the next start.
            tracing::warn!(sandbox = %id, %error, "half-made files could not be removed");
        }
        let reason = Change::Because(error.to_string());
        let failed = self.inner.store.change(id, &[State::Creating], State::Failed, reason);
        match failed.await {
            Ok(Some(_)) => self.inner.slots.remove(id),
            Ok(None) => {}
            Err(error) => tracing::error!(sandbox = %id, %error, "the failure was not recorded"),
        }
    }

    async fn insert(&self, id: &SandboxId, plan: Plan) -> Result<Sandbox, CoreError> {
        let mut new = new_sandbox(id.clone(), plan.shape, plan.rootfs, plan.request);
        new.ssh_pubkeys = plan.ssh_pubkeys;
        new.nesting = plan.nesting;
        new.disk_mib = plan.disk_mib;
        new.image = plan.image;
        self.insert_with_name(new, plan.name).await
    }

    /// Writes a new sandbox, under this name or a generated one.
    pub(super) async fn insert_with_name(
        &self,
        mut new: NewSandbox,
        name: Option<String>,
    ) -> Result<Sandbox, CoreError> {
        for attempt in 0..NAME_TRIES {
            new.name = name.clone().unwrap_or_else(|| names::generate(attempt));
            match self.inner.store.insert(new.clone()).await {
                Ok(sandbox) => return Ok(sandbox),
                Err(InsertError::NameTaken) if name.is_none() => {}
                Err(InsertError::NameTaken) => {
                    return Err(CoreError::Conflict(format!(
                        "the name {:?} is taken by another sandbox; choose another name or \
                         destroy that one",
                        new.name
                    )));
                }
                Err(InsertError::NoAddress) => {
                    return Err(CoreError::NoCapacity(
                        "every address of 10.0.0.0/16 is in use; destroy some sandboxes".into(),
                    ));
                }
                Err(InsertError::Store(error)) => return Err(error.into()),
            }
        }
        Err(CoreError::NoCapacity("no generated name was free; give one".to_owned()))
    }

    /// Checks a request: broken rules first, all of them at once; then things that do not
    /// exist; then what this engine cannot do.
    async fn plan(&self, mut request: CreateSandbox) -> Result<Plan, CoreError> {
        let mut wrong = Fields::new();
        let shape = self.inner.catalog.shape(&request.shape);
        if shape.is_none() {
            wrong.insert("shape".into(), self.unknown_shape(&request.shape));
        }
        let name = request.name.take().filter(|name| !name.is_empty());
        if let Some(Err(why)) = name.as_deref().map(validate::name) {
            wrong.insert("name".into(), why);
        }
        let (rootfs, found) = self.rootfs(&mut request, &mut wrong).await;
        check_settings(&request, &mut wrong);
        let ssh_pubkeys = ssh_keys("ssh_pubkeys", &request.ssh_pubkeys, &mut wrong);
        CoreError::check(wrong)?;
        let shape = shape.ok_or(CoreError::Internal("a shape went missing".to_owned()))?;
        let (origin, image) = found?;
        let networks = self.find_networks(&request.networks).await?;
        self.check_egress(&request.egress)?;
        let disk_mib = self.disk_size(request.disk_mib, shape.disk_mib)?;
        let nesting = self.nesting(&request)?;
        Ok(Plan {
            name,
            shape,
            rootfs,
            origin,
            image,
            request,
            ssh_pubkeys,
            disk_mib,
            nesting,
            networks,
            attachments: Vec::new(),
        })
    }

    /// The one label that means something here: `nesting` asks for a sandbox that may hold
    /// containers. Whoever runs the engine must have agreed to the price.
    fn nesting(&self, request: &CreateSandbox) -> Result<bool, CoreError> {
        let wanted = request.node_selector.get("nesting").is_some_and(|value| value == "true");
        if wanted && !self.inner.tuning.allow_nesting {
            return Err(CoreError::Forbidden {
                field: "node_selector",
                message: "this engine does not allow nesting; start it with --allow-nesting \
                          (EngineBuilder::allow_nesting) if you trust what runs in its sandboxes"
                    .to_owned(),
            });
        }
        Ok(wanted)
    }

    fn unknown_shape(&self, id: &str) -> String {
        let known: Vec<_> = self.inner.catalog.shapes().iter().map(|shape| shape.id).collect();
        let id = validate::shown(id);
        format!("unknown shape: {id}; not allowed here, known are [{}]", known.join(", "))
    }

    /// The name of the root filesystem, and what is behind it. An unknown name is noted among
    /// what is wrong; what is there and cannot be used is an error of its own.
    async fn rootfs(
        &self,
        request: &mut CreateSandbox,
        wrong: &mut Fields,
    ) -> (String, Result<(Origin, ImageConfig), CoreError>) {
        let catalog = &self.inner.catalog;
        let asked = request.rootfs.take().filter(|name| !name.is_empty());
        let asked = asked.or_else(|| catalog.default_rootfs().map(|rootfs| rootfs.name.clone()));
        let name = asked.unwrap_or_default();
        let found = self.origin_of(&name).await;
        if let Ok(None) = found {
            let known = catalog.rootfs().iter().map(|rootfs| rootfs.name.clone());
            let images = self.images().await.unwrap_or_default();
            let known: Vec<_> = known.chain(images.into_iter().map(|image| image.name)).collect();
            let shown = validate::shown(&name);
            let text = format!(
                "unknown rootfs: {shown}; known are [{}] and templates that are ready",
                known.join(", ")
            );
            wrong.insert("rootfs".into(), text);
        }
        let missing = || CoreError::Internal("a root filesystem went missing".to_owned());
        (name, found.and_then(|found| found.ok_or_else(missing)))
    }
}

pub(super) fn new_id() -> Result<SandboxId, CoreError> {
    let text = format!("sb-{}", Ulid::new().to_string().to_lowercase());
    text.parse().map_err(|_| CoreError::Internal("no id could be made".to_owned()))
}

fn new_sandbox(id: SandboxId, shape: &Shape, rootfs: String, request: CreateSandbox) -> NewSandbox {
    let limits = shape.limits();
    NewSandbox {
        id,
        name: String::new(),
        shape: shape.id.to_owned(),
        rootfs,
        vcpu: shape.vcpu,
        mem_mib: shape.mem_mib,
        disk_mib: shape.disk_mib,
        cpu_percent: limits.cpu_percent,
        max_processes: limits.max_processes,
        region: REGION.to_owned(),
        envs: request.envs,
        egress: outbound::kept(request.egress),
        ssh_pubkeys: Vec::new(),
        ingress_enabled: request.ingress_enabled.unwrap_or(false),
        nesting: false,
        created_at: SystemTime::now(),
        auto_pause_seconds: request.auto_pause_after_seconds,
        forked_from: None,
        image: ImageConfig::default(),
    }
}

fn check_settings(request: &CreateSandbox, wrong: &mut Fields) {
    let envs = request.envs.iter().map(|(key, value)| (key.as_str(), value.expose()));
    if let Err(why) = validate::envs(envs) {
        wrong.insert("envs".into(), why);
    }
    if let Some(Err(why)) = request.auto_pause_after_seconds.map(validate::auto_pause) {
        wrong.insert("auto_pause_after_seconds".into(), why);
    }
    outbound::rules(&request.egress, wrong);
    if let Some(region) = request.region.as_deref().filter(|name| !matches!(*name, "" | REGION)) {
        let region = validate::shown(region);
        let text = format!("{region:?} is not this engine's region, which is {REGION:?}");
        wrong.insert("region".into(), text);
    }
    if request.bandwidth_quota_bytes.is_some_and(|quota| quota != 0) {
        let text = "cannot be set at create; leave it out".to_owned();
        wrong.insert("bandwidth_quota_bytes".into(), text);
    }
}
