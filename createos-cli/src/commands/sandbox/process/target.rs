//! Which sandbox and which process a line means.

use clap::Args;
use createos_sdk::wire::ProcessView;
use createos_sdk::{ErrorKind, Process, Sandbox};

use crate::context::Context;
use crate::failure::Failure;
use crate::prompt;
use crate::resolve::{self, Found, Rules};
use crate::wait;

/// A process of a sandbox.
#[derive(Args)]
pub(super) struct ProcessRef {
    /// Name or id of the sandbox [default: ask on a terminal]
    sandbox: Option<String>,

    /// Id of the process, as list shows it [default: ask on a terminal]
    #[arg(value_name = "PROCESS")]
    process: Option<String>,
}

/// A sandbox whose processes are meant.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) sandbox: Sandbox,
    pub(super) found: Found,
}

impl Place {
    /// The sandbox that was named or picked; `None` when nothing was picked.
    pub(super) async fn find(ctx: &Context, text: Option<&str>) -> Result<Option<Self>, Failure> {
        let found = resolve::sandbox(ctx, text, Rules::ACT).await?;
        let Some(found) = found else { return Ok(None) };
        let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
        Ok(Some(Self { sandbox, found }))
    }

    /// A failed call on a process here.
    pub(super) fn explain(&self, error: createos_sdk::Error) -> Failure {
        let unknown = error.kind() == ErrorKind::NotFound;
        let failure = self.found.explain(error);
        match unknown {
            true => failure.hint(format!("see what runs: {}", self.line("list"))),
            false => failure,
        }
    }

    /// Runs what needs a running sandbox.
    pub(super) async fn on_running<T>(
        &self,
        ctx: &Context,
        call: impl AsyncFn() -> createos_sdk::Result<T>,
    ) -> Result<T, Failure> {
        let call = async || call().await.map_err(|error| self.explain(error));
        wait::on_running(ctx, &self.sandbox, &self.found, call).await
    }

    /// A command on this sandbox to suggest.
    pub(super) fn line(&self, command: &str) -> String {
        format!("createos sandbox process {command} {}", self.found.handle())
    }

    /// The command that comes back to a process.
    pub(super) fn attach_line(&self, process: &Process) -> String {
        format!("{} {}", self.line("attach"), process.id())
    }

    /// The processes that still run, the newest first.
    pub(super) async fn running(&self, ctx: &Context) -> Result<Vec<Process>, Failure> {
        let mut all = self.on_running(ctx, async || self.sandbox.processes().await).await?;
        all.retain(|process| process.view().is_some_and(|view| !has_ended(&view)));
        all.sort_by_key(|process| std::cmp::Reverse(process.view().and_then(|v| v.created_at)));
        Ok(all)
    }

    /// Picks one of these; `None`, and a line that says so, when nothing was picked.
    pub(super) async fn pick(
        &self,
        ctx: &Context,
        mut processes: Vec<Process>,
    ) -> Result<Option<Process>, Failure> {
        let label = |process: &Process| {
            let command = process.view().map(|view| command(&view)).unwrap_or_default();
            format!("{}   {command}", process.id())
        };
        let items = processes.iter().map(label).collect();
        let chosen = prompt::pick(ctx, "which process?", items).await?;
        Ok(chosen.map(|at| processes.swap_remove(at)))
    }
}

impl ProcessRef {
    pub(super) fn named(sandbox: String, process: String) -> Self {
        Self { sandbox: Some(sandbox), process: Some(process) }
    }

    /// The process that was named or picked; `None` when nothing was picked.
    pub(super) async fn find(&self, ctx: &Context) -> Result<Option<(Place, Process)>, Failure> {
        let named = self.process.as_deref().map(str::trim).filter(|id| !id.is_empty());
        if named.is_none() && !ctx.interactive() {
            return Err(Failure::usage("which process? its id is missing"));
        }
        let Some(place) = Place::find(ctx, self.sandbox.as_deref()).await? else { return Ok(None) };
        if let Some(id) = named {
            let process = place.sandbox.process(id.parse::<createos_sdk::ProcessId>()?);
            return Ok(Some((place, process)));
        }
        let running = place.running(ctx).await?;
        if running.is_empty() {
            ctx.out.note(&format!("no process runs in {}", place.found.label()));
            return Ok(None);
        }
        Ok(place.pick(ctx, running).await?.map(|process| (place, process)))
    }

    pub(super) fn has_process(&self) -> bool {
        self.process.is_some()
    }

    pub(super) fn sandbox(&self) -> Option<&str> {
        self.sandbox.as_deref()
    }
}

/// Whether the command itself has ended.
pub(super) fn has_ended(view: &ProcessView) -> bool {
    use createos_sdk::wire::ProcessState::{Exited, Failed};
    view.leader_exited || matches!(view.state, Exited | Failed)
}

/// What was started, as one line; a terminal's front command when nothing was named.
pub(super) fn command(view: &ProcessView) -> String {
    let front = view.foreground.as_ref().map(|job| (&job.cmd, &job.args));
    let own = view.cmd.as_ref().map(|cmd| (cmd, &view.args));
    let Some((cmd, args)) = own.or(front) else { return "(shell)".to_owned() };
    let words: Vec<&str> = std::iter::once(cmd).chain(args).map(String::as_str).collect();
    shlex::try_join(words.iter().copied()).unwrap_or_else(|_| words.join(" "))
}
