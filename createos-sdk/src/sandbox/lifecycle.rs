//! Pausing, resuming and forking.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use tokio::time::{Instant, sleep};

use super::{Sandbox, WaitUntil};
use crate::check;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::Guarded;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::secret::Secret;
use crate::transport::request::{Call, Pace};
use crate::transport::send::Reply;
use crate::transport::{envelope, send};
use crate::wait::Condition;
use crate::wire::{self, SandboxStatus, SandboxView};

const BUDGET: Duration = Duration::from_secs(120);
/// Giving up a fork early leaves a child behind.
const PATIENCE: Duration = Duration::from_secs(300);
/// A server that asks for more before the first question is not waited for.
const LONGEST_POLL_AFTER: Duration = Duration::from_secs(10);

/// Whether and how long to wait for the end of what an answer only began.
#[derive(Debug, Clone, Copy)]
struct Patience {
    wait: bool,
    budget: Duration,
}

impl Patience {
    const DEFAULT: Self = Self { wait: true, budget: BUDGET };

    /// Waits until `sandbox`, last seen as `view`, meets `target`.
    async fn wait(
        self,
        sandbox: &Sandbox,
        target: Condition,
        view: Arc<SandboxView>,
        poll_after: Option<Duration>,
        mut options: RequestOptions,
    ) -> Result<Arc<SandboxView>> {
        if !self.wait || target.holds(Some(&view)) {
            return Ok(view);
        }
        let started = Instant::now();
        let budget = options.deadline.map_or(self.budget, |limit| limit.min(self.budget));
        let first = poll_after.unwrap_or_default().min(LONGEST_POLL_AFTER).min(budget / 2);
        sleep(first).await;
        let left = budget.saturating_sub(started.elapsed());
        // The deadline is in the budget already.
        options.deadline = None;
        let waiting: WaitUntil = sandbox.wait_until(target).budget(left).with(options);
        // Only waiting for `destroyed` can end without a view.
        Ok(waiting.await?.unwrap_or(view))
    }
}

/// The target as a condition. A pause that has begun is lost when the sandbox runs again: the
/// snapshot failed, or somebody resumed it (api.md 7.2).
fn condition(target: SandboxStatus, now: &SandboxStatus) -> Condition {
    use SandboxStatus::{Destroyed, Destroying, Error, Failed, Paused, Pausing, Running};
    if (&target, now) != (&Paused, &Pausing) {
        return target.into();
    }
    Condition::losable(
        Paused.to_string(),
        |view| view.is_some_and(|view| view.status == Paused),
        |view| {
            let lost = [Running, Error, Failed, Destroying, Destroyed];
            view.is_none_or(|view| lost.contains(&view.status))
        },
    )
}

/// Pauses or resumes a sandbox. Made with [`Sandbox::pause`] and [`Sandbox::resume`]; gives
/// the last view.
///
/// It waits until the sandbox is there, unless [`no_wait`](Self::no_wait) is set. When the
/// server refuses because of the state, the state is read, and what is already on its way, or
/// there, counts as done.
///
/// # Errors
///
/// `Conflict`: it is in a state from which that is not possible. `PaymentRequired`: out of
/// credit. While waiting, those of [`WaitUntil`]: the server has begun by then. A pause that
/// ends with a sandbox that runs is `UnexpectedState`. Doing it once more is always safe.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct ChangeState {
    sandbox: Sandbox,
    target: SandboxStatus,
    patience: Patience,
    options: RequestOptions,
}

impl ChangeState {
    fn new(sandbox: Sandbox, target: SandboxStatus) -> Self {
        let options = RequestOptions::new();
        Self { sandbox, target, patience: Patience::DEFAULT, options }
    }

    /// Does not wait: the answer may still say `pausing` or `resuming`.
    pub fn no_wait(mut self) -> Self {
        self.patience.wait = false;
        self
    }

    /// Longest time to wait. Default 120 s.
    pub fn budget(mut self, limit: Duration) -> Self {
        self.patience.budget = limit;
        self
    }

    /// Sets options of the call, and of each question while waiting. A deadline counts for
    /// both together.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    /// The call, the name of its operation, and the state on the way to the target.
    fn route(&self) -> (&'static str, &'static str, SandboxStatus) {
        match self.target {
            SandboxStatus::Paused => ("pause", "sandbox.pause", SandboxStatus::Pausing),
            _ => ("resume", "sandbox.resume", SandboxStatus::Resuming),
        }
    }

    async fn run(self) -> Result<Arc<SandboxView>> {
        let started = Instant::now();
        let (view, poll_after) = self.begin().await?;
        let options = self.options.left_since(started);
        let target = condition(self.target, &view.status);
        let waited = self.patience.wait(&self.sandbox, target, view, poll_after, options).await;
        waited.map_err(|error| error.with_acted(true))
    }

    async fn begin(&self) -> Result<(Arc<SandboxView>, Option<Duration>)> {
        let (segment, operation, on_the_way) = self.route();
        let call = self.sandbox.call(operation, Method::POST, &[segment]);
        let call = Call { options: self.options.clone(), ..call };
        let read = |reply: Reply| Ok((self.sandbox.read_view(&reply)?, reply.head.poll_after));
        let client = self.sandbox.client();
        let started = Instant::now();
        let refused = match send::send(client.inner(), &call, read).await {
            Err(error) if error.kind() == ErrorKind::Conflict => error,
            done => return done,
        };
        match self.sandbox.refresh().with(self.options.left_since(started)).await {
            Ok(view) if view.status == self.target || view.status == on_the_way => Ok((view, None)),
            _ => Err(refused),
        }
    }
}

impl IntoFuture for ChangeState {
    type Output = Result<Arc<SandboxView>>;
    type IntoFuture = Pending<Arc<SandboxView>>;

    fn into_future(self) -> Self::IntoFuture {
        Pending::new(self.run())
    }
}

/// Makes a copy of a paused sandbox. Made with [`Sandbox::fork`]; gives the child's handle.
///
/// The child has the source's files, memory and running processes, and inherits its outbound
/// rules, keys, ingress flag and environment, unless another value is given here. It has a
/// name, id and address of its own. Auto-pause, disks, networks and the access token are not
/// inherited: set them on the child. The source stays paused.
///
/// It waits until the child runs (or is paused, with [`start_paused`](Self::start_paused)),
/// unless [`no_wait`](Self::no_wait) is set.
///
/// # Errors
///
/// `Conflict`: the source is not paused. `PaymentRequired`, `PermissionDenied`: credit and
/// quota. While waiting, those of [`WaitUntil`]: the child is there then, and
/// [`Error::resource`] is its id. Forking is not idempotent, so it is repeated only where no
/// child was made.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct ForkSandbox {
    sandbox: Sandbox,
    request: wire::ForkSandbox,
    patience: Patience,
    options: RequestOptions,
}

impl ForkSandbox {
    fn new(sandbox: Sandbox) -> Self {
        let (request, options) = (wire::ForkSandbox::new(), RequestOptions::new());
        Self { sandbox, request, patience: Patience::DEFAULT, options }
    }

    /// Leaves the child paused.
    pub fn start_paused(mut self) -> Self {
        self.request.start_paused = Some(true);
        self
    }

    /// Sets a variable of the child's environment, which then holds nothing but what is set
    /// here.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.request.envs.get_or_insert_default().insert(name.into(), value.into());
        self
    }

    /// Sets variables of the child's environment, which then holds nothing but what is set
    /// here.
    pub fn envs<N: Into<String>, V: Into<Secret>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        for (name, value) in variables {
            self = self.env(name, value);
        }
        self
    }

    /// Gives the child outbound rules of its own. None at all opens it, and is sent as `*`,
    /// because servers take an empty list as "inherit" (api.md 9.25).
    pub fn egress<R: Into<String>>(mut self, rules: impl IntoIterator<Item = R>) -> Self {
        let rules: Vec<String> = rules.into_iter().map(Into::into).collect();
        self.request.egress = Some(if rules.is_empty() { vec!["*".to_owned()] } else { rules });
        self
    }

    /// Adds an OpenSSH public key to those that the child has instead of the inherited ones.
    pub fn ssh_pubkey(mut self, key: impl Into<String>) -> Self {
        self.request.ssh_pubkeys.get_or_insert_default().push(key.into());
        self
    }

    /// Makes the child's ports reachable from outside, or not.
    pub fn ingress(mut self, enabled: bool) -> Self {
        self.request.ingress_enabled = Some(enabled);
        self
    }

    /// Does not wait: the child may still be `forking` or `resuming`.
    pub fn no_wait(mut self) -> Self {
        self.patience.wait = false;
        self
    }

    /// Longest time to wait for the child. Default 120 s.
    pub fn budget(mut self, limit: Duration) -> Self {
        self.patience.budget = limit;
        self
    }

    /// Sets options of the call, and of each question while waiting. A deadline counts for
    /// both together.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    /// Makes the child under a guard that destroys it when dropped, also when this call itself
    /// is given up half-way.
    pub fn guarded(self) -> Guarded<Sandbox> {
        Guarded::new(self.sandbox.client().clone(), move |client| {
            Self { sandbox: self.sandbox.with_client(client), ..self }.into_future()
        })
    }

    fn check(&self) -> Result<()> {
        check::ssh_pubkeys(self.request.ssh_pubkeys.as_deref().unwrap_or_default())?;
        check::egress(self.request.egress.as_deref().unwrap_or_default())?;
        self.request.envs.as_ref().map_or(Ok(()), check::envs)
    }

    async fn run(self) -> Result<Sandbox> {
        let started = Instant::now();
        let operation = "sandbox.fork";
        self.check().map_err(|error| error.in_operation(operation))?;
        let call = self.sandbox.call(operation, Method::POST, &["fork"]).json(&self.request)?;
        let call = Call { pace: Pace::AtLeast(PATIENCE), options: self.options.clone(), ..call };
        let client = self.sandbox.client();
        let (view, poll_after) = send::send(client.inner(), &call, |reply| {
            Ok((envelope::data::<SandboxView>(&reply)?, reply.head.poll_after))
        })
        .await?;
        let child = Sandbox::seen(client.clone(), view.clone());
        let target = match self.request.start_paused {
            Some(true) => SandboxStatus::Paused,
            _ => SandboxStatus::Running,
        };
        let options = self.options.left_since(started);
        let waited =
            self.patience.wait(&child, target.into(), Arc::new(view), poll_after, options).await;
        // The child is there: forking once more would make another.
        waited.map_err(Error::not_repeatable)?;
        Ok(child)
    }
}

impl IntoFuture for ForkSandbox {
    type Output = Result<Sandbox>;
    type IntoFuture = Pending<Sandbox>;

    fn into_future(self) -> Pending<Sandbox> {
        Pending::new(self.run())
    }
}

impl Sandbox {
    /// Pauses it: memory, disk and processes are stored and its host is freed (api.md 4.6).
    /// Waits until it is paused. Open connections into it are lost.
    pub fn pause(&self) -> ChangeState {
        ChangeState::new(self.clone(), SandboxStatus::Paused)
    }

    /// Starts a paused sandbox again where it was (api.md 4.7). Waits until it runs. One in
    /// the state `error` is tried anew.
    pub fn resume(&self) -> ChangeState {
        ChangeState::new(self.clone(), SandboxStatus::Running)
    }

    /// Makes a copy of it, which must be paused (api.md 4.8). Waits until the copy runs.
    pub fn fork(&self) -> ForkSandbox {
        ForkSandbox::new(self.clone())
    }
}
