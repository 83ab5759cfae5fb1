//! The host that an HTTP client asks, from the head of its first request.

use super::rules::host_name;

/// The most bytes that a head may take.
pub(super) const LONGEST: usize = 16 << 10;
pub(super) const HEADERS: usize = 100;

/// What the first bytes of a connection say.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Unfinished,
    /// It is no HTTP/1, or names no host, or several.
    Malformed,
    Host(String),
}

/// Whether these bytes may be the beginning of a request.
pub(crate) fn looks_like_http(bytes: &[u8]) -> bool {
    const METHODS: [&[u8]; 9] = [
        b"GET ",
        b"HEAD ",
        b"POST ",
        b"PUT ",
        b"DELETE ",
        b"CONNECT ",
        b"OPTIONS ",
        b"TRACE ",
        b"PATCH ",
    ];
    METHODS.iter().any(|method| {
        let length = method.len().min(bytes.len());
        bytes[..length] == method[..length]
    })
}

pub(crate) fn read(bytes: &[u8]) -> Request {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(_)) => {
            host(&request).map_or(Request::Malformed, Request::Host)
        }
        Ok(httparse::Status::Partial) if bytes.len() < LONGEST => Request::Unfinished,
        _ => Request::Malformed,
    }
}

pub(super) fn host(request: &httparse::Request<'_, '_>) -> Option<String> {
    let mut hosts =
        request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case("host"));
    let (host, another) = (hosts.next()?, hosts.next());
    let host = without_port(std::str::from_utf8(host.value).ok()?)?;
    // A target that names a host itself goes before the header, so it must be the same.
    let target = request.path?;
    let named = match (request.method?, target.split_once("://")) {
        ("CONNECT", _) => Some(target),
        (_, Some((_, rest))) => rest.split(['/', '?', '#']).next(),
        _ => None,
    };
    let agrees = named.is_none_or(|named| without_port(named).as_ref() == Some(&host));
    (another.is_none() && agrees).then_some(host)
}

fn without_port(authority: &str) -> Option<String> {
    match authority.split_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host_name(host),
        Some(_) => None,
        None => host_name(authority),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is(text: &str) -> Request {
        read(text.as_bytes())
    }

    #[test]
    fn one_host_that_everything_agrees_on_is_named() {
        let named = Request::Host("a.test".into());
        assert_eq!(is("GET / HTTP/1.1\r\nHost: A.test:8080\r\n\r\nbody"), named);
        assert_eq!(is("GET http://a.test/x HTTP/1.1\r\nhost: a.test\r\n\r\n"), named);
        assert_eq!(is("CONNECT a.test:443 HTTP/1.1\r\nhost: a.test:443\r\n\r\n"), named);
        for bad in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test\r\nHOST: a.test\r\n\r\n",
            "GET http://b.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "CONNECT b.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: 203.0.113.7\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test@b.test\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a.test:80:90\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            "SSH-2.0-x\r\n",
        ] {
            assert_eq!(is(bad), Request::Malformed, "{bad:?}");
        }
        assert_eq!(is("GET / HTTP/1.1\r\nHost: a.te"), Request::Unfinished);
        assert_eq!(is(&format!("GET /{}", "x".repeat(LONGEST))), Request::Malformed);
        assert!(looks_like_http(b"GE") && !looks_like_http(b"SSH-"));
    }
}
