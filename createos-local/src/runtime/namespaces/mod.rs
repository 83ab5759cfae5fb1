//! The Linux runtime: namespaces, layered root filesystems, control groups.
//!
//! This side is unprivileged code: it keeps the books and talks. The warden makes
//! and ends sandboxes, the agent inside each one runs commands and moves files.

mod agent;
mod base;
pub(crate) mod chain;
mod copy;
mod criu;
mod helpers;
mod images;
mod networks;
mod packets;
mod pause;
mod processes;
mod seccomp;
mod socket_filter;
mod sockets;
mod storage;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_memory;
#[cfg(test)]
mod tests_sockets;
mod transfer;
mod unix_sockets;
mod usage;
mod volumes;
mod warden;

use std::collections::HashMap;
use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use createos_sdk::SandboxId;
use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::mpsc;

use self::chain::Base;
pub(crate) use self::criu::CRIU_REMEDY;
use self::criu::Criu;
pub(crate) use self::networks::{LINES_REMEDY, NETWORKS_REMEDY};
use self::storage::Storage;
pub(crate) use self::transfer::PATH;
pub(crate) use self::volumes::NO_FUSE;
use self::warden::{Event, Init, Warden};
use super::{
    BootInfo, BootSpec, Died, ExecEvents, ExecSpec, FileRead, FileWrite, Line, Outlet, Runtime,
    RuntimeError, Saved, Usage,
};
use crate::network_protocol::{Link, Subnet};
use crate::warden_protocol::{Boot, Configure, Facts};

/// How long the warden may take to end everything before it is left to itself.
const SHUTDOWN: Duration = Duration::from_secs(15);

/// Why a sandbox cannot hold containers, and what to do.
pub(crate) const NO_NESTING: &str = "containers inside a sandbox need an engine that runs as \
     root, and a version 2 control group tree (mount -t cgroup2 none /sys/fs/cgroup/unified)";

/// What it takes to give sandboxes a way out.
pub(crate) const NO_WAY_OUT: &str = "use a kernel with nf_tables, its tproxy and fib \
     expressions and policy routing (CONFIG_NF_TABLES, CONFIG_NFT_TPROXY, CONFIG_NFT_FIB_IPV4, \
     CONFIG_IP_MULTIPLE_TABLES), or load their modules (modprobe nft_tproxy nft_fib_ipv4)";

/// What it takes to limit the size of disks.
pub(crate) const NO_DISK_LIMIT: &str = "run the engine as root, with mkfs.xfs installed (Debian,      Ubuntu: apt install xfsprogs) and loop devices at hand (/dev/loop-control)";

/// Sandboxes of one data directory.
pub(crate) struct Namespaces {
    data_dir: PathBuf,
    storage: Arc<Storage>,
    base: String,
    bare_base: String,
    state: Arc<State>,
    warden: tokio::sync::Mutex<Option<Arc<Warden>>>,
    restart: Restart,
    facts: Facts,
    criu: Criu,
    volumes: volumes::Volumes,
    deaths: Mutex<Option<mpsc::UnboundedReceiver<Died>>>,
}

/// What starting the warden again takes.
struct Restart {
    program: PathBuf,
    configure: Configure,
    events: mpsc::UnboundedSender<Event>,
    /// The next warden's number.
    generations: AtomicU64,
}

#[derive(Default)]
struct State {
    running: Mutex<HashMap<SandboxId, Arc<Init>>>,
    ended: tokio::sync::Notify,
}

impl State {
    fn running(&self) -> MutexGuard<'_, HashMap<SandboxId, Arc<Init>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a life of a sandbox out of the books, if it is the one that is in there.
    fn forget(&self, id: &SandboxId, init: &Init) {
        let mut running = self.running();
        if running.get(id).is_some_and(|now| now.pid == init.pid) {
            running.remove(id);
        }
    }
}

impl Namespaces {
    /// Prepares the machine: helper programs, the base, the warden. Blocks; the first
    /// time on a machine for a few seconds. With `shared_cache`, what does not belong
    /// to one engine alone (helpers and bases) is kept there.
    pub(crate) fn start(
        data_dir: &Path,
        shared_cache: Option<&Path>,
    ) -> Result<Self, RuntimeError> {
        let io_error = |context: &str| {
            let context = format!("{context} {}", data_dir.display());
            move |source| RuntimeError::Io { context, source }
        };
        let data_dir = data_dir.canonicalize().map_err(io_error("cannot use"))?;
        prepare_directories(&data_dir, shared_cache).map_err(io_error("cannot prepare"))?;
        let storage = Storage::open(&data_dir).map_err(io_error("cannot read the layers in"))?;
        let helpers = helpers::install(&data_dir).map_err(io_error("cannot write helpers to"))?;
        let configure = Configure {
            cgroup: format!("createos-{}", instance(&data_dir).map_err(io_error("cannot name"))?),
            agent_layer: helpers.agent_layer,
            disk_mib: crate::catalog::DISK_MIB,
            seccomp: seccomp::filters()?,
            nesting_seccomp: seccomp::nesting_filters()?,
            socket_filter: socket_filter::filter()?,
        };
        let (events, received) = mpsc::unbounded_channel();
        let warden =
            Warden::start(&helpers.warden, &data_dir, configure.clone(), 0, events.clone())?;
        let facts = warden.facts.clone();
        let base = base::ensure_host_base(&data_dir, facts.privileged)
            .map_err(io_error("cannot build the base in"))?;
        let bare_base =
            base::ensure_bare_base(&data_dir).map_err(io_error("cannot build the base in"))?;
        let state = Arc::new(State::default());
        let (died, deaths) = mpsc::unbounded_channel();
        tokio::spawn(keep_books(Arc::clone(&state), received, died));
        Ok(Self {
            data_dir,
            storage: Arc::new(storage),
            base,
            bare_base,
            state,
            warden: tokio::sync::Mutex::new(Some(Arc::new(warden))),
            restart: Restart {
                program: helpers.warden,
                configure,
                events,
                generations: AtomicU64::new(1),
            },
            facts,
            criu: Criu::default(),
            volumes: volumes::Volumes::default(),
            deaths: Mutex::new(Some(deaths)),
        })
    }

    /// Puts the helper programs below `data_dir` and returns the warden's path.
    pub(crate) fn install_helpers(data_dir: &Path) -> io::Result<PathBuf> {
        helpers::install(data_dir).map(|helpers| helpers.warden)
    }

    /// What the warden found this machine able to do.
    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The warden, started again if it has ended.
    async fn warden(&self) -> Result<Arc<Warden>, RuntimeError> {
        let mut warden = self.warden.lock().await;
        match &*warden {
            Some(living) if !living.is_gone() => return Ok(Arc::clone(living)),
            Some(_) => {}
            None => return Err(RuntimeError::Unreachable("the engine has shut down".to_owned())),
        }
        let Restart { program, configure, events, generations } = &self.restart;
        let (program, data_dir) = (program.clone(), self.data_dir.clone());
        let (configure, events) = (configure.clone(), events.clone());
        let generation = generations.fetch_add(1, Ordering::Relaxed);
        let start = move || Warden::start(&program, &data_dir, configure, generation, events);
        let fresh = tokio::task::spawn_blocking(start).await;
        let fresh = Arc::new(fresh.map_err(|error| RuntimeError::Io {
            context: "cannot start the warden".to_owned(),
            source: io::Error::other(error),
        })??);
        *warden = Some(Arc::clone(&fresh));
        Ok(fresh)
    }

    fn init_of(&self, id: &SandboxId) -> Result<Arc<Init>, RuntimeError> {
        let init = self.state.running().get(id).map(Arc::clone);
        init.ok_or_else(|| RuntimeError::Unreachable("the sandbox is not running".to_owned()))
    }

    /// Why sandboxes have no way out; nothing where they have.
    pub(crate) fn no_way_out(&self) -> Option<&str> {
        self.facts.no_capture.as_deref()
    }

    async fn boot_machine(&self, spec: BootSpec) -> Result<BootInfo, RuntimeError> {
        let began = Instant::now();
        if spec.nesting && !self.facts.nesting {
            return Err(RuntimeError::Unsupported(NO_NESTING.to_owned()));
        }
        // It begins anew: whatever ran in it before does not go on.
        self.discard_image(&spec.id).await?;
        let boot = self.boot_command(&spec)?;
        self.start_machine(spec.id, boot).await?;
        Ok(BootInfo { spawn: began.elapsed() })
    }

    async fn start_machine(&self, id: SandboxId, boot: Boot) -> Result<(), RuntimeError> {
        let init = Arc::new(self.warden().await?.boot(boot).await?);
        self.state.running().insert(id.clone(), Arc::clone(&init));
        if !init.is_alive() {
            // It ended before it was in the books, so nobody will tell.
            self.state.running().remove(&id);
            return Err(RuntimeError::Unreachable("the sandbox ended as it had booted".to_owned()));
        }
        Ok(())
    }

    fn boot_command(&self, spec: &BootSpec) -> Result<Boot, RuntimeError> {
        let with_disks = self.facts.no_disks.is_none();
        let files =
            self.storage.prepare(&spec.id, with_disks, spec.limits.disk_mib).map_err(|source| {
                RuntimeError::Io { context: "cannot prepare its files".to_owned(), source }
            })?;
        Ok(Boot {
            ticket: 0,
            id: spec.id.to_string(),
            hostname: spec.name.clone(),
            ip: spec.ip.octets(),
            host_usr: files.base == Base::Host,
            base: match files.base {
                Base::Host => self.base.clone(),
                Base::Bare => self.bare_base.clone(),
            },
            directory: files.private,
            disk_mib: files.disk_mib,
            layers: files.layers,
            memory_bytes: spec.limits.memory_bytes,
            cpu_percent: spec.limits.cpu_percent,
            max_processes: spec.limits.max_processes,
            nesting: spec.nesting,
            memory: None,
        })
    }

    async fn stop_machine(&self, id: &SandboxId, discard: bool) -> Result<(), RuntimeError> {
        self.end_volumes(id).await;
        // Out of the books first: an end that was asked for is no death.
        self.state.running().remove(id);
        // The lock must not be held while waiting: boots and the shutdown need it.
        let warden = self.warden.lock().await.clone();
        match warden {
            Some(warden) => warden.stop(id.as_str(), Storage::private(id), discard).await,
            None => Ok(()),
        }
    }
}

impl Namespaces {
    async fn remove_machine(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        self.stop_machine(id, true).await?;
        let (storage, id) = (Arc::clone(&self.storage), id.clone());
        blocking("remove the sandbox's files", move || storage.remove(&id)).await
    }
}

impl Runtime for Namespaces {
    fn boot(&self, spec: BootSpec) -> BoxFuture<'_, Result<BootInfo, RuntimeError>> {
        self.boot_machine(spec).boxed()
    }

    fn stop<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.stop_machine(id, false).boxed()
    }

    fn remove<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<(), RuntimeError>> {
        self.remove_machine(id).boxed()
    }

    fn pause<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<Saved, RuntimeError>> {
        self.pause_machine(id).boxed()
    }

    fn resume(
        &self,
        spec: BootSpec,
        saved: Saved,
    ) -> BoxFuture<'_, Result<BootInfo, RuntimeError>> {
        self.resume_machine(spec, saved).boxed()
    }

    fn fork<'a>(
        &'a self,
        source: &'a SandboxId,
        saved: Saved,
        child: BootSpec,
    ) -> BoxFuture<'a, Result<Saved, RuntimeError>> {
        self.fork_machine(source, saved, child).boxed()
    }

    fn exec<'a>(
        &'a self,
        id: &'a SandboxId,
        spec: ExecSpec,
    ) -> BoxFuture<'a, Result<ExecEvents, RuntimeError>> {
        async move { transfer::exec(&*self.init_of(id)?, spec).await }.boxed()
    }

    fn read_file<'a>(
        &'a self,
        id: &'a SandboxId,
        path: &'a [u8],
    ) -> BoxFuture<'a, Result<FileRead, RuntimeError>> {
        async move { transfer::read_file(&*self.init_of(id)?, path).await }.boxed()
    }

    fn write_file<'a>(
        &'a self,
        id: &'a SandboxId,
        path: &'a [u8],
    ) -> BoxFuture<'a, Result<Box<dyn FileWrite>, RuntimeError>> {
        async move { transfer::write_file(&*self.init_of(id)?, path).await }.boxed()
    }

    fn usage<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<Usage, RuntimeError>> {
        async move {
            let init = self.init_of(id)?;
            let group = self.facts.memory.as_ref().map(|dir| Path::new(dir).join(id.as_str()));
            blocking("read what the sandbox uses", move || usage::read(&init, group.as_deref()))
                .await
        }
        .boxed()
    }

    fn connect<'a>(
        &'a self,
        id: &'a SandboxId,
        address: SocketAddr,
    ) -> BoxFuture<'a, Result<TcpStream, RuntimeError>> {
        self.connect_inside(id, address).boxed()
    }

    fn connect_unix<'a>(
        &'a self,
        id: &'a SandboxId,
        path: &'a str,
    ) -> BoxFuture<'a, Result<UnixStream, RuntimeError>> {
        async move { unix_sockets::connect(self.init_of(id)?, path).await }.boxed()
    }

    fn listen<'a>(
        &'a self,
        id: &'a SandboxId,
        port: u16,
    ) -> BoxFuture<'a, Result<TcpListener, RuntimeError>> {
        self.listen_inside(id, port).boxed()
    }

    fn set_links<'a>(
        &'a self,
        id: &'a SandboxId,
        links: Vec<Link>,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        let linked = self.link_machine(id, links);
        async move { linked.await.map_err(|error| with_remedy(error, NETWORKS_REMEDY)) }.boxed()
    }

    fn open_line<'a>(
        &'a self,
        network: &'a str,
        subnet: Subnet,
    ) -> BoxFuture<'a, Result<Line, RuntimeError>> {
        let opened = self.line_to(network, subnet);
        async move { opened.await.map_err(|error| with_remedy(error, LINES_REMEDY)) }.boxed()
    }

    fn outlet<'a>(&'a self, id: &'a SandboxId) -> BoxFuture<'a, Result<Outlet, RuntimeError>> {
        self.outlet_of(id).boxed()
    }

    fn can_reach_out(&self) -> Result<(), String> {
        match self.no_way_out() {
            None => Ok(()),
            Some(reason) => Err(format!("{reason}; {NO_WAY_OUT}")),
        }
    }

    fn disk_limit(&self) -> Result<(), String> {
        match &self.facts.no_disks {
            None => Ok(()),
            Some(reason) => Err(format!("{reason}; {NO_DISK_LIMIT}")),
        }
    }

    fn resize<'a>(
        &'a self,
        id: &'a SandboxId,
        disk_mib: u64,
    ) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            self.init_of(id)?;
            let (storage, of) = (Arc::clone(&self.storage), id.clone());
            let share = move || storage.own_share(&of, disk_mib);
            let share = blocking("read what the sandbox is layered from", share).await?;
            self.warden().await?.grow(Storage::private(id), share).await
        }
        .boxed()
    }

    fn on_disk(&self) -> BoxFuture<'_, Result<Vec<SandboxId>, RuntimeError>> {
        let storage = Arc::clone(&self.storage);
        blocking("list the sandbox directories", move || storage.list()).boxed()
    }

    fn deaths(&self) -> Option<mpsc::UnboundedReceiver<Died>> {
        self.deaths.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        async move {
            self.save_volumes().await;
            let end = async {
                let Some(warden) = self.warden.lock().await.take() else { return };
                let ended = self.state.ended.notified();
                self.state.running().clear();
                warden.end();
                if !warden.is_gone() {
                    ended.await;
                }
            };
            let _ = tokio::time::timeout(SHUTDOWN, end).await;
        }
        .boxed()
    }
}

/// Takes ended sandboxes out of the books and tells the core about them.
async fn keep_books(
    state: Arc<State>,
    mut events: mpsc::UnboundedReceiver<Event>,
    died: mpsc::UnboundedSender<Died>,
) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Ended { id, pid, reason } => {
                let Ok(id) = id.parse::<SandboxId>() else { continue };
                let mut running = state.running();
                // By now, another life of this sandbox may have begun.
                if running.get(&id).is_some_and(|init| init.pid == pid) {
                    running.remove(&id);
                    let _ = died.send(Died { id, reason });
                }
            }
            Event::Gone { generation } => {
                let lost: Vec<_> =
                    state.running().extract_if(|_, init| init.generation == generation).collect();
                tokio::spawn(bury(lost, died.clone()));
                state.ended.notify_waiters();
            }
        }
    }
}

fn with_remedy(error: RuntimeError, remedy: &str) -> RuntimeError {
    match error {
        RuntimeError::Unsupported(message) => {
            RuntimeError::Unsupported(format!("{message}; {remedy}"))
        }
        other => other,
    }
}

/// Makes sure of the end of sandboxes whose warden has gone, and tells it. The kernel
/// kills them, but a guest may have found a way out of that; and no boot may meet them
/// on the same files.
async fn bury(lost: Vec<(SandboxId, Arc<Init>)>, died: mpsc::UnboundedSender<Died>) {
    lost.iter().for_each(|(_, init)| init.kill());
    let ends = lost.into_iter().map(|(id, init)| {
        let died = died.clone();
        async move {
            let _ = tokio::task::spawn_blocking(move || init.ends_within(SHUTDOWN)).await;
            let reason = "the engine's warden process ended".to_owned();
            let _ = died.send(Died { id, reason });
        }
    });
    futures::future::join_all(ends).await;
}

async fn blocking<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, RuntimeError> {
    let context = |source| RuntimeError::Io { context: format!("cannot {doing}"), source };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(context),
        Err(error) => Err(context(io::Error::other(error))),
    }
}

fn prepare_directories(data_dir: &Path, shared_cache: Option<&Path>) -> io::Result<()> {
    // Sandboxes' layers hold files that are setuid root by their numbers on disk.
    let private = |path: &Path| {
        // Those above it too: the shared cache lies in a data directory, and an engine
        // refuses one that others may enter.
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))
    };
    private(&data_dir.join("sandboxes"))?;
    private(&data_dir.join("layers"))?;
    let cache = data_dir.join("cache");
    match shared_cache {
        None => private(&cache),
        Some(_) if cache.is_symlink() => Ok(()),
        Some(shared) => {
            private(shared)?;
            std::os::unix::fs::symlink(shared, &cache)
        }
    }
}

/// A name for what every engine on this directory leaves in the kernel, so that the next
/// one finds and ends it. Not the path: containers may have the same one.
fn instance(data_dir: &Path) -> io::Result<String> {
    let path = data_dir.join("instance");
    let known = std::fs::read_to_string(&path).unwrap_or_default();
    if let Ok(known) = known.trim().parse::<ulid::Ulid>() {
        return Ok(known.to_string().to_lowercase());
    }
    let fresh = ulid::Ulid::new().to_string().to_lowercase();
    std::fs::write(&path, &fresh)?;
    Ok(fresh)
}
