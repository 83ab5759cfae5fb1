//! Starting and stopping an engine.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use createos_sdk::{Client, Secret};
use rustix::process::Resource;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::api::{Front, HostRules, Server};
use crate::auth::ApiKey;
use crate::catalog::{Catalog, Rootfs};
use crate::core::{BuildLimits, Core, Neighbourhood, Tuning};
use crate::data_dir::{DataDir, default_data_dir};
use crate::error::EngineError;
use crate::images::Images;
use crate::runtime::{DESKTOP_REMEDY, HOST_ROOTFS, Namespaces, Runtime, desktop_programs};
use crate::store::{Store, StoreError};

const DATABASE: &str = "state.db";

/// A running engine: an HTTP server and the sandboxes behind it.
///
/// It serves until [`shutdown`](Engine::shutdown) or until it is dropped; both end every
/// sandbox's processes. Files and records stay in the data directory, so that the next engine
/// there knows the sandboxes, unless the engine is [ephemeral](EngineBuilder::ephemeral). Those
/// that ran, or were paused in memory, are in state `error` then, from which `resume` starts
/// them again; those that were paused to disk, or with nothing running, are still `paused`.
///
/// It needs a Tokio runtime with the I/O and time drivers for as long as it lives.
pub struct Engine {
    url: String,
    key: ApiKey,
    client: Client,
    addrs: Vec<SocketAddr>,
    data_dir: PathBuf,
    stop: CancellationToken,
    supervisor: Option<JoinHandle<()>>,
}

impl Engine {
    /// Describes an engine; [`start`](EngineBuilder::start) starts it.
    ///
    /// ```no_run
    /// # async fn example() -> Result<(), createos_local::EngineError> {
    /// let engine = createos_local::Engine::builder().ephemeral().start().await?;
    /// println!("serving {}", engine.url());
    /// engine.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder() -> EngineBuilder {
        EngineBuilder::default()
    }

    /// The base URL for clients on this machine, such as `http://127.0.0.1:4123`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The key that requests must carry in `X-Api-Key`.
    pub fn api_key(&self) -> &Secret {
        self.key.secret()
    }

    /// A client of this engine, ready to use. Clones of it share one connection pool.
    ///
    /// It keeps working while the engine lives; afterwards its calls fail with
    /// [`ErrorKind::Connection`](createos_sdk::ErrorKind::Connection).
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The address it listens on, with the real port; the first one when there are several.
    pub fn local_addr(&self) -> SocketAddr {
        self.addrs[0]
    }

    /// Where its state is kept.
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// The root filesystems that sandboxes can be made from beside this machine's own, and
    /// more of them.
    pub fn images(&self) -> Images {
        Images::of(&self.data_dir)
    }

    /// Stops taking requests, gives those under way a few seconds, ends every sandbox's
    /// processes and gives the data directory free.
    ///
    /// Dropping the future does not stop the shutdown, it only stops waiting for it.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        if let Some(supervisor) = self.supervisor.take() {
            // A panic in there was reported by its own hook; there is nothing to add.
            let _ = supervisor.await;
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("url", &self.url)
            .field("data_dir", &self.data_dir)
            .finish_non_exhaustive()
    }
}

/// Describes an engine before it starts.
#[derive(Debug, Clone, Default)]
#[must_use = "an engine starts with `.start().await`"]
pub struct EngineBuilder {
    data_dir: Option<PathBuf>,
    ephemeral: bool,
    listen: Vec<SocketAddr>,
    hosts: Vec<String>,
    api_key: Option<Secret>,
    allow_nesting: bool,
    criu: Option<PathBuf>,
    build_limits: BuildLimits,
    name_servers: Vec<SocketAddr>,
}

impl EngineBuilder {
    /// Keeps the state in this directory instead of [`default_data_dir`]. It is made when
    /// missing, with mode 0700; only one engine can use it at a time.
    pub fn data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.data_dir = Some(path.into());
        self
    }

    /// Keeps the state in a fresh directory, below the data directory, that is removed at
    /// shutdown. What a killed ephemeral engine left there, the next one removes.
    pub fn ephemeral(mut self) -> Self {
        self.ephemeral = true;
        self
    }

    /// Listens on this address; call it again for more, `[::1]:0` for example. The default is
    /// `127.0.0.1` with a free port. Beside `127.0.0.1` it also takes the same port of `::1`,
    /// where that is to be had, because names below `localhost` may lead there.
    ///
    /// Devices with a session are heard by UDP at the same addresses, with the same port numbers
    /// where they are free.
    ///
    /// Whoever reaches the address and has the key controls every sandbox, and the connection
    /// is not encrypted: outside loopback, put a TLS proxy in front.
    pub fn listen(mut self, addr: SocketAddr) -> Self {
        self.listen.push(addr);
        self
    }

    /// Answers requests that name this host (without port) in their `Host` header. Names of
    /// this machine's loopback and the addresses it listens on are always answered; all
    /// others are refused, so that no website can reach the engine by DNS rebinding.
    pub fn allow_host(mut self, host: impl Into<String>) -> Self {
        self.hosts.push(host.into());
        self
    }

    /// Uses this key instead of the one kept in the data directory. It is not written down.
    pub fn api_key(mut self, key: impl Into<Secret>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// Lets sandboxes ask for *nesting* (the label `nesting=true` in `node_selector`), so that
    /// Docker and other container tools work inside them.
    ///
    /// Such a sandbox has every capability within its own user namespace, may mount and make
    /// namespaces, and sees `/proc` and `/sys` uncovered. It still owns nothing outside, and its
    /// limits hold, but far more of the kernel is within its reach: allow it only for what you
    /// would run on this machine anyway. The default is not to. It needs an engine that runs as
    /// root; [`doctor`](crate::doctor) says whether this machine can.
    pub fn allow_nesting(mut self, allow: bool) -> Self {
        self.allow_nesting = allow;
        self
    }

    /// Uses this CRIU program, and no other, to save what runs in a sandbox when it pauses.
    ///
    /// By default that is the one that the environment variable `CREATEOS_CRIU` names, or
    /// else the first one in `PATH`, in the usual places or in `createos/criu` of the user's
    /// cache directory that works: which it does is found out by saving and bringing back a
    /// small sandbox, the first time it matters. It needs an engine that runs as root.
    pub fn criu(mut self, program: impl Into<PathBuf>) -> Self {
        self.criu = Some(program.into());
        self
    }

    /// Gives builds of templates other limits than the default ones.
    pub fn build_limits(mut self, limits: BuildLimits) -> Self {
        self.build_limits = limits;
        self
    }

    /// Asks this DNS server for the names that sandboxes look up; call it again for more. By
    /// default that is done as this machine does it, by its `/etc/resolv.conf` and `/etc/hosts`.
    pub fn name_server(mut self, server: SocketAddr) -> Self {
        self.name_servers.push(server);
        self
    }

    /// Starts the engine: takes the data directory, cleans up what an earlier engine left
    /// behind, and serves.
    ///
    /// Every connection into a sandbox takes two file descriptors, so this raises the soft
    /// limit of open files of the whole process to the hard one.
    ///
    /// # Errors
    ///
    /// [`EngineError`] names the cause and the remedy. Nothing is left running.
    pub async fn start(self) -> Result<Engine, EngineError> {
        let max_connections = raise_file_limit();
        let tuning = Tuning {
            allow_nesting: self.allow_nesting,
            max_connections,
            build: self.build_limits,
            ..Tuning::default()
        };
        self.start_with(tuning, namespaces).await
    }

    pub(crate) async fn start_with<R>(
        self,
        tuning: Tuning,
        machine: impl FnOnce(Place) -> R,
    ) -> Result<Engine, EngineError>
    where
        R: Future<Output = Result<Machine, EngineError>>,
    {
        let (dir, key) = self.prepare().await?;
        let (core, serving) = match self.serve(&dir, &key, tuning, machine).await {
            Ok(served) => served,
            Err(error) => {
                release(dir).await;
                return Err(error);
            }
        };
        let stop = CancellationToken::new();
        let data_dir = dir.path().to_owned();
        let Serving { url, client, addrs, server } = serving;
        let supervisor = tokio::spawn(supervise(stop.clone(), server, core, dir));
        Ok(Engine { url, key, client, addrs, data_dir, stop, supervisor: Some(supervisor) })
    }

    async fn serve<R>(
        self,
        dir: &DataDir,
        key: &ApiKey,
        tuning: Tuning,
        machine: impl FnOnce(Place) -> R,
    ) -> Result<(Core, Serving), EngineError>
    where
        R: Future<Output = Result<Machine, EngineError>>,
    {
        let listeners = bind(&self.listen).await?;
        let addrs: Vec<SocketAddr> = listeners.iter().map(|(addr, _)| *addr).collect();
        let url = url_of(addrs[0]);
        let client = client_of(&url, key)?;
        let database = dir.path().join(DATABASE);
        let store = Store::open(&database).await.map_err(|error| state_error(error, &database))?;
        let place =
            Place { dir: dir.path().to_owned(), shared_cache: dir.shared_cache(), criu: self.criu };
        let Machine { runtime, rootfs, desktop } = match machine(place).await {
            Ok(machine) => machine,
            Err(error) => {
                store.close().await;
                return Err(error);
            }
        };
        let catalog = Catalog::new(rootfs).with_desktop(desktop);
        let neighbourhood = Neighbourhood { name_servers: self.name_servers, api: addrs.clone() };
        let started =
            Core::start(store.clone(), Arc::clone(&runtime), catalog, tuning, neighbourhood).await;
        let (core, guests) = match started {
            Ok(started) => started,
            Err(error) => {
                runtime.shutdown().await;
                store.close().await;
                return Err(EngineError::State { path: database, reason: error.to_string() });
            }
        };
        let hosts = HostRules::new(addrs.iter().map(SocketAddr::ip), self.hosts);
        let front = Front::new(core.clone(), key.clone(), hosts, loopback_port(&addrs));
        let listeners = listeners.into_iter().map(|(_, listener)| listener);
        let server = Server::start(listeners, front, guests);
        Ok((core, Serving { url, client, addrs, server }))
    }

    /// Everything that touches the file system, away from the async threads.
    async fn prepare(&self) -> Result<(DataDir, ApiKey), EngineError> {
        let path = self.data_dir.clone().or_else(default_data_dir).ok_or(EngineError::NoDataDir)?;
        let (ephemeral, given) = (self.ephemeral, self.api_key.clone());
        let work = move || {
            let dir = if ephemeral { DataDir::ephemeral(&path)? } else { DataDir::open(&path)? };
            let key = match given {
                Some(key) => ApiKey::given(key)?,
                None => ApiKey::of_dir(dir.path())?,
            };
            Ok((dir, key))
        };
        let task = tokio::task::spawn_blocking(work);
        task.await.unwrap_or_else(|error| Err(EngineError::Runtime { reason: error.to_string() }))
    }
}

/// Where a machine keeps its files.
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) shared_cache: Option<PathBuf>,
    pub(crate) criu: Option<PathBuf>,
}

/// What runs sandboxes, and the root filesystems it can boot.
pub(crate) struct Machine {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) rootfs: Vec<Rootfs>,
    /// Whether it has the programs of a desktop, or what to do about it.
    pub(crate) desktop: Result<(), String>,
}

/// A server that is up.
struct Serving {
    url: String,
    client: Client,
    addrs: Vec<SocketAddr>,
    server: Server,
}

/// Waits for the end and takes everything down in order: requests, sandboxes, state, directory.
async fn supervise(stop: CancellationToken, server: Server, core: Core, dir: DataDir) {
    stop.cancelled().await;
    core.interrupt();
    server.shutdown().await;
    core.shutdown(dir.is_ephemeral()).await;
    release(dir).await;
}

async fn release(dir: DataDir) {
    // A panic in there was reported by its own hook.
    let _ = tokio::task::spawn_blocking(move || dir.release()).await;
}

/// The machine under the core, and the root filesystems it can boot.
async fn namespaces(place: Place) -> Result<Machine, EngineError> {
    // What engines share (helpers, bases) is too much work for each ephemeral one.
    let Place { dir, shared_cache, criu } = place;
    let start = move || Namespaces::start(&dir, shared_cache.as_deref());
    let started = tokio::task::spawn_blocking(start).await;
    let runtime = started
        .map_err(|error| EngineError::Runtime { reason: error.to_string() })?
        .map_err(|error| EngineError::Runtime { reason: error.to_string() })?
        .with_criu(criu);
    let rootfs = vec![Rootfs {
        name: HOST_ROOTFS.to_owned(),
        description: "this machine's own /usr, read-only, with a writable layer per sandbox".into(),
    }];
    let desktop = desktop_programs().map_err(|missing| format!("{missing}; {DESKTOP_REMEDY}"));
    Ok(Machine { runtime: Arc::new(runtime), rootfs, desktop })
}

/// Raises the limit of open files as far as it goes, and returns for how many connections into
/// sandboxes that is enough.
fn raise_file_limit() -> usize {
    /// For everything else: the API, sandboxes, the state.
    const RESERVE: u64 = 512;
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // Where it is refused, what there is must do.
    let _ = rustix::process::setrlimit(Resource::Nofile, limit);
    let files = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
    let spare = files.saturating_sub(RESERVE).max(files / 4);
    usize::try_from(spare / 2).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS)
}

/// The port at which programs on this machine reach the engine by `localhost`.
fn loopback_port(addrs: &[SocketAddr]) -> Option<u16> {
    // Where names below `localhost` lead, and no other address of loopback.
    let local = |addr: &&SocketAddr| {
        let ip = addr.ip();
        ip == Ipv4Addr::LOCALHOST || ip == Ipv6Addr::LOCALHOST || ip.is_unspecified()
    };
    addrs.iter().find(local).map(SocketAddr::port)
}

async fn bind(wanted: &[SocketAddr]) -> Result<Vec<(SocketAddr, TcpListener)>, EngineError> {
    let default = [SocketAddr::from((Ipv4Addr::LOCALHOST, 0))];
    let wanted = if wanted.is_empty() { &default } else { wanted };
    let mut listeners = Vec::with_capacity(wanted.len());
    for &addr in wanted {
        let failed = |source| EngineError::Listen { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let real = listener.local_addr().map_err(failed)?;
        if !real.ip().is_loopback() {
            tracing::warn!(addr = %real, "listening beyond this machine, without encryption");
        }
        listeners.push((real, listener));
        if let Some(twin) = twin(real, wanted).await {
            listeners.push(twin);
        }
    }
    Ok(listeners)
}

/// The same port of `::1`: where names below `localhost` resolve, they may lead there first.
/// Done without where there is no IPv6, or somebody else has the port.
async fn twin(addr: SocketAddr, wanted: &[SocketAddr]) -> Option<(SocketAddr, TcpListener)> {
    let twin = SocketAddr::from((Ipv6Addr::LOCALHOST, addr.port()));
    let is_wanted = addr.ip() == Ipv4Addr::LOCALHOST && !wanted.contains(&twin);
    let listener = if is_wanted { TcpListener::bind(twin).await.ok()? } else { return None };
    Some((twin, listener))
}

/// An address that clients on this machine can reach.
fn url_of(addr: SocketAddr) -> String {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    format!("http://{}", SocketAddr::new(ip, addr.port()))
}

fn client_of(url: &str, key: &ApiKey) -> Result<Client, EngineError> {
    let builder = Client::builder().base_url(url).api_key(key.secret());
    // The address need not be a loopback one, but it is this machine's.
    let client = builder.allow_insecure_http(true).build();
    client.map_err(|error| EngineError::Client { reason: error.to_string() })
}

fn state_error(error: StoreError, path: &Path) -> EngineError {
    let path = path.to_owned();
    match error {
        StoreError::Locked => EngineError::StateLocked { path },
        StoreError::Corrupt(reason) => EngineError::StateCorrupt { path, reason },
        StoreError::NewerVersion { found, supported } => {
            EngineError::StateTooNew { path, found, supported }
        }
        error => EngineError::State { path, reason: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_published_where_names_below_localhost_lead() {
        let port = |addrs: &[&str]| {
            loopback_port(&addrs.iter().map(|addr| addr.parse().unwrap()).collect::<Vec<_>>())
        };
        assert_eq!(port(&["192.0.2.7:1", "127.0.0.1:2", "[::1]:3"]), Some(2));
        assert_eq!(port(&["[::1]:3"]), Some(3));
        assert_eq!(port(&["0.0.0.0:4"]), Some(4));
        assert_eq!(port(&["192.0.2.7:1", "127.0.0.2:2"]), None);
    }

    #[tokio::test]
    async fn the_default_is_both_loopback_addresses_with_one_port() {
        let listeners = bind(&[]).await.unwrap();
        let port = listeners[0].0.port();
        assert_eq!(listeners[0].0, SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        // Without IPv6, or with a busy port there, the first alone.
        assert!(listeners[1..].iter().all(|(addr, _)| addr.ip() == Ipv6Addr::LOCALHOST));
        assert!(listeners[1..].iter().all(|(addr, _)| addr.port() == port));
    }
}
