//! Creating a private network.

use std::future::IntoFuture;

use reqwest::Method;

use super::Network;
use crate::check;
use crate::client::Client;
use crate::error::Result;
use crate::guard::Guarded;
use crate::operation::Operation;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::wire;

/// Creates a private network. Made with [`Client::create_network`].
///
/// # Errors
///
/// `InvalidArgument`: the name is taken or cannot be one. `PaymentRequired`,
/// `PermissionDenied`: credit and quota. After an error that
/// [may have acted](crate::Error::may_have_acted) look for the name before creating it again.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct CreateNetwork {
    client: Client,
    name: String,
    options: RequestOptions,
}

impl CreateNetwork {
    pub(super) fn new(client: Client, name: String) -> Self {
        Self { client, name, options: RequestOptions::new() }
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    /// Creates the network under a guard that removes it when dropped, also when this call
    /// itself is given up half-way. See [`Guard`](crate::Guard).
    pub fn guarded(self) -> Guarded<Network> {
        Guarded::new(self.client.clone(), move |client| Self { client, ..self }.into_future())
    }
}

impl IntoFuture for CreateNetwork {
    type Output = Result<Network>;
    type IntoFuture = Pending<Network>;

    fn into_future(self) -> Pending<Network> {
        let checked = check::name(&self.name);
        let call = self.client.call("network.create", Method::POST, &["v1", "networks"]);
        let client = self.client.clone();
        Operation::data(self.client, call)
            .json(&wire::CreateNetwork::new(self.name))
            .checked(checked)
            .with(self.options)
            .map(|view| Network::seen(client, view))
            .into_future()
    }
}
