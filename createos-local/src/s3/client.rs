//! The requests: signed, bounded in time, repeated where that is harmless.

use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use createos_sdk::wire::{DiskConfig, DiskCredentials};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, Response, StatusCode};
use rusty_s3::signing;
use rusty_s3::{Bucket, UrlStyle};
use tokio::time::timeout;

use super::S3Error;
use super::answer::{self, Listing, Object};
use super::transfer::{Progress, Upload};
use crate::retry::again;
use crate::web::{self, is_loopback};

/// How long a server may take to be connected to, and to answer or take more once it is.
const CONNECT: Duration = Duration::from_secs(3);
const QUIET: Duration = Duration::from_secs(8);
/// An end of an upload in parts, or a copy, may take a server long; it says nothing meanwhile.
const LONG: Duration = Duration::from_secs(120);
/// How long a bucket may take to show that it is there (api.md 5.7).
const PROBE: Duration = Duration::from_secs(3);
/// How long a signature is good.
const SIGNED: u64 = 600;
/// Pauses before the second and the third try.
const AGAIN: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(400)];
/// Longest answers.
const MAX_LISTING: usize = 8 << 20;
const MAX_ANSWER: usize = 64 << 10;
/// The largest object that one copy can make; above it, it is copied in parts.
const COPY: u64 = 5 << 30;
const COPY_PART: u64 = 1 << 30;

/// What need not be encoded in the name of a copy's source.
const PLAIN: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// A bucket and the keys to it.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    pub(crate) config: DiskConfig,
    pub(crate) keys: DiskCredentials,
}

/// A client of one bucket.
pub(crate) struct Client {
    http: reqwest::Client,
    bucket: Bucket,
    keys: RwLock<DiskCredentials>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("bucket", &self.bucket.base_url().as_str()).finish()
    }
}

/// A request before it is signed.
struct Ask<'a> {
    method: Method,
    key: &'a str,
    /// Sorted by name.
    query: Vec<(&'static str, String)>,
    /// Signed ones, sorted by name.
    headers: Vec<(&'static str, String)>,
    range: Option<(u64, u64)>,
    if_match: Option<&'a str>,
    body: Option<Bytes>,
    quiet: Duration,
}

impl<'a> Ask<'a> {
    fn new(method: Method, key: &'a str) -> Self {
        Self {
            method,
            key,
            query: Vec::new(),
            headers: Vec::new(),
            range: None,
            if_match: None,
            body: None,
            quiet: QUIET,
        }
    }

    fn query(mut self, name: &'static str, value: impl ToString) -> Self {
        self.query.push((name, value.to_string()));
        self
    }

    fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }

    fn body(mut self, body: Bytes) -> Self {
        self.body = Some(body);
        self
    }
}

impl Client {
    /// A client for this bucket; an error says what is wrong with its address. Nothing is sent.
    pub(crate) fn new(access: &Access) -> Result<Self, String> {
        let config = &access.config;
        let endpoint =
            url::Url::parse(&config.endpoint).map_err(|_| "the endpoint is no address")?;
        let plain = endpoint.scheme() == "http";
        // A bucket's name cannot stand in front of a numeric address.
        let numeric = !matches!(endpoint.host(), Some(url::Host::Domain(_)));
        let by_path = config.use_path_style || numeric;
        let style = if by_path { UrlStyle::Path } else { UrlStyle::VirtualHost };
        let region = config.region.clone().filter(|region| !region.is_empty());
        let region = region.unwrap_or_else(|| "us-east-1".to_owned());
        let bucket =
            Bucket::new(endpoint, style, config.bucket.clone(), region).map_err(|error| {
                format!("the bucket has no address there: {error}; try with use_path_style")
            })?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .pool_idle_timeout(Duration::from_secs(20))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("createos-local/", env!("CARGO_PKG_VERSION")))
            // Reading the system's certificates takes time, and none is needed without TLS.
            .tls_built_in_root_certs(!plain);
        if is_loopback(bucket.base_url()) {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| error.to_string())?;
        Ok(Self { http, bucket, keys: RwLock::new(access.keys.clone()) })
    }

    /// Uses these keys from now on.
    pub(crate) fn set_keys(&self, keys: DiskCredentials) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Whether the bucket is there and the keys open it, within three seconds.
    pub(crate) async fn probe(&self) -> Result<(), S3Error> {
        let probe = async {
            match self.once(&Ask::new(Method::HEAD, "")).await {
                Ok(_) => Ok(()),
                // Answers to HEAD have no body; this one says why.
                Err(S3Error::Refused { .. }) => self.list_once("", true, 1, None).await.map(drop),
                Err(error) => Err(error),
            }
        };
        timeout(PROBE, probe).await.unwrap_or(Err(S3Error::Stalled(PROBE.as_secs())))
    }

    /// Whether the part of the bucket that begins with `prefix` can be listed, in that time.
    pub(crate) async fn check(&self, prefix: &str) -> Result<(), S3Error> {
        let check = self.list_once(prefix, true, 1, None);
        timeout(PROBE, check).await.unwrap_or(Err(S3Error::Stalled(PROBE.as_secs()))).map(drop)
    }

    /// The object with this key, if there is one.
    pub(crate) async fn head(&self, key: &str) -> Result<Option<Object>, S3Error> {
        match self.ask(&Ask::new(Method::HEAD, key)).await {
            Ok(response) => answer::object(response.headers()).map(Some),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// A page of the keys that begin with `prefix`; with `flat` up to the next slash only.
    pub(crate) async fn list(
        &self,
        prefix: &str,
        flat: bool,
        most: u16,
        from: Option<&str>,
    ) -> Result<Listing, S3Error> {
        again(AGAIN, S3Error::is_passing, || self.list_once(prefix, flat, most, from)).await
    }

    async fn list_once(
        &self,
        prefix: &str,
        flat: bool,
        most: u16,
        from: Option<&str>,
    ) -> Result<Listing, S3Error> {
        let mut ask = Ask::new(Method::GET, "");
        if let Some(from) = from {
            ask = ask.query("continuation-token", from);
        }
        if flat {
            ask = ask.query("delimiter", "/");
        }
        let ask = ask.query("encoding-type", "url").query("list-type", 2).query("max-keys", most);
        let response = self.once(&ask.query("prefix", prefix)).await?;
        answer::listing(&web::body(response, MAX_LISTING, QUIET).await?, prefix)
    }

    /// Exactly `length` bytes of an object from `offset` on, if it is still the one with this tag.
    pub(crate) async fn get(
        &self,
        key: &str,
        offset: u64,
        length: u64,
        etag: &str,
    ) -> Result<Bytes, S3Error> {
        if length == 0 {
            return Ok(Bytes::new());
        }
        let mut ask = Ask::new(Method::GET, key);
        ask.range = Some((offset, length));
        ask.if_match = Some(etag).filter(|etag| !etag.is_empty());
        let most = usize::try_from(length).unwrap_or(usize::MAX);
        again(AGAIN, S3Error::is_passing, || async {
            let response = self.once(&ask).await?;
            if response.status() != StatusCode::PARTIAL_CONTENT && offset > 0 {
                return Err(S3Error::Garbage("it ignores ranges".to_owned()));
            }
            let body = web::body(response, most, QUIET).await?;
            match body.len() as u64 == length {
                true => Ok(body),
                false => Err(S3Error::Unreachable("an object ended early".to_owned())),
            }
        })
        .await
    }

    /// Makes an object of these bytes; returns its tag.
    pub(crate) async fn put(&self, key: &str, body: Bytes) -> Result<String, S3Error> {
        let response = self.ask(&Ask::new(Method::PUT, key).body(body)).await?;
        Ok(etag(&response))
    }

    pub(crate) async fn delete(&self, key: &str) -> Result<(), S3Error> {
        match self.ask(&Ask::new(Method::DELETE, key)).await {
            Err(error) if !error.is_missing() => Err(error),
            _ => Ok(()),
        }
    }

    /// Begins an upload in parts and returns its id.
    pub(crate) async fn begin(&self, key: &str) -> Result<String, S3Error> {
        let ask = Ask::new(Method::POST, key).query("uploads", "").body(Bytes::new());
        let body = web::body(self.ask(&ask).await?, MAX_ANSWER, QUIET).await?;
        answer::upload_id(&body)
    }

    /// Uploads a part, counted from 1; returns its tag.
    pub(crate) async fn part(
        &self,
        key: &str,
        upload: &str,
        number: u32,
        body: Bytes,
    ) -> Result<String, S3Error> {
        let ask = Ask::new(Method::PUT, key).query("partNumber", number).query("uploadId", upload);
        let response = self.ask(&ask.body(body)).await?;
        Ok(etag(&response))
    }

    /// Makes an object of the parts; returns its tag.
    pub(crate) async fn complete(
        &self,
        key: &str,
        upload: &str,
        parts: &[String],
    ) -> Result<String, S3Error> {
        let list: String = (1..)
            .zip(parts)
            .map(|(number, etag)| {
                let etag = quick_xml::escape::escape(etag.as_str());
                format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
            })
            .collect();
        let body = format!("<CompleteMultipartUpload>{list}</CompleteMultipartUpload>");
        let mut ask = Ask::new(Method::POST, key).query("uploadId", upload).body(body.into());
        ask.quiet = LONG;
        let body = web::body(self.ask(&ask).await?, MAX_ANSWER, LONG).await?;
        answer::done(&body)
    }

    /// Gives an upload in parts up.
    pub(crate) async fn abort(&self, key: &str, upload: &str) -> Result<(), S3Error> {
        self.ask(&Ask::new(Method::DELETE, key).query("uploadId", upload)).await.map(drop)
    }

    /// Copies an object of this size within the bucket.
    pub(crate) async fn copy(&self, from: &str, to: &str, size: u64) -> Result<(), S3Error> {
        let source = format!("/{}/{}", self.bucket.name(), utf8_percent_encode(from, PLAIN));
        if size > COPY {
            return self.copy_in_parts(&source, to, size).await;
        }
        let mut ask = Ask::new(Method::PUT, to).header("x-amz-copy-source", source);
        ask.body = Some(Bytes::new());
        ask.quiet = LONG;
        let body = web::body(self.ask(&ask).await?, MAX_ANSWER, LONG).await?;
        answer::done(&body).map(drop)
    }

    async fn copy_in_parts(&self, source: &str, to: &str, size: u64) -> Result<(), S3Error> {
        let upload = self.begin(to).await?;
        let copied = async {
            let mut parts = Vec::new();
            let starts = (0..size).step_by(usize::try_from(COPY_PART).unwrap_or(usize::MAX));
            for (number, start) in (1..).zip(starts) {
                let end = (start + COPY_PART).min(size) - 1;
                let mut ask = Ask::new(Method::PUT, to)
                    .query("partNumber", number)
                    .query("uploadId", &upload)
                    .header("x-amz-copy-source", source.to_owned())
                    .header("x-amz-copy-source-range", format!("bytes={start}-{end}"));
                ask.body = Some(Bytes::new());
                ask.quiet = LONG;
                let body = web::body(self.ask(&ask).await?, MAX_ANSWER, LONG).await?;
                parts.push(answer::done(&body)?);
            }
            self.complete(to, &upload, &parts).await.map(drop)
        };
        let copied = copied.await;
        if copied.is_err() {
            let _ = self.abort(to, &upload).await;
        }
        copied
    }

    /// Sends a request, up to three times. All of them can be repeated: the same object is
    /// put, or taken away.
    async fn ask(&self, ask: &Ask<'_>) -> Result<Response, S3Error> {
        again(AGAIN, S3Error::is_passing, || self.once(ask)).await
    }

    async fn once(&self, ask: &Ask<'_>) -> Result<Response, S3Error> {
        let progress = Progress::start();
        let mut request = self.http.request(ask.method.clone(), self.sign(ask));
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        if let Some((offset, length)) = ask.range {
            request = request.header("range", format!("bytes={offset}-{}", offset + length - 1));
        }
        if let Some(etag) = ask.if_match {
            request = request.header("if-match", etag);
        }
        if let Some(body) = &ask.body {
            request = request.header("content-length", body.len());
            let upload = Upload::new(body.clone(), progress.clone());
            request = request.body(reqwest::Body::wrap(upload));
        }
        let response = progress.watch(ask.quiet, request.send()).await?;
        let response = response.map_err(|error| S3Error::Unreachable(web::cause(error)))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let (status, headers) = (response.status(), response.headers().clone());
        let body = web::body(response, MAX_ANSWER, QUIET).await.unwrap_or_default();
        Err(answer::refused(status, &headers, &body))
    }

    fn sign(&self, ask: &Ask<'_>) -> url::Url {
        let method = match ask.method {
            Method::HEAD => rusty_s3::Method::Head,
            Method::PUT => rusty_s3::Method::Put,
            Method::POST => rusty_s3::Method::Post,
            Method::DELETE => rusty_s3::Method::Delete,
            _ => rusty_s3::Method::Get,
        };
        let url = match ask.key {
            "" => self.bucket.base_url().clone(),
            key => self.bucket.object_url(key),
        };
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        signing::sign(
            &jiff::Timestamp::now(),
            method,
            url,
            keys.access_key.expose(),
            keys.secret_key.expose(),
            None,
            self.bucket.region(),
            SIGNED,
            ask.query.iter().map(|(name, value)| (*name, value.as_str())),
            ask.headers.iter().map(|(name, value)| (*name, value.as_str())),
        )
    }
}

fn etag(response: &Response) -> String {
    let etag = response.headers().get("etag").and_then(|etag| etag.to_str().ok());
    etag.unwrap_or_default().to_owned()
}
