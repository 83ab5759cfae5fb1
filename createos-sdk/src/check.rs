//! Arguments refused before any traffic (api.md 1.6).

use std::collections::BTreeMap;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::secret::Secret;

const MAX_ENVS: usize = 64;
const MAX_ENV_VALUE: usize = 4096;
const MAX_ENV_TOTAL: usize = 64 << 10;

/// A name that can become a hostname. Servers may allow fewer characters.
pub(crate) fn sandbox_name(name: &str) -> Result<()> {
    let good = !name.is_empty()
        && name.len() <= 63
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if good {
        return Ok(());
    }
    let why = format!("{name:?} is not made of letters, digits and inner hyphens (1 to 63)");
    Err(Error::invalid_argument("name", why))
}

pub(crate) fn auto_pause(idle: Duration) -> Result<u64> {
    let seconds = idle.as_secs();
    if idle.subsec_nanos() == 0 && (60..=86_400).contains(&seconds) {
        return Ok(seconds);
    }
    Err(Error::invalid_argument(
        "auto_pause_after",
        format!("{idle:?} is not a whole number of seconds from 60 to 86400"),
    ))
}

pub(crate) fn terminal_size(rows: u16, cols: u16) -> Result<()> {
    for (name, size) in [("rows", rows), ("cols", cols)] {
        if size == 0 {
            return Err(Error::invalid_argument(name, "must be from 1 to 65535"));
        }
    }
    Ok(())
}

pub(crate) fn mount(mount_path: &str, sub_path: Option<&str>) -> Result<()> {
    if !mount_path.starts_with('/') || mount_path.contains('\0') {
        return Err(Error::invalid_argument(
            "mount_path",
            format!("{mount_path:?} is not absolute"),
        ));
    }
    match sub_path {
        Some(path) if path.starts_with('/') || path.split('/').any(|part| part == "..") => {
            let why = format!("{path:?} must be relative and must not contain `..`");
            Err(Error::invalid_argument("sub_path", why))
        }
        _ => Ok(()),
    }
}

/// Outbound rules (api.md 6.4). What they mean is for the server to judge.
pub(crate) fn egress(rules: &[String]) -> Result<()> {
    for rule in rules {
        let why = match () {
            () if rule.is_empty() => "a rule is empty".to_owned(),
            () if rule.contains(|c: char| c.is_whitespace() || c.is_control()) => {
                format!("{rule:?} contains blanks")
            }
            () if rule == "*" && rules.len() > 1 => "`*` stands alone or not at all".to_owned(),
            () => continue,
        };
        return Err(Error::invalid_argument("egress", why));
    }
    Ok(())
}

/// OpenSSH public keys, one line each.
pub(crate) fn ssh_pubkeys(keys: &[String]) -> Result<()> {
    for key in keys {
        if key.trim().is_empty() || key.trim().contains(char::is_control) {
            let why = "a key is empty or more than one line";
            return Err(Error::invalid_argument("ssh_pubkeys", why));
        }
    }
    Ok(())
}

/// A name of something that is neither a sandbox nor a disk.
pub(crate) fn name(text: &str) -> Result<()> {
    one_line("name", text)
}

/// What names something of the server's.
pub(crate) fn one_line(what: &str, text: &str) -> Result<()> {
    if text.trim().is_empty() || text.contains(char::is_control) {
        return Err(Error::invalid_argument(what, format!("{text:?} is empty or not one line")));
    }
    Ok(())
}

/// A disk name (api.md 1.6). Ids of disks never look like one.
pub(crate) fn is_disk_name(text: &str) -> bool {
    let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    text.len() <= 63
        && text.bytes().next().is_some_and(lower)
        && text.bytes().all(|byte| lower(byte) || byte == b'-')
}

pub(crate) fn disk_name(name: &str) -> Result<()> {
    if is_disk_name(name) {
        return Ok(());
    }
    let why = format!("{name:?} is not made of a-z, 0-9 and `-` (1 to 63, `-` not first)");
    Err(Error::invalid_argument("name", why))
}

pub(crate) fn env_name(name: &str) -> Result<()> {
    let mut bytes = name.bytes();
    let good = bytes.next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if good {
        return Ok(());
    }
    let why = format!("{name:?} is not made of letters, digits and `_`, beginning without a digit");
    Err(Error::invalid_argument("env", why))
}

pub(crate) fn envs(variables: &BTreeMap<String, Secret>) -> Result<()> {
    if variables.len() > MAX_ENVS {
        return Err(Error::invalid_argument("env", format!("more than {MAX_ENVS} variables")));
    }
    let mut total = 0;
    for (name, value) in variables {
        env_name(name)?;
        let value = value.expose();
        if value.len() > MAX_ENV_VALUE {
            let why = format!("the value of {name} is longer than {MAX_ENV_VALUE} bytes");
            return Err(Error::invalid_argument("env", why));
        }
        if value.contains('\0') {
            let why = format!("the value of {name} contains a NUL character");
            return Err(Error::invalid_argument("env", why));
        }
        total += name.len() + value.len();
    }
    if total > MAX_ENV_TOTAL {
        let why = format!("names and values together are longer than {MAX_ENV_TOTAL} bytes");
        return Err(Error::invalid_argument("env", why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for name in ["a", "calm-heron", "Web1", &"x".repeat(63)] {
            sandbox_name(name).unwrap();
        }
        for name in ["", "-a", "a-", "a b", "a/b", "a.b", "ä", "a\n", &"x".repeat(64)] {
            assert!(sandbox_name(name).unwrap_err().message().starts_with("name"), "{name:?}");
        }
    }

    #[test]
    fn auto_pause_is_whole_seconds_in_range() {
        assert_eq!(auto_pause(Duration::from_secs(60)).unwrap(), 60);
        assert_eq!(auto_pause(Duration::from_secs(86_400)).unwrap(), 86_400);
        for ms in [0, 59_999, 60_500, 86_401_000] {
            assert!(auto_pause(Duration::from_millis(ms)).is_err(), "{ms}");
        }
    }

    #[test]
    fn mounts() {
        mount("/mnt/data", Some("a/b")).unwrap();
        mount("/mnt/data", Some("a..b")).unwrap();
        assert!(mount("mnt", None).is_err());
        assert!(mount("/mnt", Some("/a")).is_err());
        assert!(mount("/mnt", Some("a/../..")).is_err());
    }

    #[test]
    fn rules_keys_and_names() {
        let all = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        egress(&all(&[])).unwrap();
        egress(&all(&["*"])).unwrap();
        egress(&all(&["a.example.org:443", "10.0.0.0/8"])).unwrap();
        for bad in [&["", "a"][..], &["a b"], &["a\n"], &["*", "a"]] {
            assert!(egress(&all(bad)).unwrap_err().message().starts_with("egress"));
        }
        ssh_pubkeys(&all(&["ssh-ed25519 AAAA me\n"])).unwrap();
        for bad in ["", " \n", "a\nb"] {
            assert!(ssh_pubkeys(&all(&[bad])).is_err(), "{bad:?}");
        }
        name("my mesh").unwrap();
        assert!(name(" ").is_err() && name("a\0").is_err());
        for good in ["a", "0-9", "training-data", &"x".repeat(63)] {
            disk_name(good).unwrap();
        }
        for bad in ["", "-a", "A", "a_b", "disk_01k4", "a.b", &"x".repeat(64)] {
            assert!(disk_name(bad).unwrap_err().message().starts_with("name"), "{bad:?}");
        }
    }

    #[test]
    fn environments() {
        let of = |pairs: Vec<(String, usize)>| {
            let secret = |length| Secret::from("x".repeat(length));
            envs(&pairs.into_iter().map(|(name, length)| (name, secret(length))).collect())
        };
        let named = |name: &str| of(vec![(name.to_owned(), 1)]);
        for name in ["A", "_", "a1_B"] {
            named(name).unwrap();
        }
        for name in ["", "1A", "A-B", "A B", "A=B", "Ä", "A\0"] {
            assert!(named(name).is_err(), "{name:?}");
        }
        of(vec![("A".into(), 4096)]).unwrap();
        assert!(of(vec![("A".into(), 4097)]).is_err());
        let many =
            |count: usize, length| (0..count).map(|i| (format!("V{i:02}"), length)).collect();
        of(many(64, 0)).unwrap();
        assert!(of(many(65, 0)).is_err());
        of(many(16, 4093)).unwrap();
        assert!(of(many(16, 4094)).is_err());
        let nul = BTreeMap::from([("A".to_owned(), Secret::from("a\0b"))]);
        assert!(envs(&nul).is_err());
    }
}
