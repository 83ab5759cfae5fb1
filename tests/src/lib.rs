//! Shared fixtures of the end-to-end suites.

use createos_local::Engine;
use createos_sdk::{Client, Sandbox};

/// An engine of one test, with a client for it.
#[derive(Debug)]
pub struct Fixture {
    /// The running engine.
    pub engine: Engine,
    /// A client with the engine's key.
    pub client: Client,
}

impl Fixture {
    /// Starts an engine whose state goes with it.
    ///
    /// # Panics
    ///
    /// With the cause and its remedy, where this machine cannot run sandboxes.
    pub async fn start() -> Self {
        let engine = Engine::builder().ephemeral().start().await;
        let engine = engine.unwrap_or_else(|error| panic!("the engine does not start: {error}"));
        let client = engine.client();
        Self { engine, client }
    }

    /// A running sandbox of the smallest shape.
    ///
    /// # Panics
    ///
    /// When it cannot be created.
    pub async fn sandbox(&self) -> Sandbox {
        let created = self.client.create_sandbox("s-1vcpu-256mb").env("STAGE", "test").await;
        created.unwrap_or_else(|error| panic!("no sandbox: {error}"))
    }

    /// Ends the engine.
    pub async fn end(self) {
        self.engine.shutdown().await;
    }
}
