//! Joining a private network, and being heard there.

use std::future::IntoFuture;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use reqwest::Method;

use super::key;
use crate::error::{Error, ErrorKind, Result};
use crate::operation::Operation;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::poll::Poll;
use crate::sandbox::Sandbox;
use crate::wire::{NetworkRef, NetworkView, SandboxStatus};

const WAIT: &str = "network.wait";
/// It takes up to 4 s (api.md 4.16), so far less than what else is waited for.
const BUDGET: Duration = Duration::from_secs(30);

impl Sandbox {
    /// Joins a private network, named by id or name (api.md 4.16). It takes some seconds until
    /// it has an address there, for which [`wait_until_joined`](Self::wait_until_joined)
    /// waits; doing it twice is harmless.
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

    /// Waits until it has an address on a private network, named by id or name: given when it
    /// was created, or with [`attach_network`](Self::attach_network) (api.md 4.16). See
    /// [`WaitUntilJoined`].
    pub fn wait_until_joined(&self, id_or_name: impl AsRef<str>) -> WaitUntilJoined {
        WaitUntilJoined {
            sandbox: self.clone(),
            network: id_or_name.as_ref().to_owned(),
            budget: BUDGET,
            options: RequestOptions::new(),
        }
    }
}

/// Waits until a sandbox has an address on a private network. Made with
/// [`Sandbox::wait_until_joined`]; gives the address, which is another one than that of its
/// view.
///
/// ```no_run
/// # async fn run(server: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
/// server.attach_network("mesh").await?;
/// let address = server.wait_until_joined("mesh").await?;
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// `NotFound`: no such network. `UnexpectedState`: the sandbox does not run, so that it will
/// have no address. `Timeout`: not within the [`budget`](Self::budget), also when it was never
/// put on that network; the message says which. `Protocol`: the server gives an address that is
/// none. Waiting changes nothing, so it is safe to repeat.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct WaitUntilJoined {
    sandbox: Sandbox,
    network: String,
    budget: Duration,
    options: RequestOptions,
}

impl WaitUntilJoined {
    /// Longest time to wait. Default 30 s.
    pub fn budget(mut self, limit: Duration) -> Self {
        self.budget = limit;
        self
    }

    /// Sets options of each question. A deadline shortens the budget.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<IpAddr> {
        let (network, checked) = key(&self.network);
        checked.map_err(|error| error.in_operation(WAIT))?;
        let poll = Poll {
            operation: WAIT,
            resource: self.sandbox.id().to_string(),
            awaited: "on the network",
            budget: self.budget,
            options: self.options,
        };
        let client = self.sandbox.client();
        poll.until(|options| async {
            let view = client.get_network(&network).with(options).await?.view();
            address(&poll, &self.sandbox, view.as_deref())
        })
        .await
    }
}

fn address(
    poll: &Poll,
    sandbox: &Sandbox,
    view: Option<&NetworkView>,
) -> Result<ControlFlow<IpAddr, String>> {
    use SandboxStatus::{Destroyed, Destroying, Failed, Paused, Pausing};
    let members = view.map_or(&[][..], |view| &view.members);
    let Some(member) = members.iter().find(|member| member.sandbox_id == *sandbox.id()) else {
        return Ok(ControlFlow::Continue("it is no member".to_owned()));
    };
    match member.ip.as_deref().filter(|ip| !ip.is_empty()) {
        Some(ip) => ip.parse().map(ControlFlow::Break).map_err(|_| {
            let message = format!("{ip:?} is not an address");
            Error::new(ErrorKind::Protocol, message).in_operation(WAIT).with_resource(sandbox.id())
        }),
        None => match &member.status {
            status
            @ (Pausing | Paused | SandboxStatus::Error | Destroying | Destroyed | Failed) => {
                let message = format!("it is {status}, and will get no address on the network");
                Err(poll.hopeless(message).with_last_status(Some(status.clone())))
            }
            status => Ok(ControlFlow::Continue(format!("it is {status}, without an address"))),
        },
    }
}

impl IntoFuture for WaitUntilJoined {
    type Output = Result<IpAddr>;
    type IntoFuture = Pending<IpAddr>;

    fn into_future(self) -> Pending<IpAddr> {
        Pending::new(self.run())
    }
}
