//! Sandboxes that do not outlive their use.

use std::future::IntoFuture;

use super::{CreateSandbox, Sandbox};
use crate::client::Client;
use crate::guard::{Ends, Guard, Guarded};
use crate::pending::Pending;

impl Ends for Sandbox {
    fn client(&self) -> &Client {
        self.client()
    }

    fn with_client(&self, client: Client) -> Self {
        self.with_client(client)
    }

    fn end(&self) -> Pending<()> {
        let sandbox = self.clone();
        Pending::new(async move { sandbox.destroy().await.map(drop) })
    }
}

fn pause(sandbox: &Sandbox) -> Pending<()> {
    let sandbox = sandbox.clone();
    Pending::new(async move { sandbox.pause().no_wait().await.map(drop) })
}

impl Guard<Sandbox> {
    /// Pauses the sandbox at the end instead of destroying it.
    pub fn pause_on_drop(self) -> Self {
        self.ending(pause)
    }
}

impl Guarded<Sandbox> {
    /// Pauses the sandbox at the end instead of destroying it. Said before it is awaited, it
    /// also counts for a call that is given up half-way.
    pub fn pause_on_drop(self) -> Self {
        self.ending(pause)
    }
}

impl Sandbox {
    /// Destroys this sandbox when the guard is dropped. See [`Guard`].
    pub fn guard(&self) -> Guard<Self> {
        Guard::new(self.clone())
    }
}

impl CreateSandbox {
    /// Creates the sandbox under a guard that destroys it when dropped, also when this call
    /// itself is given up half-way.
    pub fn guarded(self) -> Guarded<Sandbox> {
        Guarded::new(self.client.clone(), move |client| Self { client, ..self }.into_future())
    }
}
