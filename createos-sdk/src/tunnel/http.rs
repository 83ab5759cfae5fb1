//! HTTP to a port of a sandbox, through a tunnel.

use std::fmt;
use std::future::IntoFuture;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt};
use http_body_util::{BodyDataStream, Full};
use hyper::body::Incoming as HyperBody;
use hyper::client::conn::http1;
use hyper::header::{HOST, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use super::Tunnel;
use crate::error::{CallFacts, Error, ErrorKind, Result};
use crate::options::RequestOptions;
use crate::pending::Pending;
use crate::sandbox::Sandbox;
use crate::secret::Secret;
use crate::transport::ends_at;
use crate::transport::incoming::Incoming;
use crate::transport::send::root_cause;

const OPERATION: &str = "sandbox.http";
/// Those before the fourth change nothing, those before the sixth may be repeated.
const METHODS: [&str; 7] = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH"];
/// Largest body read into memory.
const WHOLE_LIMIT: usize = 256 << 20;

/// HTTP to a server inside a sandbox, without opening anything to the outside. Made with
/// [`Sandbox::http`].
///
/// Each request has a connection of its own. Redirects are answers, not followed. For anything
/// richer point an HTTP client at [`Tunnel::listen`].
///
/// ```no_run
/// # async fn run(sandbox: createos_sdk::Sandbox) -> createos_sdk::Result<()> {
/// let answer = sandbox.http(8000).get("/api/items?page=2").await?;
/// assert_eq!(answer.status(), 200);
/// println!("{}", answer.text().await?);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct GuestHttp {
    sandbox: Sandbox,
    port: u16,
}

impl GuestHttp {
    pub(crate) fn new(sandbox: Sandbox, port: u16) -> Self {
        Self { sandbox, port }
    }

    /// A `GET` of a path, which begins with `/` and may have a query.
    pub fn get(&self, path: impl Into<String>) -> GuestRequest {
        self.request("GET", path)
    }

    /// A `POST` of this body to a path.
    pub fn post(&self, path: impl Into<String>, body: impl Into<Bytes>) -> GuestRequest {
        self.request("POST", path).body(body)
    }

    /// A request with any method but `CONNECT`.
    pub fn request(&self, method: impl Into<String>, path: impl Into<String>) -> GuestRequest {
        GuestRequest {
            sandbox: self.sandbox.clone(),
            port: self.port,
            method: method.into(),
            path: path.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            options: RequestOptions::new(),
        }
    }
}

/// A request to a server inside a sandbox. Awaiting it sends it and gives the answer, its body
/// still to be read.
///
/// # Errors
///
/// Any status the server answers is an answer and not an error. `InvalidArgument`: a method,
/// path or header that cannot be sent, before any traffic. `Connection`: nothing listens, or
/// the connection broke. `Timeout`: no answer in time. Otherwise as
/// [`Tunnel::connect`](super::Tunnel::connect). It is never sent twice.
#[must_use = "nothing is sent until awaited"]
pub struct GuestRequest {
    sandbox: Sandbox,
    port: u16,
    method: String,
    path: String,
    headers: Vec<(String, Secret)>,
    body: Bytes,
    options: RequestOptions,
}

impl GuestRequest {
    /// Adds a header for the server inside. Its value never shows in `Debug`. `Host` is
    /// `localhost:<port>` unless given.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Secret>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Sets the body.
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// Sets options of this call. The timeout ends when the answer begins, from there on the
    /// stall timeout watches. Their headers go to the control plane, not to the server inside.
    pub fn with(mut self, options: RequestOptions) -> Self {
        self.options = self.options.overlaid(options);
        self
    }

    fn message(&self) -> Result<Request<Full<Bytes>>> {
        let method = Method::from_bytes(self.method.as_bytes())
            .ok()
            .filter(|method| *method != Method::CONNECT)
            .ok_or_else(|| {
                Error::invalid_argument("method", format!("{:?} cannot be sent", self.method))
            })?;
        let uri: Uri =
            self.path.parse().ok().filter(|_| self.path.starts_with('/')).ok_or_else(|| {
                let why = "must begin with / and be encoded as in a URL";
                Error::invalid_argument("path", why)
            })?;
        let mut message = Request::new(Full::new(self.body.clone()));
        *message.method_mut() = method;
        *message.uri_mut() = uri;
        let headers = message.headers_mut();
        for (name, value) in &self.headers {
            let (name, value) = header(name, value)?;
            headers.append(name, value);
        }
        if !headers.contains_key(HOST) {
            let host = HeaderValue::from_str(&format!("localhost:{}", self.port))
                .map_err(|error| Error::invalid_argument("port", error))?;
            headers.insert(HOST, host);
        }
        Ok(message)
    }

    fn facts(&self) -> CallFacts {
        CallFacts {
            operation: OPERATION,
            method: METHODS.into_iter().find(|method| *method == self.method),
            path: Some(self.path.split('?').next().unwrap_or_default().to_owned()),
            resource: Some(self.sandbox.id().to_string()),
            repeatable: METHODS[..5].contains(&&*self.method),
            attempts: 1,
            ..CallFacts::default()
        }
    }

    async fn run(self) -> Result<GuestResponse> {
        let started = Instant::now();
        let message = self.message().map_err(|error| error.in_operation(OPERATION))?;
        let client = self.sandbox.client().inner();
        let deadline = ends_at(self.options.deadline.or(client.deadline));
        let limit = ends_at(Some(self.options.timeout.unwrap_or(client.timeout)));
        let tunnel = Tunnel::new(self.sandbox.clone(), self.port).with(self.options.clone());
        let stream = tunnel.open().await?;
        let facts = self.facts();
        let changes = !METHODS[..3].contains(&&*self.method);
        let failed = |error: Error| {
            let facts = CallFacts { elapsed: started.elapsed(), ..facts.clone() };
            error.with_acted(changes).in_call(&facts)
        };
        let exchange = exchange(stream, message);
        let answered = match [deadline, limit].into_iter().flatten().min() {
            None => exchange.await,
            Some(end) => timeout_at(end, exchange).await.unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::Timeout, "the server inside did not answer in time"))
            }),
        };
        let (response, driver) = answered.map_err(failed)?;
        let stall = self.options.stall_timeout.unwrap_or(client.stall_timeout);
        Ok(GuestResponse::new(response, driver, facts, stall, deadline))
    }
}

/// A header for the server inside; those that frame the message are set here.
fn header(name: &str, value: &Secret) -> Result<(HeaderName, HeaderValue)> {
    let parsed = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| Error::invalid_argument("header", format!("{name:?} is not a header name")))?;
    if matches!(
        parsed.as_str(),
        "connection" | "content-length" | "transfer-encoding" | "te" | "trailer" | "upgrade"
    ) {
        return Err(Error::invalid_argument("header", format!("{parsed} cannot be given")));
    }
    let value = HeaderValue::from_str(value.expose()).map_err(|_| {
        let why = format!("the value of {parsed} holds characters a header cannot");
        Error::invalid_argument("header", why)
    })?;
    Ok((parsed, value))
}

/// What moves the bytes of one connection; it ends with this handle.
struct Driver(tokio::task::JoinHandle<()>);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn exchange(
    stream: super::TunnelStream,
    message: Request<Full<Bytes>>,
) -> Result<(Response<HyperBody>, Driver)> {
    let broken = |error: hyper::Error| {
        let message = format!("no answer from the server inside: {}", root_cause(&error));
        Error::new(ErrorKind::Connection, message).with_source(error)
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
    // What goes wrong on the connection shows in the answer.
    let driver = Driver(tokio::spawn(async move { drop(connection.await) }));
    let response = sender.send_request(message).await.map_err(broken)?;
    Ok((response, driver))
}

impl IntoFuture for GuestRequest {
    type Output = Result<GuestResponse>;
    type IntoFuture = Pending<GuestResponse>;

    fn into_future(self) -> Pending<GuestResponse> {
        Pending::new(self.run())
    }
}

impl fmt::Debug for GuestRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        f.debug_struct("GuestRequest")
            .field("sandbox", self.sandbox.id())
            .field("port", &self.port)
            .field("method", &self.method)
            .field("path", &self.path.split('?').next())
            .field("headers", &names)
            .field("body_len", &self.body.len())
            .field("options", &self.options)
            .finish()
    }
}

/// The answer of a server inside a sandbox. Its body is a [`Stream`] of bytes, to be read as it
/// comes or whole with [`bytes`](Self::bytes) or [`text`](Self::text).
///
/// A body that breaks off is an error of kind [`StreamLost`](ErrorKind::StreamLost), silence
/// for the stall timeout a [`Timeout`](ErrorKind::Timeout). Dropping it closes the connection.
pub struct GuestResponse {
    status: u16,
    headers: hyper::HeaderMap,
    body: Incoming,
    _driver: Driver,
}

impl GuestResponse {
    fn new(
        response: Response<HyperBody>,
        driver: Driver,
        facts: CallFacts,
        stall: Duration,
        deadline: Option<Instant>,
    ) -> Self {
        let (head, body) = response.into_parts();
        let body = BodyDataStream::new(body).map_err(Into::into);
        let status = head.status.as_u16();
        let body = Incoming::over(Box::pin(body), status, facts, stall, deadline);
        Self { status, headers: head.headers, body, _driver: driver }
    }

    /// HTTP status.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// The first header of this name, in any case, if it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// All headers in the order they came; names in lower case.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes()))
    }

    /// Reads the body to its end. Larger than 256 MiB is an error of kind
    /// [`Protocol`](ErrorKind::Protocol).
    pub async fn bytes(mut self) -> Result<Bytes> {
        let mut whole = BytesMut::new();
        while let Some(piece) = self.body.next().await {
            let piece = piece?;
            if whole.len() + piece.len() > WHOLE_LIMIT {
                let message = format!("the answer is larger than {} MiB", WHOLE_LIMIT >> 20);
                return Err(self.body.error(Error::new(ErrorKind::Protocol, message)));
            }
            whole.extend_from_slice(&piece);
        }
        Ok(whole.freeze())
    }

    /// Reads the body to its end as text. Not UTF-8 is an error of kind
    /// [`Protocol`](ErrorKind::Protocol).
    pub async fn text(self) -> Result<String> {
        String::from_utf8(self.bytes().await?.into()).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            Error::new(ErrorKind::Protocol, format!("the answer is not UTF-8 at byte {at}"))
                .in_operation(OPERATION)
        })
    }
}

impl Stream for GuestResponse {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.body.poll_next_unpin(cx)
    }
}

impl fmt::Debug for GuestResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestResponse")
            .field("status", &self.status)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}
