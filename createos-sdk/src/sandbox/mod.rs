//! The handle of one sandbox.

mod adopt;
mod create;
mod guard;
mod lifecycle;
mod settings;
mod wait;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use reqwest::Method;

use crate::client::Client;
use crate::error::Result;
use crate::exec::Command;
use crate::files::Files;
use crate::id::{ProcessId, SandboxId};
use crate::operation::Operation;
use crate::process::{Process, SpawnProcess};
use crate::terminal::OpenTerminal;
use crate::transport::envelope;
use crate::transport::request::Call;
use crate::transport::send::Reply;
use crate::tunnel::{GuestHttp, Tunnel};
use crate::wait::Condition;
use crate::wire::{CreatedSandbox, DestroyedSandbox, SandboxStatus, SandboxView};

pub use self::create::CreateSandbox;
pub use self::lifecycle::{ChangeState, ForkSandbox};
pub use self::wait::WaitUntil;

/// One sandbox. Cheap to clone; clones share the last-seen view.
///
/// A handle is an id and a client. Dropping it does nothing to the sandbox.
#[derive(Clone)]
pub struct Sandbox(Arc<Shared>);

struct Shared {
    client: Client,
    id: SandboxId,
    created: Option<CreatedSandbox>,
    view: RwLock<Option<Arc<SandboxView>>>,
}

impl Sandbox {
    pub(crate) fn new(client: Client, id: SandboxId) -> Self {
        Self::with(client, id, None, None)
    }

    pub(crate) fn seen(client: Client, view: SandboxView) -> Self {
        Self::with(client, view.id.clone(), None, Some(Arc::new(view)))
    }

    pub(crate) fn created_as(client: Client, answer: CreatedSandbox) -> Self {
        Self::with(client, answer.id.clone(), Some(answer), None)
    }

    fn with(
        client: Client,
        id: SandboxId,
        created: Option<CreatedSandbox>,
        view: Option<Arc<SandboxView>>,
    ) -> Self {
        Self(Arc::new(Shared { client, id, created, view: RwLock::new(view) }))
    }

    /// The same sandbox reached through another client. Clones of the two do not share views.
    pub(crate) fn with_client(&self, client: Client) -> Self {
        Self::with(client, self.0.id.clone(), self.0.created.clone(), self.view())
    }

    /// The same sandbox for work that goes on without its caller.
    pub(crate) fn in_background(&self) -> Self {
        self.with_client(self.client().background())
    }

    /// Its id.
    pub fn id(&self) -> &SandboxId {
        &self.0.id
    }

    /// The client it was made with.
    pub fn client(&self) -> &Client {
        &self.0.client
    }

    /// What the server said when it was created; only on the handle that create gave, and
    /// its clones.
    pub fn created(&self) -> Option<&CreatedSandbox> {
        self.0.created.as_ref()
    }

    /// What the server last said about it. `None` until it was looked up, listed or
    /// [`refresh`](Self::refresh)ed, and after it was destroyed. It may be out of date.
    pub fn view(&self) -> Option<Arc<SandboxView>> {
        self.0.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn saw(&self, view: Option<Arc<SandboxView>>) {
        *self.0.view.write().unwrap_or_else(PoisonError::into_inner) = view;
    }

    /// A call to `/v1/sandboxes/<id>/<segments>`.
    pub(crate) fn call(&self, operation: &'static str, method: Method, segments: &[&str]) -> Call {
        let mut path = vec!["v1", "sandboxes", self.id().as_str()];
        path.extend(segments);
        self.client().call(operation, method, &path).resource(self.id())
    }

    /// An operation that answers with a view, which becomes the last seen.
    fn viewing(&self, call: Call) -> Operation<Arc<SandboxView>> {
        let sandbox = self.clone();
        Operation::new(self.client().clone(), call, move |reply| sandbox.read_view(&reply))
    }

    /// The view in an answer, which becomes the last seen.
    fn read_view(&self, reply: &Reply) -> Result<Arc<SandboxView>> {
        let view: Arc<SandboxView> = Arc::new(envelope::data(reply)?);
        self.saw(Some(view.clone()));
        Ok(view)
    }

    /// Asks the server how it is (api.md 4.3).
    pub fn refresh(&self) -> Operation<Arc<SandboxView>> {
        self.viewing(self.call("sandbox.get", Method::GET, &[]))
    }

    /// Destroys it with everything in it (api.md 4.5). Gives the state the server answered,
    /// `destroying` or `destroyed`; one that is already gone counts as destroyed.
    pub fn destroy(&self) -> Operation<SandboxStatus> {
        let call = self.call("sandbox.destroy", Method::DELETE, &[]);
        let sandbox = self.clone();
        let call = Call { also_accept: Some(404), ..call };
        Operation::new(self.client().clone(), call, move |reply| {
            let status = match reply.head.status {
                404 => SandboxStatus::Destroyed,
                _ => envelope::data::<DestroyedSandbox>(&reply)?.status,
            };
            sandbox.saw(None);
            Ok(status)
        })
    }

    /// Waits until it is in this state, or meets this [`Condition`], asking again and again.
    /// See [`WaitUntil`].
    pub fn wait_until(&self, condition: impl Into<Condition>) -> WaitUntil {
        WaitUntil::new(self.clone(), condition.into())
    }

    /// A command to run in it. Nothing is sent until the command is awaited.
    pub fn command(&self, program: impl Into<String>) -> Command {
        Command::new(self.clone(), program.into())
    }

    /// Its files.
    pub fn files(&self) -> Files {
        Files::new(self.clone())
    }

    /// A process to start in it that runs on when nobody is connected (api.md 5.1). Nothing is
    /// sent until it is awaited.
    pub fn spawn(&self, program: impl Into<String>) -> SpawnProcess {
        SpawnProcess::new(self.clone(), program.into())
    }

    /// The default shell as such a process, in a terminal of this size in characters.
    pub fn spawn_shell(&self, rows: u16, cols: u16) -> SpawnProcess {
        SpawnProcess::shell(self.clone(), rows, cols)
    }

    /// A handle to a managed process, without any traffic. Whether it exists shows at the first
    /// call.
    pub fn process(&self, id: impl Into<ProcessId>) -> Process {
        Process::new(self.clone(), id.into())
    }

    /// Its managed processes (api.md 5.1), also those that have ended and are still kept.
    pub fn processes(&self) -> Operation<Vec<Process>> {
        Process::list(self.clone())
    }

    /// An interactive shell in it (api.md 4.20). Nothing is sent until it is opened.
    pub fn terminal(&self) -> OpenTerminal {
        OpenTerminal::new(self.clone())
    }

    /// A way to a TCP port inside it. Nothing is sent until a connection is opened.
    pub fn tunnel(&self, port: u16) -> Tunnel {
        Tunnel::new(self.clone(), port)
    }

    /// HTTP to a port inside it, through a tunnel.
    pub fn http(&self, port: u16) -> GuestHttp {
        GuestHttp::new(self.clone(), port)
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.view();
        f.debug_struct("Sandbox")
            .field("id", self.id())
            .field("last_status", &view.as_ref().map(|view| view.status.as_str()))
            .finish_non_exhaustive()
    }
}
