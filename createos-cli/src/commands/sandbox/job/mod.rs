//! Work on sandboxes that are there for it alone: `offload` and `matrix`.

mod boxes;
mod prepare;
mod program;

use std::time::Duration;

use clap::Args;
use createos_sdk::{Client, CreateSandbox};

use crate::value;
use crate::value::duration::{self, AutoPause};
use crate::value::env_pair::{self, EnvPair};

pub(super) use boxes::{Boxes, Left, guarded};
pub(super) use prepare::{create, say_if_open, select, upload};
pub(super) use program::{Program, Sink};

/// Where the files are and the commands run.
pub(super) const WORK: &str = "/work";
const SHAPE: &str = "s-1vcpu-1gb";
const ROOTFS: &str = "devbox:1";
const AUTO_PAUSE: Duration = Duration::from_secs(15 * 60);

/// What the sandbox of a job is like.
#[derive(Args)]
pub(super) struct BoxArgs {
    /// Size; `createos sandbox shapes` lists them [default: s-1vcpu-1gb]
    #[arg(long, value_name = "ID", value_parser = value::text)]
    pub(super) shape: Option<String>,

    /// Image; `createos sandbox rootfs` lists them [default: devbox:1]
    #[arg(long, value_name = "IMAGE", value_parser = value::text)]
    pub(super) rootfs: Option<String>,

    /// Environment variable of the commands (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = env_pair::parse)]
    pub(super) env: Vec<EnvPair>,

    /// Allow outbound traffic to this host only (repeatable, or a list with
    /// commas) [default: everything]
    #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = value::word)]
    pub(super) egress: Vec<String>,

    /// Leave out this path, or everything of this name (repeatable)
    #[arg(long, value_name = "PATH", value_parser = value::text)]
    pub(super) exclude: Vec<String>,

    /// Pause it after this time without activity, should this command die;
    /// 0 is never [default: 15m]
    #[arg(long, value_name = "DURATION", value_parser = auto_pause)]
    pub(super) auto_pause: Option<AutoPause>,

    /// Give a command up after this time [default: never]
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    pub(super) timeout: Option<Duration>,
}

fn auto_pause(text: &str) -> Result<AutoPause, String> {
    if text.trim() == "0" { Ok(AutoPause::Off) } else { duration::auto_pause(text) }
}

fn timeout(text: &str) -> Result<Duration, String> {
    let limit = duration::parse(text)?;
    if limit.is_zero() { Err("it must be longer than nothing".to_owned()) } else { Ok(limit) }
}

impl BoxArgs {
    /// The safety net.
    pub(super) fn idle(&self) -> Option<Duration> {
        match self.auto_pause {
            None => Some(AUTO_PAUSE),
            Some(AutoPause::Off) => None,
            Some(AutoPause::After(idle)) => Some(idle),
        }
    }

    /// A sandbox with a name that nothing else has, so that it is found again when the answer
    /// to its creation is lost.
    pub(super) fn creation(&self, client: &Client, name: &str) -> CreateSandbox {
        let shape = self.shape.as_deref().unwrap_or(SHAPE);
        let mut creation = client.create_sandbox(shape).name(name).adopt().egress(&self.egress);
        creation = creation.rootfs(self.rootfs.as_deref().unwrap_or(ROOTFS));
        for pair in &self.env {
            creation = creation.env(&pair.key, pair.value.as_str());
        }
        match self.idle() {
            Some(idle) => creation.auto_pause_after(idle),
            None => creation,
        }
    }

    /// The first option that says what a new sandbox is like.
    pub(super) fn first_of_new(&self) -> Option<&'static str> {
        let given = [
            ("--shape", self.shape.is_some()),
            ("--rootfs", self.rootfs.is_some()),
            ("--env", !self.env.is_empty()),
            ("--egress", !self.egress.is_empty()),
            ("--exclude", !self.exclude.is_empty()),
        ];
        given.iter().find(|(_, given)| *given).map(|(name, _)| *name)
    }
}

/// A name for a sandbox of ours.
pub(super) fn name(what: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map(|now| now.as_nanos()).unwrap_or_default();
    format!("{what}-{:x}", (now as u64) ^ u64::from(std::process::id()).rotate_left(40))
        .chars()
        .take(22)
        .collect()
}
