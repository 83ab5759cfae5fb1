//! Creating a disk.

use std::future::IntoFuture;

use reqwest::Method;

use super::{Disk, check_credentials};
use crate::check;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::guard::Guarded;
use crate::operation::Operation;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::wire::{self, DiskConfig, DiskCredentials};

/// Creates a disk on an S3 bucket. Made with [`Client::create_disk`].
///
/// # Errors
///
/// `InvalidArgument`: the name is not of a-z, 0-9 and `-`, or the bucket cannot be reached
/// with these keys. `Conflict`: the name is taken. `PaymentRequired`: out of credit.
/// `Unavailable`: this server has no disks. After an error that
/// [may have acted](crate::Error::may_have_acted) look for the name before creating it again.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct CreateDisk {
    client: Client,
    request: wire::CreateDisk,
    options: RequestOptions,
}

impl CreateDisk {
    pub(super) fn new(
        client: Client,
        name: String,
        config: DiskConfig,
        credentials: DiskCredentials,
    ) -> Self {
        let request = wire::CreateDisk::new(name, config, credentials);
        Self { client, request, options: RequestOptions::new() }
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    /// Creates the disk under a guard that removes it when dropped, also when this call itself
    /// is given up half-way; the bucket and what is in it stay. See [`Guard`](crate::Guard).
    pub fn guarded(self) -> Guarded<Disk> {
        Guarded::new(self.client.clone(), move |client| Self { client, ..self }.into_future())
    }

    fn check(&self) -> Result<()> {
        check::disk_name(&self.request.name)?;
        check_config(&self.request.config)?;
        check_credentials(&self.request.credentials)
    }
}

fn check_config(config: &DiskConfig) -> Result<()> {
    if config.bucket.trim().is_empty() {
        return Err(Error::invalid_argument("bucket", "is empty"));
    }
    match url::Url::parse(&config.endpoint) {
        Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(()),
        // It may hold a password, so it is not repeated.
        _ => Err(Error::invalid_argument("endpoint", "is not an http(s) URL")),
    }
}

impl IntoFuture for CreateDisk {
    type Output = Result<Disk>;
    type IntoFuture = Pending<Disk>;

    fn into_future(self) -> Pending<Disk> {
        let checked = self.check();
        let call = self.client.call("disk.create", Method::POST, &["v1", "disks"]);
        let client = self.client.clone();
        Operation::data(self.client, call)
            .json(&self.request)
            .checked(checked)
            .with(self.options)
            .map(|view| Disk::seen(client, view))
            .into_future()
    }
}
