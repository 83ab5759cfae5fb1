//! The control plane's address.

use url::{Host, Url};

/// Checks an address and drops its trailing slashes.
///
/// Plain http is for this machine only: the key would cross the network readable.
pub(crate) fn base(text: &str) -> Result<String, String> {
    let text = text.trim();
    let url = Url::parse(text)
        .map_err(|error| format!("it is no address ({error}); write for example https://host"))?;
    let host = url.host().ok_or("it names no host")?;
    match url.scheme() {
        "https" => {}
        "http" if is_loopback(&host) => {}
        "http" => {
            return Err("plain http is accepted only for this machine; use https".to_owned());
        }
        _ => return Err("it must start with https:// (or http:// for this machine)".to_owned()),
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("it must not carry a user name or password".to_owned());
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err("it must not have a query or fragment".to_owned());
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// `localhost`, `127.0.0.0/8` and `::1`.
fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => name.eq_ignore_ascii_case("localhost"),
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_normalised() {
        let cases = [
            ("https://api.example.org", "https://api.example.org"),
            ("https://api.example.org///", "https://api.example.org"),
            ("https://api.example.org/eu/", "https://api.example.org/eu"),
            (" http://127.0.0.1:8080/ ", "http://127.0.0.1:8080"),
            ("http://127.9.9.9:1", "http://127.9.9.9:1"),
            ("http://[::1]:8080", "http://[::1]:8080"),
            ("http://localhost:8080", "http://localhost:8080"),
        ];
        for (text, url) in cases {
            assert_eq!(base(text).as_deref(), Ok(url));
        }
    }

    #[test]
    fn unsafe_or_odd_addresses_are_refused() {
        let cases = [
            "",
            "api.example.org",
            "http://api.example.org",
            "http://localhost.example.org",
            "http://127.0.0.1.example.org",
            "ftp://host",
            "https://user:secret@host",
            "https://host?x=1",
            "https://host#f",
            "file:///etc/passwd",
        ];
        for text in cases {
            assert!(base(text).is_err(), "{text}");
        }
    }
}
