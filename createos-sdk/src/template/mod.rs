//! Templates: root filesystems built from a Dockerfile (api.md 5.8, 6.8).

mod logs;
mod watch;

use std::fmt;
use std::future::IntoFuture;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;

use crate::check;
use crate::client::Client;
use crate::error::{Error, ErrorKind, Result};
use crate::guard::{self, Ends, Guard, Guarded};
use crate::handle::Handle;
use crate::id::TemplateId;
use crate::operation::Operation;
use crate::options::RequestOptions;
use crate::page::List;
use crate::pending::Pending;
use crate::poll::Poll;
use crate::transport::envelope;
use crate::wire::{self, TemplateStatus, TemplateView};

pub use self::logs::{BuildEvent, BuildLine, LogStream, TemplateLogs};
pub use self::watch::BuildWatch;

/// Builds take minutes.
const BUDGET: Duration = Duration::from_secs(900);
/// Longest Dockerfile, in bytes (api.md 6.8).
const MAX_DOCKERFILE: usize = 64 << 10;

/// One template. Cheap to clone; clones share the last-seen view.
///
/// ```no_run
/// # async fn run(client: createos_sdk::Client) -> createos_sdk::Result<()> {
/// let dockerfile = "FROM nodeops/sandbox:debian\nRUN apt-get update\n";
/// let template = client.create_template("tools", dockerfile).await?;
/// template.wait_until_ready().await?;
/// let sandbox = client.create_sandbox("s-1vcpu-1gb").rootfs("tools").await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Template(Handle<TemplateId, TemplateView>);

impl Template {
    fn new(client: Client, id: TemplateId, view: Option<TemplateView>) -> Self {
        Self(Handle::new(client, "templates", id, view))
    }

    fn seen(client: Client, view: TemplateView) -> Self {
        Self::new(client, view.id.clone(), Some(view))
    }

    /// Its id.
    pub fn id(&self) -> &TemplateId {
        self.0.id()
    }

    /// What the server last said about it. It may be out of date.
    pub fn view(&self) -> Option<Arc<TemplateView>> {
        self.0.view()
    }

    /// Asks the server how it is (api.md 5.8).
    pub fn refresh(&self) -> Operation<Arc<TemplateView>> {
        self.0.viewing(self.0.call("template.get", Method::GET, &[]))
    }

    /// The Dockerfile it is built from (api.md 5.8).
    ///
    /// # Errors
    ///
    /// `Unsupported`: the server does not give it.
    pub fn dockerfile(&self) -> Operation<String> {
        let call = self.0.call("template.dockerfile", Method::GET, &[]);
        let call = call.query("include", "dockerfile");
        Operation::new(self.0.client().clone(), call, |reply| {
            envelope::data::<TemplateView>(&reply)?.dockerfile.ok_or_else(|| {
                let message = "the answer holds no Dockerfile";
                reply.head.stamp(Error::new(ErrorKind::Unsupported, message))
            })
        })
    }

    /// Removes it (api.md 5.8). Sandboxes made from it go on; new ones cannot be made.
    ///
    /// # Errors
    ///
    /// `NotFound`: there is none of this id, or a first attempt removed it and its answer was
    /// lost ([`may_have_acted`](Error::may_have_acted)).
    pub fn delete(&self) -> Operation<()> {
        self.0.acknowledged("template.delete", Method::DELETE, &[])
    }

    /// Removes this template when the guard is dropped; sandboxes made from it go on. See
    /// [`Guard`].
    pub fn guard(&self) -> Guard<Self> {
        Guard::new(self.clone())
    }

    /// What its build wrote, whole or while it is written (api.md 5.8).
    pub fn logs(&self) -> TemplateLogs {
        TemplateLogs::new(self.clone())
    }

    /// Waits until it is built. See [`WaitUntilReady`].
    pub fn wait_until_ready(&self) -> WaitUntilReady {
        WaitUntilReady { template: self.clone(), budget: BUDGET, options: RequestOptions::new() }
    }
}

impl Ends for Template {
    fn client(&self) -> &Client {
        self.0.client()
    }

    fn with_client(&self, client: Client) -> Self {
        Self(self.0.with_client(client))
    }

    fn end(&self) -> Pending<()> {
        let template = self.clone();
        Pending::new(async move { guard::or_gone(template.delete().await) })
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(self.id()).finish()
    }
}

/// Waits until a template is built. Made with [`Template::wait_until_ready`]; gives the view
/// in which it was seen to be.
///
/// # Errors
///
/// `UnexpectedState`: the build failed; [`Template::logs`] say why. `Timeout`: not within the
/// [`budget`](Self::budget).
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct WaitUntilReady {
    template: Template,
    budget: Duration,
    options: RequestOptions,
}

impl WaitUntilReady {
    /// Longest time to wait. Default 15 minutes.
    pub fn budget(mut self, limit: Duration) -> Self {
        self.budget = limit;
        self
    }

    /// Sets options of each question. A deadline shortens the budget.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    async fn run(self) -> Result<Arc<TemplateView>> {
        let poll = Poll {
            operation: "template.wait",
            resource: self.template.id().to_string(),
            awaited: "ready",
            budget: self.budget,
            options: self.options,
        };
        poll.until(|options| async {
            let view = self.template.refresh().with(options).await?;
            match &view.status {
                TemplateStatus::Ready => Ok(ControlFlow::Break(view)),
                status if status.is_final() => {
                    Err(poll.hopeless(format!("the build is {status}; its log says why")))
                }
                status => Ok(ControlFlow::Continue(status.to_string())),
            }
        })
        .await
    }
}

impl IntoFuture for WaitUntilReady {
    type Output = Result<Arc<TemplateView>>;
    type IntoFuture = Pending<Arc<TemplateView>>;

    fn into_future(self) -> Self::IntoFuture {
        Pending::new(self.run())
    }
}

/// Creates a template. Made with [`Client::create_template`]; its build goes on after the
/// answer.
///
/// # Errors
///
/// `InvalidArgument`: the Dockerfile is empty, longer than 64 KiB, or breaks a rule of api.md
/// 6.8. `Conflict`: the name is taken. `PaymentRequired`, `PermissionDenied`, `RateLimited`:
/// credit, quota, too many builds at once. After an error that
/// [may have acted](Error::may_have_acted) look for the name before creating it again.
#[derive(Debug, Clone)]
#[must_use = "nothing is sent until awaited"]
pub struct CreateTemplate {
    client: Client,
    request: wire::CreateTemplate,
    options: RequestOptions,
}

impl CreateTemplate {
    /// Base image of the catalog. Default: the server's.
    pub fn base(mut self, base: impl Into<String>) -> Self {
        self.request.base = Some(base.into());
        self
    }

    /// Sets options of this call.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    /// Creates the template under a guard that removes it when dropped, built or not, also
    /// when this call itself is given up half-way. See [`Guard`].
    pub fn guarded(self) -> Guarded<Template> {
        Guarded::new(self.client.clone(), move |client| Self { client, ..self }.into_future())
    }

    fn check(&self) -> Result<()> {
        check::name(&self.request.name)?;
        let dockerfile = &self.request.dockerfile;
        let why = match () {
            () if dockerfile.trim().is_empty() => "is empty",
            () if dockerfile.len() > MAX_DOCKERFILE => "is longer than 64 KiB",
            () if dockerfile.contains('\0') => "contains a NUL character",
            () => return Ok(()),
        };
        Err(Error::invalid_argument("dockerfile", why))
    }
}

impl IntoFuture for CreateTemplate {
    type Output = Result<Template>;
    type IntoFuture = Pending<Template>;

    fn into_future(self) -> Pending<Template> {
        let checked = self.check();
        let call = self.client.call("template.create", Method::POST, &["v1", "templates"]);
        let client = self.client.clone();
        Operation::data(self.client, call)
            .json(&self.request)
            .checked(checked)
            .with(self.options)
            .map(|view| Template::seen(client, view))
            .into_future()
    }
}

impl Client {
    /// Creates a template from a Dockerfile (api.md 5.8): one `FROM` an allowed base, without
    /// `COPY`, `ADD` and heredocs, at most 64 KiB. It can be used when it is ready.
    pub fn create_template(
        &self,
        name: impl Into<String>,
        dockerfile: impl Into<String>,
    ) -> CreateTemplate {
        let request = wire::CreateTemplate::new(name, dockerfile);
        CreateTemplate { client: self.clone(), request, options: RequestOptions::new() }
    }

    /// The caller's templates (api.md 5.8).
    pub fn templates(&self) -> List<Template> {
        let call = self.call("template.list", Method::GET, &["v1", "templates"]);
        List::new(self.clone(), call, |client, view| Template::seen(client.clone(), view))
    }

    /// Looks a template up, by id or name (api.md 5.8).
    pub fn get_template(&self, id_or_name: impl AsRef<str>) -> Operation<Template> {
        let key = id_or_name.as_ref();
        let checked = TemplateId::try_from(key).map(drop);
        let call = self.call("template.get", Method::GET, &["v1", "templates", key]);
        let client = self.clone();
        Operation::data(self.clone(), call.resource(&key))
            .checked(checked)
            .map(|view| Template::seen(client, view))
    }

    /// A handle to a template, without any traffic.
    pub fn template(&self, id: impl Into<TemplateId>) -> Template {
        Template::new(self.clone(), id.into(), None)
    }
}
