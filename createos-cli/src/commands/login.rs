//! `createos login`: with a key, a code or a browser.

mod browser;
mod device;
mod key;

use clap::Args;
use createos_sdk::oauth::{self, ErrorKind, Provider};
use serde_json::json;

use super::Exit;
use crate::context::{self, Context, Credential};
use crate::failure::{Class, Failure};
use crate::prompt;
use crate::store::credentials::{Session, Store};

/// Sign in, with an API key, a code or a browser
#[derive(Args)]
#[command(
    before_help = "\
Examples:
  createos login                           asks how, on a terminal
  createos login --token - < key.txt       the key stays out of the process list
  createos login --device                  with a code, on any other device
  createos login --browser                 with a browser on this machine",
    after_help = "\
Codes and browsers sign in at an identity server, which --issuer or
CREATEOS_OIDC_ISSUER names, and which knows this program by the client id. The
browser comes back to http://localhost:65341/callback.

Kept for later: a key in ~/.createos/.token, a session in ~/.createos/.oauth,
readable by you alone."
)]
pub(crate) struct LoginArgs {
    /// The API key; - reads it from standard input
    #[arg(short, long, value_name = "KEY", group = "how")]
    token: Option<String>,

    /// Show a code to type on any device that has a browser
    #[arg(long, group = "how")]
    device: bool,

    /// Open a browser on this machine
    #[arg(long, group = "how")]
    browser: bool,

    /// Identity server for --device and --browser [env: CREATEOS_OIDC_ISSUER]
    #[arg(long, value_name = "URL")]
    issuer: Option<String>,

    /// What it knows this program by [env: CREATEOS_OIDC_CLIENT_ID]
    #[arg(long, value_name = "ID")]
    client_id: Option<String>,
}

/// The ways to sign in.
enum How {
    Key(String),
    Device,
    Browser,
}

impl How {
    /// One word for JSON.
    fn method(&self) -> &'static str {
        match self {
            Self::Key(_) => "token",
            Self::Device => "device",
            Self::Browser => "browser",
        }
    }
}

/// Where people have their account.
struct IdentityServer {
    issuer: String,
    client_id: String,
}

pub(super) async fn run(args: LoginArgs, ctx: &Context) -> Result<Exit, Failure> {
    let server = identity_server(&args);
    let how = match &args {
        LoginArgs { token: Some(token), .. } => Some(How::Key(key::given(token)?)),
        LoginArgs { device: true, .. } => Some(How::Device),
        LoginArgs { browser: true, .. } => Some(How::Browser),
        _ if ctx.interactive() => ask(server.is_ok()).await?,
        _ => return Err(nothing_given()),
    };
    let Some(how) = how else {
        ctx.out.note("nothing was changed");
        return Ok(Exit::Success);
    };
    let user = match &how {
        How::Key(key) => sign_in_with_key(key, ctx).await?,
        How::Device => {
            let server = server?;
            let tokens = device::sign_in(&discover(&server).await?, ctx).await?;
            keep_session(Session::new(tokens, &server.client_id), ctx).await?
        }
        How::Browser => {
            let server = server?;
            let tokens = browser::sign_in(&discover(&server).await?, ctx).await?;
            keep_session(Session::new(tokens, &server.client_id), ctx).await?
        }
    };
    ctx.leave_local()?;
    let document = json!({ "action": "signed_in", "method": how.method(), "user_id": user });
    ctx.out.result(&document, || match user.as_str() {
        "" => "Signed in.".to_owned(),
        user => format!("Signed in as {user}."),
    })?;
    Ok(Exit::Success)
}

/// Asks for the way, and for the key if it is that.
async fn ask(server_known: bool) -> Result<Option<How>, Failure> {
    if server_known {
        let ways =
            ["with a code, on any device", "with a browser on this machine", "with an API key"];
        let ways = ways.map(str::to_owned).to_vec();
        match prompt::choose("how do you want to sign in?", ways, 0).await? {
            None => return Ok(None),
            Some(0) => return Ok(Some(How::Device)),
            Some(1) => return Ok(Some(How::Browser)),
            Some(_) => {}
        }
    }
    let typed = prompt::secret("API key").await?;
    key::checked(&typed).map(How::Key).map(Some)
}

fn nothing_given() -> Failure {
    Failure::usage("how to sign in has to be said where nobody can be asked").hint(
        "with a key:            createos login --token <key>\n\
         with a code:           createos login --device\n\
         or set it per command: CREATEOS_API_KEY=<key>\n\
         or use this machine:   createos local start",
    )
}

/// Flags before environment; there is no other.
fn identity_server(args: &LoginArgs) -> Result<IdentityServer, Failure> {
    let given = |flag: &Option<String>, name: &'static str| {
        let flag = flag.as_deref().map(str::trim).filter(|text| !text.is_empty());
        flag.map(str::to_owned).or_else(|| context::environment(&[name]).map(|(_, text)| text))
    };
    let missing = |what: &str, flag: &str, name: &str| {
        Failure::usage(format!("{what} is needed to sign in like this")).hint(format!(
            "give it:         {flag}, or set {name}\n\
             or use a key:    createos login --token <key>, or set CREATEOS_API_KEY"
        ))
    };
    let issuer = given(&args.issuer, "CREATEOS_OIDC_ISSUER")
        .ok_or_else(|| missing("an identity server", "--issuer <url>", "CREATEOS_OIDC_ISSUER"))?;
    let client_id = given(&args.client_id, "CREATEOS_OIDC_CLIENT_ID")
        .ok_or_else(|| missing("the client id", "--client-id <id>", "CREATEOS_OIDC_CLIENT_ID"))?;
    Ok(IdentityServer { issuer, client_id })
}

async fn discover(server: &IdentityServer) -> Result<Provider, Failure> {
    Provider::discover(&server.issuer, &server.client_id).await.map_err(refused)
}

/// What a failed sign-in means to a person.
fn refused(error: oauth::Error) -> Failure {
    let (class, hint) = match error.kind() {
        ErrorKind::Config => (Class::Usage, "check --issuer and CREATEOS_OIDC_ISSUER"),
        ErrorKind::Unsupported => (
            Class::Local,
            "use another way: createos login --browser, createos login --device\n\
             or a key:        createos login --token <key>",
        ),
        ErrorKind::Connection => (Class::Network, "check the connection, then begin again"),
        ErrorKind::Protocol => (Class::Network, "check --issuer and CREATEOS_OIDC_ISSUER"),
        ErrorKind::Denied => (Class::Forbidden, "begin again: createos login"),
        ErrorKind::Expired => (Class::Timeout, "begin again: createos login"),
        ErrorKind::InvalidGrant => (Class::Unauthorized, "begin again: createos login"),
        ErrorKind::ClientRefused => {
            (Class::Unauthorized, "check --client-id and CREATEOS_OIDC_CLIENT_ID")
        }
        ErrorKind::ForeignAnswer => (Class::Unauthorized, "begin again, in one window only"),
        ErrorKind::PortTaken => {
            (Class::Local, "end that program, or use a code: createos login --device")
        }
        _ => (Class::Local, "use a key instead: createos login --token <key>"),
    };
    Failure::new(class, error.to_string()).hint(hint)
}

/// Checks the key against the control plane and stores it.
async fn sign_in_with_key(key: &str, ctx: &Context) -> Result<String, Failure> {
    let plane = ctx.plane_for_login(Credential::given(key))?;
    let who = plane.client.whoami().await?;
    Store::open(&ctx.paths)?.save_key(key).await?;
    Ok(who.user_id)
}

/// Stores the session, unless the control plane refuses it.
async fn keep_session(session: Session, ctx: &Context) -> Result<String, Failure> {
    let plane = ctx.plane_for_login(Credential::NewSession(session.clone()))?;
    let who = plane.client.whoami().await;
    let user = match who {
        Ok(who) => who.user_id,
        Err(error) if matches!(error.status(), Some(400..500)) => return Err(error.into()),
        Err(error) => {
            // The identity server has said yes, and that would be lost.
            ctx.out.warn(&format!("the control plane cannot be asked who you are: {error}"));
            String::new()
        }
    };
    Store::open(&ctx.paths)?.save_session(&session).await?;
    Ok(user)
}
