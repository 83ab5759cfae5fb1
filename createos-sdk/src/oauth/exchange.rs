//! Requests to a provider: its addresses checked, no redirects, answers of bounded size.

use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use url::Url;

use super::error::{Error, ErrorKind, Result};
use crate::config::is_loopback;
use crate::http::{Settings, USER_AGENT};
use crate::transport::send::root_cause;

/// Largest answer that is read.
const LIMIT: usize = 1 << 20;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time of one request with its answer.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Letters of a provider's own words that are passed on.
const WORDS: usize = 300;

/// An address of the provider: HTTPS, or this machine.
pub(super) fn address(what: &str, text: &str) -> Result<Url> {
    let refuse = |why: &str| Err(Error::new(ErrorKind::Config, format!("{what} {why}")));
    let Ok(url) = Url::parse(text.trim()) else {
        return refuse("is not a URL such as https://id.example.org");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("must not hold a user name or password");
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_loopback(&url) => Ok(url),
        _ => refuse("must begin with https://"),
    }
}

/// An address that the provider gave, which makes a wrong one its fault.
pub(super) fn given_address(what: &str, text: &str) -> Result<Url> {
    address(what, text).map_err(|error| Error::protocol(error.to_string()))
}

/// A lifetime or interval in seconds. Some providers write it as text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seconds(pub(super) i64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Whole(i64),
            Part(f64),
            Text(String),
        }
        let seconds = match Form::deserialize(deserializer)? {
            Form::Whole(seconds) => Some(seconds),
            // A lifetime beyond all bounds stays one: the cast saturates.
            Form::Part(seconds) => Some(seconds as i64),
            Form::Text(text) => text.trim().parse().ok(),
        };
        seconds.map(Self).ok_or_else(|| serde::de::Error::custom("not a number of seconds"))
    }
}

/// The code in an error answer (RFC 6749 5.2).
#[derive(Deserialize)]
pub(super) struct Refusal {
    pub(super) error: String,
    #[serde(default)]
    error_description: Option<String>,
}

impl Refusal {
    pub(super) fn new(error: String, error_description: Option<String>) -> Self {
        Self { error, error_description }
    }

    /// What a refusal means, whatever was asked for.
    pub(super) fn into_error(self) -> Error {
        use ErrorKind::*;
        let (kind, what) = match self.error.as_str() {
            "access_denied" => (Denied, "the sign-in was denied"),
            "expired_token" => (Expired, "the code has expired"),
            "invalid_grant" => (InvalidGrant, "the code or token is no longer valid"),
            "invalid_client" => (ClientRefused, "the identity server does not know this client"),
            "unauthorized_client" => {
                (ClientRefused, "the identity server does not let this client sign in like this")
            }
            _ => (Refused, "the identity server refused"),
        };
        let mut message = format!("{what} ({})", excerpt(&self.error));
        if let Some(words) = self.error_description.filter(|words| !words.trim().is_empty()) {
            message = format!("{message}: {}", excerpt(words.trim()));
        }
        Error::new(kind, message)
    }
}

fn excerpt(words: &str) -> String {
    words.chars().filter(|c| !c.is_control()).take(WORDS).collect()
}

/// An answer: what was asked for, or why not.
pub(super) enum Answer<T> {
    Given(T),
    Refused(Refusal),
}

impl<T> Answer<T> {
    pub(super) fn given(self) -> Result<T> {
        match self {
            Self::Given(value) => Ok(value),
            Self::Refused(refusal) => Err(refusal.into_error()),
        }
    }
}

/// One address of the provider and the connections to it.
#[derive(Clone)]
pub(super) struct Endpoint {
    url: Url,
    http: reqwest::Client,
}

impl Endpoint {
    pub(super) fn new(url: Url) -> Result<Self> {
        let settings = Settings {
            base: url.clone(),
            connect_timeout: CONNECT_TIMEOUT,
            proxy: None,
            ca_certificates: Vec::new(),
        };
        let http =
            settings.build(reqwest::Client::builder().timeout(TIMEOUT)).map_err(|error| {
                Error::new(ErrorKind::Local, error.message().to_owned()).with_source(error)
            })?;
        Ok(Self { url, http })
    }

    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) async fn get<T: DeserializeOwned>(&self) -> Result<T> {
        self.send(self.http.get(self.url.clone())).await?.given()
    }

    /// Posts a form; a refusal in the protocol's own form is an answer.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        form: &[(&str, &str)],
    ) -> Result<Answer<T>> {
        self.send(self.http.post(self.url.clone()).form(form)).await
    }

    async fn send<T: DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<Answer<T>> {
        let request = request
            .header(reqwest::header::USER_AGENT, USER_AGENT)
            .header(reqwest::header::ACCEPT, "application/json");
        let mut response = request.send().await.map_err(|error| self.broken(error))?;
        let status = response.status();
        if status.is_redirection() {
            return Err(Error::protocol(format!(
                "{} redirects elsewhere, which is not followed",
                self.name()
            )));
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.broken(error))? {
            if body.len() + chunk.len() > LIMIT {
                return Err(Error::protocol(format!("{} answers more than 1 MiB", self.name())));
            }
            body.extend_from_slice(&chunk);
        }
        if status.is_success() {
            // What is wrong with it is not passed on: it can quote a token.
            return serde_json::from_slice(&body).map(Answer::Given).map_err(|_| {
                Error::protocol(format!("{} answers what cannot be understood", self.name()))
            });
        }
        match serde_json::from_slice(&body) {
            Ok(refusal) if status.is_client_error() => Ok(Answer::Refused(refusal)),
            _ => Err(Error::protocol(format!("{} answers with status {status}", self.name()))),
        }
    }

    /// Its address as it may be shown: without a query.
    fn name(&self) -> String {
        let mut url = self.url.clone();
        url.set_query(None);
        url.to_string()
    }

    fn broken(&self, error: reqwest::Error) -> Error {
        let what = match () {
            () if error.is_connect() => "cannot reach",
            () if error.is_timeout() => "no answer in time from",
            () => "the connection broke to",
        };
        let cause = root_cause(&error);
        Error::new(ErrorKind::Connection, format!("{what} {}: {cause}", self.name()))
            .with_source(error.without_url())
    }
}
