//! The formats of values on the command line (cli.md 1.14).
//!
//! Every parser returns a message that clap shows after
//! "invalid value '…' for '--flag'".

pub(crate) mod disk_mount;
pub(crate) mod duration;
pub(crate) mod env_pair;
pub(crate) mod size;
pub(crate) mod ssh_key;
pub(crate) mod url;

/// A list item: not empty and without blanks, as egress rules and network names.
pub(crate) fn word(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.contains(char::is_whitespace) {
        return Err("it contains a blank".to_owned());
    }
    Ok(text.to_owned())
}

/// A value that must not be empty or blank; the blanks around it are dropped.
pub(crate) fn text(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() { Err("it is empty".to_owned()) } else { Ok(text.to_owned()) }
}

/// `on true yes enable` or `off false no disable`, any case.
pub(crate) fn on_off(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "enable" => Ok(true),
        "off" | "false" | "no" | "disable" => Ok(false),
        _ => Err("write on or off".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_trimmed_and_whole() {
        assert_eq!(word(" api.example.org:443 ").as_deref(), Ok("api.example.org:443"));
        assert_eq!(word("*").as_deref(), Ok("*"));
        assert!(word("").is_err());
        assert!(word("  ").is_err());
        assert!(word("a b").is_err());
    }

    #[test]
    fn switches_have_several_words() {
        for word in ["on", "TRUE", "yes", " enable "] {
            assert_eq!(on_off(word), Ok(true), "{word}");
        }
        for word in ["off", "False", "no", "disable"] {
            assert_eq!(on_off(word), Ok(false), "{word}");
        }
        for word in ["", "1", "onn"] {
            assert!(on_off(word).unwrap_err().contains("on or off"), "{word:?}");
        }
    }

    #[test]
    fn blank_text_is_refused() {
        assert_eq!(text(" s-1vcpu-1gb ").as_deref(), Ok("s-1vcpu-1gb"));
        assert!(text("\t ").is_err());
    }
}
