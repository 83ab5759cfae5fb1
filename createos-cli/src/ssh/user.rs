//! Names to log in with.

/// Who logs in unless told otherwise.
pub(crate) const DEFAULT: &str = "root";

/// A name that every image could have: `[A-Za-z_][A-Za-z0-9_-]{0,31}`.
pub(crate) fn parse(text: &str) -> Result<String, String> {
    let mut letters = text.chars();
    let good = text.len() <= 32
        && letters.next().is_some_and(|letter| letter.is_ascii_alphabetic() || letter == '_')
        && letters.all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter));
    match good {
        true => Ok(text.to_owned()),
        false => Err("a user name has 1 to 32 letters, digits, _ and -, and does not begin \
                      with a digit or -"
            .to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_be_something_else_are_refused() {
        for name in ["root", "_apt", "web-1", "A", &"x".repeat(32)] {
            assert_eq!(parse(name).as_deref(), Ok(name));
        }
        for name in ["", "-o", "1a", "a b", "../x", "a@b", "ä", &"x".repeat(33)] {
            assert!(parse(name).is_err(), "{name:?}");
        }
    }
}
