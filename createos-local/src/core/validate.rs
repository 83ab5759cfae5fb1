//! The rules of api.md 1.6. Each check answers with a text that says what would be accepted.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{CoreError, NOT_YET};

/// Longest sandbox name; it becomes the hostname and a DNS label.
const NAME_MAX: usize = 22;
const ENV_MAX_ENTRIES: usize = 64;
const ENV_MAX_VALUE: usize = 4096;
const ENV_MAX_TOTAL: usize = 64 << 10;
/// Linux refuses longer paths anyway.
const PATH_MAX: usize = 4095;
const AUTO_PAUSE_SECONDS: std::ops::RangeInclusive<u64> = 60..=86_400;

/// Most characters of a caller's text that a message repeats.
const SHOWN_MAX: usize = 80;

type Check = Result<(), String>;

/// A caller's text, short enough to be repeated in a message.
pub(crate) fn shown(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SHOWN_MAX) {
        Some((cut, _)) => format!("{}…", &text[..cut]).into(),
        None => text.into(),
    }
}

/// A sandbox name.
pub(crate) fn name(name: &str) -> Check {
    if name.len() > NAME_MAX {
        return Err(format!(
            "{} characters are too many; a name has at most {NAME_MAX}",
            name.chars().count()
        ));
    }
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if name.is_empty() || !name.chars().all(inner) || name.starts_with('-') || name.ends_with('-') {
        return Err("only lower-case letters, digits and inner hyphens make a name, \
                    because it becomes a hostname"
            .to_owned());
    }
    Ok(())
}

/// A network name; it is a label of its members' names.
pub(crate) fn network_name(name: &str) -> Check {
    const MAX: usize = 63;
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let is_name = !name.is_empty() && name.chars().all(inner) && !name.starts_with(['-', '_']);
    if name.len() > MAX || !is_name || name.ends_with('-') {
        return Err(format!(
            "{:?} cannot be one: letters, digits, `_` and inner hyphens, at most {MAX}, make a \
             name, because it becomes a part of its members' names",
            shown(name)
        ));
    }
    // Networks are named by id or name.
    match name.strip_prefix("net-") {
        Some(id) if id.len() == 26 => Err("looks like the id of a network".to_owned()),
        _ => Ok(()),
    }
}

/// One environment key, without naming rules of any shell.
pub(crate) fn env_key(key: &str) -> Check {
    let mut chars = key.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    if first && chars.all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Ok(());
    }
    let key = shown(key);
    Err(format!("{key:?} is not a valid key; letters, digits and `_` only, no leading digit"))
}

/// A whole set of variables. The text names keys, never values.
pub(crate) fn envs<'a>(envs: impl Iterator<Item = (&'a str, &'a str)>) -> Check {
    let (mut entries, mut total) = (0, 0);
    for (key, value) in envs {
        env_key(key)?;
        if value.len() > ENV_MAX_VALUE {
            return Err(format!(
                "the value of {key} has {} bytes; at most {ENV_MAX_VALUE} are allowed",
                value.len()
            ));
        }
        if value.contains('\0') {
            return Err(format!("the value of {key} contains a NUL character"));
        }
        entries += 1;
        total += key.len() + value.len();
    }
    if entries > ENV_MAX_ENTRIES {
        return Err(format!("{entries} entries; at most {ENV_MAX_ENTRIES} are allowed"));
    }
    if total > ENV_MAX_TOTAL {
        return Err(format!("{total} bytes in total; at most {ENV_MAX_TOTAL} are allowed"));
    }
    Ok(())
}

/// A path of a file inside a sandbox: any bytes that the kernel takes.
pub(crate) fn path(path: &[u8]) -> Check {
    if !path.starts_with(b"/") {
        return Err("must be absolute, starting with `/`".to_owned());
    }
    if path.len() > PATH_MAX {
        return Err(format!("{} bytes are too many; at most {PATH_MAX}", path.len()));
    }
    if path.contains(&0) {
        return Err("must not contain a NUL character".to_owned());
    }
    if path.split(|byte| *byte == b'/').any(|segment| segment == b"..") {
        return Err("must not contain a `..` segment".to_owned());
    }
    Ok(())
}

/// An idle time in seconds after which a sandbox pauses.
pub(crate) fn auto_pause(seconds: u64) -> Check {
    if AUTO_PAUSE_SECONDS.contains(&seconds) {
        return Ok(());
    }
    Err(format!(
        "{seconds} is out of range; {} to {} seconds are allowed",
        AUTO_PAUSE_SECONDS.start(),
        AUTO_PAUSE_SECONDS.end()
    ))
}

/// Outbound rules, as far as this engine can enforce them.
pub(crate) fn egress_available(rules: &[String]) -> Result<(), CoreError> {
    if rules.is_empty() || rules == ["*"] {
        return Ok(());
    }
    let message = format!("outbound rules cannot be enforced, so they are refused; {NOT_YET}");
    Err(CoreError::NotAvailable { field: "egress", message })
}

/// A public key line as OpenSSH writes it, brought to one spelling: type, key, comment, with
/// single blanks between.
pub(crate) fn ssh_key(line: &str) -> Result<String, String> {
    let line = line.trim();
    let shown: String = line.chars().take(24).collect();
    let bad = |why: &str| Err(format!("{shown:?} {why}; give a line like `ssh-ed25519 AAAA… me`"));
    if line.chars().any(|c| c.is_control() && c != '\t') {
        return bad("contains a line break or control character");
    }
    let mut words = line.split_whitespace();
    let (Some(kind), Some(encoded)) = (words.next(), words.next()) else {
        return bad("is not a public key");
    };
    if !is_key_type(kind) {
        return bad("does not begin with a known key type");
    }
    // The key repeats its type inside, length first.
    let inner = STANDARD.decode(encoded).ok().and_then(|blob| {
        let length = u32::from_be_bytes(blob.first_chunk::<4>().copied()?);
        blob.get(4..4usize.checked_add(usize::try_from(length).ok()?)?).map(<[u8]>::to_vec)
    });
    if inner.as_deref() != Some(kind.as_bytes()) {
        return bad("holds a damaged key");
    }
    let comment: Vec<&str> = words.collect();
    Ok(if comment.is_empty() {
        format!("{kind} {encoded}")
    } else {
        format!("{kind} {encoded} {}", comment.join(" "))
    })
}

fn is_key_type(kind: &str) -> bool {
    matches!(
        kind,
        "ssh-ed25519"
            | "ssh-rsa"
            | "ecdsa-sha2-nistp256"
            | "ecdsa-sha2-nistp384"
            | "ecdsa-sha2-nistp521"
            | "sk-ssh-ed25519@openssh.com"
            | "sk-ecdsa-sha2-nistp256@openssh.com"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJ0jbyYn0Qq6AvS4oPmtjPYqUYuhNPhPwoKvP1VWG0Jw";

    #[test]
    fn names() {
        for good in ["a", "7", "calm-heron", "a-1", "abcdefghijklmnopqrstuv", "sb-1"] {
            assert_eq!(name(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "-a",
            "a-",
            "A",
            "a_b",
            "a.b",
            "a b",
            "ä",
            "a\0",
            "a\n",
            "abcdefghijklmnopqrstuvw",
            "../etc",
        ] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn env_sets() {
        let check = |pairs: &[(String, String)]| {
            envs(pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())))
        };
        let one = |key: &str, value: &str| check(&[(key.to_owned(), value.to_owned())]);
        assert_eq!(one("A", ""), Ok(()));
        assert_eq!(one("_b1", "x y=z\n"), Ok(()));
        for bad in ["", "1A", "A-B", "A=B", "A B", "Ä", "A\0"] {
            assert!(one(bad, "x").is_err(), "{bad:?}");
        }
        assert!(one("A", "a\0b").is_err());

        let edge = "x".repeat(4096);
        assert_eq!(one("A", &edge), Ok(()));
        let error = one("A", &format!("{edge}s")).unwrap_err();
        assert!(error.contains("4097") && !error.contains("xx"), "{error}");

        let many = |n: usize, size: usize| -> Vec<_> {
            (0..n).map(|i| (format!("K{i:X}"), "v".repeat(size))).collect()
        };
        assert_eq!(check(&many(64, 0)), Ok(()));
        assert!(check(&many(65, 0)).is_err());

        // 16 keys of 2 bytes and 16 values of 4094 bytes are 64 KiB exactly.
        let mut full = many(16, 4094);
        assert_eq!(check(&full), Ok(()));
        full[0].1.push('v');
        assert!(check(&full).is_err());
    }

    #[test]
    fn paths() {
        for good in ["/", "/a", "/a b/ü", "/a/./b", "/..a", "/a..", "//x"] {
            assert_eq!(path(good.as_bytes()), Ok(()), "{good}");
        }
        let long = format!("/{}", "a".repeat(4095));
        for bad in ["", "a", "./a", "../a", "/..", "/a/../b", "/a/..", "/a\0", &long] {
            assert!(path(bad.as_bytes()).is_err(), "{bad:?}");
        }
        assert_eq!(path(b"/\xff\n"), Ok(()));
    }

    #[test]
    fn ssh_keys() {
        let plain = format!("ssh-ed25519 {KEY}");
        assert_eq!(ssh_key(&plain), Ok(plain.clone()));
        assert_eq!(
            ssh_key(&format!("  ssh-ed25519\t{KEY}   me  at home\n")),
            Ok(format!("{plain} me at home"))
        );
        for bad in [
            String::new(),
            "ssh-ed25519".to_owned(),
            format!("ssh-rsa {KEY}"),
            format!("ssh-dss {KEY}"),
            format!("ssh-ed25519 {}", &KEY[..8]),
            format!("ssh-ed25519 {KEY}!"),
            format!("command=\"x\" ssh-ed25519 {KEY}"),
            format!("{plain}\n{plain}"),
            "ssh-ed25519 /////w==".to_owned(),
            "-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(),
        ] {
            assert!(ssh_key(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn auto_pause_range() {
        assert_eq!(auto_pause(60), Ok(()));
        assert_eq!(auto_pause(86_400), Ok(()));
        for bad in [0, 59, 86_401, u64::MAX] {
            assert!(auto_pause(bad).is_err());
        }
    }
}
