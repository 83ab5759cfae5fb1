//! What an image is called in a registry.

use std::fmt;

use url::Url;

use super::ImageError;
use super::oci::check_digest;
use crate::web::is_loopback;

const HUB: &str = "docker.io";
const LONGEST: usize = 512;
/// As registries bound it.
const LONGEST_TAG: usize = 128;

/// A registry, a repository in it, and an image of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl Reference {
    /// Reads one as people write it: short names are of Docker Hub.
    pub(super) fn parse(text: &str) -> Result<Self, ImageError> {
        Self::read(text.trim()).map_err(|why| ImageError::Reference {
            reference: text.chars().take(200).collect(),
            why: why.to_owned(),
        })
    }

    fn read(text: &str) -> Result<Self, &'static str> {
        if text.contains("://") {
            return Err("leave the scheme out: registry/repository:tag");
        }
        if text.len() > LONGEST {
            return Err("it is too long");
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => {
                check_digest(digest).map_err(|_| "its digest is not sha256: and 64 digits")?;
                (name, Some(digest.to_owned()))
            }
            None => (text, None),
        };
        let (name, tag) = match name.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag.to_owned())),
            _ => (name, None),
        };
        if tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err("its tag has characters that tags cannot have");
        }
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if is_host(host) => (host, path),
            _ => (HUB, name),
        };
        let registry = registry.to_ascii_lowercase();
        let registry = if registry == "index.docker.io" { HUB.to_owned() } else { registry };
        let repository = match path.contains('/') || registry != HUB {
            true => path.to_owned(),
            false => format!("library/{path}"),
        };
        if !repository.split('/').all(is_component) {
            return Err("a repository is lower-case letters, digits, `.`, `_`, `-` and `/`");
        }
        let reference = Self { registry, repository, tag, digest };
        reference.base().ok_or("its registry is no host")?;
        Ok(reference)
    }

    /// The registry as people know it.
    pub(super) fn registry(&self) -> &str {
        &self.registry
    }

    pub(super) fn repository(&self) -> &str {
        &self.repository
    }

    pub(super) fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// What names the image within its repository.
    pub(super) fn wanted(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or("latest")
    }

    /// What `docker login` files the account under.
    pub(super) fn account(&self) -> &str {
        if self.registry == HUB { "https://index.docker.io/v1/" } else { &self.registry }
    }

    /// Where the registry answers: encrypted, unless it is this machine.
    pub(super) fn base(&self) -> Option<Url> {
        let host = if self.registry == HUB { "registry-1.docker.io" } else { &self.registry };
        let mut url = Url::parse(&format!("https://{host}/v2/")).ok()?;
        if is_loopback(&url) {
            url = Url::parse(&format!("http://{host}/v2/")).ok()?;
        }
        let is_plain = url.username().is_empty() && url.password().is_none();
        (is_plain && url.path() == "/v2/").then_some(url)
    }

    /// The name it gets on this machine unless another one is given.
    pub(super) fn local_name(&self) -> String {
        let path = self.repository.strip_prefix("library/").unwrap_or(&self.repository);
        let tag = match (&self.tag, &self.digest) {
            (Some(tag), _) => tag,
            (None, Some(digest)) => digest["sha256:".len()..].split_at(12).0,
            (None, None) => "latest",
        };
        format!("{path}:{tag}")
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        match (&self.tag, &self.digest) {
            (Some(tag), _) => write!(f, ":{tag}")?,
            (None, None) => f.write_str(":latest")?,
            (None, Some(_)) => {}
        }
        self.digest.as_ref().map_or(Ok(()), |digest| write!(f, "@{digest}"))
    }
}

/// Whether the first part of a name is a registry, and no part of a repository.
fn is_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost" || part.contains(char::is_uppercase)
}

fn is_component(part: &str) -> bool {
    let alphanumeric = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    part.starts_with(alphanumeric)
        && part.ends_with(alphanumeric)
        && part.chars().all(|c| alphanumeric(c) || "._-".contains(c))
}

fn is_tag(tag: &str) -> bool {
    tag.len() <= LONGEST_TAG
        && tag.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_of_docker_hub_and_others_say_where_they_are() {
        for (given, full, base, local) in [
            (
                "alpine:3.20",
                "docker.io/library/alpine:3.20",
                "https://registry-1.docker.io/v2/",
                "alpine:3.20",
            ),
            (
                "alpine",
                "docker.io/library/alpine:latest",
                "https://registry-1.docker.io/v2/",
                "alpine:latest",
            ),
            ("a/b:V1", "docker.io/a/b:V1", "https://registry-1.docker.io/v2/", "a/b:V1"),
            (
                "index.docker.io/a/b",
                "docker.io/a/b:latest",
                "https://registry-1.docker.io/v2/",
                "a/b:latest",
            ),
            ("ghcr.io/o/t:1", "ghcr.io/o/t:1", "https://ghcr.io/v2/", "o/t:1"),
            ("r.test:5000/x", "r.test:5000/x:latest", "https://r.test:5000/v2/", "x:latest"),
            ("localhost:5000/x:1", "localhost:5000/x:1", "http://localhost:5000/v2/", "x:1"),
            (
                "127.0.0.1:5000/x",
                "127.0.0.1:5000/x:latest",
                "http://127.0.0.1:5000/v2/",
                "x:latest",
            ),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "http://[::1]:5000/v2/", "x:latest"),
            ("localhost/x", "localhost/x:latest", "http://localhost/v2/", "x:latest"),
        ] {
            let reference = Reference::parse(given).expect(given);
            assert_eq!(reference.to_string(), full);
            assert_eq!(reference.base().expect("an address").as_str(), base);
            assert_eq!(reference.local_name(), local);
        }
        let digest = format!("sha256:{}", "ab".repeat(32));
        let pinned = Reference::parse(&format!("alpine@{digest}")).expect("pinned");
        assert_eq!(pinned.wanted(), digest);
        assert_eq!(pinned.local_name(), "alpine:abababababab");
        let both = Reference::parse(&format!("alpine:3@{digest}")).expect("pinned");
        assert_eq!((both.wanted(), &*both.local_name()), (&*digest, "alpine:3"));
    }

    #[test]
    fn what_is_no_reference_is_refused() {
        let long = "a".repeat(600);
        for bad in [
            "",
            " ",
            ":",
            "alpine:",
            "Alpine",
            "https://ghcr.io/a/b",
            "a//b",
            "a/../b",
            "/a",
            "a/",
            "alpine@sha256:00",
            "alpine:a b",
            "r.test/",
            "u:p@r.test/x",
            "r.test:99999/x",
            "a b",
            "-x",
            "alpine@md5:00",
            "r.test?x=/a",
            &long,
        ] {
            let error = Reference::parse(bad).expect_err(bad);
            assert!(matches!(error, ImageError::Reference { .. }), "{bad:?}");
        }
    }
}
