//! Query strings: `+` and `%20` are blanks (api.md 11).

use std::borrow::Cow;
use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use percent_encoding::percent_decode_str;

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 500;

/// The decoded pairs of a query.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(Vec<u8>, Vec<u8>)>);

impl Query {
    /// Takes anything: a sandbox that does not exist must be told before a parameter that
    /// cannot be read (api.md 8.2).
    pub(super) fn parse(text: &str) -> Self {
        let pairs = text.split('&').map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        });
        Self(pairs.collect())
    }

    /// The first value of this name. One that is not UTF-8 counts as not given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.bytes(name)?).ok()
    }

    /// The first value of this name, whatever is in it.
    pub(super) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.0.iter().find(|(key, _)| key == name.as_bytes()).map(|(_, value)| value.as_slice())
    }

    /// Query booleans are the text `true` (api.md 1.7).
    pub(super) fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    /// The page asked for, brought into range (api.md 1.9).
    pub(super) fn page(&self) -> PageRequest {
        let number = |name| self.get(name).filter(|text| is_digits(text));
        // Digits that do not fit are simply very many.
        let limit = number("limit").map_or(DEFAULT_LIMIT, |text| {
            match text.parse::<u32>().unwrap_or(MAX_LIMIT) {
                0 => DEFAULT_LIMIT,
                limit => limit.min(MAX_LIMIT),
            }
        });
        let offset = number("offset").map_or(0, |text| text.parse().unwrap_or(u64::MAX));
        PageRequest { limit, offset }
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn decode(text: &str) -> Vec<u8> {
    let blanks = text.replace('+', " ");
    Cow::from(percent_decode_str(&blanks)).into_owned()
}

/// A page asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageRequest {
    pub(super) limit: u32,
    pub(super) offset: u64,
}

impl PageRequest {
    /// This page of a list that is at hand.
    pub(super) fn of<T>(self, all: Vec<T>) -> createos_sdk::wire::Page<T> {
        let total = all.len() as u64;
        let start = usize::try_from(self.offset).unwrap_or(usize::MAX);
        let rows = all.into_iter().skip(start).take(self.limit as usize).collect();
        createos_sdk::wire::Page::new(rows, total, self.limit.into(), self.offset)
    }
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self::parse(parts.uri.query().unwrap_or("")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_encodings_of_a_blank_and_raw_slashes() {
        let query = Query::parse("path=%2Fa+b%20c/d&x&stream=true&&path=other");
        assert_eq!(query.get("path"), Some("/a b c/d"));
        assert_eq!(query.get("x"), Some(""));
        assert_eq!(query.get("y"), None);
        assert!(query.is_true("stream") && !query.is_true("x"));
        assert_eq!(Query::parse("p=%2B%zz").get("p"), Some("+%zz"));
        assert_eq!(Query::parse("p=%ff&q=1").get("p"), None);
        assert_eq!(Query::parse("p=%ff&q=1").bytes("p"), Some([0xff].as_slice()));
        assert_eq!(Query::parse("p=%ff&q=1").get("q"), Some("1"));
    }

    #[test]
    fn pages_are_brought_into_range() {
        for (text, limit, offset) in [
            ("", 50, 0),
            ("limit=1&offset=7", 1, 7),
            ("limit=500", 500, 0),
            ("limit=501", 500, 0),
            ("limit=99999999999999999999&offset=99999999999999999999", 500, u64::MAX),
            ("limit=0&offset=-1", 50, 0),
            ("limit=-5", 50, 0),
            ("limit=ten&offset=x", 50, 0),
            ("limit=&offset=", 50, 0),
            ("limit=1.5", 50, 0),
        ] {
            let page = Query::parse(text).page();
            assert_eq!(page, PageRequest { limit, offset }, "{text}");
        }
    }

    #[test]
    fn a_page_past_the_end_is_empty_with_the_right_total() {
        let page = PageRequest { limit: 2, offset: 1 }.of(vec![1, 2, 3, 4]);
        assert_eq!((page.data.as_slice(), page.pagination.unwrap().total), ([2, 3].as_slice(), 4));
        let page = PageRequest { limit: 2, offset: u64::MAX }.of(vec![1]);
        assert_eq!((page.data.len(), page.pagination.unwrap().total), (0, 1));
    }
}
