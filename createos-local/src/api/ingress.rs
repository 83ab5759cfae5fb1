//! Ports of sandboxes as web addresses of this machine (api.md 6.5).
//!
//! A request that names `<sandbox>-<port>.localhost` as its host never reaches the API: it goes
//! to the sandbox, if that one is published. Visitors need no key; whatever credential of the
//! API they carry stays here.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::{Body, HttpBody};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, EXPECT, HOST, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Request, StatusCode, Uri, Version};
use axum::response::Response;
use bytes::Bytes;
use createos_sdk::SandboxId;
use futures::future::BoxFuture;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::guard::host_of;
use super::linger::Deferring;
use super::upgrade::{self, Takeover};
use crate::core::{Connection, Core, CoreError, Hold};
use crate::relay::Side;

const DOMAIN: &str = "localhost";
const WEB_SOCKET: &str = "websocket";
/// Length of a ULID.
const ID: usize = 26;
/// Bounds the head of a service's answer, and is the size of one read of its body.
const READ_BUFFER: usize = 128 << 10;

/// Headers that speak of one connection only.
const OF_CONNECTION: [HeaderName; 8] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-authorization"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Credentials of the API, which no guest may see, and what is answered here.
const KEPT_HERE: [HeaderName; 5] = [
    AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    HeaderName::from_static("x-access-token"),
    HeaderName::from_static("x-auth-token"),
    EXPECT,
];

/// The address of a sandbox's ports, with `<port>` for the port. `listening` is the engine's.
pub(super) fn url_template(id: &SandboxId, listening: u16) -> String {
    format!("http://{id}-<port>.{DOMAIN}:{listening}")
}

/// A port of a sandbox that a host names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target {
    id: SandboxId,
    port: NonZeroU16,
}

impl Target {
    /// The port that a `Host` value names, if it has the form of one.
    pub(super) fn of_host(authority: &str) -> Option<Self> {
        let host = host_of(authority)?.to_ascii_lowercase();
        let label = host.strip_suffix('.').unwrap_or(&host).strip_suffix(DOMAIN)?;
        let (id, port) = label.strip_suffix('.')?.rsplit_once('-')?;
        let ulid = id.strip_prefix("sb-")?;
        let is_id = ulid.len() == ID && ulid.bytes().all(|byte| byte.is_ascii_alphanumeric());
        // One spelling: no sign, no leading zero.
        let is_port = port.starts_with(|first: char| matches!(first, '1'..='9'));
        (is_id && is_port).then_some(())?;
        Some(Self { id: id.parse().ok()?, port: port.parse().ok()? })
    }

    /// The port that a request goes to; `None` when it is for the API.
    pub(super) fn of_request<B>(request: &Request<B>) -> Option<Self> {
        let mut hosts = request.headers().get_all(HOST).iter();
        let (Some(host), None) = (hosts.next(), hosts.next()) else { return None };
        let target = Self::of_host(host.to_str().ok()?)?;
        let in_uri = request.uri().authority().map(|authority| Self::of_host(authority.as_str()));
        in_uri.is_none_or(|named| named.as_ref() == Some(&target)).then_some(target)
    }
}

/// Why there is no answer of the service: a page for a browser.
struct Page(StatusCode, String);

impl From<Page> for Response {
    fn from(Page(status, text): Page) -> Self {
        let mut response = Self::new(Body::from(text));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }
}

fn page(error: CoreError, port: NonZeroU16) -> Page {
    match error {
        CoreError::NoSandbox => {
            let text = "There is nothing at this address.\n\nThe sandbox does not exist, does \
                        not run, or its ingress is off.\n";
            Page(StatusCode::NOT_FOUND, text.to_owned())
        }
        CoreError::NoListener(why) => {
            let text = format!(
                "Bad gateway: {why}.\n\nA service is reached here once it listens on \
                 0.0.0.0:{port}; one that listens on 127.0.0.1 is not.\n"
            );
            Page(StatusCode::BAD_GATEWAY, text)
        }
        CoreError::NoCapacity(why) => {
            Page(StatusCode::SERVICE_UNAVAILABLE, format!("Service unavailable: {why}.\n"))
        }
        error => Page(StatusCode::BAD_GATEWAY, format!("Bad gateway: {error}.\n")),
    }
}

/// Answers a visitor with what the service in the sandbox answers.
pub(super) async fn serve(
    core: &Core,
    target: Target,
    visitor: Option<SocketAddr>,
    request: Request<Body>,
) -> Response {
    forward(core, &target, visitor, request).await.unwrap_or_else(Response::from)
}

async fn forward(
    core: &Core,
    target: &Target,
    visitor: Option<SocketAddr>,
    mut request: Request<Body>,
) -> Result<Response, Page> {
    let failed = |error| page(error, target.port);
    let published = core.published(&target.id).await.map_err(failed)?;
    let web_socket = upgrade::asks_for(request.version(), request.headers(), WEB_SOCKET)
        .then(|| Takeover::of(&mut request));
    let Connection { stream, hold } = published.visit(target.port).await.map_err(failed)?;
    let hold = Arc::new(hold);
    rewrite(&mut request, target.port, visitor.map(|address| address.ip()), web_socket.is_some());

    let silent = |error: hyper::Error| {
        let text =
            format!("Bad gateway: the service on port {} gave no answer: {error}.\n", target.port);
        Page(StatusCode::BAD_GATEWAY, text)
    };
    let io = TokioIo::new(Deferring::new(stream));
    let connected = http1::Builder::new().max_buf_size(READ_BUFFER).handshake(io).await;
    let (mut sender, connection) = connected.map_err(silent)?;
    let driver = Arc::clone(&hold);
    tokio::spawn(async move {
        tokio::select! {
            // How it ended shows in the answer.
            _ = connection.with_upgrades() => {}
            () = driver.cut() => {}
        }
    });
    let answer = sender.send_request(request).await.map_err(silent)?;
    answered(answer, web_socket, hold)
}

fn answered(
    mut answer: hyper::Response<Incoming>,
    web_socket: Option<Takeover>,
    hold: Arc<Hold>,
) -> Result<Response, Page> {
    let switches = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
    remove_of_connection(answer.headers_mut());
    match web_socket {
        Some(takeover) if switches => {
            let inner = hyper::upgrade::on(&mut answer);
            tokio::spawn(async move {
                // Where one side is gone, there is nothing to carry.
                let (Ok(outer), Ok(inner)) = (takeover.finish().await, inner.await) else { return };
                if let Ok((io, early)) = upgrade::unwrap::<Deferring>(inner) {
                    hold.carry(outer, Side { stream: io.into_inner(), early }).await;
                }
            });
            ask_to_switch(answer.headers_mut());
            Ok(answer.map(|_| Body::empty()))
        }
        None if switches => {
            let text = "Bad gateway: the service changed the protocol without being asked.\n";
            Err(Page(StatusCode::BAD_GATEWAY, text.to_owned()))
        }
        _ => Ok(answer.map(|body| Body::new(Visit::new(body, hold)))),
    }
}

/// Makes a visitor's request one that the service can take for its own.
fn rewrite(request: &mut Request<Body>, port: NonZeroU16, visitor: Option<IpAddr>, switches: bool) {
    let origin = request.uri().path_and_query().cloned();
    *request.uri_mut() = Uri::from(origin.unwrap_or_else(|| PathAndQuery::from_static("/")));
    *request.version_mut() = Version::HTTP_11;
    let headers = request.headers_mut();
    remove_of_connection(headers);
    KEPT_HERE.iter().for_each(|name| drop(headers.remove(name)));
    let host = HeaderValue::try_from(format!("{DOMAIN}:{port}"));
    let host = host.ok().and_then(|host| headers.insert(HOST, host));
    let forwarded = [
        ("x-forwarded-host", host),
        ("x-forwarded-proto", Some(HeaderValue::from_static("http"))),
        ("x-forwarded-for", visitor.and_then(|ip| HeaderValue::try_from(ip.to_string()).ok())),
    ];
    for (name, value) in forwarded {
        headers.remove(name);
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
    if switches {
        ask_to_switch(headers);
    } else {
        // Each visit has a connection of its own.
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

fn ask_to_switch(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(WEB_SOCKET));
}

/// Removes what speaks of the connection, and what that names besides.
fn remove_of_connection(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|token| token.trim().parse().ok())
        .collect();
    named.iter().chain(&OF_CONNECTION).for_each(|name| drop(headers.remove(name)));
}

/// A service's answer on its way. It breaks off when the visit is cut, so that nobody takes
/// what has come for the whole.
struct Visit {
    body: Incoming,
    cut: BoxFuture<'static, ()>,
}

impl Visit {
    fn new(body: Incoming, hold: Arc<Hold>) -> Self {
        Self { body, cut: Box::pin(async move { hold.cut().await }) }
    }
}

impl HttpBody for Visit {
    type Data = Bytes;
    type Error = axum::BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::BoxError>>> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Poll::Ready(Some(Err("the visit was cut".into())));
        }
        Pin::new(&mut self.body).poll_frame(context).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_of_a_name_is_a_port_of_a_sandbox() {
        let id = "sb-01k4m2c9zq8v7n5t3r1p0x6y2w";
        for good in [
            "sb-01k4m2c9zq8v7n5t3r1p0x6y2w-8000.localhost:4000",
            "sb-01k4m2c9zq8v7n5t3r1p0x6y2w-8000.localhost",
            "SB-01K4M2C9ZQ8V7N5T3R1P0X6Y2W-8000.LocalHost.:4000",
        ] {
            let target = Target::of_host(good).unwrap();
            assert_eq!((target.id.as_str(), target.port.get()), (id, 8000), "{good}");
        }
        let template = url_template(&id.parse().unwrap(), 4000);
        let host = template.strip_prefix("http://").unwrap().replace("<port>", "65535");
        assert_eq!(Target::of_host(&host).unwrap().port.get(), 65535);
        for bad in [
            "localhost",
            "sb-01k4m2c9zq8v7n5t3r1p0x6y2w.localhost",
            "sb-01k4m2c9zq8v7n5t3r1p0x6y2w-0.localhost",
            "sb-01k4m2c9zq8v7n5t3r1p0x6y2w-080.localhost",
            "sb-01k4m2c9zq8v7n5t3r1p0x6y2w-+80.localhost",
            "sb-01k4m2c9zq8v7n5t3r1p0x6y2w-65536.localhost",
            "sb-01k4m2c9zq8v7n5t3r1p0x6y2-8000.localhost",
            "a.sb-01k4m2c9zq8v7n5t3r1p0x6y2w-8000.localhost",
            "sb-01k4m2c9zq8v7n5t3r1p0x6y2w-8000.localhost.example.org",
            "sb-01k4m2c9zq8v7n5t3r1p0x6y2w-8000.example.org",
            "sb-01k4m2c9zq8v7n5t3r1p0x6y2w-8000localhost",
            "sb-01k4m2c9zq8v7n5t3r1p0x6y2w-8000.localhost:x",
            "",
        ] {
            assert_eq!(Target::of_host(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_host_that_says_two_things_is_no_visit() {
        let host = "sb-01k4m2c9zq8v7n5t3r1p0x6y2w-8000.localhost";
        let request = |uri: &str, hosts: &[&str]| {
            let mut request = Request::builder().uri(uri);
            for host in hosts {
                request = request.header(HOST, *host);
            }
            Target::of_request(&request.body(()).unwrap()).is_some()
        };
        assert!(request("/x", &[host]));
        assert!(request(&format!("http://{host}/x"), &[host]));
        assert!(!request(&format!("http://{host}/x"), &["localhost"]));
        assert!(!request("http://localhost/x", &[host]));
        assert!(!request("/x", &[host, host]));
        assert!(!request("/x", &[]));
    }

    #[test]
    fn a_service_sees_its_own_name_and_no_credential() {
        let mut request = Request::builder().uri("http://x-1.localhost:1/a?b=c");
        for (name, value) in [
            ("host", "x-1.localhost:1"),
            ("authorization", "Basic eDp5"),
            ("x-api-key", "skp_1"),
            ("x-access-token", "1"),
            ("x-auth-token", "1"),
            ("proxy-authorization", "Basic eDp5"),
            ("connection", "keep-alive, X-Hop"),
            ("keep-alive", "timeout=5"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
            ("x-forwarded-for", "192.0.2.1"),
            ("cookie", "a=b"),
        ] {
            request = request.header(name, value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        let port = NonZeroU16::new(8000).unwrap();
        rewrite(&mut request, port, Some(IpAddr::from([127, 0, 0, 1])), false);
        assert_eq!(request.uri(), "/a?b=c");
        let mut headers: Vec<_> = request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        headers.sort();
        let expected = [
            "connection: close",
            "cookie: a=b",
            "host: localhost:8000",
            "x-forwarded-for: 127.0.0.1",
            "x-forwarded-host: x-1.localhost:1",
            "x-forwarded-proto: http",
        ];
        assert_eq!(headers, expected);
    }
}
