//! Images from registries.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::future::IntoFuture;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use createos_sdk::Secret;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, TryStreamExt as _};

use super::account::{self, Account};
use super::oci::{
    Config, DEEPEST_INDEX, Descriptor, Manifest, Platform, digest_of, parse, unpack_layer,
};
use super::reference::Reference;
use super::registry::Registry;
use super::shelf::Incoming;
use super::unpack::{self, Unpacker};
use super::{ImageError, ImageInfo, Images, Origin, archive, begin, checked, put};

/// How long a registry may be silent.
const QUIET: Duration = Duration::from_secs(30);
/// Layers that are fetched at once.
const AT_ONCE: usize = 3;

type OnProgress = Arc<dyn Fn(PullProgress) + Send + Sync>;

/// How far a pull is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PullProgress {
    /// Layers are on their way.
    Fetching {
        /// Bytes that have arrived.
        bytes: u64,
        /// Bytes of all layers, compressed as they are sent.
        total: u64,
    },
    /// All is here, and a layer is about to be unpacked.
    Unpacking {
        /// Which one, from 1.
        layer: usize,
        /// How many there are.
        of: usize,
    },
}

/// A pull that is about to begin; await it. Made by [`Images::pull`].
///
/// Dropped before its end, it leaves nothing, and an earlier image of the name stays.
#[must_use = "nothing is pulled until this is awaited"]
pub struct Pull {
    images: Images,
    reference: String,
    name: Option<String>,
    platform: Option<String>,
    account: Option<Account>,
    quiet: Duration,
    progress: OnProgress,
}

impl fmt::Debug for Pull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pull")
            .field("reference", &self.reference)
            .field("name", &self.name)
            .finish()
    }
}

impl Pull {
    pub(super) fn new(images: Images, reference: &str) -> Self {
        Self {
            images,
            reference: reference.to_owned(),
            name: None,
            platform: None,
            account: None,
            quiet: QUIET,
            progress: Arc::new(|_| {}),
        }
    }

    /// What to call it here. Otherwise its repository and tag, without the registry, and
    /// without `library/`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// For which platform, as `os/architecture` or `os/architecture/variant`: `linux/arm64`.
    /// Otherwise this machine's own; programs of others run only where its kernel has been
    /// taught to run them.
    pub fn platform(mut self, platform: impl Into<String>) -> Self {
        self.platform = Some(platform.into());
        self
    }

    /// The account to ask with. Otherwise the one that `docker login` has kept for the
    /// registry in Docker's `config.json`, if there is one.
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<Secret>) -> Self {
        self.account = Some(Account::Password { user: user.into(), password: password.into() });
        self
    }

    /// How long the registry may send nothing before that is an error: 30 seconds, unless
    /// given. There is no limit to the whole.
    pub fn stall_timeout(mut self, timeout: Duration) -> Self {
        self.quiet = timeout;
        self
    }

    /// Calls this as the pull goes on.
    pub fn progress(mut self, callback: impl Fn(PullProgress) + Send + Sync + 'static) -> Self {
        self.progress = Arc::new(callback);
        self
    }

    async fn run(self) -> Result<ImageInfo, ImageError> {
        let Self { images, reference, name, platform, account, quiet, progress } = self;
        let reference = Reference::parse(&reference)?;
        let name = checked(&name.unwrap_or_else(|| reference.local_name()))?;
        let platform = platform.as_deref().map_or_else(|| Ok(Platform::own()), Platform::parse)?;
        let known = reference.clone();
        let (account, incoming) = images
            .blocking(move |shelf, _| {
                let account = match account {
                    Some(account) => Some(account),
                    None => account::known(&known)?,
                };
                Ok((account, begin(&shelf)?))
            })
            .await?;
        let source = reference.to_string();
        let fetch =
            Fetch { registry: Registry::new(reference, account, quiet)?, platform, progress };
        let Found { digest, config, layers } = fetch.find().await?;
        let files = fetch.fetch(&layers, &incoming).await?;
        let platform = fetch.platform;
        let progress = fetch.progress;
        images
            .blocking(move |shelf, given_up| {
                let bound = given_up.bound(unpack::room(&incoming.files())?);
                let mut unpacker = Unpacker::new(&incoming.files(), bound.most)
                    .map_err(ImageError::io("cannot prepare a place for the files"))?;
                let digests = config.layers(layers.len(), &platform)?;
                for (at, (layer, digest)) in layers.iter().zip(digests).enumerate() {
                    progress(PullProgress::Unpacking { layer: at + 1, of: layers.len() });
                    let file = fs::File::open(&files[&layer.digest]);
                    let file = file.map_err(ImageError::io("cannot read a layer"))?;
                    unpack_layer(&mut unpacker, file, digest, &bound)?;
                }
                let (size_bytes, config) = archive::finish(unpacker, config.defaults()?)?;
                let origin = Origin { name, source, digest: Some(digest) };
                put(&shelf, incoming, origin, size_bytes, config, &bound)
            })
            .await
    }
}

impl IntoFuture for Pull {
    type Output = Result<ImageInfo, ImageError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;

    fn into_future(self) -> Self::IntoFuture {
        self.run().boxed()
    }
}

/// An image in its registry.
struct Found {
    digest: String,
    config: Config,
    layers: Vec<Descriptor>,
}

struct Fetch {
    registry: Registry,
    platform: Platform,
    progress: OnProgress,
}

impl Fetch {
    async fn find(&self) -> Result<Found, ImageError> {
        let mut text = self.registry.manifest(None).await?;
        for _ in 0..=DEEPEST_INDEX {
            let manifest: Manifest = parse("manifest", &text)?;
            match manifest.config()? {
                None => {
                    let chosen = manifest.choose(&self.platform)?;
                    chosen.check()?;
                    text = self.registry.manifest(Some(&chosen.digest)).await?;
                }
                Some(config) => {
                    config.check()?;
                    let config = self.registry.config(&config.digest).await?;
                    let config: Config = parse("configuration", &config)?;
                    // Before anything large is fetched.
                    config.layers(manifest.layers.len(), &self.platform)?;
                    return Ok(Found { digest: digest_of(&text), config, layers: manifest.layers });
                }
            }
        }
        Err(ImageError::Damaged("its indexes lead to each other".to_owned()))
    }

    /// Fetches what layers there are; returns the files by digest.
    async fn fetch(
        &self,
        layers: &[Descriptor],
        incoming: &Incoming,
    ) -> Result<BTreeMap<String, PathBuf>, ImageError> {
        let mut wanted = BTreeMap::new();
        for layer in layers {
            layer.check()?;
            let file = incoming.scratch().join(layer.digest.replace(':', "-"));
            wanted.insert(layer.digest.clone(), (layer, file));
        }
        let sizes = wanted.values().map(|(layer, _)| layer.size);
        let total = sizes.fold(0, u64::saturating_add);
        if total > unpack::room(&incoming.scratch())? {
            let text = format!("its layers have {} MiB, for which there is no room", total >> 20);
            return Err(ImageError::TooLarge(text));
        }
        let done = AtomicU64::new(0);
        let arrived = |bytes: u64| {
            let bytes = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            (self.progress)(PullProgress::Fetching { bytes, total });
        };
        let blobs = wanted.values().map(|(layer, file)| self.registry.blob(layer, file, arrived));
        let blobs: Vec<_> = blobs.collect();
        futures::stream::iter(blobs).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        Ok(wanted.into_iter().map(|(digest, (_, file))| (digest, file)).collect())
    }
}
