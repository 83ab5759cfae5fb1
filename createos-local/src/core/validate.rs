//! The rules of api.md 1.6. Each check answers with a text that says what would be accepted.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

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

/// The name of a disk.
pub(crate) fn disk_name(name: &str) -> Check {
    let first = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if name.len() <= 63 && name.starts_with(first) && name.chars().all(|c| first(c) || c == '-') {
        return Ok(());
    }
    let name = shown(name);
    Err(format!(
        "{name:?} is not a valid name; up to 63 lower-case letters, digits and hyphens, no hyphen \
         first"
    ))
}

/// The name of a bucket, as far as it must be one for an address to be made of it.
pub(crate) fn bucket(name: &str) -> Check {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_name = (1..=255).contains(&name.len()) && name.chars().all(inner);
    if is_name && !name.chars().all(|c| c == '.') {
        return Ok(());
    }
    let name = shown(name);
    Err(format!("{name:?} is not a bucket's name; letters, digits, `.`, `-` and `_`"))
}

/// The address of an S3 service. It is not repeated: it may hold a password.
pub(crate) fn endpoint(text: &str) -> Check {
    let bad = |why: &str| Err(format!("{why}; give an address like https://s3.example.org"));
    if text.len() > 2048 {
        return bad("it is too long");
    }
    let Ok(url) = url::Url::parse(text) else { return bad("it is not an address") };
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none_or(str::is_empty) {
        return bad("it is not an http(s) address");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return bad("it holds a user or a password; keys go into `credentials`");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return bad("it has a query or a fragment");
    }
    Ok(())
}

/// The region of an S3 service.
pub(crate) fn s3_region(region: &str) -> Check {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if region.len() <= 64 && region.chars().all(inner) {
        return Ok(());
    }
    Err("is not a region; letters, digits, `-` and `_`".to_owned())
}

/// One of the two keys of a bucket. It is not repeated.
pub(crate) fn s3_key(key: &str) -> Check {
    if key.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if key.len() > 1024 || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("is no key: too long, or with blanks or special characters".to_owned());
    }
    Ok(())
}

/// Places that are the system's own, and everything below them.
const SYSTEM: [&str; 4] = ["/proc", "/sys", "/dev", "/.cos"];
/// Places without which nothing runs; directories below them are free.
const NEEDED: [&str; 9] =
    ["/usr", "/etc", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/run", "/tmp"];

/// Where a disk is to be mounted: brought to one spelling.
pub(crate) fn mount_path(given: &str) -> Result<String, String> {
    path(given.as_bytes())?;
    if given.chars().any(char::is_control) {
        return Err("must not contain control characters".to_owned());
    }
    let parts = given.split('/').filter(|part| !part.is_empty() && *part != ".");
    let path: String = parts.flat_map(|part| ["/", part]).collect();
    let is_below = |place: &&str| {
        path.strip_prefix(*place).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if path.is_empty() || NEEDED.contains(&path.as_str()) || SYSTEM.iter().any(is_below) {
        let given = shown(given);
        return Err(format!("{given} is the system's; choose a directory such as /mnt/data"));
    }
    Ok(path)
}

/// The part of a bucket that is to be mounted: brought to one spelling, empty for all of it.
pub(crate) fn sub_path(given: &str) -> Result<String, String> {
    if given.starts_with('/') {
        return Err("must be relative, without a leading `/`".to_owned());
    }
    if given.len() > 512 || given.chars().any(char::is_control) {
        return Err("is too long, or contains control characters".to_owned());
    }
    let parts: Vec<&str> =
        given.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return Err("must not contain a `..` segment".to_owned());
    }
    Ok(parts.join("/"))
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
    fn mounts_are_absolute_and_not_the_systems() {
        for (given, path) in
            [("/mnt/data", "/mnt/data"), ("//mnt/./data/", "/mnt/data"), ("/tmp/a", "/tmp/a")]
        {
            assert_eq!(mount_path(given).as_deref(), Ok(path));
        }
        let bad =
            ["", "/", "/.", "mnt", "/a/../b", "/proc", "/proc/x", "/dev//shm", "/usr/", "/a\n"];
        for bad in bad {
            assert!(mount_path(bad).is_err(), "{bad:?}");
        }
        for (given, path) in [("", ""), ("a/b", "a/b"), ("a//./b/", "a/b"), (".", "")] {
            assert_eq!(sub_path(given).as_deref(), Ok(path));
        }
        for bad in ["/a", "..", "a/../b", "a\0", &"x".repeat(513)] {
            assert!(sub_path(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn buckets_have_names_and_addresses() {
        for good in ["http://127.0.0.1:9000", "https://s3.example.org/base", "https://[::1]:9"] {
            assert_eq!(endpoint(good), Ok(()), "{good}");
        }
        for bad in
            ["", "s3.example.org", "ftp://x", "file:///x", "https://u:hunter2@x", "http://x/?a"]
        {
            let error = endpoint(bad).unwrap_err();
            assert!(!error.contains("hunter2"));
        }
        assert!(bucket("a-b.c_D9").is_ok() && bucket("..").is_err() && bucket("a/b").is_err());
        assert!(disk_name("a-b9").is_ok() && disk_name("-a").is_err() && disk_name("A").is_err());
        assert!(s3_key("AK+/=").is_ok() && s3_key(" ").is_err() && s3_key("a b").is_err());
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
