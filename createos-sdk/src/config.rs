//! Where a client connects and as whom: builder before environment before default
//! (api.md 1.3), and what of that is refused.

use std::fmt;
use std::net::IpAddr;

use reqwest::header::HeaderValue;
use url::{Host, Url};

use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// The hosted control plane.
pub(crate) const DEFAULT_BASE_URL: &str = "https://api.sb.createos.sh";
/// Read in this order; the first that is set and not blank wins.
pub(crate) const KEY_VARIABLES: [&str; 2] = ["CREATEOS_API_KEY", "CREATEOS_SANDBOX_API_KEY"];
pub(crate) const BASE_URL_VARIABLE: &str = "CREATEOS_SANDBOX_BASE_URL";

/// Who is asking. Its header is marked sensitive, so the HTTP stack does not log it either.
#[derive(Clone)]
pub(crate) struct Credential {
    pub(crate) header: &'static str,
    pub(crate) value: HeaderValue,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}(..)", self.header)
    }
}

fn config_error(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Config, message)
}

/// A variable that is set and not blank.
fn variable(env: &dyn Fn(&str) -> Option<String>, name: &str) -> Option<String> {
    env(name).filter(|value| !value.trim().is_empty())
}

/// Whether the environment says who is asking or where.
pub(crate) fn is_set(env: &dyn Fn(&str) -> Option<String>) -> bool {
    let mut names = KEY_VARIABLES.into_iter().chain([BASE_URL_VARIABLE]);
    names.any(|name| variable(env, name).is_some())
}

/// The credential from what the builder was given and the environment.
pub(crate) fn credential(
    api_key: Option<&Secret>,
    access_token: Option<&Secret>,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Credential>> {
    match (api_key, access_token) {
        (Some(_), Some(_)) => {
            Err(config_error("give either an API key or an access token, not both"))
        }
        (Some(key), None) => header("x-api-key", "the API key", key.expose()).map(Some),
        (None, Some(token)) => self::access_token(token).map(Some),
        (None, None) => KEY_VARIABLES
            .iter()
            .find_map(|name| variable(env, name).map(|key| header("x-api-key", name, &key)))
            .transpose(),
    }
}

/// An OAuth access token as a credential.
pub(crate) fn access_token(token: &Secret) -> Result<Credential> {
    header("x-access-token", "the access token", token.expose())
}

fn header(name: &'static str, origin: &str, text: &str) -> Result<Credential> {
    let text = text.trim();
    if text.is_empty() {
        return Err(config_error(format!("{origin} is blank")));
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(config_error(format!("{origin} holds characters a key cannot have")));
    }
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| config_error(format!("{origin} cannot be sent as a header")))?;
    value.set_sensitive(true);
    Ok(Credential { header: name, value })
}

/// The address from what the builder was given, the environment, and the default. It never
/// ends in a slash.
pub(crate) fn base_url(
    given: Option<&str>,
    insecure_http: bool,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Url> {
    if let Some(text) = given {
        return parse_base_url("the base URL", text, insecure_http);
    }
    match variable(env, BASE_URL_VARIABLE) {
        Some(text) => parse_base_url(BASE_URL_VARIABLE, &text, insecure_http),
        None => parse_base_url("the default base URL", DEFAULT_BASE_URL, insecure_http),
    }
}

fn parse_base_url(origin: &str, text: &str, insecure_http: bool) -> Result<Url> {
    // The text may hold a password, so no message repeats it.
    let refuse = |why: &str| Err(config_error(format!("{origin} {why}")));
    let Ok(mut url) = Url::parse(text.trim()) else {
        return refuse("is not a URL such as https://api.example.org");
    };
    if !matches!(url.scheme(), "http" | "https") {
        return refuse("must begin with https:// or http://");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return refuse("must not hold a user name or password");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return refuse("must not have a query or fragment");
    }
    if url.scheme() == "http" && !insecure_http && !is_loopback(&url) {
        return refuse(
            "is plain http to another machine, which would show the key to the network; \
             use https, or allow it with ClientBuilder::allow_insecure_http",
        );
    }
    if cfg!(not(any(feature = "rustls", feature = "native-tls"))) && url.scheme() == "https" {
        return refuse(
            "is https, but this build has neither of the features rustls and native-tls",
        );
    }
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty();
    }
    Ok(url)
}

/// Whether traffic to this address stays on the machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name.eq_ignore_ascii_case("localhost"),
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip).is_loopback(),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &'static [(&'static str, &'static str)]) -> impl Fn(&str) -> Option<String> {
        |name| pairs.iter().find(|pair| pair.0 == name).map(|pair| pair.1.to_owned())
    }

    fn key_of(credential: Option<Credential>) -> Option<(&'static str, String)> {
        credential.map(|found| (found.header, found.value.to_str().unwrap().to_owned()))
    }

    #[test]
    fn builder_beats_environment_beats_nothing() {
        let both = env(&[("CREATEOS_API_KEY", " first "), ("CREATEOS_SANDBOX_API_KEY", "second")]);
        let second = env(&[("CREATEOS_API_KEY", "  "), ("CREATEOS_SANDBOX_API_KEY", "second")]);
        let given = Secret::from(" given\n");
        let api_key = |key: &str| Some(("x-api-key", key.to_owned()));
        assert_eq!(key_of(credential(Some(&given), None, &both).unwrap()), api_key("given"));
        assert_eq!(key_of(credential(None, None, &both).unwrap()), api_key("first"));
        assert_eq!(key_of(credential(None, None, &second).unwrap()), api_key("second"));
        assert_eq!(key_of(credential(None, None, &env(&[])).unwrap()), None);
        assert_eq!(
            key_of(credential(None, Some(&given), &both).unwrap()),
            Some(("x-access-token", "given".to_owned()))
        );
    }

    #[test]
    fn the_environment_is_set_when_one_variable_is_not_blank() {
        assert!(!is_set(&env(&[])));
        assert!(!is_set(&env(&[("CREATEOS_API_KEY", " "), ("CREATEOS_SANDBOX_BASE_URL", "")])));
        for set in [
            &[("CREATEOS_API_KEY", "k")][..],
            &[("CREATEOS_SANDBOX_API_KEY", "k")],
            &[("CREATEOS_API_KEY", ""), ("CREATEOS_SANDBOX_BASE_URL", "http://127.0.0.1:1")],
        ] {
            assert!(is_set(&env(set)), "{set:?}");
        }
    }

    #[test]
    fn unusable_credentials_are_refused_without_showing_them() {
        for key in ["", "  ", "hunter2\r\nx: y", "hunter2 x", "hunter2ä"] {
            let error = credential(Some(&key.into()), None, &env(&[])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{key:?}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        let key = Secret::from("k");
        assert!(credential(Some(&key), Some(&key), &env(&[])).is_err());
    }

    #[test]
    fn base_url_precedence_and_shape() {
        let set = env(&[("CREATEOS_SANDBOX_BASE_URL", "https://eu.example.org/plane/")]);
        let blank = env(&[("CREATEOS_SANDBOX_BASE_URL", " ")]);
        let url = |given, env: &dyn Fn(&str) -> Option<String>| {
            base_url(given, false, env).unwrap().to_string()
        };
        assert_eq!(url(Some("http://127.0.0.1:9/"), &set), "http://127.0.0.1:9/");
        assert_eq!(url(None, &set), "https://eu.example.org/plane");
        assert_eq!(url(None, &blank), "https://api.sb.createos.sh/");
    }

    #[test]
    fn unusable_base_urls_are_refused_without_showing_them() {
        for text in [
            "",
            "api.example.org",
            "ftp://example.org",
            "https://user:hunter2@example.org",
            "https://example.org/?key=hunter2",
            "https://example.org/#x",
            "http://example.org",
            "http://localhost.example.org",
            "http://10.0.0.1",
        ] {
            let error = base_url(Some(text), false, &env(&[])).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{text}");
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
        for text in ["http://localhost:1", "http://127.9.0.1", "http://[::1]:80/x"] {
            assert!(base_url(Some(text), false, &env(&[])).is_ok(), "{text}");
        }
        assert!(base_url(Some("http://10.0.0.1"), true, &env(&[])).is_ok());
    }
}
