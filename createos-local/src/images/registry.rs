//! Requests to a registry of container images, as the OCI distribution specification has them.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use createos_sdk::Secret;
use http_auth::ChallengeRef;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue, RANGE, WWW_AUTHENTICATE};
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use url::Url;

use super::ImageError;
use super::account::Account;
use super::oci::{Descriptor, LARGEST_JSON, not_what_it_says, verify};
use super::reference::Reference;
use super::stream::hex;
use crate::retry::again;
use crate::web::{self, BodyError, is_loopback};

const CONNECT: Duration = Duration::from_secs(10);
/// Pauses before what failed in passing is tried again.
const AGAIN: [Duration; 2] = [Duration::from_millis(300), Duration::from_secs(2)];
/// How often a blob may break off, as long as each time something came.
const MOST_BREAKS: usize = 20;
const MOST_REDIRECTS: usize = 5;
/// Longest answers that are no content.
const LONGEST_ANSWER: usize = 1 << 20;
const LONGEST_MESSAGE: usize = 200;

const MANIFESTS: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json";

/// A repository of a registry.
pub(super) struct Registry {
    http: Client,
    base: Url,
    reference: Reference,
    account: Option<Account>,
    /// What the registry has asked for.
    authorization: Mutex<Option<HeaderValue>>,
    quiet: Duration,
}

/// A failure, and whether another try may go better.
struct Failed {
    error: ImageError,
    may_pass: bool,
}

impl From<ImageError> for Failed {
    fn from(error: ImageError) -> Self {
        Self { error, may_pass: false }
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<Secret>,
    access_token: Option<Secret>,
}

#[derive(Default, Deserialize)]
struct Errors {
    #[serde(default)]
    errors: Vec<Said>,
}

#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    message: String,
}

impl Registry {
    pub(super) fn new(
        reference: Reference,
        account: Option<Account>,
        quiet: Duration,
    ) -> Result<Self, ImageError> {
        let base = reference.base().ok_or_else(|| ImageError::Reference {
            reference: reference.to_string(),
            why: "its registry is no host".to_owned(),
        })?;
        let local = is_loopback(&base);
        let redirects = reqwest::redirect::Policy::custom(move |attempt| {
            let is_safe = attempt.url().scheme() == "https" || local && is_loopback(attempt.url());
            match attempt.previous().len() {
                _ if !is_safe => attempt.error("it leads to an unencrypted place"),
                MOST_REDIRECTS.. => attempt.error("it leads from place to place"),
                _ => attempt.follow(),
            }
        });
        let mut builder = Client::builder()
            .connect_timeout(CONNECT)
            .redirect(redirects)
            .user_agent(concat!("createos-local/", env!("CARGO_PKG_VERSION")));
        if local {
            builder = builder.no_proxy();
        }
        let registry = reference.registry().to_owned();
        let http = builder
            .build()
            .map_err(|error| ImageError::Registry { registry, why: web::cause(error) })?;
        let authorization = Mutex::new(None);
        Ok(Self { http, base, reference, account, authorization, quiet })
    }

    /// A manifest or an index, by its digest or the reference's own name.
    pub(super) async fn manifest(&self, digest: Option<&str>) -> Result<Vec<u8>, ImageError> {
        let name = digest.unwrap_or(self.reference.wanted());
        let text = self.small(&format!("manifests/{name}"), MANIFESTS).await?;
        if let Some(digest) = digest.or(self.reference.digest()) {
            verify(digest, &text)?;
        }
        Ok(text)
    }

    /// A configuration.
    pub(super) async fn config(&self, digest: &str) -> Result<Vec<u8>, ImageError> {
        let text = self.small(&format!("blobs/{digest}"), "*/*").await?;
        verify(digest, &text).map(|()| text)
    }

    async fn small(&self, path: &str, accept: &str) -> Result<Vec<u8>, ImageError> {
        let most = usize::try_from(LARGEST_JSON).unwrap_or(usize::MAX);
        let attempt = || async {
            let response = self.get(path, accept, 0).await?;
            let body = web::body(response, most, self.quiet).await;
            body.map(Vec::from).map_err(|error| self.lost(error))
        };
        again(AGAIN, |failed: &Failed| failed.may_pass, attempt).await.map_err(|it| it.error)
    }

    /// Fetches a blob into a file; what breaks off is gone on with from there.
    pub(super) async fn blob(
        &self,
        blob: &Descriptor,
        to: &Path,
        mut arrived: impl FnMut(u64),
    ) -> Result<(), ImageError> {
        let io = || ImageError::io("cannot keep a layer");
        let mut part =
            Part { file: File::create(to).map_err(io())?, hash: Sha256::new(), length: 0 };
        let mut pauses = AGAIN.into_iter();
        for _ in 0..MOST_BREAKS {
            let before = part.length;
            let failed = match self.go_on(blob, &mut part, &mut arrived).await {
                Ok(()) => {
                    let found = format!("sha256:{}", hex(&part.hash.finalize()));
                    if found != blob.digest {
                        return Err(not_what_it_says(&blob.digest, &found));
                    }
                    return part.file.flush().map_err(io());
                }
                Err(failed) => failed,
            };
            if part.length > before {
                pauses = AGAIN.into_iter();
            }
            match pauses.next() {
                Some(pause) if failed.may_pass => tokio::time::sleep(pause).await,
                _ => return Err(failed.error),
            }
        }
        Err(self.trouble("the connection breaks off again and again"))
    }

    async fn go_on(
        &self,
        blob: &Descriptor,
        part: &mut Part,
        arrived: &mut impl FnMut(u64),
    ) -> Result<(), Failed> {
        let mut response = self.get(&format!("blobs/{}", blob.digest), "*/*", part.length).await?;
        let mut skip = match response.status() {
            StatusCode::PARTIAL_CONTENT => 0,
            // It begins anew, which it may.
            _ => part.length,
        };
        loop {
            let piece = web::piece(&mut response, self.quiet).await;
            let Some(mut piece) = piece.map_err(|error| self.lost(error))? else { break };
            let known = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            skip -= known as u64;
            piece = piece.split_off(known);
            if piece.len() as u64 > blob.size - part.length {
                let text = format!("{} is longer than its manifest says", blob.digest);
                return Err(ImageError::Damaged(text).into());
            }
            part.take(&piece).map_err(ImageError::io("cannot keep a layer"))?;
            arrived(piece.len() as u64);
        }
        match part.length == blob.size {
            true => Ok(()),
            false => Err(Failed { error: self.trouble("a layer was cut short"), may_pass: true }),
        }
    }

    async fn get(&self, path: &str, accept: &str, from: u64) -> Result<Response, Failed> {
        let url = self.url(path)?;
        let request = || {
            let request = self.http.get(url.clone()).header(ACCEPT, accept);
            if from > 0 { request.header(RANGE, format!("bytes={from}-")) } else { request }
        };
        let mut authorization = self.authorization.lock().await.clone();
        for is_second in [false, true] {
            let mut asked = request();
            if let Some(authorization) = &authorization {
                asked = asked.header(AUTHORIZATION, authorization);
            }
            let response = self.send(asked).await?;
            if response.status() != StatusCode::UNAUTHORIZED || is_second {
                return self.judge(response).await;
            }
            let mut kept = self.authorization.lock().await;
            // Another request may have been faster.
            if *kept == authorization {
                *kept = Some(self.authorize(&response).await?);
            }
            authorization.clone_from(&kept);
        }
        Err(self.denied(None).into())
    }

    fn url(&self, path: &str) -> Result<Url, ImageError> {
        let path = format!("{}/{path}", self.reference.repository());
        self.base.join(&path).map_err(|_| self.trouble("it has no address"))
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, Failed> {
        let passing = |why: String| Failed { error: self.trouble(why), may_pass: true };
        match tokio::time::timeout(self.quiet, request.send()).await {
            Err(_) => Err(passing(format!("it did not answer within {} s", self.quiet.as_secs()))),
            Ok(Err(error)) if error.is_redirect() => Err(self.trouble(web::cause(error)).into()),
            Ok(response) => response
                .map_err(|error| passing(format!("it cannot be reached: {}", web::cause(error)))),
        }
    }

    async fn judge(&self, response: Response) -> Result<Response, Failed> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let said = self.said(response).await;
        Err(match status.as_u16() {
            401 | 403 => self.denied(said).into(),
            404 => ImageError::Missing(self.reference.to_string()).into(),
            429 => {
                let why =
                    "too much was pulled from it for now; wait, or sign in with `docker login`";
                Failed { error: self.trouble(why), may_pass: true }
            }
            code => {
                let said = said.map(|said| format!(": {said}")).unwrap_or_default();
                let may_pass = status.is_server_error() || code == 408;
                Failed { error: self.trouble(format!("it answered {code}{said}")), may_pass }
            }
        })
    }

    /// What the registry says in words; they are its own, so they are cut and cleaned.
    async fn said(&self, response: Response) -> Option<String> {
        let body = web::body(response, LONGEST_ANSWER, self.quiet).await.ok()?;
        let errors: Errors = serde_json::from_slice(&body).unwrap_or_default();
        let message = errors.errors.into_iter().map(|it| it.message).find(|it| !it.is_empty())?;
        let printable = message.chars().filter(|c| !c.is_control());
        Some(printable.take(LONGEST_MESSAGE).collect())
    }

    /// Gets what the registry asks for in this refusal.
    async fn authorize(&self, refusal: &Response) -> Result<HeaderValue, Failed> {
        let mut asked = Vec::new();
        for header in refusal.headers().get_all(WWW_AUTHENTICATE) {
            let header = header.to_str().unwrap_or_default();
            asked.extend(http_auth::parse_challenges(header).unwrap_or_default());
        }
        let scheme = |name: &str| asked.iter().find(|it| it.scheme.eq_ignore_ascii_case(name));
        if let Some(challenge) = scheme("bearer") {
            let token = self.token(challenge).await?;
            return Ok(self.secret_header(&format!("Bearer {}", token.expose()))?);
        }
        match (&self.account, scheme("basic")) {
            (Some(Account::Password { user, password }), Some(_)) => {
                use base64::Engine as _;
                let text = format!("{user}:{}", password.expose());
                let text = base64::engine::general_purpose::STANDARD.encode(text);
                Ok(self.secret_header(&format!("Basic {text}"))?)
            }
            _ => Err(self.denied(None).into()),
        }
    }

    fn secret_header(&self, text: &str) -> Result<HeaderValue, ImageError> {
        let mut value = HeaderValue::from_str(text)
            .map_err(|_| self.trouble("the token or account for it has impossible characters"))?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn token(&self, challenge: &ChallengeRef<'_>) -> Result<Secret, Failed> {
        let param = |name: &str| {
            let mut params = challenge.params.iter();
            let found = params.find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        let realm = param("realm").and_then(|realm| Url::parse(&realm).ok());
        let local = is_loopback(&self.base);
        let realm = realm.filter(|realm| {
            realm.scheme() == "https" || local && realm.scheme() == "http" && is_loopback(realm)
        });
        let realm = realm.ok_or_else(|| {
            self.trouble("it sends to an unencrypted place, or none, for a token")
        })?;
        let scope = format!("repository:{}:pull", self.reference.repository());
        let scope = param("scope").unwrap_or(scope);
        let mut fields = vec![("scope", scope)];
        fields.extend(param("service").map(|service| ("service", service)));
        let request = match &self.account {
            Some(Account::Identity(token)) => {
                fields.push(("grant_type", "refresh_token".to_owned()));
                fields.push(("client_id", "createos".to_owned()));
                fields.push(("refresh_token", token.expose().to_owned()));
                self.http.post(realm).form(&fields)
            }
            Some(Account::Password { user, password }) => {
                self.http.get(realm).query(&fields).basic_auth(user, Some(password.expose()))
            }
            None => self.http.get(realm).query(&fields),
        };
        let response = self.judge(self.send(request).await?).await?;
        let body = web::body(response, LONGEST_ANSWER, self.quiet).await;
        let body = body.map_err(|error| self.lost(error))?;
        let token: Option<Token> = serde_json::from_slice(&body).ok();
        let token = token.and_then(|it| it.token.or(it.access_token));
        Ok(token.ok_or_else(|| self.trouble("it answered without a token"))?)
    }

    fn denied(&self, said: Option<String>) -> ImageError {
        ImageError::Denied {
            reference: self.reference.to_string(),
            registry: self.reference.registry().to_owned(),
            said: said.unwrap_or_else(|| "an account is needed".to_owned()),
        }
    }

    fn trouble(&self, why: impl Into<String>) -> ImageError {
        ImageError::Registry { registry: self.reference.registry().to_owned(), why: why.into() }
    }

    fn lost(&self, error: BodyError) -> Failed {
        match error {
            BodyError::Stalled(seconds) => {
                let why = format!("nothing came for {seconds} s");
                Failed { error: self.trouble(why), may_pass: true }
            }
            BodyError::Lost(why) => {
                let why = format!("the connection broke: {why}");
                Failed { error: self.trouble(why), may_pass: true }
            }
            BodyError::TooLong(most) => {
                let text = format!("an answer has more than {most} bytes");
                ImageError::Damaged(text).into()
            }
        }
    }
}

/// What has come of a blob.
struct Part {
    file: File,
    hash: Sha256,
    length: u64,
}

impl Part {
    fn take(&mut self, piece: &[u8]) -> std::io::Result<()> {
        self.file.write_all(piece)?;
        self.hash.update(piece);
        self.length += piece.len() as u64;
        Ok(())
    }
}
