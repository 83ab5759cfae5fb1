//! What all examples share: where they run, and how they end.
//!
//! The examples themselves are in `examples/examples/`, and `examples/README.md` lists them.
//! The snippets of the repository's README are compiled here too, so that they stay true.
#![doc = include_str!("../../README.md")]

use std::error::Error;
use std::process::ExitCode;

use createos_local::Engine;
use createos_sdk::{Client, ErrorKind};

/// What an example gives back.
pub type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// Where an example runs.
#[derive(Debug)]
pub struct Plane {
    client: Client,
    /// `None` when the environment names another plane.
    engine: Option<Engine>,
}

/// Connects to the plane that the environment names, or else starts an engine in this program
/// that leaves nothing behind.
///
/// # Errors
///
/// A variable that cannot be used; a machine that cannot run sandboxes, with the remedy.
pub async fn connect() -> Result<Plane> {
    if Client::is_configured_by_env() {
        return Ok(Plane { client: Client::from_env()?, engine: None });
    }
    let engine = Engine::builder().ephemeral().start().await?;
    Ok(Plane { client: engine.client(), engine: Some(engine) })
}

impl Plane {
    /// A client of it.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Ends the engine, if this program started one.
    pub async fn shutdown(self) {
        if let Some(engine) = self.engine {
            engine.shutdown().await;
        }
    }
}

/// Runs an example and says how it ended. When the program is interrupted, the example is
/// dropped, so that its guards do their work.
pub async fn run(example: impl AsyncFnOnce(Client) -> Result) -> ExitCode {
    let outcome = match connect().await {
        Ok(plane) => {
            println!("on {}", plane.client.base_url());
            let outcome = tokio::select! {
                outcome = example(plane.client()) => outcome,
                outcome = interrupted() => outcome,
            };
            plane.shutdown().await;
            outcome
        }
        Err(error) => Err(error),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            explain(&*error);
            ExitCode::FAILURE
        }
    }
}

#[cfg(unix)]
async fn interrupted() -> Result {
    use tokio::signal::unix::{SignalKind, signal};
    let mut signals = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
        .into_iter()
        .map(signal)
        .collect::<std::io::Result<Vec<_>>>()?;
    let any = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
    futures::future::select_all(any).await;
    Err("interrupted".into())
}

#[cfg(not(unix))]
async fn interrupted() -> Result {
    tokio::signal::ctrl_c().await?;
    Err("interrupted".into())
}

fn explain(error: &(dyn Error + 'static)) {
    eprintln!("error: {error}");
    let known = error.downcast_ref::<createos_sdk::Error>();
    if known.is_some_and(|error| error.kind() == ErrorKind::Unsupported) {
        eprintln!(
            "This plane does not offer it. To run the example on the hosted control plane, set \
             CREATEOS_API_KEY; on another one, CREATEOS_SANDBOX_BASE_URL too."
        );
    }
}
