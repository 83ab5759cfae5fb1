//! A Mutagen daemon of our own, and its one session.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use createos_sdk::SandboxId;
use tokio::process::Command;

use super::super::{Job, Mode};
use crate::failure::Failure;

/// A daemon with a data directory that nobody else uses.
pub(super) struct Daemon {
    binary: PathBuf,
    private: PathBuf,
    session: String,
}

impl Daemon {
    pub(super) fn new(binary: &Path, private: &Path, id: &SandboxId) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let session = format!("createos-{id}-{now}");
        Self { binary: binary.to_owned(), private: private.to_owned(), session }
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(words)
            .env("MUTAGEN_DATA_DIRECTORY", self.private.join("data"))
            .env("MUTAGEN_SSH_PATH", self.private.join("bin"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        // Ctrl+C is for us: we end these in their order.
        #[cfg(unix)]
        command.process_group(0);
        command
    }

    async fn run(&self, what: &str, mut command: Command) -> Result<(), Failure> {
        let output = command.output().await;
        let output = output.map_err(|error| {
            Failure::io(format!("cannot run {}", self.binary.display()), &error)
        })?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stderr, output.stdout].concat();
        let said = String::from_utf8_lossy(&said).trim().to_owned();
        Err(Failure::local(format!("Mutagen cannot {what}: {said}"))
            .hint("do without it: --engine builtin"))
    }

    pub(super) async fn start(&self) -> Result<(), Failure> {
        self.run("start its daemon", self.command(&["daemon", "start"])).await
    }

    /// Makes the session: our directory, and one behind a port of this machine.
    pub(super) async fn create(&self, job: &Job, port: u16) -> Result<(), Failure> {
        let mode = match job.mode {
            Mode::TwoWay => "two-way-safe",
            Mode::OneWay => "one-way-safe",
            Mode::Mirror => "one-way-replica",
        };
        let mut command = self.command(&["sync", "create"]);
        // The long form of the mode has another name in older versions.
        command.arg(format!("--name={}", self.session)).args(["-m", mode]);
        command.arg("--no-global-configuration");
        command.arg(if job.ignore_vcs { "--ignore-vcs" } else { "--no-ignore-vcs" });
        for pattern in &job.excludes {
            command.arg(format!("--ignore={}", whole(pattern)));
        }
        command.arg(&job.local).arg(format!("{}@127.0.0.1:{port}:{}", job.user, job.remote));
        self.run("begin the sync", command).await
    }

    /// Shows its status until it ends, which it should not.
    pub(super) async fn monitor(&self, quiet: bool) -> Result<(), Failure> {
        let mut command = self.command(&["sync", "monitor", &self.session]);
        if quiet {
            command.stdout(Stdio::null());
        }
        let status = command.status().await;
        let status = status.map_err(|error| {
            Failure::io(format!("cannot run {}", self.binary.display()), &error)
        })?;
        Err(Failure::local(format!("Mutagen's monitor ended: {status}")))
    }

    /// Ends the session and the daemon. Which of them there was is not known.
    pub(super) async fn end(&self) {
        for words in [&["sync", "terminate", &self.session][..], &["daemon", "stop"]] {
            let mut command = self.command(words);
            command.stdout(Stdio::null()).stderr(Stdio::null());
            drop(command.status().await);
        }
    }
}

/// Mutagen cuts the value of this flag at commas, as a line of a CSV file.
fn whole(pattern: &str) -> String {
    match pattern.contains([',', '"']) {
        true => format!("\"{}\"", pattern.replace('"', "\"\"")),
        false => pattern.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_stays_one() {
        assert_eq!(whole("*.log"), "*.log");
        assert_eq!(whole("a,b\"c"), "\"a,b\"\"c\"");
    }
}
