//! The state machine: sandboxes as records and states (api.md 7).
//!
//! Every transition is written before it is acted on and is a compare-and-set on the store,
//! so a killed engine can finish or undo it and no two requests can both win. What touches
//! the runtime (boot, stop, remove) runs one at a time per sandbox, in a task of its own:
//! a client that goes away does not leave half a sandbox.

mod activity;
mod attachments;
mod build;
mod build_log;
mod builds;
mod create;
mod desktop;
mod devices;
mod disk;
mod dockerfile;
mod error;
#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod fake_images;
#[cfg(test)]
mod fake_processes;
mod fork;
mod lifecycle;
mod live;
mod metrics;
mod names;
mod networks;
mod outbound;
mod pause;
mod ports;
mod private_names;
mod processes;
mod recover;
mod resume;
mod s3_disks;
mod self_signal;
mod sessions;
mod settings;
mod slot;
mod ssh;
mod state;
mod templates;
mod token;
mod upkeep;
mod usage;
mod validate;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use createos_sdk::SandboxId;
use futures::future::{BoxFuture, join_all};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::catalog::Catalog;
use crate::net::{Names, Outside};
use crate::runtime::Runtime;
use crate::store::{Counts, Page, Sandbox, Store};
use crate::vpn::Relay;
use builds::Builds;
use slot::Slots;

pub(crate) use attachments::Seen;
pub use builds::BuildLimits;
pub(crate) use builds::Progress;
pub(crate) use desktop::{Deed, Desktop, OpenScreen, ScreenId, View, try_desktop};
pub(crate) use error::CoreError;
pub(crate) use lifecycle::Transition;
pub(crate) use live::{Command, End, Started, Step};
pub(crate) use ports::{Connection, Hold};
pub(crate) use private_names::{Place, PrivateNames};
pub(crate) use processes::{Following, Keyboard, Screen, Session, signal_name};
pub(crate) use self_signal::{Guest, Guests, SelfSignal};
pub(crate) use sessions::Session as DeviceSession;
pub(crate) use state::State;
pub(crate) use templates::Log as TemplateLog;
pub(crate) use templates::Next as LogNext;
pub(crate) use token::{NewToken, TOKEN_PREFIX};
pub(crate) use usage::Window;
pub(crate) use validate::shown;

/// The one region this engine has.
pub(crate) const REGION: &str = "local";

/// How long shutdown waits for boots and removals under way.
const DRAIN: Duration = Duration::from_secs(10);

/// Connections that one sandbox may have outside at once.
const MAX_OUTBOUND: usize = 4096;

/// What the engine knows of the network that it is in.
#[derive(Debug, Default)]
pub(crate) struct Neighbourhood {
    /// Who is asked for names; nobody for as this machine does it.
    pub(crate) name_servers: Vec<SocketAddr>,
    /// Where the engine itself listens.
    pub(crate) api: Vec<SocketAddr>,
}

/// Times, sizes and permissions, together so that tests can make them small.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tuning {
    /// How long an ended sandbox stays visible (api.md 9.3).
    pub(crate) keep_ended: Duration,
    /// How often ended sandboxes are forgotten and unfinished removals tried again.
    pub(crate) upkeep: Duration,
    /// How long a destroy waits for the removal before it answers `destroying`.
    pub(crate) destroy_wait: Duration,
    /// How long a pause, resume or fork is waited for before it is answered as begun.
    pub(crate) change_wait: Duration,
    /// How long a pause waits for what it interrupted.
    pub(crate) quiet_wait: Duration,
    /// What one second of auto-pause is: nothing else, but in tests.
    pub(crate) auto_pause_unit: Duration,
    /// How often to look for sandboxes that have been idle for long.
    pub(crate) idle_check: Duration,
    /// The longest an exec may run (api.md 6.1).
    pub(crate) exec_limit: Duration,
    /// How often a silent exec stream shows that it lives.
    pub(crate) heartbeat: Duration,
    /// The most output a buffered exec keeps. A command that says more is killed:
    /// cutting its output silently would be a lie, and a streamed exec has no such bound.
    pub(crate) max_buffered: usize,
    /// The largest upload (api.md 9.34).
    pub(crate) max_upload: u64,
    /// An upload from which nothing comes for this long is given up.
    pub(crate) upload_stall: Duration,
    /// Whether sandboxes may ask for nesting.
    pub(crate) allow_nesting: bool,
    /// How long a port inside may take to accept a connection.
    pub(crate) connect_limit: Duration,
    /// Connections into sandboxes at once, of all of them together.
    pub(crate) max_connections: usize,
    /// What builds of templates may use.
    pub(crate) build: BuildLimits,
    /// How many private networks there can be.
    pub(crate) max_networks: u64,
    /// How long a session of a device lasts that is not renewed.
    pub(crate) session_life: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            keep_ended: Duration::from_secs(600),
            upkeep: Duration::from_secs(30),
            destroy_wait: Duration::from_millis(500),
            change_wait: Duration::from_millis(50),
            quiet_wait: Duration::from_millis(100),
            auto_pause_unit: Duration::from_secs(1),
            idle_check: Duration::from_secs(1),
            exec_limit: Duration::from_secs(3600),
            heartbeat: Duration::from_secs(5),
            max_buffered: 64 << 20,
            max_upload: 500 << 20,
            upload_stall: Duration::from_secs(60),
            allow_nesting: false,
            connect_limit: Duration::from_secs(10),
            max_connections: 10_000,
            build: BuildLimits::default(),
            max_networks: 256,
            // A device renews it every 30 seconds, and may miss that once.
            session_life: Duration::from_secs(75),
        }
    }
}

/// The core. Clones share it.
#[derive(Clone)]
pub(crate) struct Core {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    runtime: Arc<dyn Runtime>,
    catalog: Catalog,
    tuning: Tuning,
    slots: Slots,
    private_names: Arc<PrivateNames>,
    builds: Builds,
    /// What devices with sessions speak through.
    relay: Relay,
    /// Held by whoever changes which devices there are, and where they are attached.
    devices: tokio::sync::Mutex<()>,
    /// Room for connections into sandboxes.
    room: Arc<Semaphore>,
    /// What sandboxes share on their way out.
    outside: Arc<Outside>,
    /// To whoever serves what sandboxes say to the engine.
    guests: mpsc::UnboundedSender<Guest>,
    /// Cancelled when the engine shuts down.
    stop: CancellationToken,
    /// Each task holds a clone; shutdown waits until all are dropped.
    busy: std::sync::Mutex<Option<mpsc::Sender<()>>>,
    idle: tokio::sync::Mutex<mpsc::Receiver<()>>,
}

impl Core {
    /// Cleans up what an earlier engine left, then takes requests. Comes with what must be
    /// served for sandboxes to be heard.
    pub(crate) async fn start(
        store: Store,
        runtime: Arc<dyn Runtime>,
        catalog: Catalog,
        tuning: Tuning,
        neighbourhood: Neighbourhood,
    ) -> Result<(Self, Guests), CoreError> {
        let (busy, idle) = mpsc::channel(1);
        let room = Arc::new(Semaphore::new(tuning.max_connections));
        let outside = Outside {
            names: Names::new(&neighbourhood.name_servers),
            api: neighbourhood.api.iter().map(SocketAddr::port).collect(),
            room: Arc::clone(&room),
            // No sandbox takes all of it.
            most: (tuning.max_connections / 4).clamp(16, MAX_OUTBOUND),
        };
        let private_names = Arc::new(PrivateNames::default());
        outside.names.add_zone(Arc::clone(&private_names) as _);
        let stop = CancellationToken::new();
        let (names, directory) = (outside.names.clone(), Arc::clone(&private_names) as _);
        let relay = Relay::new(neighbourhood.api, names, directory, stop.clone());
        let relay = relay.map_err(|error| CoreError::Internal(format!("no keys: {error}")))?;
        let (guests, received) = mpsc::unbounded_channel();
        let core = Self {
            inner: Arc::new(Inner {
                store,
                runtime,
                catalog,
                tuning,
                slots: Slots::default(),
                private_names,
                builds: Builds::new(tuning.build.at_once),
                relay,
                devices: tokio::sync::Mutex::default(),
                room,
                outside: Arc::new(outside),
                guests,
                stop,
                busy: std::sync::Mutex::new(Some(busy)),
                idle: tokio::sync::Mutex::new(idle),
            }),
        };
        core.recover().await?;
        core.learn_names().await?;
        core.recover_templates().await?;
        core.start_upkeep();
        Ok((core, received))
    }

    pub(crate) fn tuning(&self) -> &Tuning {
        &self.inner.tuning
    }

    pub(crate) fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// The sandbox, in whatever state, also for a while after its end.
    pub(crate) async fn get(&self, id: &SandboxId) -> Result<Sandbox, CoreError> {
        self.inner.store.get(id).await?.ok_or(CoreError::NoSandbox)
    }

    /// The sandbox, unless it is `destroyed`: settings of the dead are not shown (api.md 7.3).
    pub(crate) async fn get_existing(&self, id: &SandboxId) -> Result<Sandbox, CoreError> {
        match self.get(id).await? {
            sandbox if sandbox.state == State::Destroyed => Err(CoreError::NoSandbox),
            sandbox => Ok(sandbox),
        }
    }

    pub(crate) async fn get_by_ip(&self, ip: Ipv4Addr) -> Result<Sandbox, CoreError> {
        self.inner.store.by_ip(ip).await?.ok_or(CoreError::NoSandbox)
    }

    pub(crate) async fn list(
        &self,
        state: Option<State>,
        limit: u32,
        offset: u64,
    ) -> Result<Page, CoreError> {
        Ok(self.inner.store.list(state, limit, offset).await?)
    }

    pub(crate) async fn counts(&self) -> Result<Counts, CoreError> {
        Ok(self.inner.store.counts().await?)
    }

    /// Interrupts commands and transfers, because the engine is about to shut down.
    pub(crate) fn interrupt(&self) {
        self.inner.stop.cancel();
        self.inner.slots.interrupt_all();
    }

    /// Whether requests are still served.
    pub(crate) fn is_serving(&self) -> bool {
        !self.inner.stop.is_cancelled()
    }

    /// Waits for work under way, ends every sandbox and closes the store. Their files stay
    /// for the next engine, unless `forget` says that there is none.
    pub(crate) async fn shutdown(&self, forget: bool) {
        self.interrupt();
        if let Ok(mut busy) = self.inner.busy.lock() {
            busy.take();
        }
        if let Err(error) = self.keep_counters().await {
            tracing::warn!(%error, "the last of what sandboxes sent and received is not kept");
        }
        let mut idle = self.inner.idle.lock().await;
        if tokio::time::timeout(DRAIN, idle.recv()).await.is_err() {
            tracing::warn!("some sandboxes were still starting or being removed at shutdown");
        }
        if forget {
            self.remove_all().await;
        }
        if let Err(error) = self.inner.store.note_alive().await {
            tracing::warn!(%error, "the end of what runs was not noted");
        }
        self.inner.runtime.shutdown().await;
        self.inner.store.close().await;
    }

    async fn remove_all(&self) {
        let ids = self.inner.runtime.on_disk().await.unwrap_or_default();
        let removals = ids.iter().map(|id| self.inner.runtime.remove(id));
        for error in join_all(removals).await.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "a sandbox was not removed at shutdown");
        }
    }

    /// Waits for work that goes on anyway, so that a client that asks at once finds it done.
    async fn wait_a_moment(&self, work: BoxFuture<'static, Result<(), CoreError>>) {
        let done = tokio::time::timeout(self.inner.tuning.change_wait, work).await;
        if let Ok(Err(error)) = done {
            tracing::error!(%error, "a change of state was not finished");
        }
    }

    /// Runs work to its end whatever becomes of the caller; shutdown waits for it. Refused
    /// once shutdown began.
    fn run_to_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, CoreError>> + Send + 'static,
    ) -> Result<BoxFuture<'static, Result<T, CoreError>>, CoreError> {
        let gone = || CoreError::NoCapacity("the engine is shutting down".to_owned());
        let busy = self.inner.busy.lock().ok().and_then(|busy| busy.clone()).ok_or_else(gone)?;
        let task = tokio::spawn(async move {
            let result = work.await;
            drop(busy);
            result
        });
        Ok(Box::pin(async {
            let failed =
                |error| CoreError::Internal(format!("a task of the engine failed: {error}"));
            task.await.map_err(failed)?
        }))
    }
}
