//! The client and how it is made.

use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::Method;
use url::Url;

use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::http;
#[cfg(feature = "reqwest012")]
use crate::http::HttpClient;
use crate::id::SandboxId;
use crate::observe::{Event, Observer};
use crate::operation::Operation;
use crate::options::RetryPolicy;
use crate::page::List;
use crate::sandbox::{CreateSandbox, Sandbox};
use crate::secret::Secret;
use crate::signer::Signer;
use crate::transport::request::Call;
use crate::transport::retry::Quota;
use crate::transport::{envelope, send};
use crate::wire::{Health, Readiness, RootfsCatalog, Shape, WhoAmI};

const TIMEOUT: Duration = Duration::from_secs(60);
const STALL_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to a control plane. Cheap to clone; clones share connections and the quota
/// of retries.
///
/// A client without a credential can be made: it may call [`health`](Self::health),
/// [`readiness`](Self::readiness), [`shapes`](Self::shapes) and [`rootfs`](Self::rootfs),
/// which never send one. Every other call fails with
/// [`NotAuthenticated`](ErrorKind::NotAuthenticated) before any traffic.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

#[derive(Clone)]
pub(crate) struct Inner {
    pub(crate) http: reqwest::Client,
    stack: http::Stack,
    background: OnceLock<Client>,
    pub(crate) upgrades: http::Upgrades,
    pub(crate) base: Url,
    pub(crate) signer: Option<Signer>,
    pub(crate) timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) deadline: Option<Duration>,
    pub(crate) retry: RetryPolicy,
    pub(crate) quota: Arc<Quota>,
    pub(crate) observer: Observer,
}

impl Client {
    /// A client configured by the environment alone: `CREATEOS_API_KEY` (or
    /// `CREATEOS_SANDBOX_API_KEY`) and `CREATEOS_SANDBOX_BASE_URL`. A blank variable counts
    /// as unset; without an address it is the hosted control plane.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when a value cannot be used.
    pub fn from_env() -> Result<Self> {
        Self::builder().build()
    }

    /// Whether the environment names a credential or an address: whether
    /// [`from_env`](Self::from_env) has anything to go by. A blank variable counts as unset.
    ///
    /// For programs that otherwise run sandboxes on this machine.
    pub fn is_configured_by_env() -> bool {
        config::is_set(&|name| std::env::var(name).ok())
    }

    /// Starts the configuration of a client.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The address this client talks to, without a trailing slash.
    pub fn base_url(&self) -> &str {
        self.0.base.as_str().trim_end_matches('/')
    }

    /// Whether a credential is configured. It says nothing about whether it is accepted.
    pub fn has_credential(&self) -> bool {
        self.0.signer.is_some()
    }

    /// This client with another API key, such as a delegated token (api.md 4.12). Everything
    /// else is shared: connections, settings, the quota of retries.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when the key is blank or cannot be sent.
    pub fn with_api_key(&self, key: impl Into<Secret>) -> Result<Self> {
        let credential = config::credential(Some(&key.into()), None, &|_| None)?;
        let signer = credential.map(Signer::Fixed);
        let background = OnceLock::new();
        Ok(Self(Arc::new(Inner { signer, background, ..Inner::clone(&self.0) })))
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// A client like this one for [`background`](crate::background) work, with connections
    /// of its own: this one's may belong to a runtime that has stopped.
    pub(crate) fn background(&self) -> Client {
        let make = || {
            let this = &*self.0;
            let http = this.stack.calls().unwrap_or_else(|_| this.http.clone());
            let quota = Arc::new(Quota::new());
            let background = OnceLock::new();
            let upgrades = http::Upgrades::new(this.stack.clone());
            Client(Arc::new(Inner { http, upgrades, background, quota, ..this.clone() }))
        };
        self.0.background.get_or_init(make).clone()
    }

    pub(crate) fn call(&self, operation: &'static str, method: Method, segments: &[&str]) -> Call {
        Call::new(&self.0.base, operation, method, segments)
    }

    /// Creates a sandbox of this shape, such as `s-1vcpu-1gb` (api.md 4.1). The builder takes
    /// everything else; awaiting it gives a running sandbox.
    pub fn create_sandbox(&self, shape: impl Into<String>) -> CreateSandbox {
        CreateSandbox::new(self.clone(), shape.into())
    }

    /// A handle to a sandbox, without any traffic. Whether it exists shows at the first call.
    pub fn sandbox(&self, id: impl Into<SandboxId>) -> Sandbox {
        Sandbox::new(self.clone(), id.into())
    }

    /// Looks a sandbox up (api.md 4.3). One that does not exist, or belongs to somebody else,
    /// is [`ErrorKind::NotFound`].
    pub fn get_sandbox(&self, id: impl Into<SandboxId>) -> Operation<Sandbox> {
        let id = id.into();
        let call =
            self.call("sandbox.get", Method::GET, &["v1", "sandboxes", id.as_str()]).resource(&id);
        self.sandbox_from(call)
    }

    /// Looks a sandbox up by its management address (api.md 4.3).
    pub fn sandbox_by_ip(&self, ip: IpAddr) -> Operation<Sandbox> {
        let ip = ip.to_string();
        let segments = ["v1", "sandboxes", "by-ip", &ip];
        self.sandbox_from(self.call("sandbox.by_ip", Method::GET, &segments))
    }

    fn sandbox_from(&self, call: Call) -> Operation<Sandbox> {
        let client = self.clone();
        Operation::new(self.clone(), call, move |reply| {
            Ok(Sandbox::seen(client, envelope::data(&reply)?))
        })
    }

    /// The caller's sandboxes, newest first (api.md 4.2). Without
    /// [`status`](List::status) that includes destroyed and failed ones.
    pub fn sandboxes(&self) -> List<Sandbox> {
        let call = self.call("sandbox.list", Method::GET, &["v1", "sandboxes"]);
        List::new(self.clone(), call, |client, view| Sandbox::seen(client.clone(), view))
    }

    /// The shapes that can be ordered (api.md 3.4). Needs no credential.
    pub fn shapes(&self) -> List<Shape> {
        let call = self.call("shapes.list", Method::GET, &["v1", "shapes"]);
        List::new(self.clone(), Call { authenticated: false, ..call }, |_, shape: Shape| shape)
    }

    /// The root filesystems that can be ordered (api.md 3.5). Needs no credential.
    pub fn rootfs(&self) -> Operation<RootfsCatalog> {
        let call = self.call("rootfs.get", Method::GET, &["v1", "rootfs"]);
        let call = Call { authenticated: false, ..call };
        Operation::new(self.clone(), call, |reply| envelope::data(&reply))
    }

    /// Who the credential belongs to, and how many sandboxes that is (api.md 3.3).
    pub fn whoami(&self) -> Operation<WhoAmI> {
        let call = self.call("whoami", Method::GET, &["v1", "whoami"]);
        Operation::new(self.clone(), call, |reply| envelope::data(&reply))
    }

    /// Whether the server is up (api.md 3.1). Needs no credential.
    pub fn health(&self) -> Operation<Health> {
        let call = self.call("health", Method::GET, &["healthz"]);
        let call = Call { authenticated: false, ..call };
        Operation::new(self.clone(), call, |reply| envelope::data(&reply))
    }

    /// Whether sandboxes can be created (api.md 3.2). A server that is not ready is an
    /// answer, not an error. Needs no credential and is never retried.
    pub fn readiness(&self) -> Operation<Readiness> {
        let call = self.call("readiness", Method::GET, &["readyz"]);
        let call = Call { authenticated: false, also_accept: Some(503), ..call };
        let once = crate::RequestOptions::new().retry(RetryPolicy::none());
        let operation = Operation::new(self.clone(), call, |reply: send::Reply| {
            let ready = reply.head.status == 200;
            Ok(envelope::data_of_any(&reply).unwrap_or(Readiness::new(ready)))
        });
        operation.with(once)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base_url", &self.base_url())
            .field("credential", &self.0.signer)
            .finish_non_exhaustive()
    }
}

/// Configuration of a [`Client`]: what is set here wins over the environment, which wins
/// over the default.
#[derive(Clone, Default)]
#[must_use]
pub struct ClientBuilder {
    api_key: Option<Secret>,
    access_token: Option<Secret>,
    access_tokens: Option<Signer>,
    base_url: Option<String>,
    timeout: Option<Duration>,
    stall_timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    deadline: Option<Duration>,
    retry: RetryPolicy,
    insecure_http: bool,
    proxy: Option<Secret>,
    ca_certificates: Vec<Vec<u8>>,
    #[cfg(feature = "reqwest012")]
    http_client: Option<HttpClient>,
    observer: Observer,
}

impl ClientBuilder {
    /// API key, sent as `X-Api-Key`. Blanks around it are removed; a blank key is an error.
    pub fn api_key(mut self, key: impl Into<Secret>) -> Self {
        self.api_key = Some(key.into());
        self
    }

    /// OAuth access token, sent as `X-Access-Token` instead of an API key.
    pub fn access_token(mut self, token: impl Into<Secret>) -> Self {
        self.access_token = Some(token.into());
        self
    }

    /// OAuth access tokens that are renewed while the client lives, sent as `X-Access-Token`.
    ///
    /// `source` is asked before every call (`None`), so it should answer from memory while its
    /// token is good. When the server refuses a token with 401 it is asked once more, with that
    /// token; if it gives another one the call is repeated once, whatever the call does, because
    /// a refused call has done nothing. (An upload from a reader cannot be repeated: it fails.)
    /// Calls made at the same time ask at the same time: a source that is given a token it has
    /// replaced already should give the replacement and not fetch another.
    ///
    /// A failure of the source fails the call: an [`Error`] of this crate as it is, any other as
    /// [`NotAuthenticated`](ErrorKind::NotAuthenticated) with its text as message and itself as
    /// source. Dropping a call drops the future of its source; one that must not be
    /// cut short, such as an exchange of a refresh token that counts once, belongs in a task of
    /// its own. The feature `oauth` renews tokens.
    ///
    /// ```
    /// use createos_sdk::{Client, Secret};
    ///
    /// let client = Client::builder().access_tokens(|refused: Option<Secret>| async move {
    ///     std::fs::read_to_string("/run/secrets/token").map(Secret::from)
    /// });
    /// ```
    pub fn access_tokens<F, Fut, E>(mut self, source: F) -> Self
    where
        F: Fn(Option<Secret>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Secret, E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.access_tokens = Some(Signer::renewed(source));
        self
    }

    /// Address of the control plane. A path in it is kept as a prefix; a query, fragment,
    /// user name or password is refused. Plain `http` is for this machine only, unless
    /// [`allow_insecure_http`](Self::allow_insecure_http) is given.
    pub fn base_url(mut self, url: impl Into<String>) -> Self {
        self.base_url = Some(url.into());
        self
    }

    /// Longest time of one attempt of an ordinary call. Default 60 s. Creating a sandbox is
    /// given at least 5 minutes, and running a command any time.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = Some(limit);
        self
    }

    /// Longest silence on a stream, an upload or a download. Default 60 s.
    pub fn stall_timeout(mut self, limit: Duration) -> Self {
        self.stall_timeout = Some(limit);
        self
    }

    /// Longest time to reach the server, TLS included. Default 10 s.
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = Some(limit);
        self
    }

    /// Longest time of a whole call, retries and streams included. Default none.
    pub fn deadline(mut self, limit: Duration) -> Self {
        self.deadline = Some(limit);
        self
    }

    /// When and how often to try again.
    pub fn retry(mut self, policy: RetryPolicy) -> Self {
        self.retry = policy;
        self
    }

    /// Allows plain `http` to another machine. The key and everything else is then readable
    /// on the way.
    pub fn allow_insecure_http(mut self, allow: bool) -> Self {
        self.insecure_http = allow;
        self
    }

    /// Sends everything through this proxy, such as `http://proxy.example.org:3128`. Without
    /// it the usual environment variables (`HTTPS_PROXY`, `NO_PROXY`, …) count, except that
    /// this machine is always reached directly.
    pub fn proxy(mut self, url: impl Into<Secret>) -> Self {
        self.proxy = Some(url.into());
        self
    }

    /// Trusts these certificate authorities (PEM, one or more) besides the usual ones.
    pub fn ca_certificate_pem(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.ca_certificates.push(pem.into());
        self
    }

    /// Sends everything through an HTTP client of your own. Its connect timeout, proxy and
    /// certificates are its own: setting them here as well is an error.
    #[cfg(feature = "reqwest012")]
    pub fn http_client(mut self, client: impl Into<HttpClient>) -> Self {
        self.http_client = Some(client.into());
        self
    }

    /// Calls `observer` for everything the client does: attempts, answers, repeats, ends of
    /// streams. It sees neither bodies nor headers nor queries. It must be quick and must not
    /// block. May be given more than once.
    ///
    /// ```
    /// use createos_sdk::{Client, EventKind};
    ///
    /// let builder = Client::builder().observe(|event| {
    ///     if let EventKind::Retry { error, wait } = &event.kind {
    ///         eprintln!("{} again in {wait:?}: {error}", event.operation);
    ///     }
    /// });
    /// ```
    pub fn observe(mut self, observer: impl Fn(&Event<'_>) + Send + Sync + 'static) -> Self {
        self.observer.add(observer);
        self
    }

    /// Makes the client. Nothing is sent.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Config`] when a value from here or from the environment cannot be used;
    /// the message names which.
    pub fn build(self) -> Result<Client> {
        self.build_with(&|name| std::env::var(name).ok())
    }

    /// Like [`build`](Self::build), but blind to the environment.
    pub(crate) fn build_anonymous(self) -> Result<Client> {
        self.build_with(&|_| None)
    }

    fn build_with(self, env: &dyn Fn(&str) -> Option<String>) -> Result<Client> {
        let base = config::base_url(self.base_url.as_deref(), self.insecure_http, env)?;
        let signer = self.signer(env)?;
        self.check_limits()?;
        let stack = self.stack(&base)?;
        Ok(Client(Arc::new(Inner {
            http: stack.calls()?,
            upgrades: http::Upgrades::new(stack.clone()),
            stack,
            background: OnceLock::new(),
            base,
            signer,
            timeout: self.timeout.unwrap_or(TIMEOUT),
            stall_timeout: self.stall_timeout.unwrap_or(STALL_TIMEOUT),
            deadline: self.deadline,
            retry: self.retry,
            quota: Arc::new(Quota::new()),
            observer: self.observer,
        })))
    }

    fn signer(&self, env: &dyn Fn(&str) -> Option<String>) -> Result<Option<Signer>> {
        let (key, token) = (self.api_key.as_ref(), self.access_token.as_ref());
        match &self.access_tokens {
            Some(_) if key.is_some() || token.is_some() => Err(Error::new(
                ErrorKind::Config,
                "give an API key, an access token or a source of access tokens, not several",
            )),
            Some(source) => Ok(Some(source.clone())),
            None => Ok(config::credential(key, token, env)?.map(Signer::Fixed)),
        }
    }

    fn stack(&self, base: &Url) -> Result<http::Stack> {
        #[cfg(feature = "reqwest012")]
        if let Some(given) = &self.http_client {
            for (name, is_set) in [
                ("connect_timeout", self.connect_timeout.is_some()),
                ("proxy", self.proxy.is_some()),
                ("ca_certificate_pem", !self.ca_certificates.is_empty()),
            ] {
                if is_set {
                    let message = format!("{name} cannot be set beside http_client; set it there");
                    return Err(Error::new(ErrorKind::Config, message));
                }
            }
            return Ok(http::Stack::Given(given.clone()));
        }
        Ok(http::Stack::Made(http::Settings {
            base: base.clone(),
            connect_timeout: self.connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            proxy: self.proxy.clone(),
            ca_certificates: self.ca_certificates.clone(),
        }))
    }

    fn check_limits(&self) -> Result<()> {
        for (name, limit) in [
            ("timeout", self.timeout),
            ("stall_timeout", self.stall_timeout),
            ("connect_timeout", self.connect_timeout),
            ("deadline", self.deadline),
        ] {
            if limit == Some(Duration::ZERO) {
                let message = format!("{name} must be longer than zero");
                return Err(Error::new(ErrorKind::Config, message));
            }
        }
        self.retry.check().map_err(|error| Error::new(ErrorKind::Config, error.message()))
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("api_key", &self.api_key)
            .field("access_token", &self.access_token)
            // It may hold a password until `build` refuses it.
            .field("base_url", &self.base_url.as_ref().map(|_| ".."))
            .field("timeout", &self.timeout)
            .field("stall_timeout", &self.stall_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("deadline", &self.deadline)
            .field("retry", &self.retry)
            .field("insecure_http", &self.insecure_http)
            .field("proxy", &self.proxy)
            .field("ca_certificates", &self.ca_certificates.len())
            .field("observer", &self.observer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_fills_what_the_builder_left_open() {
        let env = |name: &str| match name {
            "CREATEOS_API_KEY" => Some("env-key".to_owned()),
            "CREATEOS_SANDBOX_BASE_URL" => Some("http://127.0.0.1:1/p/".to_owned()),
            _ => None,
        };
        let client = Client::builder().build_with(&env).unwrap();
        assert_eq!(client.base_url(), "http://127.0.0.1:1/p");
        assert!(client.has_credential());
        let nothing = Client::builder().build_with(&|_| None).unwrap();
        assert_eq!(nothing.base_url(), config::DEFAULT_BASE_URL);
        assert!(!nothing.has_credential());
    }

    #[test]
    fn unusable_settings_are_refused_by_name() {
        let local = || Client::builder().base_url("http://127.0.0.1:1");
        for (builder, name) in [
            (local().timeout(Duration::ZERO), "timeout"),
            (local().retry(RetryPolicy::default().max_attempts(0)), "max_attempts"),
            (local().proxy("not a url"), "proxy"),
            (local().ca_certificate_pem("not a certificate"), "certificate"),
        ] {
            let error = builder.build_with(&|_| None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{name}");
            assert!(error.message().contains(name), "{name}: {error}");
        }
    }
}
