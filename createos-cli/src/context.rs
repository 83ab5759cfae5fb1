//! What every command works with: target, credential, output, terminal.

use std::cell::{Cell, OnceCell, RefCell};

use clap::Args;
use createos_sdk::Client;

use crate::failure::{Class, Failure, Report};
use crate::output::{Format, Printer, debug};
use crate::session::Renewer;
use crate::ssh::gateway::{self, Gateway};
use crate::store::Paths;
use crate::store::credentials::{self, Session, Stored};
use crate::store::local::{self, LocalEngine};
use crate::value;

/// The hosted control plane.
pub(crate) const HOSTED_URL: &str = "https://api.sb.createos.sh";

const URL_VARIABLES: [&str; 2] = ["CREATEOS_SANDBOX_URL", "CREATEOS_SANDBOX_BASE_URL"];
const KEY_VARIABLES: [&str; 4] = [
    "CREATEOS_API_KEY",
    "CREATEOS_PLAN_API_KEY",
    "CREATEOS_PROJECT_API_KEY",
    "CREATEOS_SANDBOX_API_KEY",
];

/// Flags that every command takes, anywhere before a bare `--`.
#[derive(Args, Clone, Default)]
#[command(next_help_heading = "Global options")]
pub(crate) struct GlobalArgs {
    /// Control plane to use [env: CREATEOS_SANDBOX_URL] [default: the local
    /// engine while one is started, else https://api.sb.createos.sh]
    #[arg(long, global = true, value_name = "URL", value_parser = value::url::base)]
    pub(crate) sandbox_api_url: Option<String>,

    /// SSH gateway for shell --ssh, as HOST:PORT [env: CREATEOS_SANDBOX_GATEWAY]
    /// [default: none, the connection goes through the control plane]
    #[arg(long, global = true, value_name = "GATEWAY", value_parser = gateway::parse)]
    pub(crate) sandbox_gateway: Option<Gateway>,

    /// Key that signs in, instead of the stored one [env: CREATEOS_API_KEY]
    #[arg(long, global = true, value_name = "KEY")]
    pub(crate) api_key: Option<String>,

    /// Form of the result: table or json [env: CREATEOS_OUTPUT] [default: table
    /// on a terminal, else json]
    #[arg(short, long, global = true, value_name = "FORM", hide_possible_values = true)]
    pub(crate) output: Option<Format>,

    /// Log each request on standard error, without its content [env:
    /// CREATEOS_DEBUG]
    #[arg(short, long, global = true)]
    pub(crate) debug: bool,
}

/// The control plane a command talks to.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// The hosted one.
    Hosted,
    /// One named by flag or environment.
    Named(String),
    /// The engine of this machine.
    Local(LocalEngine),
}

impl Target {
    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Hosted => HOSTED_URL,
            Self::Named(url) => url,
            Self::Local(engine) => &engine.url,
        }
    }

    /// One word for JSON.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Hosted => "hosted",
            Self::Named(_) => "named",
            Self::Local(_) => "local",
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(engine) => write!(f, "{} (this machine)", engine.url),
            _ => f.write_str(self.url()),
        }
    }
}

/// What signs a request, and where it came from.
pub(crate) enum Credential {
    Key {
        key: String,
        source: KeySource,
    },
    /// A stored session, which renews itself.
    Session(Session),
    /// A session that is not stored yet.
    NewSession(Session),
}

/// Where an API key came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KeySource {
    Flag,
    Environment(&'static str),
    TokenFile,
    LocalEngine,
}

impl Credential {
    /// A key that the user has just given.
    pub(crate) fn given(key: &str) -> Self {
        Self::Key { key: key.to_owned(), source: KeySource::Flag }
    }

    /// How `whoami` names it.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Session(_) | Self::NewSession(_) => "browser or device session".to_owned(),
            Self::Key { source: KeySource::Flag, .. } => "API key from --api-key".to_owned(),
            Self::Key { source: KeySource::Environment(name), .. } => {
                format!("API key from {name}")
            }
            Self::Key { source: KeySource::TokenFile, .. } => "API key from login".to_owned(),
            Self::Key { source: KeySource::LocalEngine, .. } => {
                "the key of the local engine".to_owned()
            }
        }
    }

    /// One word for JSON.
    pub(crate) fn method(&self) -> &'static str {
        match self {
            Self::Session(_) | Self::NewSession(_) => "session",
            Self::Key { source: KeySource::Flag, .. } => "flag",
            Self::Key { source: KeySource::Environment(_), .. } => "environment",
            Self::Key { source: KeySource::TokenFile, .. } => "token",
            Self::Key { source: KeySource::LocalEngine, .. } => "local",
        }
    }
}

/// A control plane and the client that talks to it.
pub(crate) struct Plane {
    pub(crate) target: Target,
    pub(crate) credential: Credential,
    pub(crate) client: Client,
}

/// Where commands would go, and as whom.
pub(crate) enum Standing {
    Ready {
        target: Target,
        credential: String,
    },
    SignedOut {
        target: Target,
    },
    /// The local engine was started and has ended.
    Stopped,
    Unclear {
        why: String,
    },
}

/// Everything a command needs besides its own arguments.
pub(crate) struct Context {
    pub(crate) out: Printer,
    pub(crate) paths: Paths,
    global: GlobalArgs,
    plane: OnceCell<Plane>,
    interrupted: RefCell<Option<String>>,
    signals_end_well: Cell<bool>,
}

impl Context {
    pub(crate) fn new(out: Printer, global: GlobalArgs) -> Self {
        Self {
            out,
            paths: Paths::detect(),
            global,
            plane: OnceCell::new(),
            interrupted: RefCell::new(None),
            signals_end_well: Cell::new(false),
        }
    }

    /// Whether a person can be asked.
    pub(crate) fn interactive(&self) -> bool {
        self.out.terminal().interactive()
    }

    /// The control plane with a client that is signed in. Made at first use.
    ///
    /// # Errors
    /// Nobody is signed in, the session ended, or the local engine is not running.
    pub(crate) fn plane(&self) -> Result<&Plane, Failure> {
        if let Some(plane) = self.plane.get() {
            return Ok(plane);
        }
        let target = self.target()?;
        if let Target::Local(engine) = &target
            && !engine.is_alive()
        {
            return Err(Failure::new(
                Class::Network,
                format!("the local engine is not running (process {} has ended)", engine.pid),
            )
            .hint("start it again: createos local start"));
        }
        let credential = self.credential(&target)?;
        let client = self.client(&target, &credential)?;
        Ok(self.plane.get_or_init(|| Plane { target, credential, client }))
    }

    /// The control plane for completions: what is stored is used as it is, and a
    /// session is never renewed while somebody types.
    pub(crate) fn plane_for_completion(&self) -> Result<Plane, Failure> {
        let target = self.target()?;
        let credential = match self.credential(&target)? {
            Credential::Session(session) => Credential::NewSession(session),
            other => other,
        };
        let client = self.client(&target, &credential)?;
        Ok(Plane { target, credential, client })
    }

    /// A client of the control plane that `login` signs in to, which is never
    /// the local engine unless its address is given.
    pub(crate) fn plane_for_login(&self, credential: Credential) -> Result<&Plane, Failure> {
        let target = self.named_target()?.unwrap_or(Target::Hosted);
        let client = self.client(&target, &credential)?;
        Ok(self.plane.get_or_init(|| Plane { target, credential, client }))
    }

    /// A client of a control plane; it logs its requests with `--debug`.
    pub(crate) fn client(
        &self,
        target: &Target,
        credential: &Credential,
    ) -> Result<Client, Failure> {
        let mut builder = Client::builder().base_url(target.url());
        let secret = match credential {
            Credential::Key { key, .. } => {
                builder = builder.api_key(key);
                key
            }
            Credential::Session(session) => {
                let store = credentials::Store::open(&self.paths)?;
                let client_id = oidc_client_id();
                let renewer = Renewer::new(store, session.clone(), client_id);
                builder = builder.access_tokens(move |refused| {
                    let renewer = renewer.clone();
                    async move { renewer.token(refused).await }
                });
                session.access_token.expose()
            }
            Credential::NewSession(session) => {
                builder = builder.access_token(&session.access_token);
                session.access_token.expose()
            }
        };
        if self.global.debug || debug_from_environment() {
            debug::credential(&credential.describe(), secret);
            builder = builder.observe(debug::request);
        }
        Ok(builder.build()?)
    }

    /// Where commands would go and as whom, as far as can be told without a request.
    pub(crate) fn standing(&self) -> Standing {
        let target = match self.target() {
            Ok(target) => target,
            Err(failure) => return Standing::Unclear { why: failure.message().to_owned() },
        };
        if matches!(&target, Target::Local(engine) if !engine.is_alive()) {
            return Standing::Stopped;
        }
        match self.credential(&target) {
            Ok(credential) => Standing::Ready { target, credential: credential.describe() },
            Err(failure) if failure.class() == Some(Class::Unauthorized) => {
                Standing::SignedOut { target }
            }
            Err(failure) => Standing::Unclear { why: failure.message().to_owned() },
        }
    }

    /// The SSH gateway, when one is named.
    pub(crate) fn gateway(&self) -> Result<Option<Gateway>, Failure> {
        if let Some(named) = &self.global.sandbox_gateway {
            return Ok(Some(named.clone()));
        }
        let Some((name, text)) = environment(&["CREATEOS_SANDBOX_GATEWAY"]) else {
            return Ok(None);
        };
        let gateway = gateway::parse(&text);
        gateway.map(Some).map_err(|why| Failure::usage(format!("{name}: {why}")))
    }

    /// Flag or environment, else the local engine while one is started, else the hosted one.
    fn target(&self) -> Result<Target, Failure> {
        let local = match local::Store::open(&self.paths) {
            Ok(store) => store.load()?.filter(|engine| engine.active),
            // Without a home directory nothing can have been recorded.
            Err(_) => None,
        };
        match (self.named_target()?, local) {
            (Some(named), Some(engine)) if named.url() == engine.url => Ok(Target::Local(engine)),
            (Some(named), _) => Ok(named),
            (None, Some(engine)) => Ok(Target::Local(engine)),
            (None, None) => Ok(Target::Hosted),
        }
    }

    fn named_target(&self) -> Result<Option<Target>, Failure> {
        if let Some(url) = &self.global.sandbox_api_url {
            return Ok(Some(Target::Named(url.clone())));
        }
        let Some((name, text)) = environment(&URL_VARIABLES) else { return Ok(None) };
        match value::url::base(&text) {
            Ok(url) => Ok(Some(Target::Named(url))),
            Err(why) => Err(Failure::usage(format!("{name}: {why}"))),
        }
    }

    /// The local key goes to the local engine alone, and a key from the
    /// environment, which is meant for another control plane, does not go there.
    fn credential(&self, target: &Target) -> Result<Credential, Failure> {
        if let Some(key) = self.global.api_key.as_deref().map(str::trim).filter(|k| !k.is_empty()) {
            return Ok(Credential::Key { key: key.to_owned(), source: KeySource::Flag });
        }
        if let Target::Local(engine) = target {
            let source = KeySource::LocalEngine;
            return Ok(Credential::Key { key: engine.api_key.clone(), source });
        }
        if let Some((name, key)) = key_from_environment() {
            return Ok(Credential::Key { key, source: KeySource::Environment(name) });
        }
        let stored = match credentials::Store::open(&self.paths) {
            Ok(store) => store.load(&self.out)?,
            Err(_) => None,
        };
        match stored {
            Some(Stored::ApiKey(key)) => Ok(Credential::Key { key, source: KeySource::TokenFile }),
            Some(Stored::Session(session)) => Ok(Credential::Session(session)),
            None => Err(Failure::new(Class::Unauthorized, "not signed in").hint(SIGN_IN)),
        }
    }

    /// `login` means another control plane: commands stop using the local engine.
    pub(crate) fn leave_local(&self) -> Result<(), Failure> {
        let store = local::Store::open(&self.paths)?;
        match store.load()? {
            Some(engine) if engine.active => store.save(&LocalEngine { active: false, ..engine }),
            _ => Ok(()),
        }
    }

    /// What to say when a signal ends the command while the guard lives.
    pub(crate) fn if_interrupted(&self, note: String) -> InterruptNote<'_> {
        self.interrupted.replace(Some(note));
        InterruptNote(&self.interrupted)
    }

    /// From now on a signal is how the command ends in order, with exit code 0.
    pub(crate) fn let_signals_end_well(&self) {
        self.signals_end_well.set(true);
    }

    /// How a signal ends the command: in order, or not.
    pub(crate) fn ended_by_signal(&self, exit: u8) -> Result<(), Failure> {
        if self.signals_end_well.get() {
            return Ok(());
        }
        let failure = Failure::interrupted(exit);
        Err(match self.interrupted.borrow().clone() {
            Some(note) => failure.hint(note),
            None => failure,
        })
    }

    /// Prints a failure that is part of a result.
    pub(crate) fn complain(&self, failure: &Failure) {
        if let Failure::Report(report) = failure {
            self.out.complain(report);
        }
    }

    /// Adds what only the context knows: which control plane was asked, and
    /// what helps with its refusal.
    pub(crate) fn complete(&self, report: &mut Report) {
        let Some(plane) = self.plane.get() else { return };
        if !report.from_plane {
            return;
        }
        report.control_plane = Some(plane.target.to_string());
        match report.class {
            Class::Unauthorized => report.hint = Some(plane.refused_hint()),
            Class::Network if matches!(plane.target, Target::Local(_)) => {
                report.hint = Some("look at the engine: createos local status".to_owned());
            }
            _ => {}
        }
    }
}

const SIGN_IN: &str = "sign in:                createos login\n\
                       or set a key:           CREATEOS_API_KEY=<key>\n\
                       or use this machine:    createos local start";

impl Plane {
    /// What helps when the credential was refused depends on where it came from.
    fn refused_hint(&self) -> String {
        match &self.credential {
            Credential::Key { source: KeySource::Environment(name), .. } => {
                format!("the key from {name} was refused; set another or unset {name}")
            }
            Credential::Key { source: KeySource::Flag, .. } => {
                "the key given on the command line was refused; check it".to_owned()
            }
            Credential::Key { source: KeySource::LocalEngine, .. } => {
                "start the engine anew: createos local stop; createos local start".to_owned()
            }
            _ => "sign in again: createos login".to_owned(),
        }
    }
}

/// Clears the note of [`Context::if_interrupted`].
pub(crate) struct InterruptNote<'a>(&'a RefCell<Option<String>>);

impl Drop for InterruptNote<'_> {
    fn drop(&mut self) {
        self.0.replace(None);
    }
}

/// `CREATEOS_DEBUG=1` or `true`.
fn debug_from_environment() -> bool {
    let word = environment(&["CREATEOS_DEBUG"]).map(|(_, word)| word.to_ascii_lowercase());
    matches!(word.as_deref(), Some("1" | "true"))
}

/// Who this command is to the identity server.
pub(crate) fn oidc_client_id() -> Option<String> {
    environment(&["CREATEOS_OIDC_CLIENT_ID"]).map(|(_, id)| id)
}

/// The first API key that is set in the environment, and its variable.
pub(crate) fn key_from_environment() -> Option<(&'static str, String)> {
    environment(&KEY_VARIABLES)
}

/// The first of the variables that is set and not blank.
pub(crate) fn environment(names: &[&'static str]) -> Option<(&'static str, String)> {
    names.iter().find_map(|name| {
        let value = std::env::var(name).ok()?;
        let value = value.trim();
        (!value.is_empty()).then(|| (*name, value.to_owned()))
    })
}
