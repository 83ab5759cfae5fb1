//! Typed identifiers.
//!
//! An id is opaque text (api.md 1.5). The types exist so that a disk id cannot be
//! passed where a sandbox id belongs, and so that an id can always be put into one
//! path segment: text that could name another route is refused when the id is made.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

/// Longest id accepted, in bytes. Known ids have at most 31.
const MAX_LEN: usize = 128;

fn check(kind: &'static str, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(format!("{kind} is empty"));
    }
    if text.len() > MAX_LEN {
        return Err(format!("{kind} is longer than {MAX_LEN} bytes"));
    }
    if text == "." || text.contains("..") {
        return Err(format!("{kind} must not be `.` or contain `..`"));
    }
    if let Some(bad) =
        text.chars().find(|c| c.is_control() || c.is_whitespace() || matches!(c, '/' | '\\'))
    {
        return Err(format!("{kind} must not contain {bad:?}"));
    }
    Ok(())
}

macro_rules! id_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal) => {
        $(#[$doc])*
        ///
        /// Made with [`str::parse`] or [`TryFrom`]. Text that is empty, longer than
        /// 128 bytes, or holds `/`, `\`, `..`, blanks or control characters is refused
        /// with [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument).
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Box<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = Error;

            fn try_from(text: String) -> Result<Self, Error> {
                check($kind, &text).map_err(|why| Error::invalid_argument($kind, why))?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<&str> for $name {
            type Error = Error;

            fn try_from(text: &str) -> Result<Self, Error> {
                Self::try_from(text.to_owned())
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                Self::try_from(text)
            }
        }

        impl From<&$name> for $name {
            fn from(id: &$name) -> Self {
                id.clone()
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                check($kind, &text).map_err(serde::de::Error::custom)?;
                Ok(Self(text.into()))
            }
        }
    };
}

id_type!(
    /// Id of a sandbox, `sb-` and a ULID.
    SandboxId,
    "sandbox id"
);
id_type!(
    /// Id of a private network, `net-` and a ULID. Routes take its name as well.
    NetworkId,
    "network id"
);
id_type!(
    /// Id of a disk, `disk_` and a ULID.
    DiskId,
    "disk id"
);
id_type!(
    /// Id of a template, `tpl_` and a ULID. Routes take its name as well.
    TemplateId,
    "template id"
);
id_type!(
    /// Id of a managed process.
    ProcessId,
    "process id"
);
id_type!(
    /// Id of a device.
    DeviceId,
    "device id"
);

id_type!(
    /// Id of a device's session.
    SessionId,
    "session id"
);
id_type!(
    /// Name of a virtual screen, `screen-0` to `screen-7`.
    ScreenId,
    "screen id"
);
id_type!(
    /// Id of a window on a virtual screen.
    WindowId,
    "window id"
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn ordinary_ids_survive_text_and_json() {
        for text in ["sb-01k4m2c9zq8v7n5t3r1p0x6y2w", "sb_old", "a", "weird%2Fid", "prc:1.2"] {
            let id: SandboxId = text.parse().unwrap();
            assert_eq!(id.as_str(), text);
            assert_eq!(id.to_string(), text);
            let json = serde_json::to_string(&id).unwrap();
            assert_eq!(serde_json::from_str::<SandboxId>(&json).unwrap(), id);
        }
    }

    #[test]
    fn ids_that_could_leave_their_path_segment_are_refused() {
        let long = "x".repeat(MAX_LEN + 1);
        for text in ["", ".", "..", "a/b", "a\\b", "sb-..", "a b", "a\nb", "a\0", &long] {
            let error = text.parse::<SandboxId>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{text:?}");
            assert!(error.to_string().contains("sandbox id"), "{error}");
            let json = serde_json::to_string(text).unwrap();
            assert!(serde_json::from_str::<SandboxId>(&json).is_err(), "{text:?}");
        }
        assert!("x".repeat(MAX_LEN).parse::<DiskId>().is_ok());
    }
}
