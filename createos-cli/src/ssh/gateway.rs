//! The SSH gateway that `--sandbox-gateway` names.

/// Where it listens when no port is given.
const PORT: u16 = 2222;

/// A host and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Gateway {
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`. Never what ssh could take for an option.
pub(crate) fn parse(text: &str) -> Result<Gateway, String> {
    let text = text.trim();
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or_else(form)?;
            host.parse::<std::net::Ipv6Addr>().map_err(|_| form())?;
            (host, port.strip_prefix(':').or(port.is_empty().then_some("")))
        }
        None => match text.split_once(':') {
            Some((host, port)) => (host, Some(port).filter(|port| !port.is_empty())),
            None => (text, Some("")),
        },
    };
    let port = match port.ok_or_else(form)? {
        "" => PORT,
        port => port.parse().ok().filter(|port| *port > 0).ok_or("the port is 1 to 65535")?,
    };
    let plain = |letter: char| letter.is_ascii_alphanumeric() || ".-_:".contains(letter);
    if host.is_empty() || host.starts_with('-') || !host.chars().all(plain) {
        return Err(form());
    }
    Ok(Gateway { host: host.to_owned(), port })
}

fn form() -> String {
    "write it as <host>:<port>, for example gateway.sb.createos.sh:2222".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_ports() {
        for (text, host, port) in [
            ("gateway.example.org:22", "gateway.example.org", 22),
            (" gateway.example.org ", "gateway.example.org", 2222),
            ("127.0.0.1:2200", "127.0.0.1", 2200),
            ("[::1]:2200", "::1", 2200),
            ("[::1]", "::1", 2222),
        ] {
            assert_eq!(parse(text), Ok(Gateway { host: host.to_owned(), port }), "{text}");
        }
        for text in [
            "",
            ":22",
            "a:",
            "a:0",
            "a:x",
            "a:65536",
            "-oProxyCommand=x",
            "a b",
            "a@b",
            "[x]:1",
            "[::1",
            "::1",
            "a;b",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
