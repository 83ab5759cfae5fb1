//! What a sign-in gives, and how it is renewed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::Deserialize;

use super::error::{Error, ErrorKind, Result};
use super::exchange::{Answer, Endpoint, Seconds, address};
use crate::secret::Secret;

/// Lifetime of a token whose provider names none (cli.md 2.1).
const USUAL_LIFETIME: i64 = 3600;

/// An access token, how long it is good, and what renews it.
///
/// The fields are public so that they can be stored and made again.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Tokens {
    /// Signs requests: [`ClientBuilder::access_token`](crate::ClientBuilder::access_token).
    pub access_token: Secret,
    /// Gives the next tokens, usually once. A provider may give none.
    pub refresh_token: Option<Secret>,
    /// When the access token runs out.
    pub expires_at: SystemTime,
    /// Where tokens are renewed.
    pub token_endpoint: String,
}

impl Tokens {
    /// Tokens that were stored.
    pub fn new(
        access_token: impl Into<Secret>,
        refresh_token: Option<Secret>,
        expires_at: SystemTime,
        token_endpoint: impl Into<String>,
    ) -> Self {
        let (access_token, token_endpoint) = (access_token.into(), token_endpoint.into());
        Self { access_token, refresh_token, expires_at, token_endpoint }
    }

    /// Whether the access token runs out within `margin`.
    pub fn expires_within(&self, margin: Duration) -> bool {
        SystemTime::now().checked_add(margin).is_none_or(|then| then >= self.expires_at)
    }

    /// When the access token runs out, in seconds since 1970.
    pub fn expires_at_unix(&self) -> u64 {
        self.expires_at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
    }

    /// Exchanges the refresh token for new tokens. Most providers take it once: what this
    /// gives has to be stored before anything else is done, and two programs that share the
    /// tokens must not do this at the same time.
    ///
    /// Dropping the future leaves open whether the old refresh token still counts.
    ///
    /// # Errors
    ///
    /// [`InvalidGrant`](ErrorKind::InvalidGrant): there is no refresh token or it does not
    /// count any more; the person has to sign in again.
    pub async fn refresh(&self, client_id: &str) -> Result<Tokens> {
        let Some(refresh_token) = &self.refresh_token else {
            let message = "the session has no refresh token";
            return Err(Error::new(ErrorKind::InvalidGrant, message));
        };
        let endpoint = Endpoint::new(address("the token address", &self.token_endpoint)?)?;
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", refresh_token.expose()),
            ("client_id", client_id),
        ];
        let mut renewed = request(&endpoint, &form).await?.given()?;
        // A provider that does not rotate leaves it out.
        renewed.refresh_token = renewed.refresh_token.or_else(|| self.refresh_token.clone());
        Ok(renewed)
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Secret,
    token_type: String,
    #[serde(default)]
    expires_in: Option<Seconds>,
    #[serde(default)]
    refresh_token: Option<Secret>,
}

/// Asks the token endpoint.
pub(super) async fn request(endpoint: &Endpoint, form: &[(&str, &str)]) -> Result<Answer<Tokens>> {
    // Counted from before the request, so that it is never thought to live longer than it does.
    let now = SystemTime::now();
    match endpoint.post::<TokenAnswer>(form).await? {
        Answer::Refused(refusal) => Ok(Answer::Refused(refusal)),
        Answer::Given(answer) => tokens(answer, now, endpoint).map(Answer::Given),
    }
}

fn tokens(answer: TokenAnswer, now: SystemTime, endpoint: &Endpoint) -> Result<Tokens> {
    if !answer.token_type.eq_ignore_ascii_case("bearer") {
        return Err(Error::protocol("the identity server gave a token that is no bearer token"));
    }
    if answer.access_token.expose().trim().is_empty() {
        return Err(Error::protocol("the identity server gave an empty token"));
    }
    let seconds = answer.expires_in.map_or(USUAL_LIFETIME, |seconds| seconds.0);
    let lifetime = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0);
    let expires_at = lifetime.and_then(|seconds| now.checked_add(Duration::from_secs(seconds)));
    let Some(expires_at) = expires_at else {
        return Err(Error::protocol("the identity server gave a token without a lifetime"));
    };
    Ok(Tokens {
        access_token: answer.access_token,
        refresh_token: answer.refresh_token.filter(|token| !token.expose().is_empty()),
        expires_at,
        token_endpoint: endpoint.url().to_string(),
    })
}
