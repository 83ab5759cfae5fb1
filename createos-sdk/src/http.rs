//! The HTTP stack: TLS, proxies, connections.

use std::sync::OnceLock;
use std::time::Duration;

use url::Url;

use crate::config::is_loopback;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// How this crate names itself to the server.
pub(crate) const USER_AGENT: &str = concat!("createos-sdk/", env!("CARGO_PKG_VERSION"));
/// A peer that died without a word is noticed after this time and a few probes, also in a
/// call without a time limit.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// An HTTP client of your own, for what this crate has no setting for: client certificates,
/// name resolution, a connection pool that is shared. It goes to
/// [`ClientBuilder::http_client`](crate::ClientBuilder::http_client).
///
/// ```
/// # fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use createos_sdk::{Client, HttpClient};
/// use reqwest::redirect::Policy;
///
/// let own = || reqwest::Client::builder().redirect(Policy::none());
/// let http = HttpClient::from(own().build()?).upgrades(own().http1_only().build()?);
/// let client = Client::builder().api_key("skp_x").http_client(http).build()?;
/// # Ok(()) }
/// # run().unwrap();
/// ```
///
/// - It **must not follow redirects**: the key would go to wherever they point. An answer that
///   was redirected is refused, but by then the key has been sent.
/// - It should have no total timeout (`reqwest`'s `timeout`): that would cut streams and
///   transfers. This crate's own limits apply as always.
/// - Tunnels and terminals need HTTP/1.1. A client that may agree on HTTP/2 with the server
///   needs a second one beside it, see [`upgrades`](Self::upgrades).
#[cfg(feature = "reqwest012")]
#[derive(Clone)]
pub struct HttpClient {
    calls: reqwest::Client,
    upgrades: Option<reqwest::Client>,
}

#[cfg(feature = "reqwest012")]
impl HttpClient {
    /// Uses another client, made with `http1_only`, for tunnels and terminals.
    #[must_use]
    pub fn upgrades(mut self, http1: impl Into<HttpClient>) -> Self {
        self.upgrades = Some(http1.into().calls);
        self
    }
}

#[cfg(feature = "reqwest012")]
impl From<reqwest::Client> for HttpClient {
    fn from(calls: reqwest::Client) -> Self {
        Self { calls, upgrades: None }
    }
}

#[cfg(feature = "reqwest012")]
impl std::fmt::Debug for HttpClient {
    // What reqwest would show may hold default headers, and those may be secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpClient").field("upgrades", &self.upgrades.is_some()).finish()
    }
}

/// Where the two HTTP clients come from: one for calls, and one for connections that become
/// something other than HTTP, which with HTTP/2 they cannot.
#[derive(Clone)]
pub(crate) enum Stack {
    Made(Settings),
    #[cfg(feature = "reqwest012")]
    Given(HttpClient),
}

impl Stack {
    /// The client for ordinary calls.
    pub(crate) fn calls(&self) -> Result<reqwest::Client> {
        match self {
            Self::Made(settings) => settings.build(reqwest::Client::builder()),
            #[cfg(feature = "reqwest012")]
            Self::Given(given) => Ok(given.calls.clone()),
        }
    }

    fn upgrades(&self) -> Result<reqwest::Client> {
        match self {
            Self::Made(settings) => settings.build(reqwest::Client::builder().http1_only()),
            #[cfg(feature = "reqwest012")]
            Self::Given(given) => Ok(given.upgrades.as_ref().unwrap_or(&given.calls).clone()),
        }
    }
}

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) base: Url,
    pub(crate) connect_timeout: Duration,
    pub(crate) proxy: Option<Secret>,
    pub(crate) ca_certificates: Vec<Vec<u8>>,
}

impl Settings {
    pub(crate) fn build(&self, builder: reqwest::ClientBuilder) -> Result<reqwest::Client> {
        let builder = builder
            // A redirect would carry the key to wherever it points.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .connect_timeout(self.connect_timeout)
            .tcp_keepalive(KEEPALIVE);
        let builder = self.with_tls(self.with_proxy(builder)?)?;
        builder.build().map_err(|error| {
            Error::new(ErrorKind::Config, "the HTTP client cannot be made").with_source(error)
        })
    }

    fn with_proxy(&self, builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder> {
        let Some(proxy) = &self.proxy else {
            let direct = is_loopback(&self.base);
            return Ok(if direct { builder.no_proxy() } else { builder });
        };
        // Neither the message nor a source: both would show a password in the address.
        let proxy = Url::parse(proxy.expose())
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
            .and_then(|url| reqwest::Proxy::all(url).ok())
            .ok_or_else(|| Error::new(ErrorKind::Config, "the proxy is not an http(s) URL"))?;
        Ok(builder.proxy(proxy))
    }

    #[cfg(any(feature = "rustls", feature = "native-tls"))]
    fn with_tls(&self, mut builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder> {
        for pem in &self.ca_certificates {
            for certificate in certificates(pem)? {
                builder = builder.add_root_certificate(certificate);
            }
        }
        // Where both are built in, the one that is not the default was asked for.
        #[cfg(feature = "native-tls")]
        let builder = builder.use_native_tls();
        // Reading the system's certificates takes milliseconds that plain http has no use for.
        let plain = self.base.scheme() == "http" && self.proxy.is_none();
        Ok(builder.tls_built_in_root_certs(!plain))
    }

    #[cfg(not(any(feature = "rustls", feature = "native-tls")))]
    fn with_tls(&self, builder: reqwest::ClientBuilder) -> Result<reqwest::ClientBuilder> {
        if self.ca_certificates.is_empty() {
            return Ok(builder);
        }
        let message = "a certificate was given, but this build has no TLS feature";
        Err(Error::new(ErrorKind::Config, message))
    }
}

/// The client for upgrades, made when first needed.
#[derive(Clone)]
pub(crate) struct Upgrades {
    stack: Stack,
    client: OnceLock<reqwest::Client>,
}

impl Upgrades {
    pub(crate) fn new(stack: Stack) -> Self {
        Self { stack, client: OnceLock::new() }
    }

    pub(crate) fn client(&self) -> Result<&reqwest::Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let made = self.stack.upgrades()?;
        Ok(self.client.get_or_init(|| made))
    }
}

/// Every certificate of a PEM text.
#[cfg(any(feature = "rustls", feature = "native-tls"))]
fn certificates(pem: &[u8]) -> Result<Vec<reqwest::Certificate>> {
    const END: &str = "-----END CERTIFICATE-----";
    let bad = || Error::new(ErrorKind::Config, "a CA certificate is not in PEM form");
    let text = std::str::from_utf8(pem).map_err(|_| bad())?;
    let found: Vec<_> = text
        .split_inclusive(END)
        .filter(|block| block.ends_with(END))
        .map(|block| reqwest::Certificate::from_pem(block.as_bytes()).map_err(|_| bad()))
        .collect::<Result<_>>()?;
    if found.is_empty() { Err(bad()) } else { Ok(found) }
}
