//! What every handle of a resource is made of: its id, the client, and what the server last
//! said about it.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use reqwest::Method;
use serde::de::DeserializeOwned;

use crate::client::Client;
use crate::operation::Operation;
use crate::transport::envelope;
use crate::transport::request::Call;

/// Cheap to clone; clones share the last-seen view, which is replaced whole.
pub(crate) struct Handle<I, V>(Arc<Shared<I, V>>);

struct Shared<I, V> {
    client: Client,
    /// The collection of the route, such as `networks`.
    collection: &'static str,
    id: I,
    view: RwLock<Option<Arc<V>>>,
}

impl<I, V> Handle<I, V> {
    pub(crate) fn new(client: Client, collection: &'static str, id: I, view: Option<V>) -> Self {
        let view = RwLock::new(view.map(Arc::new));
        Self(Arc::new(Shared { client, collection, id, view }))
    }

    pub(crate) fn id(&self) -> &I {
        &self.0.id
    }

    pub(crate) fn client(&self) -> &Client {
        &self.0.client
    }

    /// The same thing reached through another client. Clones of the two do not share views.
    pub(crate) fn with_client(&self, client: Client) -> Self
    where
        I: Clone,
    {
        let view = RwLock::new(self.view());
        let (collection, id) = (self.0.collection, self.id().clone());
        Self(Arc::new(Shared { client, collection, id, view }))
    }

    pub(crate) fn view(&self) -> Option<Arc<V>> {
        self.0.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn saw(&self, view: Option<Arc<V>>) {
        *self.0.view.write().unwrap_or_else(PoisonError::into_inner) = view;
    }
}

impl<I: AsRef<str>, V> Handle<I, V> {
    /// A call to `/v1/<collection>/<id>/<segments>`.
    pub(crate) fn call(&self, operation: &'static str, method: Method, segments: &[&str]) -> Call {
        let id = self.id().as_ref();
        let mut path = vec!["v1", self.0.collection, id];
        path.extend(segments);
        self.client().call(operation, method, &path).resource(&id)
    }

    /// A call of which only the success matters.
    pub(crate) fn acknowledged(
        &self,
        operation: &'static str,
        method: Method,
        segments: &[&str],
    ) -> Operation<()> {
        Operation::acknowledged(self.client().clone(), self.call(operation, method, segments))
    }
}

impl<I, V> Handle<I, V>
where
    I: AsRef<str> + Send + Sync + 'static,
    V: DeserializeOwned + Send + Sync + 'static,
{
    /// A call that answers with a view, which becomes the last seen.
    pub(crate) fn viewing(&self, call: Call) -> Operation<Arc<V>> {
        let handle = self.clone();
        Operation::new(self.client().clone(), call, move |reply| {
            let view: Arc<V> = Arc::new(envelope::data(&reply)?);
            handle.saw(Some(view.clone()));
            Ok(view)
        })
    }
}

impl<I, V> Clone for Handle<I, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I: fmt::Debug, V> fmt::Debug for Handle<I, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.id(), f)
    }
}
