//! Images of containers: manifests, configurations and layers, as registries and archives
//! have them.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;

use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::ImageError;
use super::stream::{Bound, Hashed, decompressed, hex};
use super::unpack::{Unpacker, broken};
use crate::runtime::ImageConfig;

/// The largest manifest or configuration.
pub(super) const LARGEST_JSON: u64 = 4 << 20;
const MOST_LAYERS: usize = 256;
/// How deep an index may lead to another one.
pub(super) const DEEPEST_INDEX: usize = 3;
const MOST_VARIABLES: usize = 64 << 10;

/// What points to something by its digest.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Descriptor {
    pub(super) digest: String,
    #[serde(default)]
    pub(super) size: u64,
    #[serde(default)]
    platform: Option<Platform>,
}

impl Descriptor {
    pub(super) fn check(&self) -> Result<(), ImageError> {
        check_digest(&self.digest).map(drop)
    }
}

/// A system and a kind of processor.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

impl Platform {
    pub(super) fn own() -> Self {
        let (os, architecture) = ("linux".to_owned(), architecture().to_owned());
        Self { os, architecture, variant: None }
    }

    /// Reads `os/architecture` or `os/architecture/variant`.
    pub(super) fn parse(text: &str) -> Result<Self, ImageError> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, architecture, variant) = match parts[..] {
            [os @ "linux", architecture] => (os, architecture, None),
            [os @ "linux", architecture, variant] => (os, architecture, Some(variant.to_owned())),
            _ => ("", "", None),
        };
        if architecture.is_empty() || variant.as_deref() == Some("") {
            let shown: String = text.chars().take(80).collect();
            return Err(ImageError::Unsupported(format!(
                "{shown:?} is no platform that sandboxes can be of; give linux/<architecture>, \
                 such as linux/{}",
                self::architecture()
            )));
        }
        Ok(Self { os: os.to_owned(), architecture: architecture.to_owned(), variant })
    }

    /// Whether something for `other` is what is wanted here.
    fn fits(&self, other: &Self) -> bool {
        let variant = self.variant.is_none() || self.variant == other.variant;
        variant && (&self.os, &self.architecture) == (&other.os, &other.architecture)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

/// A manifest, or an index of several.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    pub(super) layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

/// The part of an image's configuration that is used here.
#[derive(Debug, Deserialize)]
pub(super) struct Config {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    #[serde(default)]
    config: Option<Defaults>,
    #[serde(default)]
    rootfs: RootFs,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Defaults {
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    working_dir: Option<String>,
    #[serde(default)]
    user: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

/// The name that images have for this machine's processors.
pub(super) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// Reads JSON of others.
pub(super) fn parse<'a, T: Deserialize<'a>>(what: &str, text: &'a [u8]) -> Result<T, ImageError> {
    serde_json::from_slice(text)
        .map_err(|error| ImageError::Damaged(format!("its {what} cannot be read: {error}")))
}

/// Compares content with the digest it was asked for by.
pub(super) fn verify(digest: &str, content: &[u8]) -> Result<(), ImageError> {
    let found = digest_of(content);
    if found == digest { Ok(()) } else { Err(not_what_it_says(digest, &found)) }
}

pub(super) fn digest_of(content: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(content)))
}

pub(super) fn not_what_it_says(wanted: &str, found: &str) -> ImageError {
    ImageError::Damaged(format!("{wanted} was asked for, {found} came"))
}

/// Checks that a digest is one of the kind used here, and nothing else that could be a path.
pub(super) fn check_digest(digest: &str) -> Result<&str, ImageError> {
    let hex = digest.strip_prefix("sha256:").filter(|hex| {
        hex.len() == 64 && hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    });
    hex.ok_or_else(|| {
        let shown: String = digest.chars().take(80).collect();
        ImageError::Unsupported(format!("{shown:?} is no sha256 digest"))
    })
}

impl Manifest {
    /// The image's configuration; nothing where this is an index.
    pub(super) fn config(&self) -> Result<Option<&Descriptor>, ImageError> {
        if self.config.is_none() && self.manifests.is_empty() {
            let text = "it is no container image, or of a kind from before 2016";
            return Err(ImageError::Unsupported(text.to_owned()));
        }
        Ok(self.config.as_ref())
    }

    /// The one manifest of an index that is for this platform.
    pub(super) fn choose(&self, wanted: &Platform) -> Result<&Descriptor, ImageError> {
        let fits = |it: &&Descriptor| it.platform.as_ref().is_none_or(|of| wanted.fits(of));
        let mut fitting = self.manifests.iter().filter(fits);
        match (fitting.next(), fitting.next()) {
            // Variants of one architecture: the first is the one meant for most.
            (Some(one), Some(_)) if one.platform.is_some() => Ok(one),
            (Some(one), None) => Ok(one),
            (Some(_), Some(_)) => Err(ImageError::Unsupported(
                "it holds several images; save one of them alone".to_owned(),
            )),
            (None, _) => {
                let known = self.manifests.iter().filter_map(|it| it.platform.as_ref());
                let known = known.filter(|it| it.os != "unknown").map(Platform::to_string);
                let known = known.take(20).collect::<Vec<_>>().join(", ");
                let text = format!("it has no image for {wanted}; it has some for: {known}");
                Err(ImageError::Unsupported(text))
            }
        }
    }
}

impl Config {
    /// The layers' digests, uncompressed, if the image is for this platform.
    pub(super) fn layers(&self, count: usize, wanted: &Platform) -> Result<&[String], ImageError> {
        let said = |text: &str, or: &str| if text.is_empty() { or } else { text }.to_owned();
        let own = Platform {
            os: said(&self.os, &wanted.os),
            architecture: said(&self.architecture, &wanted.architecture),
            variant: wanted.variant.clone(),
        };
        if !wanted.fits(&own) {
            let own = Platform { variant: None, ..own };
            let text = format!("it is for {own}, and {wanted} is needed");
            return Err(ImageError::Unsupported(text));
        }
        let layers = &self.rootfs.diff_ids;
        if layers.len() != count || count > MOST_LAYERS {
            let text = format!("it has {count} layers and {} digests of them", layers.len());
            return Err(ImageError::Damaged(text));
        }
        Ok(layers)
    }

    /// What programs get from the image.
    pub(super) fn defaults(self) -> Result<ImageConfig, ImageError> {
        let defaults = self.config.unwrap_or_default();
        let mut env = BTreeMap::new();
        let mut size = 0;
        for entry in defaults.env.unwrap_or_default() {
            size += entry.len();
            match entry.split_once('=') {
                Some((name, value)) if !name.is_empty() && !entry.contains('\0') => {
                    env.insert(name.to_owned(), value.to_owned());
                }
                _ => return Err(ImageError::Damaged("a variable of it has no name".to_owned())),
            }
        }
        if size > MOST_VARIABLES {
            let text = format!("its variables have more than {} KiB", MOST_VARIABLES >> 10);
            return Err(ImageError::Unsupported(text));
        }
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let directory = given(defaults.working_dir);
        if let Some(directory) = directory.as_ref().filter(|it| !it.starts_with('/')) {
            let shown: String = directory.chars().take(80).collect();
            return Err(ImageError::Damaged(format!("its directory {shown:?} is not absolute")));
        }
        let is_root = |user: &String| matches!(user.as_str(), "root" | "0" | "root:root" | "0:0");
        let user = given(defaults.user).filter(|user| !is_root(user));
        Ok(ImageConfig { env, directory, user })
    }
}

/// Unpacks a layer, whose content must have this digest.
pub(super) fn unpack_layer(
    unpacker: &mut Unpacker,
    source: impl Read,
    digest: &str,
    bound: &Bound,
) -> Result<(), ImageError> {
    let source = decompressed(std::io::BufReader::with_capacity(128 << 10, source))?;
    let mut hashed = Hashed::new(source, bound);
    unpacker.layer(&mut hashed, true)?;
    let found = format!("sha256:{}", hashed.finish().map_err(broken)?);
    if found == digest { Ok(()) } else { Err(not_what_it_says(digest, &found)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manifest_for_this_machine_is_chosen() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let index = |platforms: &[(&str, &str)]| {
            let list: Vec<_> = platforms
                .iter()
                .map(|(os, architecture)| {
                    serde_json::json!({"digest": digest, "mediaType": *os, "platform":
                    {"os": os, "architecture": architecture}})
                })
                .collect();
            let text = serde_json::json!({"manifests": list}).to_string();
            parse::<Manifest>("index", text.as_bytes()).expect("index")
        };
        let own = architecture();
        let chosen = |platforms: &[(&str, &str)]| {
            let index = index(platforms);
            index.choose(&Platform::own()).cloned()
        };
        assert!(chosen(&[("windows", own), ("linux", "s390x"), ("linux", own)]).is_ok());
        assert!(chosen(&[("linux", own), ("linux", own)]).is_ok());
        let error = chosen(&[("linux", "s390x"), ("unknown", "unknown")]).expect_err("none");
        assert!(error.to_string().ends_with("some for: linux/s390x"), "{error}");
        assert!(index(&[]).config().is_err());
        let index = index(&[("linux", "s390x")]);
        assert!(index.choose(&Platform::parse("linux/s390x").expect("platform")).is_ok());
        assert!(index.choose(&Platform::parse("linux/s390x/v9").expect("platform")).is_err());
        for bad in ["", "linux", "linux/", "windows/amd64", "linux/arm/", "linux/a/b/c"] {
            assert!(Platform::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn digests_are_not_paths() {
        assert!(check_digest(&format!("sha256:{}", "0a".repeat(32))).is_ok());
        for bad in ["", "sha256:", "sha256:../../../etc/passwd", "sha512:00", "md5:0"] {
            assert!(check_digest(bad).is_err(), "{bad}");
        }
        assert!(check_digest(&format!("sha256:{}", "A".repeat(64))).is_err());
    }

    #[test]
    fn defaults_are_taken_over_and_checked() {
        let read = |config: &str| {
            let text = format!(r#"{{"os":"linux","config":{config}}}"#);
            parse::<Config>("configuration", text.as_bytes()).and_then(Config::defaults)
        };
        let config = read(r#"{"Env":["A=b=c","E="],"WorkingDir":"/w","User":"web"}"#).expect("ok");
        assert_eq!((config.env["A"].as_str(), config.env["E"].as_str()), ("b=c", ""));
        assert_eq!(
            (config.directory.as_deref(), config.user.as_deref()),
            (Some("/w"), Some("web"))
        );
        assert_eq!(
            read(r#"{"Env":null,"WorkingDir":"","User":"0:0"}"#).expect("ok"),
            ImageConfig::default()
        );
        assert!(read("null").is_ok());
        for bad in
            [r#"{"Env":["A"]}"#, r#"{"Env":["=b"]}"#, r#"{"WorkingDir":"w"}"#, r#"{"Env":1}"#]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
