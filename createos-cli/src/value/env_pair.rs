//! `KEY=VALUE` of `--env`.

/// One variable; the value is kept byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EnvPair {
    pub(crate) key: String,
    pub(crate) value: String,
}

/// Cuts at the first `=`; the key is trimmed and must not be empty.
pub(crate) fn parse(text: &str) -> Result<EnvPair, String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err("write it as KEY=VALUE".to_owned());
    };
    let key = key.trim();
    if key.is_empty() {
        return Err("the name before = is empty; write it as KEY=VALUE".to_owned());
    }
    Ok(EnvPair { key: key.to_owned(), value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(key: &str, value: &str) -> Result<EnvPair, String> {
        Ok(EnvPair { key: key.to_owned(), value: value.to_owned() })
    }

    #[test]
    fn the_first_equals_sign_cuts() {
        assert_eq!(parse("STAGE=ci"), pair("STAGE", "ci"));
        assert_eq!(parse("URL=a=b=c"), pair("URL", "a=b=c"));
        assert_eq!(parse(" KEY = two words "), pair("KEY", " two words "));
        assert_eq!(parse("EMPTY="), pair("EMPTY", ""));
        assert_eq!(parse("LIST=a,b"), pair("LIST", "a,b"));
    }

    #[test]
    fn a_missing_half_shows_the_form() {
        for text in ["STAGE", "", "=x", "  =x"] {
            assert!(parse(text).unwrap_err().contains("KEY=VALUE"), "{text:?}");
        }
    }
}
