//! Root filesystems beyond this machine's own: imported from a tarball, from an archive of a
//! container image, or from a registry.
//!
//! ```no_run
//! # async fn example(engine: createos_local::Engine) -> Result<(), Box<dyn std::error::Error>> {
//! engine.images().import("alpine:3.20", "alpine-minirootfs-3.20.3-x86_64.tar.gz").await?;
//! let sandbox = engine.client().create_sandbox("s-1vcpu-256mb").rootfs("alpine:3.20").await?;
//! # Ok(()) }
//! ```

mod account;
mod archive;
mod debian;
mod error;
mod headers;
mod oci;
mod pull;
mod reference;
mod registry;
mod shelf;
mod sparse;
mod stream;
mod tarball;
mod unpack;

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use self::debian::BuildDebian;
pub use self::error::ImageError;
pub use self::pull::{Pull, PullProgress};
use self::shelf::Record;
pub(crate) use self::shelf::{Shelf, full_name};
use self::stream::{Bound, GivenUp};
use crate::runtime::ImageConfig;

/// The imported root filesystems of a data directory. Any program of the same user can change
/// them, whether an engine runs on the directory or not; an engine sees changes at once.
#[derive(Debug, Clone)]
pub struct Images {
    data_dir: PathBuf,
}

/// An imported root filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageInfo {
    /// Its name, with a tag; sandboxes ask for it as `rootfs`.
    pub name: String,
    /// Where it came from: the path of a file, or a reference to a registry.
    pub source: String,
    /// The digest of its manifest (`sha256:…`), of one that came from a registry.
    pub digest: Option<String>,
    /// How many bytes its files have.
    pub size_bytes: u64,
    /// When it was imported.
    pub created: SystemTime,
}

impl From<Record> for ImageInfo {
    fn from(record: Record) -> Self {
        let created = UNIX_EPOCH + Duration::from_millis(record.created);
        let Record { name, source, digest, size_bytes, .. } = record;
        Self { name, source, digest, size_bytes, created }
    }
}

impl Images {
    /// The images of the engine that keeps its state in this directory.
    pub fn of(data_dir: impl Into<PathBuf>) -> Self {
        Self { data_dir: data_dir.into() }
    }

    /// Imports a root filesystem from a file: a tarball of its files, or one image as `docker
    /// save` writes it or in an OCI layout; plain, or compressed by gzip, zstd, xz or bzip2. What
    /// has the name already is replaced; sandboxes that were made from it keep it.
    ///
    /// A name without a tag gets `:latest`. Devices in the archive are left out. An engine that
    /// runs as an ordinary user has one user id inside, and all files belong to that.
    ///
    /// # Errors
    ///
    /// Nothing of it stays after one, or after the future is dropped.
    pub async fn import(
        &self,
        name: &str,
        file: impl AsRef<Path>,
    ) -> Result<ImageInfo, ImageError> {
        let (file, name) = (file.as_ref().to_owned(), checked(name)?);
        self.blocking(move |shelf, given_up| {
            let incoming = begin(&shelf)?;
            let bound = given_up.bound(unpack::room(&incoming.files())?);
            let (size_bytes, config) = archive::unpack(&file, &incoming, &bound)?;
            let source = file.display().to_string();
            let origin = Origin { name, source, digest: None };
            put(&shelf, incoming, origin, size_bytes, config, &bound)
        })
        .await
    }

    /// Pulls an image from a registry: `alpine:3.20` from Docker Hub, or
    /// `ghcr.io/owner/tool:1`, or `localhost:5000/tool@sha256:…`. Await what is returned.
    ///
    /// Registries of this machine alone are asked without encryption, all others with it.
    /// What has the name already stays until the new image is complete, and is replaced then.
    ///
    /// ```no_run
    /// # async fn example(engine: createos_local::Engine) -> Result<(), Box<dyn std::error::Error>> {
    /// let image = engine.images().pull("alpine:3.20").await?;
    /// let sandbox = engine.client().create_sandbox("s-1vcpu-256mb").rootfs(image.name).await?;
    /// # Ok(()) }
    /// ```
    pub fn pull(&self, reference: &str) -> Pull {
        Pull::new(self.clone(), reference)
    }

    /// Builds a minimal Debian from packages, by `mmdebstrap`, which must be installed: nothing
    /// is taken from this machine's own system. Await what is returned. It takes a minute or so,
    /// and the network.
    ///
    /// An engine that runs as root builds as root; an ordinary user needs subordinate ids
    /// (`/etc/subuid`) and `newuidmap`.
    ///
    /// ```no_run
    /// # async fn example(engine: createos_local::Engine) -> Result<(), Box<dyn std::error::Error>> {
    /// engine.images().build_debian("debian:13").suite("trixie").package("python3").await?;
    /// # Ok(()) }
    /// ```
    pub fn build_debian(&self, name: &str) -> BuildDebian {
        BuildDebian::new(self.clone(), name)
    }

    /// All images, by name.
    ///
    /// # Errors
    ///
    /// The data directory cannot be read.
    pub async fn list(&self) -> Result<Vec<ImageInfo>, ImageError> {
        self.blocking(|shelf, _| {
            let records = shelf.list().map_err(ImageError::io("cannot list the images"))?;
            Ok(records.into_iter().map(ImageInfo::from).collect())
        })
        .await
    }

    /// Removes an image. Sandboxes and templates that were made from it keep its files, which
    /// take room until the last of them is gone.
    ///
    /// # Errors
    ///
    /// There is none of this name.
    pub async fn remove(&self, name: &str) -> Result<(), ImageError> {
        let name = checked(name)?;
        self.blocking(move |shelf, _| {
            match shelf.remove(&name).map_err(ImageError::io("cannot remove the image"))? {
                true => Ok(()),
                false => Err(ImageError::NotFound(name)),
            }
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(Shelf, GivenUp) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let data_dir = self.data_dir.clone();
        let given_up = GivenUp::default();
        let _waiting = scopeguard::guard(given_up.clone(), |given_up| given_up.set());
        let task = tokio::task::spawn_blocking(move || {
            crate::data_dir::make_private(&data_dir).map_err(|error| ImageError::Io {
                context: "the data directory cannot be used".to_owned(),
                source: std::io::Error::other(error.to_string()),
            })?;
            let shelf = Shelf::of(&data_dir);
            work(shelf.map_err(ImageError::io("cannot use the data directory"))?, given_up)
        });
        task.await.unwrap_or_else(|error| {
            Err(ImageError::io("the work on images failed")(std::io::Error::other(error)))
        })
    }
}

fn checked(name: &str) -> Result<String, ImageError> {
    full_name(name).map_err(|why| ImageError::Name { name: name.to_owned(), why })
}

fn begin(shelf: &Shelf) -> Result<shelf::Incoming, ImageError> {
    shelf.begin().map_err(ImageError::io("cannot make room for an image"))
}

/// What an image is called, and where it came from.
struct Origin {
    name: String,
    source: String,
    digest: Option<String>,
}

fn put(
    shelf: &Shelf,
    incoming: shelf::Incoming,
    origin: Origin,
    size_bytes: u64,
    config: ImageConfig,
    bound: &Bound,
) -> Result<ImageInfo, ImageError> {
    bound.given_up.check().map_err(ImageError::io("the image is not kept"))?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let created = u64::try_from(since.as_millis()).unwrap_or_default();
    let Origin { name, source, digest } = origin;
    let record = Record { name, source, digest, size_bytes, created, config };
    shelf.put(incoming, &record).map_err(ImageError::io("cannot keep the image"))?;
    Ok(record.into())
}
