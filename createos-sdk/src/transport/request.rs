//! A call as data, and the factory that makes a fresh request of it for every attempt.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue, USER_AGENT};
use serde::Serialize;
use url::Url;

use super::outgoing::{Outgoing, SendClock};
use super::upgrade::Upgrade;
use crate::client::Inner;
use crate::config::KEY_VARIABLES;
use crate::error::{CallFacts, Error, ErrorKind, Result};
use crate::files::{ProgressFn, Upload};
use crate::http;
use crate::options::RequestOptions;
use crate::signer::Signature;

/// What happens on the server when the call is made once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing: it only reads.
    Reads,
    /// The same as the first time.
    Idempotent,
    /// Something new.
    Acts,
}

/// What is sent.
#[derive(Clone)]
pub(crate) enum Body {
    Empty,
    Json(Bytes),
    Upload(Arc<Upload>, Option<ProgressFn>),
}

/// Which clock limits an attempt when the caller sets no limit.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// The client's timeout, or this one where it is longer.
    AtLeast(Duration),
    /// None: the work itself may take any time.
    Unlimited,
    /// Only silence counts: transfers take as long as they take.
    Stall,
}

/// Largest JSON answer. Only the output of a buffered command comes near.
const WHOLE_LIMIT: u64 = 256 << 20;

/// Everything needed to make a request, again and again.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) operation: &'static str,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) resource: Option<String>,
    pub(crate) body: Body,
    pub(crate) effect: Effect,
    pub(crate) authenticated: bool,
    pub(crate) accept: &'static str,
    /// A status besides 2xx that is an answer and not an error.
    pub(crate) also_accept: Option<u16>,
    /// Largest answer read into memory, in bytes.
    pub(crate) limit: u64,
    pub(crate) pace: Pace,
    /// The protocol to go on with instead of HTTP.
    pub(crate) upgrade: Option<Upgrade>,
    pub(crate) options: RequestOptions,
}

impl Call {
    /// A call to the path made of `segments`, each encoded as one segment.
    pub(crate) fn new(
        base: &Url,
        operation: &'static str,
        method: Method,
        segments: &[&str],
    ) -> Self {
        let mut url = base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.extend(segments);
        }
        let effect = match method {
            Method::GET | Method::HEAD => Effect::Reads,
            Method::PUT | Method::DELETE => Effect::Idempotent,
            _ => Effect::Acts,
        };
        Self {
            operation,
            method,
            url,
            resource: None,
            body: Body::Empty,
            effect,
            authenticated: true,
            accept: "application/json",
            also_accept: None,
            limit: WHOLE_LIMIT,
            pace: Pace::AtLeast(Duration::ZERO),
            upgrade: None,
            options: RequestOptions::new(),
        }
    }

    pub(crate) fn resource(mut self, id: &impl ToString) -> Self {
        self.resource = Some(id.to_string());
        self
    }

    pub(crate) fn query(mut self, name: &str, value: &str) -> Self {
        self.url.query_pairs_mut().append_pair(name, value);
        self
    }

    pub(crate) fn json(mut self, body: &impl Serialize) -> Result<Self> {
        self.set_json(body)?;
        Ok(self)
    }

    pub(crate) fn set_json(&mut self, body: &impl Serialize) -> Result<()> {
        let bytes = serde_json::to_vec(body).map_err(|error| {
            Error::invalid_argument("body", "cannot be written as JSON").with_source(error)
        })?;
        self.body = Body::Json(bytes.into());
        Ok(())
    }

    pub(crate) fn facts(&self) -> CallFacts {
        CallFacts {
            operation: self.operation,
            method: Some(match self.method {
                Method::GET => "GET",
                Method::PUT => "PUT",
                Method::POST => "POST",
                Method::PATCH => "PATCH",
                Method::DELETE => "DELETE",
                _ => "HEAD",
            }),
            path: Some(self.url.path().to_owned()),
            resource: self.resource.clone(),
            repeatable: self.effect != Effect::Acts,
            attempts: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// Whether a second request with the same body can be made.
    pub(crate) fn is_replayable(&self) -> bool {
        match &self.body {
            Body::Empty | Body::Json(_) => true,
            Body::Upload(upload, _) => upload.is_replayable(),
        }
    }

    /// Everything that can be refused without traffic.
    pub(crate) fn check(&self, client: &Inner) -> Result<()> {
        self.options.check()?;
        if self.authenticated && client.signer.is_none() {
            let [first, second] = KEY_VARIABLES;
            return Err(Error::new(
                ErrorKind::NotAuthenticated,
                format!(
                    "no API key; set {first} (or {second}), or give one to the client's builder"
                ),
            ));
        }
        Ok(())
    }

    /// A fresh request, and the clock of its body when it uploads.
    pub(crate) async fn build(
        &self,
        signature: Option<&Signature>,
    ) -> Result<(reqwest::Request, Option<SendClock>)> {
        let mut request = reqwest::Request::new(self.method.clone(), self.url.clone());
        let headers = request.headers_mut();
        *headers = self.options.header_map()?;
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(http::USER_AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static(self.accept));
        if let Some(Signature { credential, .. }) = signature {
            headers.insert(credential.header, credential.value.clone());
        }
        if let Some(upgrade) = &self.upgrade {
            upgrade.add_headers(headers);
        }
        let mut clock = None;
        match &self.body {
            Body::Empty => {}
            Body::Json(bytes) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                *request.body_mut() = Some(bytes.clone().into());
            }
            Body::Upload(upload, progress) => {
                let outgoing = Outgoing::open(upload, progress.clone()).await?;
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
                if let Some(len) = outgoing.len() {
                    headers.insert("content-length", HeaderValue::from(len));
                }
                clock = Some(outgoing.clock());
                *request.body_mut() = Some(reqwest::Body::wrap_stream(outgoing));
            }
        }
        Ok((request, clock))
    }
}
