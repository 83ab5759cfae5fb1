//! Moments in time as the wire writes them.

use std::fmt;
use std::str::FromStr;
use std::time::SystemTime;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::Error;

/// A moment, read from and written as RFC 3339.
///
/// Reading takes any offset and up to nine fraction digits. Writing is always UTC with
/// `Z` and 0, 3 or 6 fraction digits, the only forms every client reads (api.md 1.7);
/// what lies below a microsecond is cut off when the value is made, so a value equals
/// its own text.
///
/// ```
/// let at: createos_sdk::Timestamp = "2026-08-02T12:00:00.25+02:00".parse()?;
/// assert_eq!(at.to_string(), "2026-08-02T10:00:00.250Z");
/// # Ok::<(), createos_sdk::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// This moment, by the system's clock.
    pub fn now() -> Self {
        Self::cut(jiff::Timestamp::now())
    }

    /// The same moment as the standard library's type.
    pub fn to_system_time(self) -> SystemTime {
        self.0.into()
    }

    fn cut(at: jiff::Timestamp) -> Self {
        // Microseconds of a valid timestamp are always a valid timestamp.
        Self(jiff::Timestamp::from_microsecond(at.as_microsecond()).unwrap_or(at))
    }

    fn read(text: &str) -> Result<Self, String> {
        text.parse::<jiff::Timestamp>()
            .map(Self::cut)
            .map_err(|_| format!("{text:?} is not an RFC 3339 timestamp"))
    }
}

impl TryFrom<SystemTime> for Timestamp {
    type Error = Error;

    /// Fails with [`ErrorKind::InvalidArgument`](crate::ErrorKind::InvalidArgument) outside
    /// the years -9999 to 9999.
    fn try_from(at: SystemTime) -> Result<Self, Error> {
        jiff::Timestamp::try_from(at)
            .map(Self::cut)
            .map_err(|_| Error::invalid_argument("timestamp", "out of range"))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(at: Timestamp) -> Self {
        at.to_system_time()
    }
}

impl FromStr for Timestamp {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::read(text).map_err(|why| Error::invalid_argument("timestamp", why))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = match self.0.subsec_microsecond() {
            0 => 0,
            micros if micros % 1000 == 0 => 3,
            _ => 6,
        };
        write!(f, "{:.digits$}", self.0)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::read(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_zero_three_or_six_digits() {
        for (read, written) in [
            ("2026-08-02T10:00:00Z", "2026-08-02T10:00:00Z"),
            ("2026-08-02T10:00:00.1Z", "2026-08-02T10:00:00.100Z"),
            ("2026-08-02T10:00:00.1234567Z", "2026-08-02T10:00:00.123456Z"),
            ("2026-08-02T10:00:00.0000009Z", "2026-08-02T10:00:00Z"),
            ("2026-08-02T23:30:00-02:00", "2026-08-03T01:30:00Z"),
        ] {
            let at: Timestamp = read.parse().unwrap();
            assert_eq!(at.to_string(), written);
            assert_eq!(written.parse::<Timestamp>().unwrap(), at);
        }
    }

    #[test]
    fn refuses_what_is_not_a_moment() {
        for text in ["", "yesterday", "2026-08-02", "2026-13-02T10:00:00Z", "2026-08-02T10:00:00"] {
            assert!(text.parse::<Timestamp>().is_err(), "{text}");
        }
    }

    #[test]
    fn goes_through_system_time_unchanged() {
        let at = Timestamp::now();
        assert_eq!(Timestamp::try_from(at.to_system_time()).unwrap(), at);
    }
}
