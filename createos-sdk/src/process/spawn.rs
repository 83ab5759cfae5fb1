//! Starting a managed process.

use std::fmt;
use std::future::IntoFuture;

use reqwest::Method;

use super::Process;
use crate::check;
use crate::error::{Error, Result};
use crate::guard::Guarded;
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::sandbox::Sandbox;
use crate::secret::Secret;
use crate::transport::request::Call;
use crate::transport::{envelope, send};
use crate::wire::{CreateProcess, ProcessView, PtySize};

const OPERATION: &str = "process.create";

/// Starts a managed process. Made with [`Sandbox::spawn`] or [`Sandbox::spawn_shell`]; awaiting
/// it gives a [`Process`] that runs.
///
/// It runs as root, directly and not through a shell.
///
/// # Errors
///
/// `Conflict`: the sandbox is not running. `InvalidArgument`: it cannot be started, or a
/// variable was not declared when the sandbox was created (some servers). Other servers give a
/// process in the state `failed`. It is never started twice: after an error that
/// [may have acted](crate::Error::may_have_acted) look for it in [`Sandbox::processes`].
#[derive(Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct SpawnProcess {
    sandbox: Sandbox,
    request: CreateProcess,
    options: RequestOptions,
}

impl SpawnProcess {
    pub(crate) fn new(sandbox: Sandbox, program: String) -> Self {
        let request = CreateProcess { cmd: Some(program), ..CreateProcess::default() };
        Self { sandbox, request, options: RequestOptions::new() }
    }

    pub(crate) fn shell(sandbox: Sandbox, rows: u16, cols: u16) -> Self {
        let request =
            CreateProcess { pty: Some(PtySize::new(rows, cols)), ..CreateProcess::default() };
        Self { sandbox, request, options: RequestOptions::new() }
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

    /// Starts it in this directory: an absolute path.
    pub fn cwd(mut self, directory: impl Into<String>) -> Self {
        self.request.cwd = Some(directory.into());
        self
    }

    /// Adds a variable to those of the sandbox. Some servers take only names that were declared
    /// when the sandbox was created.
    pub fn env(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.request.env.insert(name.into(), value.into());
        self
    }

    /// Adds variables to those of the sandbox.
    pub fn envs<N: Into<String>, V: Into<Secret>>(
        mut self,
        variables: impl IntoIterator<Item = (N, V)>,
    ) -> Self {
        for (name, value) in variables {
            self = self.env(name, value);
        }
        self
    }

    /// Gives it a terminal of this size in characters.
    pub fn pty(mut self, rows: u16, cols: u16) -> Self {
        self.request.pty = Some(PtySize::new(rows, cols));
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    /// Starts the process under a guard that [terminates](Process::terminate) it when dropped,
    /// also when this call itself is given up half-way: a server inside for as long as it is
    /// needed.
    ///
    /// ```no_run
    /// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
    /// let server = sandbox.spawn("python3").args(["-m", "http.server", "8000"]).guarded().await?;
    /// sandbox.tunnel(8000).wait_until_open().await?;
    /// println!("{}", sandbox.http(8000).get("/").await?.text().await?);
    /// server.close().await?;
    /// # Ok(()) }
    /// ```
    pub fn guarded(self) -> Guarded<Process> {
        Guarded::new(self.sandbox.client().clone(), move |client| {
            Self { sandbox: self.sandbox.with_client(client), ..self }.into_future()
        })
    }

    fn check(&self) -> Result<()> {
        let request = &self.request;
        match &request.cmd {
            Some(program) if program.is_empty() => {
                return Err(Error::invalid_argument("program", "is empty"));
            }
            Some(program) if program.contains('\0') => {
                return Err(Error::invalid_argument("program", "contains a NUL character"));
            }
            _ => {}
        }
        if request.args.iter().any(|arg| arg.contains('\0')) {
            return Err(Error::invalid_argument("args", "an argument contains a NUL character"));
        }
        if let Some(directory) = &request.cwd
            && (!directory.starts_with('/') || directory.contains('\0'))
        {
            let why = format!("{directory:?} is not an absolute path");
            return Err(Error::invalid_argument("cwd", why));
        }
        if let Some(size) = request.pty {
            check::terminal_size(size.rows, size.cols)?;
        }
        check::envs(&request.env)
    }

    async fn run(self) -> Result<Process> {
        self.check().map_err(|error| error.in_operation(OPERATION))?;
        let call = self.sandbox.call(OPERATION, Method::POST, &["processes"]);
        let call = Call { options: self.options, ..call.json(&self.request)? };
        send::send(self.sandbox.client().inner(), &call, |reply| {
            let view: ProcessView = envelope::data(&reply)?;
            Ok(Process::seen(self.sandbox.clone(), view))
        })
        .await
    }
}

impl IntoFuture for SpawnProcess {
    type Output = Result<Process>;
    type IntoFuture = Pending<Process>;

    fn into_future(self) -> Pending<Process> {
        Pending::new(self.run())
    }
}

impl fmt::Debug for SpawnProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnProcess")
            .field("sandbox", self.sandbox.id())
            .field("request", &self.request)
            .field("options", &self.options)
            .finish()
    }
}
