//! Public keys as OpenSSH writes them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// An OpenSSH public key: its type, the key itself, and a comment.
///
/// Two are equal when they are the same key, whatever their comments say.
///
/// ```
/// # fn main() -> createos_sdk::Result<()> {
/// use createos_sdk::SshPublicKey;
///
/// let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0jbyYn0Qq6AvS4oPmtjPYqUYuhNPhPwoKvP1VWG0Jw me";
/// let key: SshPublicKey = line.parse()?;
/// assert_eq!(key.kind(), "ssh-ed25519");
/// assert_eq!(key.comment(), "me");
/// assert!(key.fingerprint().starts_with("SHA256:"));
/// assert_eq!(key.to_string(), line);
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
pub struct SshPublicKey {
    kind: String,
    blob: String,
    comment: String,
}

impl SshPublicKey {
    /// The keys in the text of an `authorized_keys` file. Options before a key are left out;
    /// lines that hold none are passed over.
    pub fn parse_all(text: &str) -> Vec<Self> {
        let lines = text.lines().map(str::trim).filter(|line| !line.starts_with('#'));
        lines.filter_map(Self::find).collect()
    }

    /// The first two words that are a type and a key of this type; options that stand before
    /// them may hold blanks.
    fn find(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let at = words.windows(2).position(|pair| is_key(pair[0], pair[1]))?;
        Some(Self {
            kind: words[at].to_owned(),
            blob: words[at + 1].to_owned(),
            comment: words[at + 2..].join(" "),
        })
    }

    /// Its type, such as `ssh-ed25519`.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// What its owner calls it; may be empty.
    pub fn comment(&self) -> &str {
        &self.comment
    }

    /// What `ssh-keygen -l` shows: `SHA256:` and 43 characters.
    pub fn fingerprint(&self) -> String {
        // Checked when it was read.
        let bytes = STANDARD.decode(&self.blob).unwrap_or_default();
        format!("SHA256:{}", STANDARD_NO_PAD.encode(Sha256::digest(bytes)))
    }

    /// Type and key, which is what makes it this one.
    pub(super) fn identity(&self) -> String {
        format!("{} {}", self.kind, self.blob)
    }
}

/// Whether a word is a key of this type: base64 that begins with the type's name, behind its
/// length in four bytes.
fn is_key(kind: &str, blob: &str) -> bool {
    let Ok(bytes) = STANDARD.decode(blob) else { return false };
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else { return false };
    let length = u32::from_be_bytes(*length) as usize;
    !kind.is_empty() && rest.len() > length && rest[..length] == *kind.as_bytes()
}

impl FromStr for SshPublicKey {
    type Err = Error;

    /// Reads one line. Fails with [`ErrorKind::InvalidArgument`] for everything else, and
    /// never shows what it was given: it may be a private key.
    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        let refuse = |why: &str| Err(Error::new(ErrorKind::InvalidArgument, why));
        if text.contains("PRIVATE KEY") {
            return refuse("this is a private key; only the public half may leave its machine");
        }
        if text.contains(char::is_control) {
            return refuse("this is more than one line");
        }
        let mut words = text.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some(kind), Some(blob)) if is_key(kind, blob) => Ok(Self {
                kind: kind.to_owned(),
                blob: blob.to_owned(),
                comment: words.collect::<Vec<_>>().join(" "),
            }),
            _ => refuse("this is not an OpenSSH public key"),
        }
    }
}

impl fmt::Display for SshPublicKey {
    /// The line of an `authorized_keys` file.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.blob)?;
        if self.comment.is_empty() { Ok(()) } else { write!(f, " {}", self.comment) }
    }
}

impl PartialEq for SshPublicKey {
    fn eq(&self, other: &Self) -> bool {
        (&self.kind, &self.blob) == (&other.kind, &other.blob)
    }
}

impl Eq for SshPublicKey {}

impl Hash for SshPublicKey {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.kind, &self.blob).hash(state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOB: &str = "AAAAC3NzaC1lZDI1NTE5AAAAIJ0jbyYn0Qq6AvS4oPmtjPYqUYuhNPhPwoKvP1VWG0Jw";

    fn key(comment: &str) -> SshPublicKey {
        format!("ssh-ed25519 {BLOB} {comment}").parse().unwrap()
    }

    #[test]
    fn a_key_is_its_type_and_its_bytes() {
        assert_eq!(key("me"), key("somebody else"));
        assert_eq!(key("two words").to_string(), format!("ssh-ed25519 {BLOB} two words"));
        assert_eq!(key("").to_string(), format!("ssh-ed25519 {BLOB}"));
        assert_eq!(key("").fingerprint(), "SHA256:TkVuW700ZclF10q2FUTOu91a44zEYKA3p7/v9gMG/XY");
    }

    #[test]
    fn what_is_no_public_key_is_refused_without_being_shown() {
        for bad in [
            "",
            "ssh-ed25519",
            &format!("ssh-rsa {BLOB}"),
            &format!("ssh-ed25519 {}", &BLOB[..20]),
            &format!("ssh-ed25519 {BLOB}\nssh-ed25519 {BLOB}"),
            "ssh-ed25519 secret",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nsecret",
        ] {
            let error = bad.parse::<SshPublicKey>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{bad}");
            assert!(!error.to_string().contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_file_is_read_as_sshd_reads_it() {
        let text = format!(
            "# ssh-ed25519 {BLOB} gone\n\n  ssh-ed25519 {BLOB} plain\r\nrubbish\n\
             command=\"echo ssh-ed25519 hi\",no-pty ssh-ed25519 {BLOB} with options"
        );
        let keys = SshPublicKey::parse_all(&text);
        let comments: Vec<&str> = keys.iter().map(SshPublicKey::comment).collect();
        assert_eq!(comments, ["plain", "with options"]);
    }
}
