//! Signing in with a code that is typed on any device (RFC 8628).

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use super::SCOPE;
use super::error::{Error, ErrorKind, Result};
use super::exchange::{Answer, Endpoint, Seconds, given_address};
use super::tokens::{self, Tokens};
use crate::secret::Secret;

const GRANT: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// Between polls where the provider does not say.
const USUAL_INTERVAL: Duration = Duration::from_secs(5);
/// What `slow_down` adds for good.
const SLOWER: Duration = Duration::from_secs(5);
/// A provider that names a longer life or pause than this is not believed.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// A sign-in that waits for a person to type a code. Made with
/// [`Provider::device`](super::Provider::device).
#[must_use = "the person has to be shown the code"]
pub struct DeviceSignIn {
    user_code: String,
    verification_uri: String,
    verification_uri_complete: Option<String>,
    lifetime: Duration,
    expires_at: Instant,
    interval: Duration,
    device_code: Secret,
    client_id: String,
    token: Endpoint,
}

#[derive(Deserialize)]
struct DeviceAnswer {
    device_code: Secret,
    user_code: String,
    verification_uri: String,
    #[serde(default)]
    verification_uri_complete: Option<String>,
    expires_in: Seconds,
    #[serde(default)]
    interval: Option<Seconds>,
}

impl DeviceSignIn {
    pub(super) async fn begin(device: &Endpoint, token: Endpoint, client_id: &str) -> Result<Self> {
        let form = [("client_id", client_id), ("scope", SCOPE)];
        let begun = Instant::now();
        let answer: DeviceAnswer = device.post(&form).await?.given()?;
        if answer.device_code.expose().is_empty() || answer.user_code.trim().is_empty() {
            return Err(Error::protocol("the identity server gave no code to type"));
        }
        let lifetime = positive(answer.expires_in).ok_or_else(|| {
            Error::protocol("the identity server gave a code that has expired already")
        })?;
        let uri = |text: &str| given_address("the address to type the code at", text);
        let complete = answer.verification_uri_complete.as_deref().map(uri).transpose()?;
        Ok(Self {
            user_code: answer.user_code,
            verification_uri: uri(&answer.verification_uri)?.to_string(),
            verification_uri_complete: complete.map(|url| url.to_string()),
            lifetime,
            expires_at: begun + lifetime,
            interval: answer.interval.and_then(positive).unwrap_or(USUAL_INTERVAL),
            device_code: answer.device_code,
            client_id: client_id.to_owned(),
            token,
        })
    }

    /// What the person types.
    pub fn user_code(&self) -> &str {
        &self.user_code
    }

    /// Where the person types it.
    pub fn verification_uri(&self) -> &str {
        &self.verification_uri
    }

    /// The same with the code in it, where the provider offers that.
    pub fn verification_uri_complete(&self) -> Option<&str> {
        self.verification_uri_complete.as_deref()
    }

    /// How long the code lives from when it was made.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// Waits until the person has decided, asking as often as the provider allows.
    ///
    /// # Errors
    ///
    /// [`Denied`](ErrorKind::Denied), [`Expired`](ErrorKind::Expired),
    /// [`InvalidGrant`](ErrorKind::InvalidGrant),
    /// [`ClientRefused`](ErrorKind::ClientRefused). A connection that breaks ends the sign-in:
    /// the code may be spent.
    pub async fn wait(mut self) -> Result<Tokens> {
        loop {
            let now = Instant::now();
            if now >= self.expires_at {
                return Err(Error::new(ErrorKind::Expired, "the code expired before it was used"));
            }
            sleep_until((now + self.interval).min(self.expires_at)).await;
            let form = [
                ("grant_type", GRANT),
                ("device_code", self.device_code.expose()),
                ("client_id", &self.client_id),
            ];
            match tokens::request(&self.token, &form).await? {
                Answer::Given(tokens) => return Ok(tokens),
                Answer::Refused(refusal) => match refusal.error.as_str() {
                    "authorization_pending" => {}
                    "slow_down" => self.interval += SLOWER,
                    _ => return Err(refusal.into_error()),
                },
            }
        }
    }
}

fn positive(seconds: Seconds) -> Option<Duration> {
    let seconds = u64::try_from(seconds.0).ok().filter(|seconds| *seconds > 0)?;
    Some(Duration::from_secs(seconds).min(LONGEST))
}

impl fmt::Debug for DeviceSignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceSignIn")
            .field("verification_uri", &self.verification_uri)
            .field("lifetime", &self.lifetime)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}
