//! A command to run.

use std::fmt;
use std::future::IntoFuture;

use reqwest::Method;

use super::output::{ExitStatus, Output};
use super::stream::ExecStream;
use crate::check;
use crate::error::{Error, Result};
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::sandbox::Sandbox;
use crate::secret::Secret;
use crate::transport::request::{Call, Pace};
use crate::transport::{envelope, send};
use crate::wire::{ExecAnswer, ExecRequest};

/// A command, in the manner of [`std::process::Command`]. Made with [`Sandbox::command`].
///
/// It runs as root inside the sandbox, directly and not through a shell. Its standard input
/// is empty unless [`stdin`](Self::stdin) is given. There is no working directory to set; use
/// a shell: `.command("sh").args(["-c", "cd /work && make"])`.
///
/// Awaiting the command is [`output`](Self::output).
///
/// # Time
///
/// A command may take any time: no limit is set on the wait for a buffered answer unless
/// `.with(…)` gives a timeout or deadline (a server that vanished is noticed by the
/// connection's keep-alive). A [`stream`](Self::stream) fails when nothing, not even a
/// heartbeat, came for the stall timeout. Giving up a stream kills the command; a buffered
/// one may run on.
///
/// # Errors
///
/// A command that fails is not an error: see [`Output`]. `Conflict`: the sandbox is not
/// running. `InvalidArgument`: an environment variable was not declared when the sandbox was
/// created. A command is never sent twice unless the first cannot have arrived; after an
/// error that [may have acted](crate::Error::may_have_acted) it may have run, or still run.
#[derive(Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct Command {
    sandbox: Sandbox,
    request: ExecRequest,
    stdin: Option<Vec<u8>>,
    limit: Option<(usize, usize)>,
    operation: &'static str,
    options: RequestOptions,
}

impl Command {
    pub(crate) fn new(sandbox: Sandbox, program: String) -> Self {
        let request = ExecRequest::new(program);
        let (operation, options) = ("sandbox.exec", RequestOptions::new());
        Self { sandbox, request, stdin: None, limit: None, operation, options }
    }

    /// Adds an argument.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.request.args.push(arg.into());
        self
    }

    /// Adds arguments.
    pub fn args<A: Into<String>>(mut self, args: impl IntoIterator<Item = A>) -> Self {
        self.request.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Gives a variable another value for this command. It must have been declared when the
    /// sandbox was created.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.request.env.insert(name.into(), value.into());
        self
    }

    /// Gives variables other values for this command.
    pub fn envs<N: Into<String>, V: Into<Secret>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        for (name, value) in variables {
            self = self.env(name, value);
        }
        self
    }

    /// The whole standard input. The protocol carries it as text: bytes that are not UTF-8
    /// are refused; upload a file for those.
    pub fn stdin(mut self, input: impl AsRef<[u8]>) -> Self {
        self.stdin = Some(input.as_ref().to_vec());
        self
    }

    /// Keeps no more than the first `head` and the last `tail` bytes of standard output and
    /// as much of standard error, in constant memory however much is written.
    /// [`Output::stdout_gap`] and [`Output::stderr_gap`] say what is missing and where, and
    /// [`Output::stdout_marked`] says it in the text. The command is then followed as a stream, so the stall timeout counts.
    ///
    /// It has no effect on [`stream`](Self::stream) and [`status`](Self::status).
    ///
    /// ```no_run
    /// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
    /// let out = sandbox.command("make").limit_output(8 << 10, 64 << 10).await?;
    /// if let Some(gap) = out.stdout_gap {
    ///     println!("{} before byte {}", gap, gap.at);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn limit_output(mut self, head: usize, tail: usize) -> Self {
        self.limit = Some((head, tail));
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    /// Runs it and gives everything it wrote, at the end.
    pub fn output(self) -> Pending<Output> {
        Pending::new(self.run())
    }

    /// Runs it and gives how it ended. What it writes is thrown away as it comes, so it may be
    /// any amount. A command that cannot be started is an error of kind
    /// [`CommandFailed`](crate::ErrorKind::CommandFailed).
    pub fn status(self) -> Pending<ExitStatus> {
        Pending::new(async move { self.open().await?.wait().await })
    }

    /// Runs it and gives what it writes, as it writes it.
    ///
    /// A server that does not know streams (api.md 9.37) is asked to run it the other way;
    /// the events then all come at its end.
    pub fn stream(self) -> Pending<ExecStream> {
        Pending::new(self.open())
    }

    /// Runs as a part of another operation.
    pub(crate) fn named(mut self, operation: &'static str) -> Self {
        self.operation = operation;
        self
    }

    fn call(mut self, stream: bool) -> Result<(Sandbox, Call)> {
        let operation = self.operation;
        self.check().map_err(|error| error.in_operation(operation))?;
        self.request.stream = stream;
        let call = self.sandbox.call(operation, Method::POST, &["exec"]).json(&self.request)?;
        let call = if stream {
            let accept = "application/x-ndjson";
            Call { accept, ..call }.query("stream", "true")
        } else {
            Call { pace: Pace::Unlimited, ..call }
        };
        Ok((self.sandbox, Call { options: self.options, ..call }))
    }

    fn check(&mut self) -> Result<()> {
        if let Some(input) = self.stdin.take() {
            let text = String::from_utf8(input).map_err(|error| {
                let at = error.utf8_error().valid_up_to();
                let why = format!("is not UTF-8 at byte {at}; upload a file instead");
                Error::invalid_argument("stdin", why)
            })?;
            self.request.stdin = Some(text);
        }
        let request = &self.request;
        if request.cmd.is_empty() {
            return Err(Error::invalid_argument("program", "is empty"));
        }
        if request.cmd.contains('\0') || request.args.iter().any(|arg| arg.contains('\0')) {
            let why = "the program or an argument contains a NUL character";
            return Err(Error::invalid_argument("args", why));
        }
        check::envs(&request.env)
    }

    async fn open(self) -> Result<ExecStream> {
        let (sandbox, call) = self.clone().call(true)?;
        match send::open(sandbox.client().inner(), &call).await {
            Ok(incoming) => Ok(ExecStream::new(incoming)),
            // Nothing ran, but of two things one is missing: the sandbox, or the route.
            Err(error) if error.status() == Some(404) => match sandbox.refresh().await {
                Ok(_) => self.buffered().await.map(ExecStream::ended),
                Err(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    async fn run(self) -> Result<Output> {
        match self.limit {
            Some((head, tail)) => Output::collect(self.open().await?, head, tail).await,
            None => self.buffered().await,
        }
    }

    async fn buffered(self) -> Result<Output> {
        let (sandbox, call) = self.call(false)?;
        send::send(sandbox.client().inner(), &call, |reply| {
            Output::read(envelope::data::<ExecAnswer>(&reply)?)
        })
        .await
    }
}

impl IntoFuture for Command {
    type Output = Result<Output>;
    type IntoFuture = Pending<Output>;

    fn into_future(self) -> Pending<Output> {
        self.output()
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Command")
            .field("sandbox", self.sandbox.id())
            .field("program", &self.request.cmd)
            .field("args", &self.request.args)
            .field("env", &self.request.env)
            .field("stdin_len", &self.stdin.as_ref().map(Vec::len))
            .field("limit", &self.limit)
            .field("options", &self.options)
            .finish()
    }
}
