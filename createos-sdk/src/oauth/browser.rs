//! Signing in with a browser that comes back to this machine (RFC 8252, RFC 7636).

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use url::Url;

use super::SCOPE;
use super::error::{Error, ErrorKind, Result};
use super::exchange::{Endpoint, Refusal};
use super::tokens::{self, Tokens};
use crate::secret::Secret;

/// Where the browser comes back to; providers know clients by the whole address,
/// `http://localhost:65341/callback`.
pub const CALLBACK_PORT: u16 = 65341;
const REDIRECT: &str = "http://localhost:65341/callback";
const PATH: &str = "/callback";
/// Connections at a time; a browser opens a few, most of them for nothing.
const CONNECTIONS: usize = 32;

/// A sign-in that waits for a browser. Made with [`Provider::browser`](super::Provider::browser).
#[must_use = "the browser has to be shown the address"]
pub struct BrowserSignIn {
    url: String,
    listeners: Vec<TcpListener>,
    issuer: String,
    client_id: String,
    state: Secret,
    verifier: Secret,
    token: Endpoint,
}

/// What the browser brought back.
#[derive(Default)]
struct Callback {
    state: Option<String>,
    code: Option<Secret>,
    issuer: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

impl BrowserSignIn {
    pub(super) async fn begin(
        mut authorization: Url,
        token: Endpoint,
        issuer: String,
        client_id: String,
    ) -> Result<Self> {
        let listeners = listen().await?;
        let (state, verifier) = (random()?, random()?);
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose()));
        authorization
            .query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &client_id)
            .append_pair("redirect_uri", REDIRECT)
            .append_pair("scope", SCOPE)
            // Without it, providers leave `offline_access` out.
            .append_pair("prompt", "consent")
            .append_pair("state", state.expose())
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256");
        Ok(Self { url: authorization.into(), listeners, issuer, client_id, state, verifier, token })
    }

    /// What the browser has to open. It is for this person alone.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Waits at most `limit` until the browser has come back, and gets the tokens.
    ///
    /// # Errors
    ///
    /// [`Expired`](ErrorKind::Expired): nobody came. [`Denied`](ErrorKind::Denied).
    /// [`ForeignAnswer`](ErrorKind::ForeignAnswer): what came does not belong to this sign-in,
    /// which is then over.
    pub async fn wait(self, limit: Duration) -> Result<Tokens> {
        let Ok(callback) = timeout(limit, self.callback()).await else {
            return Err(Error::new(
                ErrorKind::Expired,
                "nobody signed in with the browser in time",
            ));
        };
        let code = self.accept(callback?)?;
        let form = [
            ("grant_type", "authorization_code"),
            ("code", code.expose()),
            ("redirect_uri", REDIRECT),
            ("client_id", &self.client_id),
            ("code_verifier", self.verifier.expose()),
        ];
        tokens::request(&self.token, &form).await?.given()
    }

    /// Serves the browser until it brings an answer.
    async fn callback(&self) -> Result<Callback> {
        let mut connections = JoinSet::new();
        loop {
            let full = connections.len() >= CONNECTIONS;
            tokio::select! {
                accepted = accept(&self.listeners), if !full => {
                    let stream = accepted.map_err(|error| local("cannot wait for the browser", error))?;
                    connections.spawn(serve(stream));
                }
                Some(ended) = connections.join_next() => {
                    if let Ok(Some(callback)) = ended {
                        return Ok(callback);
                    }
                }
            }
        }
    }

    /// The code, if the answer is to what we asked.
    fn accept(&self, callback: Callback) -> Result<Secret> {
        let foreign = |why: &str| Err(Error::new(ErrorKind::ForeignAnswer, why));
        if callback.state.as_deref() != Some(self.state.expose()) {
            return foreign(
                "the browser came back with an answer to another sign-in (wrong state)",
            );
        }
        // RFC 9207; a provider may leave it out.
        if callback.issuer.is_some_and(|issuer| issuer != self.issuer) {
            return foreign("the browser came back from another identity server");
        }
        if let Some(error) = callback.error {
            return Err(Refusal::new(error, callback.error_description).into_error());
        }
        match callback.code {
            Some(code) => Ok(code),
            None => Err(Error::protocol("the browser came back without a code")),
        }
    }
}

/// On both families: browsers differ in what `localhost` is to them.
async fn listen() -> Result<Vec<TcpListener>> {
    let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, CALLBACK_PORT)).await;
    let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, CALLBACK_PORT)).await;
    let mut listeners = Vec::new();
    for bound in [v4, v6] {
        match bound {
            Ok(listener) => listeners.push(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                let message = format!(
                    "port {CALLBACK_PORT}, where the browser comes back, is taken by another program"
                );
                return Err(Error::new(ErrorKind::PortTaken, message).with_source(error));
            }
            // A machine without IPv6, or without IPv4.
            Err(_) => {}
        }
    }
    if listeners.is_empty() {
        let message = format!("cannot listen on port {CALLBACK_PORT} of this machine");
        return Err(Error::new(ErrorKind::Local, message));
    }
    Ok(listeners)
}

async fn accept(listeners: &[TcpListener]) -> io::Result<TcpStream> {
    let accepting = listeners.iter().map(|listener| Box::pin(listener.accept()));
    let (accepted, ..) = futures::future::select_all(accepting).await;
    accepted.map(|(stream, _): (TcpStream, SocketAddr)| stream)
}

/// Answers one connection; what it brought, once the answer is out.
async fn serve(stream: TcpStream) -> Option<Callback> {
    let brought: Arc<OnceLock<Callback>> = Arc::default();
    let keep = brought.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (callback, response) = answer(&request);
        if let Some(callback) = callback {
            let _ = keep.set(callback);
        }
        async { Ok::<_, Infallible>(response) }
    });
    // A browser that goes away has brought what it brought.
    let _ = hyper::server::conn::http1::Builder::new()
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    Arc::into_inner(brought).and_then(OnceLock::into_inner)
}

fn answer(request: &Request<Incoming>) -> (Option<Callback>, Response<Full<Bytes>>) {
    match (request.method(), request.uri().path()) {
        (&Method::GET, PATH) => {
            let callback = Callback::read(request.uri().query().unwrap_or_default());
            let page = if callback.error.is_some() { REFUSED } else { DONE };
            (Some(callback), page_of(StatusCode::OK, page))
        }
        (_, PATH) => (None, page_of(StatusCode::METHOD_NOT_ALLOWED, NOTHING)),
        _ => (None, page_of(StatusCode::NOT_FOUND, NOTHING)),
    }
}

impl Callback {
    fn read(query: &str) -> Self {
        let mut callback = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match &*name {
                "state" => callback.state = Some(value),
                "code" => callback.code = Some(value.into()),
                "iss" => callback.issuer = Some(value),
                "error" => callback.error = Some(value),
                "error_description" => callback.error_description = Some(value),
                _ => {}
            }
        }
        callback
    }
}

const DONE: &str =
    "Back to the terminal: it says whether you are signed in. This page can be closed.";
const REFUSED: &str = "You are not signed in. The terminal says why. This page can be closed.";
const NOTHING: &str = "There is nothing here.";

/// A page that repeats nothing of the request.
fn page_of(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Sign-in</title><p>{text}</p></html>\n"
    );
    let mut response = Response::new(Full::from(page));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CACHE_CONTROL, "no-store"),
        // The address holds the code.
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, header::HeaderValue::from_static(value));
    }
    response
}

/// 256 bits that nobody can guess, as text for addresses.
fn random() -> Result<Secret> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| local("no random numbers", error))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes).into())
}

fn local(what: &str, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Local, format!("{what}: {error}")).with_source(error)
}

impl fmt::Debug for BrowserSignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BrowserSignIn").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}
