//! `createos sandbox sync` (cli.md 3).

#[cfg(unix)]
mod builtin;
mod local_path;
mod mutagen;
mod remote_path;
mod report;

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use clap::{Args, ValueEnum};
use createos_sdk::Sandbox;

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::prompt;
use crate::resolve::{self, Found, Rules};
use crate::signals::{self, Signals};
use crate::ssh::user;
use crate::value;

/// Where the directory in the sandbox is when nothing is typed at the question.
const USUAL_REMOTE: &str = "/root/sync";
/// How long to wait for an SSH server unless told otherwise.
const SSHD_WAIT: Duration = Duration::from_secs(5);

/// Keep a directory here and one in a sandbox the same
///
/// It runs until Ctrl+C. A file that both sides changed is left alone on both
/// and reported. Deletions travel where the other side is unchanged. Home
/// directories, system directories and places of secrets are refused.
///
/// Mutagen is used where it is installed; otherwise the built-in engine, which
/// needs no SSH key and works with any image that has sh, find and tar.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox sync my-box --local ~/work/project --remote /root/work
  createos sandbox sync my-box --local . --remote /root/work --exclude target/
  createos sandbox sync my-box --local dist --remote /srv/www --mode mirror")]
pub(super) struct SyncArgs {
    /// Name or id [default: ask on a terminal]
    sandbox: Option<String>,

    /// Directory here [default: ask on a terminal]
    #[arg(long, value_name = "DIR")]
    local: Option<PathBuf>,

    /// Absolute path of the directory inside, made when it is missing
    /// [default: ask on a terminal]
    #[arg(long, value_name = "DIR")]
    remote: Option<String>,

    /// Which way changes travel [default: two-way]
    ///
    /// two-way: both ways. one-way: into the sandbox, over nothing that was
    /// changed there; what only the sandbox has stays. mirror: the sandbox is made
    /// the same as here, and what only it has is deleted.
    #[arg(long, value_name = "MODE", default_value = "two-way", hide_default_value = true)]
    mode: Mode,

    /// Leave out what this pattern fits, as in .gitignore (repeatable)
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,

    /// Sync .git, .hg and the like too
    #[arg(long)]
    no_ignore_vcs: bool,

    /// Sync although the directory holds secrets or is outside of your home
    #[arg(long)]
    force: bool,

    /// Print nothing but errors
    #[arg(short, long)]
    quiet: bool,

    /// What does the work [default: mutagen where it is installed, else builtin]
    #[arg(long, value_name = "ENGINE")]
    engine: Option<EngineName>,

    /// Private SSH key, for Mutagen [default: one of ~/.ssh, else one made for
    /// this sandbox]
    #[arg(short, long, value_name = "KEY")]
    identity: Option<PathBuf>,

    /// Who logs in, for Mutagen [default: root]
    #[arg(short, long, value_name = "USER", value_parser = user::parse)]
    user: Option<String>,

    /// Add the SSH key, and download Mutagen, without asking
    #[arg(short, long)]
    yes: bool,

    /// How long to wait for the SSH server [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = value::duration::parse)]
    sshd_wait: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mode {
    TwoWay,
    OneWay,
    Mirror,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum EngineName {
    Mutagen,
    Builtin,
}

/// What is to be synced, checked.
struct Job {
    found: Found,
    sandbox: Sandbox,
    /// Absolute, as given.
    local: PathBuf,
    /// Absolute and clean.
    remote: String,
    user: String,
    mode: Mode,
    excludes: Vec<String>,
    ignore_vcs: bool,
    quiet: bool,
}

impl Job {
    /// `<here> with <box>:<there>, both ways`.
    fn ends(&self) -> String {
        let way = match self.mode {
            Mode::TwoWay => "both ways",
            Mode::OneWay => "into the sandbox only",
            Mode::Mirror => "the sandbox as a mirror",
        };
        let (local, remote) = (self.local.display(), &self.remote);
        format!("{local} with {}:{remote}, {way}", self.found.label())
    }
}

pub(super) async fn run(args: SyncArgs, ctx: &Context) -> Result<Exit, Failure> {
    if ctx.out.is_json() {
        return Err(Failure::usage("sync writes no JSON: it has no result, it goes on")
            .hint("leave out --output json"));
    }
    let mut signals = Signals::listen().map_err(|error| Failure::io("cannot start", &error))?;
    let ready = {
        let mut preparing = pin!(prepare(&args, ctx));
        tokio::select! {
            ready = &mut preparing => ready?,
            exit = signals.exit_code() => return Err(Failure::interrupted(exit)),
        }
    };
    let Some(job) = ready else { return Ok(Exit::Success) };
    let stopped = async move {
        signals.exit_code().await;
        signals::insist();
    };
    let binary = match args.engine {
        Some(EngineName::Builtin) => None,
        Some(EngineName::Mutagen) => match mutagen::find(&ctx.paths) {
            Some(binary) => Some(binary),
            None => Some(mutagen::obtain(ctx, args.yes).await?),
        },
        None => mutagen::find(&ctx.paths),
    };
    match binary {
        None => built_in(&job, ctx, stopped).await,
        Some(binary) => {
            let login = mutagen::Login {
                identity: args.identity.as_deref(),
                yes: args.yes,
                sshd_wait: args.sshd_wait.unwrap_or(SSHD_WAIT),
            };
            mutagen::run(&job, ctx, binary, login, stopped).await
        }
    }
}

/// The refusal of a path that is another one behind its links.
fn leads_elsewhere(given: &str, real: &str, why: &str) -> Failure {
    Failure::usage(format!("{given} in the sandbox is not synced (it leads to {real}): {why}"))
}

#[cfg(unix)]
async fn built_in(
    job: &Job,
    ctx: &Context,
    stopped: impl Future<Output = ()>,
) -> Result<Exit, Failure> {
    builtin::run(job, ctx, stopped).await
}

#[cfg(not(unix))]
async fn built_in(_: &Job, _: &Context, _: impl Future<Output = ()>) -> Result<Exit, Failure> {
    Err(Failure::local("the built-in engine does not run on this system")
        .hint("install Mutagen: https://mutagen.io"))
}

/// Asks for what is missing and checks everything; nothing is changed yet.
async fn prepare(args: &SyncArgs, ctx: &Context) -> Result<Option<Job>, Failure> {
    if !ctx.interactive() {
        let missing = [("--local", args.local.is_none()), ("--remote", args.remote.is_none())];
        if let Some((flag, _)) = missing.iter().find(|(_, missing)| *missing) {
            return Err(Failure::usage(format!("which directories? {flag} is missing"))
                .hint("for example: createos sandbox sync my-box --local . --remote /root/work"));
        }
    }
    let user = args.user.clone().unwrap_or_else(|| user::DEFAULT.to_owned());
    // What was given is checked before anything is asked or looked up.
    let home = ctx.paths.home();
    let given_local =
        args.local.as_deref().map(|path| local_path::check(path, home, args.force)).transpose()?;
    let given_remote =
        args.remote.as_deref().map(|path| remote_path::check(path, &user)).transpose()?;
    let Some(found) = resolve::sandbox(ctx, args.sandbox.as_deref(), Rules::ACT).await? else {
        return Ok(None);
    };
    let local = match given_local {
        Some(local) => local,
        None => {
            let here = std::env::current_dir()
                .map_err(|error| Failure::io("there is no current directory", &error))?;
            let line = prompt::edit("directory here", here.to_string_lossy()).await?;
            local_path::check(line.as_ref(), home, args.force)?
        }
    };
    let remote = match given_remote {
        Some(remote) => remote,
        None => {
            let line = prompt::edit("directory in the sandbox", USUAL_REMOTE).await?;
            remote_path::check(&line, &user)?
        }
    };
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    check_running(&sandbox, &found).await?;
    warn(ctx, args, &sandbox, &remote).await;
    Ok(Some(Job {
        found,
        sandbox,
        local,
        remote,
        user,
        mode: args.mode,
        excludes: args.exclude.iter().filter(|text| !text.trim().is_empty()).cloned().collect(),
        ignore_vcs: !args.no_ignore_vcs,
        quiet: args.quiet,
    }))
}

async fn check_running(sandbox: &Sandbox, found: &Found) -> Result<(), Failure> {
    use createos_sdk::wire::SandboxStatus;
    let view = sandbox.refresh().await.map_err(|error| found.explain(error))?;
    if view.status == SandboxStatus::Running {
        return Ok(());
    }
    let message = format!("{} is {}, not running", found.label(), view.status);
    let hint = match view.status {
        SandboxStatus::Paused => format!("createos sandbox resume {}", found.handle()),
        _ => format!("look at it: createos sandbox get {}", found.handle()),
    };
    Err(Failure::new(Class::Conflict, message).hint(hint))
}

async fn warn(ctx: &Context, args: &SyncArgs, sandbox: &Sandbox, remote: &str) {
    if args.mode == Mode::Mirror {
        ctx.out.warn(&format!("what only {remote} in the sandbox has will be deleted"));
    }
    // Whether there are disks is not worth an error.
    let Ok(disks) = sandbox.disks().await else { return };
    if let Some(disk) = disks.iter().find(|disk| remote_path::is_in(remote, &disk.mount_path)) {
        ctx.out.warn(&format!(
            "{remote} is on the disk {}: renames and modes may not work there",
            disk.name
        ));
    }
}
