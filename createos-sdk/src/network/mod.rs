//! Private networks: sandboxes on one reach each other by address and by name (api.md 4.16,
//! 5.6, 6.6).

mod create;
mod delete;
mod join;

use std::fmt;
use std::sync::Arc;

use reqwest::Method;

use crate::client::Client;
use crate::error::Result;
use crate::handle::Handle;
use crate::id::NetworkId;
use crate::operation::Operation;
use crate::page::List;
use crate::wire::NetworkView;

pub use self::create::CreateNetwork;
pub use self::delete::DeleteNetwork;
pub use self::join::WaitUntilJoined;

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
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Network").field(self.id()).finish()
    }
}

/// A network named by id or name: both fit one path segment.
fn key(text: &str) -> (String, Result<()>) {
    (text.to_owned(), NetworkId::try_from(text).map(drop))
}

impl Client {
    /// Creates a private network (api.md 5.6). Its name is unique among the caller's. See
    /// [`CreateNetwork`].
    pub fn create_network(&self, name: impl Into<String>) -> CreateNetwork {
        CreateNetwork::new(self.clone(), name.into())
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
