//! The WireGuard configuration of a session, made complete on the device (api.md 5.9).

use std::fmt::Write as _;

use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;
use crate::wire::DeviceSession;

/// What `wg-quick` would run as root, or overwrite: nothing that a server may ask for.
const REFUSED: [&str; 5] = ["preup", "postup", "predown", "postdown", "saveconfig"];

impl DeviceSession {
    /// The configuration for `wg-quick(8)`: what the server gave, with the private key of the
    /// device (32 bytes in base64) added. The key stays on this machine.
    ///
    /// # Errors
    ///
    /// `Protocol`: the configuration has no `[Interface]`, has a key already, or names commands
    /// that `wg-quick` would run as root.
    pub fn config_with_key(&self, private_key: &Secret) -> Result<Secret> {
        let mut whole = String::new();
        let mut is_added = false;
        for line in self.client_config.lines() {
            let name = line.split('=').next().unwrap_or_default().trim().to_ascii_lowercase();
            if name == "privatekey" || REFUSED.contains(&name.as_str()) {
                let why = format!("the configuration of the session sets {name:?}");
                return Err(Error::new(ErrorKind::Protocol, why));
            }
            whole.push_str(line);
            whole.push('\n');
            if !is_added && name == "[interface]" {
                is_added = true;
                // Writing to a text does not fail.
                let _ = writeln!(whole, "PrivateKey = {}", private_key.expose());
            }
        }
        if is_added {
            Ok(whole.into())
        } else {
            Err(Error::new(
                ErrorKind::Protocol,
                "the configuration of the session has no [Interface]",
            ))
        }
    }

    /// The addresses that go through the tunnel, as `AllowedIPs` of the configuration names
    /// them: networks such as `10.64.0.0/22`.
    pub fn allowed_ips(&self) -> Vec<&str> {
        let lines = self.client_config.lines().filter_map(|line| line.split_once('='));
        let allowed = lines.filter(|(name, _)| name.trim().eq_ignore_ascii_case("allowedips"));
        let networks = allowed.flat_map(|(_, value)| value.split(','));
        networks.map(str::trim).filter(|network| !network.is_empty()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session(config: &str) -> DeviceSession {
        let (session, device) = ("ses-1".parse().unwrap(), "dev-1".parse().unwrap());
        let end = "2026-08-02T10:00:00Z".parse().unwrap();
        DeviceSession::new(session, device, "host-1", config, end)
    }

    #[test]
    fn the_key_is_added_once_and_not_shown() {
        let session = session(
            "[Interface]\nAddress = 100.64.0.2/32\n# DNS = 100.64.0.1\n\n[Peer]\n\
             AllowedIPs = 100.64.0.1/32,10.64.0.0/22\nallowedips=10.64.4.0/22\n",
        );
        let whole = session.config_with_key(&"s3cret".into()).unwrap();
        assert!(whole.expose().starts_with("[Interface]\nPrivateKey = s3cret\nAddress"));
        assert_eq!(whole.expose().matches("s3cret").count(), 1);
        assert!(!format!("{whole:?}").contains("s3cret"));
        assert_eq!(session.allowed_ips(), ["100.64.0.1/32", "10.64.0.0/22", "10.64.4.0/22"]);
    }

    #[test]
    fn what_a_server_must_not_say_is_refused() {
        for config in [
            "",
            "[Peer]\nAllowedIPs = 0.0.0.0/0\n",
            "[Interface]\nPostUp = touch /tmp/owned\n",
            "[Interface]\n  preup=id\n",
            "[Interface]\nPrivateKey = other\n",
            "[Interface]\nSaveConfig = true\n",
        ] {
            let error = session(config).config_with_key(&"s3cret".into()).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Protocol, "{config}");
            assert!(!error.to_string().contains("s3cret"));
        }
    }
}
