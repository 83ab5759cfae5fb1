//! S3 disks in sandboxes: the warden mounts them, this process serves them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use createos_sdk::SandboxId;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};

use super::Namespaces;
use crate::runtime::{DiskMount, Disks, MountState, RuntimeError};
use crate::s3::{Access, Client, Health, Service, Volume};

/// How long saving may take: at a detach or an end, and at a pause.
const SAVING: Duration = Duration::from_secs(10);
/// How long requests under way may take at a pause before they fail.
const SETTLING: Duration = Duration::from_secs(2);

/// What to do where an ordinary user cannot mount.
pub(crate) const NO_FUSE: &str = "run the engine as root, or let its user open /dev/fuse \
                                  (chmod 666 /dev/fuse), in a kernel with FUSE";

type Key = (SandboxId, String);

/// The disks of all sandboxes.
#[derive(Default)]
pub(super) struct Volumes {
    mounts: Mutex<HashMap<Key, Mount>>,
    /// Once one was wanted.
    service: Mutex<Option<Service>>,
}

enum Mount {
    Failed(String),
    Served(Served),
}

#[derive(Clone)]
struct Served {
    number: u32,
    /// Which warden mounted it.
    generation: u64,
    volume: Arc<Volume>,
    spec: DiskMount,
    is_leaving: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Volumes {
    fn served(&self, id: &SandboxId) -> Vec<Served> {
        let mounts = lock(&self.mounts);
        let of = mounts.iter().filter(|((owner, _), _)| owner == id);
        let served = of.filter_map(|(_, mount)| match mount {
            Mount::Served(served) => Some(served.clone()),
            Mount::Failed(_) => None,
        });
        served.collect()
    }

    fn get(&self, id: &SandboxId, path: &str) -> Option<Served> {
        match lock(&self.mounts).get(&(id.clone(), path.to_owned()))? {
            Mount::Served(served) => Some(served.clone()),
            Mount::Failed(_) => None,
        }
    }

    fn set(&self, id: &SandboxId, path: &str, mount: Mount) {
        lock(&self.mounts).insert((id.clone(), path.to_owned()), mount);
    }

    fn forget(&self, id: &SandboxId, path: &str) {
        lock(&self.mounts).remove(&(id.clone(), path.to_owned()));
    }

    fn leave(&self, id: &SandboxId, path: &str) {
        if let Some(Mount::Served(served)) =
            lock(&self.mounts).get_mut(&(id.clone(), path.to_owned()))
        {
            served.is_leaving = true;
        }
    }
}

impl Namespaces {
    async fn mount(&self, id: &SandboxId, spec: DiskMount) -> Result<Served, String> {
        let access = spec.access.clone()?;
        let warden = self.warden().await.map_err(|error| error.to_string())?;
        let mounted = warden.mount_volume(id.as_str(), &spec.path).await;
        let mounted = mounted.map_err(|error| match error {
            RuntimeError::Unsupported(why) if why.contains("/dev/fuse") => {
                format!("{why}; {NO_FUSE}")
            }
            error => error.to_string(),
        })?;
        let staging = self.data_dir.join("staging");
        let served = {
            let mut service = lock(&self.volumes.service);
            let service = match &mut *service {
                Some(service) => Ok(&*service),
                none => Service::start(&staging).map(|started| &*none.insert(started)),
            };
            let service = service.map_err(|error| format!("disks cannot be served: {error}"));
            service.and_then(|service| {
                service.serve(&access, &spec.sub_path, mounted.owner, mounted.device)
            })
        };
        let (number, generation) = (mounted.number, warden.generation());
        match served {
            Ok(volume) => Ok(Served { number, generation, volume, spec, is_leaving: false }),
            Err(error) => {
                let _ = warden.unmount_volume(number, true).await;
                Err(error)
            }
        }
    }

    /// Whether disks can be mounted, found out in a running sandbox.
    pub(crate) async fn try_volumes(&self, id: &SandboxId) -> Result<(), RuntimeError> {
        let warden = self.warden().await?;
        let mounted = warden.mount_volume(id.as_str(), "/mnt/tried").await?;
        warden.unmount_volume(mounted.number, true).await.map(drop)
    }

    /// Ends a mount, whoever uses it.
    async fn cut_off(&self, served: &Served) {
        served.volume.close();
        let warden = self.warden.lock().await.clone();
        let warden = warden.filter(|warden| warden.generation() == served.generation);
        if let Some(warden) = warden
            && let Err(error) = warden.unmount_volume(served.number, true).await
        {
            tracing::warn!(%error, "an S3 disk was not unmounted");
        }
    }

    /// Ends every mount of a sandbox, which is about to end or has; what was written is saved
    /// before.
    pub(super) async fn end_volumes(&self, id: &SandboxId) {
        let served = self.volumes.served(id);
        join_all(served.iter().map(async |one| {
            self.volumes.leave(id, &one.spec.path);
            one.volume.save_all(SAVING / 2).await;
            self.cut_off(one).await;
        }))
        .await;
        lock(&self.volumes.mounts).retain(|(owner, _), _| owner != id);
    }

    /// Saves what was written, and sees to it that nobody waits for a disk: the sandbox is
    /// about to stand still.
    pub(super) async fn settle_volumes(&self, id: &SandboxId) {
        let served = self.volumes.served(id);
        join_all(served.iter().map(async |one| {
            one.volume.save_all(SETTLING).await;
            one.volume.settle(SETTLING).await;
        }))
        .await;
    }

    /// A sandbox that stood still is about to go on.
    pub(super) fn wake_volumes(&self, id: &SandboxId) {
        self.volumes.served(id).iter().for_each(|one| one.volume.go_on());
    }

    /// Unmounts what a sandbox has, because it is about to be saved. `false` when somebody in
    /// there uses it: then it is all as before.
    pub(super) async fn lay_volumes_down(&self, id: &SandboxId) -> bool {
        let served = self.volumes.served(id);
        let mut down = Vec::new();
        for one in &served {
            let Ok(warden) = self.warden().await else { return false };
            match warden.unmount_volume(one.number, false).await {
                Ok(true) => {
                    one.volume.close();
                    self.volumes.forget(id, &one.spec.path);
                    down.push(one.spec.clone());
                }
                Ok(false) | Err(_) => {
                    self.take_up(id, down).await;
                    return false;
                }
            }
        }
        true
    }

    /// What a sandbox had that could not be saved after all.
    pub(super) fn volumes_of(&self, id: &SandboxId) -> Vec<DiskMount> {
        self.volumes.served(id).into_iter().map(|one| one.spec).collect()
    }

    /// Mounts again what was laid down.
    pub(super) async fn take_up(&self, id: &SandboxId, specs: Vec<DiskMount>) {
        for spec in specs {
            self.mount_disk(id, spec).await;
        }
    }

    pub(super) async fn save_volumes(&self) {
        let all: Vec<Served> = lock(&self.volumes.mounts)
            .values()
            .filter_map(|mount| match mount {
                Mount::Served(served) => Some(served.clone()),
                Mount::Failed(_) => None,
            })
            .collect();
        join_all(all.iter().map(|one| one.volume.save_all(SAVING / 2))).await;
        all.iter().for_each(|one| one.volume.close());
        lock(&self.volumes.mounts).clear();
        drop(lock(&self.volumes.service).take());
    }
}

impl Disks for Namespaces {
    fn check_bucket<'a>(&'a self, access: &'a Access) -> BoxFuture<'a, Result<(), String>> {
        async move { Client::new(access)?.probe().await.map_err(|error| error.to_string()) }.boxed()
    }

    fn mount_disk<'a>(&'a self, id: &'a SandboxId, spec: DiskMount) -> BoxFuture<'a, ()> {
        async move {
            let path = spec.path.clone();
            if let (Some(served), Ok(access)) = (self.volumes.get(id, &path), &spec.access) {
                served.volume.set_keys(access.keys.clone());
                served.volume.go_on();
                return;
            }
            let mount = match self.mount(id, spec).await {
                Ok(served) => Mount::Served(served),
                Err(why) => {
                    tracing::warn!(sandbox = %id, why, "an S3 disk could not be mounted");
                    Mount::Failed(why)
                }
            };
            self.volumes.set(id, &path, mount);
        }
        .boxed()
    }

    fn mount_state(&self, id: &SandboxId, path: &str) -> MountState {
        match lock(&self.volumes.mounts).get(&(id.clone(), path.to_owned())) {
            None => MountState::Pending,
            Some(Mount::Failed(why)) => MountState::Failed(why.clone()),
            Some(Mount::Served(served)) if served.is_leaving => MountState::Unmounting,
            Some(Mount::Served(served)) => match served.volume.health() {
                Health::Unknown => MountState::Pending,
                Health::Well => MountState::Mounted,
                Health::Ill(why) => MountState::Failed(why),
            },
        }
    }

    fn unmount_disk<'a>(&'a self, id: &'a SandboxId, path: &'a str) -> BoxFuture<'a, ()> {
        async move {
            if let Some(served) = self.volumes.get(id, path) {
                self.volumes.leave(id, path);
                served.volume.save_all(SAVING).await;
                self.cut_off(&served).await;
            }
            self.volumes.forget(id, path);
        }
        .boxed()
    }
}
