//! Removing a private network.

use std::future::IntoFuture;
use std::time::Duration;

use reqwest::Method;
use tokio::time::Instant;

use super::Network;
use crate::client::Client;
use crate::error::{ErrorKind, Result};
use crate::guard::{self, Ends, Guard};
use crate::operation::Operation;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::poll::Poll;
use crate::wire::{NetworkMember, SandboxStatus};

const OPERATION: &str = "network.delete";
/// A removal can be refused for some seconds after the last member left (api.md 9.22).
const SETTLING: Duration = Duration::from_secs(15);

/// Removes a network. Made with [`Network::delete`].
///
/// Servers refuse while sandboxes on it are being destroyed, and for some seconds after the
/// last one left. So a refusal is tried again when no member stays, for
/// [`settling`](Self::settling).
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
    pub(super) fn new(network: Network) -> Self {
        Self { network, settling: SETTLING, options: RequestOptions::new() }
    }

    /// How long a refusal is not believed although no member stays. Default 15 s.
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
        let refused = match attempt(&network).with(options.clone()).await {
            Err(error) if error.kind() == ErrorKind::Conflict => error,
            done => return done,
        };
        let looked = network.refresh().with(options.left_since(started)).await;
        if !looked.is_ok_and(|seen| seen.members.iter().all(is_leaving)) {
            return Err(refused);
        }
        settle(&network, settling, options.left_since(started)).await
    }
}

fn is_leaving(member: &NetworkMember) -> bool {
    member.status.is_terminal() || member.status == SandboxStatus::Destroying
}

fn attempt(network: &Network) -> Operation<()> {
    network.0.acknowledged(OPERATION, Method::DELETE, &[])
}

/// Removes it as soon as it is not refused any more.
async fn settle(network: &Network, budget: Duration, options: RequestOptions) -> Result<()> {
    let poll = Poll {
        operation: OPERATION,
        resource: network.id().to_string(),
        awaited: "removed",
        budget,
        options,
    };
    poll.past_conflict(|options| attempt(network).with(options).into_future()).await
}

impl IntoFuture for DeleteNetwork {
    type Output = Result<()>;
    type IntoFuture = Pending<()>;

    fn into_future(self) -> Pending<()> {
        Pending::new(self.run())
    }
}

impl Ends for Network {
    fn client(&self) -> &Client {
        self.0.client()
    }

    fn with_client(&self, client: Client) -> Self {
        Self(self.0.with_client(client))
    }

    fn end(&self) -> Pending<()> {
        let network = self.clone();
        Pending::new(async move {
            guard::or_gone(settle(&network, guard::LEAVING, RequestOptions::new()).await)
        })
    }
}

impl Network {
    /// Removes it (api.md 5.6). See [`DeleteNetwork`].
    pub fn delete(&self) -> DeleteNetwork {
        DeleteNetwork::new(self.clone())
    }

    /// Removes this network when the guard is dropped. See [`Guard`].
    pub fn guard(&self) -> Guard<Self> {
        Guard::new(self.clone())
    }
}
