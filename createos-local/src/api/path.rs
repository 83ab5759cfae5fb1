//! Paths: brought to one spelling before routing, and the ids in them.

use std::convert::Infallible;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::uri::PathAndQuery;
use axum::http::{Request, Uri};
use createos_sdk::{ProcessId, SandboxId};

use super::answer::Fail;
use crate::core::CoreError;
use crate::runtime::RuntimeError;

/// Decodes what percent-encoding need not have encoded (RFC 3986 6.2.2.2): the Rust crate
/// writes `sb%2D01k…` and `by%2Dip`. Everything else stays as it came, `%2F` above all, so
/// that an encoded slash never becomes a route.
pub(super) fn normalize<B>(request: &mut Request<B>) {
    let uri = request.uri();
    if !uri.path().contains('%') {
        return;
    }
    let mut path = decode_unreserved(uri.path());
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = PathAndQuery::try_from(path).ok();
    if let Ok(normal) = Uri::from_parts(parts) {
        *request.uri_mut() = normal;
    }
}

fn decode_unreserved(path: &str) -> String {
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = rest.find('%') {
        decoded.push_str(&rest[..at]);
        let hex = rest.get(at + 1..at + 3).filter(|hex| !hex.starts_with('+'));
        let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match byte.map(char::from) {
            Some(c) if c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | '~') => {
                decoded.push(c);
                rest = &rest[at + 3..];
            }
            _ => {
                decoded.push('%');
                rest = &rest[at + 1..];
            }
        }
    }
    decoded.push_str(rest);
    decoded
}

/// The one decoded segment of a route that has one.
pub(super) struct Segment(pub(super) String);

impl<S: Sync> FromRequestParts<S> for Segment {
    type Rejection = Fail;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fail> {
        let text = segment(parts, |_| true).await;
        text.map(Self).ok_or_else(|| CoreError::NoSandbox.into())
    }
}

/// The decoded segment of this name; nothing where the route has none.
pub(super) fn named<'a>(params: &'a RawPathParams, name: &str) -> &'a str {
    let found = params.iter().find(|(key, _)| *key == name);
    found.map_or("", |(_, value)| value)
}

pub(super) async fn segment(parts: &mut Parts, wanted: impl Fn(&str) -> bool) -> Option<String> {
    let params = RawPathParams::from_request_parts(parts, &()).await.ok()?;
    params.iter().find(|(key, _)| wanted(key)).map(|(_, value)| value.to_owned())
}

/// The text that a path names as a port.
pub(super) struct Port(pub(super) String);

impl<S: Sync> FromRequestParts<S> for Port {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // What cannot be read is no port either.
        Ok(Self(segment(parts, |name| name == "port").await.unwrap_or_default()))
    }
}

/// The disk that a path names, by id or name.
pub(super) struct Disk(pub(super) String);

impl<S: Sync> FromRequestParts<S> for Disk {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // What cannot be read names none.
        Ok(Self(segment(parts, |name| name == "disk").await.unwrap_or_default()))
    }
}

/// The sandbox that a path names. Text that can be no id is an unknown id.
pub(super) struct Id(pub(super) SandboxId);

impl<S: Sync> FromRequestParts<S> for Id {
    type Rejection = Fail;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fail> {
        let text = segment(parts, |name| name == "id").await;
        let id = text.and_then(|text| text.parse().ok());
        id.map(Self).ok_or_else(|| CoreError::NoSandbox.into())
    }
}

/// The managed process that a path names. Text that can be no id is an unknown one, which is
/// told after everything about the sandbox.
pub(super) struct Process(pub(super) Result<ProcessId, Fail>);

impl<S: Sync> FromRequestParts<S> for Process {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let text = segment(parts, |name| name == "process").await;
        let id = text.and_then(|text| text.parse().ok());
        Ok(Self(id.ok_or_else(|| CoreError::from(RuntimeError::NoSuchProcess).into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_need_not_be_encoded_is_decoded() {
        for (path, normal) in [
            ("/v1/sandboxes/sb%2D01k", "/v1/sandboxes/sb-01k"),
            ("/v1/by%2dip/10%2E0%2E0%2E4", "/v1/by-ip/10.0.0.4"),
            ("/%61%5F%7E%2F%25%20%C3%A4", "/a_~%2F%25%20%C3%A4"),
            ("/%", "/%"),
            ("/%2", "/%2"),
            ("/%zz%2D", "/%zz-"),
            ("/%2%2D", "/%2-"),
            ("/%+1x", "/%+1x"),
        ] {
            assert_eq!(decode_unreserved(path), normal);
        }
        let mut request = Request::new(());
        *request.uri_mut() = "/a%2Db?q=%2D%2F".parse().unwrap();
        normalize(&mut request);
        assert_eq!(request.uri(), "/a-b?q=%2D%2F");
    }
}
