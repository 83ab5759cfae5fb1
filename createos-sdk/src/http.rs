//! The HTTP stack: TLS, proxies, connections.

use std::sync::OnceLock;
use std::time::Duration;

use url::Url;

use crate::config::is_loopback;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

const USER_AGENT: &str = concat!("createos-sdk/", env!("CARGO_PKG_VERSION"));
/// A peer that died without a word is noticed after this time and a few probes, also in a
/// call without a time limit.
const KEEPALIVE: Duration = Duration::from_secs(30);

#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) base: Url,
    pub(crate) connect_timeout: Duration,
    pub(crate) proxy: Option<Secret>,
    pub(crate) ca_certificates: Vec<Vec<u8>>,
}

impl Settings {
    pub(crate) fn build(&self) -> Result<reqwest::Client> {
        self.build_from(reqwest::Client::builder())
    }

    fn build_from(&self, builder: reqwest::ClientBuilder) -> Result<reqwest::Client> {
        let builder = builder
            .user_agent(USER_AGENT)
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

/// The second stack, for connections that become something other than HTTP: with HTTP/2 they
/// cannot. Its TLS, proxy and limits are those of the first; it is made when first needed.
#[derive(Clone)]
pub(crate) struct Upgrades {
    settings: Settings,
    client: OnceLock<reqwest::Client>,
}

impl Upgrades {
    pub(crate) fn new(settings: Settings) -> Self {
        Self { settings, client: OnceLock::new() }
    }

    pub(crate) fn client(&self) -> Result<&reqwest::Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let made = self.settings.build_from(reqwest::Client::builder().http1_only())?;
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
