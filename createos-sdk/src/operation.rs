//! The builder of calls that have no arguments of their own.

use std::fmt;
use std::future::IntoFuture;

use crate::client::Client;
use crate::error::{Error, Result};
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::transport::envelope;
use crate::transport::request::Call;
use crate::transport::send::{self, Reply};
use serde::de::DeserializeOwned;

type Read<T> = Box<dyn FnOnce(Reply) -> Result<T> + Send + Sync>;

/// A call that is made when awaited, and takes nothing but [`RequestOptions`].
#[must_use = "nothing is sent until awaited"]
pub struct Operation<T> {
    client: Client,
    call: Call,
    /// Why it will not be made: an argument that cannot be right.
    refused: Option<Error>,
    read: Read<T>,
}

impl<T: Send + 'static> Operation<T> {
    pub(crate) fn new(
        client: Client,
        call: Call,
        read: impl FnOnce(Reply) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        Self { client, call, refused: None, read: Box::new(read) }
    }

    /// Refuses the call before any traffic when `checked` is an error.
    pub(crate) fn checked(mut self, checked: Result<()>) -> Self {
        if let (None, Err(error)) = (&self.refused, checked) {
            self.refused = Some(error.in_operation(self.call.operation));
        }
        self
    }

    /// Sends this as the body.
    pub(crate) fn json(mut self, body: &impl serde::Serialize) -> Self {
        let checked = self.call.set_json(body);
        self.checked(checked)
    }

    /// The same call, giving something else.
    pub(crate) fn map<U: Send + 'static>(
        self,
        then: impl FnOnce(T) -> U + Send + Sync + 'static,
    ) -> Operation<U> {
        let Self { client, call, refused, read } = self;
        Operation { client, call, refused, read: Box::new(move |reply| read(reply).map(then)) }
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.call.options = self.call.options.overlaid(options);
        self
    }
}

impl<T: DeserializeOwned + Send + 'static> Operation<T> {
    /// A call that gives the data of its answer.
    pub(crate) fn data(client: Client, call: Call) -> Self {
        Self::new(client, call, |reply| envelope::data(&reply))
    }
}

impl Operation<()> {
    /// A call of which only the success matters.
    pub(crate) fn acknowledged(client: Client, call: Call) -> Self {
        Self::new(client, call, |reply| envelope::acknowledged(&reply))
    }
}

impl<T: Send + 'static> IntoFuture for Operation<T> {
    type Output = Result<T>;
    type IntoFuture = Pending<T>;

    fn into_future(self) -> Pending<T> {
        Pending::new(async move {
            match self.refused {
                Some(error) => Err(error),
                None => send::send(self.client.inner(), &self.call, self.read).await,
            }
        })
    }
}

impl<T> fmt::Debug for Operation<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("operation", &self.call.operation)
            .field("path", &self.call.url.path())
            .field("options", &self.call.options)
            .finish()
    }
}
