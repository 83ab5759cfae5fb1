//! Private networks: sandboxes on one reach each other by address and by name (api.md 4.16,
//! 5.6, 6.6).

use std::fmt;
use std::future::IntoFuture;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use tokio::time::Instant;

use crate::check;
use crate::client::Client;
use crate::error::{ErrorKind, Result};
use crate::handle::Handle;
use crate::id::NetworkId;
use crate::operation::Operation;
use crate::options::RequestOptions;
use crate::page::List;
use crate::pending::Pending;
use crate::poll::Poll;
use crate::sandbox::Sandbox;
use crate::wire::{CreateNetwork, NetworkRef, NetworkView};

/// A removal can be refused for some seconds after the last member left (api.md 9.22).
const SETTLING: Duration = Duration::from_secs(15);

/// One private network. Cheap to clone; clones share the last-seen view.
#[derive(Clone)]
pub struct Network(Handle<NetworkId, NetworkView>);

impl Network {
    fn new(client: Client, id: NetworkId, view: Option<NetworkView>) -> Self {
        Self(Handle::new(client, "networks", id, view))
    }

    fn seen(client: Client, view: NetworkView) -> Self {
        Self::new(client, view.id.clone(), Some(view))
    }

    /// Its id.
    pub fn id(&self) -> &NetworkId {
        self.0.id()
    }

    /// What the server last said about it. Rows of a list count the members, everything else
    /// names them. It may be out of date.
    pub fn view(&self) -> Option<Arc<NetworkView>> {
        self.0.view()
    }

    /// Asks the server how it is, members included (api.md 5.6).
    pub fn refresh(&self) -> Operation<Arc<NetworkView>> {
        self.0.viewing(self.0.call("network.get", Method::GET, &[]))
    }

    /// Removes it (api.md 5.6). See [`DeleteNetwork`].
    pub fn delete(&self) -> DeleteNetwork {
        DeleteNetwork { network: self.clone(), settling: SETTLING, options: RequestOptions::new() }
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Network").field(self.id()).finish()
    }
}

/// Removes a network. Made with [`Network::delete`].
///
/// Servers refuse for some seconds after the last member left. So a refusal is tried again
/// when the network has no members left, for [`settling`](Self::settling).
///
/// # Errors
///
/// `Conflict`: it still has members. `NotFound`: there is none of this id, or a first attempt
/// removed it and its answer was lost ([`may_have_acted`](crate::Error::may_have_acted)).
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct DeleteNetwork {
    network: Network,
    settling: Duration,
    options: RequestOptions,
}

impl DeleteNetwork {
    /// How long a refusal is not believed although there are no members. Default 15 s.
    pub fn settling(mut self, limit: Duration) -> Self {
        self.settling = limit;
        self
    }

    /// Sets options of each attempt. A deadline counts for all of them together.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<()> {
        let Self { network, settling, options } = self;
        let started = Instant::now();
        let delete = || network.0.acknowledged("network.delete", Method::DELETE, &[]);
        let refused = match delete().with(options.clone()).await {
            Err(error) if error.kind() == ErrorKind::Conflict => error,
            done => return done,
        };
        let members = network
            .refresh()
            .with(options.left_since(started))
            .await
            .map(|seen| seen.members.len());
        if !matches!(members, Ok(0)) {
            return Err(refused);
        }
        let poll = Poll {
            operation: "network.delete",
            resource: network.id().to_string(),
            awaited: "removed",
            budget: settling,
            options: options.left_since(started),
        };
        let again = |options| async {
            match delete().with(options).await {
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    Ok(ControlFlow::Continue(error.message().to_owned()))
                }
                done => done.map(ControlFlow::Break),
            }
        };
        match poll.until(again).await {
            Err(error) if error.kind() == ErrorKind::Timeout => Err(refused),
            done => done,
        }
    }
}

impl IntoFuture for DeleteNetwork {
    type Output = Result<()>;
    type IntoFuture = Pending<()>;

    fn into_future(self) -> Pending<()> {
        Pending::new(self.run())
    }
}

/// A network named by id or name: both fit one path segment.
fn key(text: &str) -> (String, Result<()>) {
    (text.to_owned(), NetworkId::try_from(text).map(drop))
}

impl Client {
    /// Creates a private network (api.md 5.6). Its name is unique among the caller's.
    ///
    /// # Errors
    ///
    /// `InvalidArgument`: the name is taken or cannot be one. `PaymentRequired`,
    /// `PermissionDenied`: credit and quota.
    pub fn create_network(&self, name: impl Into<String>) -> Operation<Network> {
        let name = name.into();
        let checked = check::name(&name);
        let call = self.call("network.create", Method::POST, &["v1", "networks"]);
        let client = self.clone();
        Operation::data(self.clone(), call)
            .json(&CreateNetwork::new(name))
            .checked(checked)
            .map(|view| Network::seen(client, view))
    }

    /// The caller's private networks (api.md 5.6).
    pub fn networks(&self) -> List<Network> {
        let call = self.call("network.list", Method::GET, &["v1", "networks"]);
        List::new(self.clone(), call, |client, view| Network::seen(client.clone(), view))
    }

    /// Looks a private network up, by id or name (api.md 5.6).
    pub fn get_network(&self, id_or_name: impl AsRef<str>) -> Operation<Network> {
        let (key, checked) = key(id_or_name.as_ref());
        let call = self.call("network.get", Method::GET, &["v1", "networks", &key]).resource(&key);
        let client = self.clone();
        Operation::data(self.clone(), call).checked(checked).map(|view| Network::seen(client, view))
    }

    /// A handle to a private network, without any traffic.
    pub fn network(&self, id: impl Into<NetworkId>) -> Network {
        Network::new(self.clone(), id.into(), None)
    }
}

impl Sandbox {
    /// Joins a private network, named by id or name (api.md 4.16). It takes some seconds until
    /// it has an address there, which [`Network::refresh`] shows; doing it twice is harmless.
    ///
    /// # Errors
    ///
    /// `NotFound`: no such network. `Conflict`: the sandbox does not run.
    pub fn attach_network(&self, id_or_name: impl AsRef<str>) -> Operation<()> {
        let (key, checked) = key(id_or_name.as_ref());
        let call = self.call("sandbox.attach_network", Method::POST, &["networks"]);
        Operation::acknowledged(self.client().clone(), call)
            .json(&NetworkRef::new(key))
            .checked(checked)
    }

    /// Leaves a private network, named by id or name (api.md 4.16).
    ///
    /// # Errors
    ///
    /// `NotFound`: no such network, or it is not on it.
    pub fn detach_network(&self, id_or_name: impl AsRef<str>) -> Operation<()> {
        let (key, checked) = key(id_or_name.as_ref());
        let call = self.call("sandbox.detach_network", Method::DELETE, &["networks", &key]);
        Operation::acknowledged(self.client().clone(), call).checked(checked)
    }
}
