//! Signing a person in at an OpenID provider, in a browser or with a code, and renewing what
//! that gives. Feature `oauth`.
//!
//! ```no_run
//! # async fn run() -> Result<(), Box<dyn std::error::Error>> {
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use createos_sdk::oauth::Provider;
//! use createos_sdk::{Client, Secret};
//! use tokio::sync::Mutex;
//!
//! let provider = Provider::discover("https://id.example.org", "my-client").await?;
//! let sign_in = provider.device().await?;
//! println!("open {} and type {}", sign_in.verification_uri(), sign_in.user_code());
//! let tokens = Arc::new(Mutex::new(sign_in.wait().await?));
//!
//! // Renewed a minute before it runs out, and when the server refuses it.
//! let client = Client::builder().access_tokens(move |refused: Option<Secret>| {
//!     let tokens = tokens.clone();
//!     async move {
//!         let mut tokens = tokens.lock().await;
//!         if refused.as_ref() == Some(&tokens.access_token)
//!             || tokens.expires_within(Duration::from_secs(60))
//!         {
//!             *tokens = tokens.refresh("my-client").await?;
//!         }
//!         Ok::<_, createos_sdk::oauth::Error>(tokens.access_token.clone())
//!     }
//! });
//! # Ok(()) }
//! ```
//!
//! Every address is HTTPS or on this machine, redirects are not followed, and answers are read
//! up to 1 MiB. Tokens and codes show in no `Debug` and in no error.

mod browser;
mod device;
mod error;
mod exchange;
mod tokens;

use std::fmt;

use serde::Deserialize;

pub use self::browser::{BrowserSignIn, CALLBACK_PORT};
pub use self::device::DeviceSignIn;
pub use self::error::{Error, ErrorKind, Result};
pub use self::tokens::Tokens;
use exchange::{Endpoint, address, given_address};

/// `offline_access` is what makes the provider give a refresh token.
const SCOPE: &str = "openid offline_access";

/// An OpenID provider, and who we are to it: a public client, which has no secret.
#[derive(Clone)]
pub struct Provider {
    issuer: String,
    client_id: String,
    endpoints: Endpoints,
}

#[derive(Clone, Deserialize)]
struct Endpoints {
    issuer: String,
    token_endpoint: String,
    #[serde(default)]
    authorization_endpoint: Option<String>,
    #[serde(default)]
    device_authorization_endpoint: Option<String>,
}

impl Provider {
    /// Reads what the provider offers, from
    /// `<issuer>/.well-known/openid-configuration`.
    ///
    /// # Errors
    ///
    /// [`Config`](ErrorKind::Config), [`Connection`](ErrorKind::Connection) or
    /// [`Protocol`](ErrorKind::Protocol); the latter also when the document is of another
    /// issuer.
    pub async fn discover(issuer: &str, client_id: &str) -> Result<Self> {
        let issuer = issuer.trim().trim_end_matches('/');
        let client_id = client_id.trim();
        if client_id.is_empty() {
            return Err(Error::new(ErrorKind::Config, "the client id is empty"));
        }
        let url = address("the issuer", &format!("{issuer}/.well-known/openid-configuration"))?;
        let endpoints: Endpoints = Endpoint::new(url)?.get().await?;
        if endpoints.issuer.trim_end_matches('/') != issuer {
            return Err(Error::protocol(format!(
                "what {issuer} offers is of another issuer: {}",
                endpoints.issuer
            )));
        }
        Ok(Self { issuer: endpoints.issuer.clone(), client_id: client_id.to_owned(), endpoints })
    }

    /// The id that was given for this program.
    pub fn client_id(&self) -> &str {
        &self.client_id
    }

    /// Asks for a code that a person types on any device.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported): the provider does not offer it.
    pub async fn device(&self) -> Result<DeviceSignIn> {
        let Some(device) = &self.endpoints.device_authorization_endpoint else {
            let message = "this identity server does not offer to sign in with a device code";
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        let device = Endpoint::new(given_address("the device address", device)?)?;
        DeviceSignIn::begin(&device, self.token()?, &self.client_id).await
    }

    /// Makes ready for a browser on this machine: what it has to open is
    /// [`BrowserSignIn::url`], and it comes back to [`CALLBACK_PORT`] on this machine.
    ///
    /// # Errors
    ///
    /// [`Unsupported`](ErrorKind::Unsupported): the provider does not offer it.
    /// [`PortTaken`](ErrorKind::PortTaken): another program is there.
    pub async fn browser(&self) -> Result<BrowserSignIn> {
        let Some(authorization) = &self.endpoints.authorization_endpoint else {
            let message = "this identity server does not offer to sign in with a browser";
            return Err(Error::new(ErrorKind::Unsupported, message));
        };
        let authorization = given_address("the authorization address", authorization)?;
        let (issuer, client_id) = (self.issuer.clone(), self.client_id.clone());
        BrowserSignIn::begin(authorization, self.token()?, issuer, client_id).await
    }

    fn token(&self) -> Result<Endpoint> {
        Endpoint::new(given_address("the token address", &self.endpoints.token_endpoint)?)
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Provider").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}
