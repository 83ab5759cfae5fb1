//! Hosts, and the use of an account (api.md 3.6, 5.10).

use reqwest::Method;

use crate::client::Client;
use crate::operation::Operation;
use crate::page::List;
use crate::wire::{Host, Metrics};

impl Client {
    /// The machines that run sandboxes (api.md 3.6). For administrators; others are refused
    /// with `PermissionDenied`.
    pub fn hosts(&self) -> List<Host> {
        let call = self.call("hosts.list", Method::GET, &["v1", "hosts"]);
        List::new(self.clone(), call, |_, host: Host| host)
    }

    /// What the caller uses (api.md 5.10). **Unofficial**: the API does not say what is in the
    /// answer, so any JSON object is taken as it comes.
    pub fn metrics(&self) -> Operation<Metrics> {
        let call = self.call("metrics", Method::GET, &["v1", "metrics"]);
        Operation::data(self.clone(), call)
    }

    /// What the caller used over a window of time (api.md 5.10). **Unofficial**: the API names
    /// neither the parameters nor what is in the answer; both go as they are.
    pub fn metrics_timeseries<N: AsRef<str>, V: AsRef<str>>(
        &self,
        parameters: impl IntoIterator<Item = (N, V)>,
    ) -> Operation<Metrics> {
        let call = self.call("metrics.timeseries", Method::GET, &["v1", "metrics", "timeseries"]);
        let call = parameters
            .into_iter()
            .fold(call, |call, (name, value)| call.query(name.as_ref(), value.as_ref()));
        Operation::data(self.clone(), call)
    }
}
