//! Shared fixtures of the end-to-end suites.

pub mod s3;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

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

/// An engine in a process of its own.
#[derive(Debug)]
pub struct EngineProcess {
    process: Child,
    /// A client with its key.
    pub client: Client,
}

impl EngineProcess {
    /// Starts one by this command, which runs `createos-tests-engine`.
    ///
    /// # Panics
    ///
    /// When it does not say where it is.
    pub fn start(command: &mut Command) -> Self {
        let process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut process = process.expect("the engine's process");
        let mut line = String::new();
        let output = process.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("its first line");
        let (url, key) = line.trim().split_once(' ').expect("the engine starts");
        // Whatever address it listens at, it is this machine's.
        let client = Client::builder().base_url(url).api_key(key).allow_insecure_http(true);
        let client = client.build().expect("a client");
        Self { process, client }
    }

    /// Kills it at once.
    ///
    /// # Panics
    ///
    /// When it cannot.
    pub fn kill(mut self) {
        self.process.kill().expect("kill");
        self.process.wait().expect("its end");
    }

    /// Asks it to end.
    ///
    /// # Panics
    ///
    /// When it fails to end well.
    pub fn end(mut self) {
        drop(self.process.stdin.take());
        assert!(self.process.wait().expect("its end").success());
    }
}

/// What a shell script prints to its standard output in the sandbox.
///
/// # Panics
///
/// When it cannot be run, or prints something else than text.
pub async fn sh(sandbox: &Sandbox, script: &str) -> String {
    let output = sandbox.command("sh").args(["-c", script]).output().await.expect("exec");
    output.stdout_str().expect("text").to_owned()
}

/// Waits until a shell script prints this in the sandbox.
///
/// # Panics
///
/// When it does not within 20 seconds.
pub async fn until(sandbox: &Sandbox, script: &str, wanted: &str) {
    let mut seen = String::new();
    let look = async {
        loop {
            seen = sh(sandbox, script).await;
            if seen == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(20), look).await.is_err() {
        panic!("{script:?} prints {seen:?}, not {wanted:?}");
    }
}
