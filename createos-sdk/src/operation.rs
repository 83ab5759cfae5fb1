//! The builder of calls that have no arguments of their own.

use std::fmt;
use std::future::IntoFuture;

use crate::client::Client;
use crate::error::Result;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::transport::request::Call;
use crate::transport::send::{self, Reply};

type Read<T> = Box<dyn FnOnce(Reply) -> Result<T> + Send + Sync>;

/// A call that is made when awaited, and takes nothing but [`RequestOptions`].
#[must_use = "nothing is sent until awaited"]
pub struct Operation<T> {
    client: Client,
    call: Call,
    read: Read<T>,
}

impl<T: Send + 'static> Operation<T> {
    pub(crate) fn new(
        client: Client,
        call: Call,
        read: impl FnOnce(Reply) -> Result<T> + Send + Sync + 'static,
    ) -> Self {
        Self { client, call, read: Box::new(read) }
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.call.options = self.call.options.overlaid(options);
        self
    }
}

impl<T: Send + 'static> IntoFuture for Operation<T> {
    type Output = Result<T>;
    type IntoFuture = Pending<T>;

    fn into_future(self) -> Pending<T> {
        Pending::new(async move { send::send(self.client.inner(), &self.call, self.read).await })
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
