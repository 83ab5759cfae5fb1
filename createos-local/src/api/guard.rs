//! What every request passes: the Host check, the credential, the request id.

use std::net::IpAddr;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONNECTION, HOST};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use createos_sdk::SandboxId;
use ulid::Ulid;

use super::Front;
use super::answer::Fail;
use super::ingress::Target;
use super::reach;
use crate::core::{TOKEN_PREFIX, shown};

const REQUEST_ID: &str = "x-request-id";

/// Routes that need no credential and take any (api.md 1.2).
const OPEN: [&str; 4] = ["/healthz", "/readyz", "/v1/shapes", "/v1/rootfs"];

/// Host names the engine answers to. A page of some website that resolves its own name to
/// 127.0.0.1 still sends that name, and is refused.
#[derive(Debug)]
pub(crate) struct HostRules {
    listening: Vec<IpAddr>,
    names: Vec<String>,
}

impl HostRules {
    pub(crate) fn new(listening: impl Iterator<Item = IpAddr>, names: Vec<String>) -> Self {
        let names = names.into_iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { listening: listening.collect(), names }
    }

    /// Whether this `Host` value, with or without port, is one of ours.
    fn allows(&self, authority: &str) -> bool {
        let Some(host) = host_of(authority) else { return false };
        if let Ok(ip) = host.parse::<IpAddr>() {
            // An address cannot be rebound: whoever sends one has connected to it.
            return ip.is_loopback()
                || self.listening.contains(&ip)
                || self.listening.iter().any(IpAddr::is_unspecified);
        }
        // Names of ports of sandboxes are not names of the API.
        if Target::of_host(authority).is_some() {
            return false;
        }
        let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        name == "localhost" || name.ends_with(".localhost") || self.names.contains(&name)
    }
}

/// The host of `host`, `host:port`, `[v6]` or `[v6]:port`.
pub(super) fn host_of(authority: &str) -> Option<&str> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        return (port.is_empty() || is_port(port.strip_prefix(':')?)).then_some(host);
    }
    match authority.split_once(':') {
        Some((host, port)) => is_port(port).then_some(host),
        None => Some(authority),
    }
}

fn is_port(text: &str) -> bool {
    text.parse::<u16>().is_ok() && !text.starts_with('+')
}

/// The middleware around all routes.
pub(super) async fn guard(State(front): State<Front>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = format!("req_{}", Ulid::new().to_string().to_lowercase());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let mut response = match check(&front, request.method(), request.uri(), request.headers()).await
    {
        Ok(()) => next.run(request).await,
        Err(fail) => fail.into_response(),
    };
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if is_upgrade_route(&path) && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        // Clients read the refusal until the connection ends (api.md 4.19).
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let (status, elapsed) = (response.status().as_u16(), begun.elapsed());
    tracing::debug!(request = id, %method, path, status, ?elapsed, "answered");
    response
}

fn is_upgrade_route(path: &str) -> bool {
    path.starts_with("/v1/sandboxes/")
        && (path.ends_with("/shell") || path.ends_with("/shell-ws") || path.contains("/tunnel/"))
}

async fn check(front: &Front, method: &Method, uri: &Uri, headers: &HeaderMap) -> Result<(), Fail> {
    check_host(&front.0.hosts, uri, headers)?;
    let path = uri.path();
    if OPEN.contains(&path) || !path.starts_with("/v1/") {
        return Ok(());
    }
    let key = credential(headers)?;
    if front.0.key.matches(key.as_bytes()) {
        return Ok(());
    }
    match delegated(front, key).await? {
        Some(own) => reach::check(&own, method, path),
        None => Err(unauthorized("invalid api key")),
    }
}

/// The sandbox that a key opens which is not the owner's.
async fn delegated(front: &Front, key: &HeaderValue) -> Result<Option<SandboxId>, Fail> {
    match key.to_str().ok().filter(|key| key.starts_with(TOKEN_PREFIX)) {
        Some(token) => Ok(front.core().token_owner(token).await?),
        None => Ok(None),
    }
}

fn check_host(rules: &HostRules, uri: &Uri, headers: &HeaderMap) -> Result<(), Fail> {
    let mut hosts = headers.get_all(HOST).iter();
    let host = match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().unwrap_or(""),
        _ => return Err(Fail::new(StatusCode::BAD_REQUEST, "one Host header is needed")),
    };
    let in_uri = uri.authority().is_none_or(|authority| rules.allows(authority.as_str()));
    if in_uri && rules.allows(host) {
        return Ok(());
    }
    let message = format!(
        "this engine does not answer to the host name {:?}; use 127.0.0.1 or localhost, or \
         allow the name when starting the engine",
        shown(host)
    );
    Err(Fail::new(StatusCode::FORBIDDEN, message))
}

fn unauthorized(message: impl Into<String>) -> Fail {
    Fail::new(StatusCode::UNAUTHORIZED, message)
}

/// The first credential present decides, in the order of api.md 1.2; only `X-Api-Key` can hold
/// one of ours.
fn credential(headers: &HeaderMap) -> Result<&HeaderValue, Fail> {
    for other in ["x-auth-token", "x-access-token", AUTHORIZATION.as_str()] {
        if headers.contains_key(other) {
            return Err(unauthorized(format!(
                "{other} is not accepted here; leave it out and send the engine's key in X-Api-Key"
            )));
        }
    }
    let mut keys = headers.get_all("x-api-key").iter();
    match (keys.next(), keys.next()) {
        (None, _) => Err(unauthorized("no credential; send the engine's key in X-Api-Key")),
        (Some(key), None) => Ok(key),
        _ => Err(unauthorized("invalid api key")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_answered() {
        let rules = |ips: &[&str]| {
            let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
            HostRules::new(ips.into_iter(), vec!["BuildBox".to_owned()])
        };
        let local = rules(&["127.0.0.1"]);
        for good in [
            "127.0.0.1:80",
            "127.0.0.1",
            "127.8.8.8:1",
            "[::1]:80",
            "[::1]",
            "localhost:4000",
            "LOCALHOST",
            "localhost.",
            "web.localhost:9",
            "buildbox:80",
        ] {
            assert!(local.allows(good), "{good}");
        }
        for bad in [
            "",
            "example.org",
            "127.0.0.1.example.org",
            "localhost.example.org",
            "notlocalhost",
            "10.0.0.1:80",
            "127.0.0.1:x",
            "127.0.0.1:99999",
            "127.0.0.1:",
            "[::1",
            "[::1]x",
            "::1",
            "a@127.0.0.1",
            "0.0.0.0",
            "sb-01k4m2c9zq8v7n5t3r1p0x6y2w-80.localhost:4000",
        ] {
            assert!(!local.allows(bad), "{bad}");
        }
        assert!(rules(&["192.0.2.7"]).allows("192.0.2.7:80"));
        assert!(!rules(&["192.0.2.7"]).allows("192.0.2.8:80"));
        assert!(rules(&["0.0.0.0"]).allows("192.0.2.8:80"));
        assert!(!rules(&["0.0.0.0"]).allows("example.org"));
    }
}
