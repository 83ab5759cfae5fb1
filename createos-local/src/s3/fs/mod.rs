//! A bucket as a file system, for the kernel's FUSE.
//!
//! Directories are the slashes in keys, and objects whose key ends with one. What is open for
//! writing is staged in a file without a name, and becomes an object when it is closed or
//! synced: then it is durable, or the error is told. Nothing here blocks the thread that reads
//! requests; each one is a task that ends in bounded time.

mod cache;
mod change;
mod dispatch;
mod folder;
mod nodes;
mod read;
mod staged;
mod staging;
mod volume;

pub(crate) use self::volume::{Health, Volume};

use std::sync::Arc;

use fuser::{Config, Session, SessionACL};
use std::os::fd::OwnedFd;
use std::path::Path;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;

use self::dispatch::Dispatch;
use self::staging::Staging;
use super::{Access, Client};

/// Memory for what is read ahead, in MiB, of all volumes together.
const READ_AHEAD_MIB: usize = 128;

/// Serves volumes, on threads of its own.
pub(crate) struct Service {
    /// Gone when the service is.
    runtime: Option<Runtime>,
    shared: Arc<Shared>,
}

/// What all volumes share.
struct Shared {
    staging: Staging,
    read_ahead: Arc<Semaphore>,
}

impl Service {
    /// `staging` is a directory for what is being written.
    pub(crate) fn start(staging: &Path) -> std::io::Result<Self> {
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).thread_name("createos-s3").enable_all();
        Ok(Self {
            runtime: Some(runtime.build()?),
            shared: Arc::new(Shared {
                staging: Staging::new(staging)?,
                read_ahead: Arc::new(Semaphore::new(READ_AHEAD_MIB)),
            }),
        })
    }

    /// Serves a part of a bucket through a FUSE device. Its files have this owner.
    pub(crate) fn serve(
        &self,
        access: &Access,
        sub_path: &str,
        owner: u32,
        device: OwnedFd,
    ) -> Result<Arc<Volume>, String> {
        let runtime = self.runtime.as_ref().ok_or("the engine is shutting down")?.handle();
        let client = Client::new(access)?;
        let shared = Arc::clone(&self.shared);
        let volume = Arc::new(Volume::new(client, sub_path, owner, shared, runtime.clone()));
        let dispatch = Dispatch::new(Arc::clone(&volume));
        let serve = move || {
            let mut config = Config::default();
            config.acl = SessionACL::All;
            let session = Session::from_fd(dispatch, device, SessionACL::All, config);
            if let Err(error) = session.and_then(Session::run) {
                tracing::warn!(%error, "an S3 disk is not served any more");
            }
        };
        let thread = std::thread::Builder::new().name("createos-fuse".to_owned()).spawn(serve);
        thread.map_err(|error| format!("no thread can be had: {error}"))?;
        runtime.spawn(Arc::clone(&volume).watch_health());
        Ok(volume)
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
