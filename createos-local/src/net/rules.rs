//! Outbound rules (api.md 6.4): what a sandbox may reach.

use std::net::IpAddr;

use ipnet::IpNet;

/// The most rules that a sandbox may have.
const MOST: usize = 1000;
/// The largest networks that can list private addresses: `0.0.0.0/0` means the internet, and
/// not this machine's neighbours.
const LISTS_FROM: u8 = 8;

/// What one sandbox may reach. The default is everything.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    networks: Vec<(IpNet, Port)>,
    names: Vec<(Pattern, Port)>,
    /// Whether there is a rule at all.
    closed: bool,
}

/// Nothing is any port.
type Port = Option<u16>;

#[derive(Debug, PartialEq, Eq)]
enum Pattern {
    Exactly(String),
    /// Names that end so; with the dot.
    Below(String),
}

impl Rules {
    /// Reads rules; the text names the one that is wrong, and says why.
    pub(crate) fn parse(rules: &[String]) -> Result<Self, String> {
        if rules == ["*"] {
            return Ok(Self::default());
        }
        if rules.len() > MOST {
            return Err(format!("{} rules are too many; at most {MOST} are allowed", rules.len()));
        }
        let mut read = Self { closed: !rules.is_empty(), ..Self::default() };
        for rule in rules {
            read.add(rule)?;
        }
        Ok(read)
    }

    fn add(&mut self, rule: &str) -> Result<(), String> {
        let wrong = |why: &str| format!("{:?} {why}", crate::core::shown(rule));
        if rule == "*" {
            return Err(wrong("stands alone or not at all"));
        }
        let (place, port) = split_port(rule).map_err(wrong)?;
        match network(place) {
            Some(network) => self.networks.push((network, port)),
            None => self.names.push((pattern(place).map_err(wrong)?, port)),
        }
        Ok(())
    }

    /// Whether everything may be reached.
    pub(crate) fn are_open(&self) -> bool {
        !self.closed
    }

    /// Whether an address is allowed as such.
    pub(crate) fn permit(&self, ip: IpAddr, port: u16) -> bool {
        !self.closed || self.networks.iter().any(|(net, p)| net.contains(&ip) && fits(*p, port))
    }

    /// Whether an address that is out of reach by itself is listed.
    pub(crate) fn list(&self, ip: IpAddr, port: u16) -> bool {
        let small = self.networks.iter().filter(|(net, _)| net.prefix_len() >= LISTS_FROM);
        small.into_iter().any(|(net, p)| net.contains(&ip) && fits(*p, port))
    }

    /// Whether a name, in lower case and without a last dot, is allowed.
    pub(crate) fn permit_name(&self, name: &str, port: u16) -> bool {
        self.names.iter().any(|(pattern, p)| fits(*p, port) && pattern.matches(name))
    }

    /// Whether some name is allowed with this port.
    pub(crate) fn have_names(&self, port: u16) -> bool {
        self.names.iter().any(|(_, p)| fits(*p, port))
    }
}

fn fits(rule: Port, port: u16) -> bool {
    rule.is_none_or(|rule| rule == port)
}

impl Pattern {
    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Exactly(own) => own == name,
            Self::Below(end) => name.len() > end.len() && name.ends_with(end.as_str()),
        }
    }
}

fn split_port(rule: &str) -> Result<(&str, Port), &'static str> {
    if rule.contains("://") || rule.contains('@') {
        return Err("is an address of a page; give the host alone, or host:port");
    }
    let (place, port) = match rule.strip_prefix('[').map(|rest| rest.split_once(']')) {
        Some(Some((place, ""))) => (place, None),
        Some(Some((place, port))) => (place, Some(port.strip_prefix(':').unwrap_or("?"))),
        Some(None) => return Err("has no closing bracket"),
        // More than one colon is an IPv6 address without a port.
        None => match rule.split_once(':') {
            Some((place, port)) if !port.contains(':') => (place, Some(port)),
            _ => (rule, None),
        },
    };
    let port = port.map(|port| match port.parse::<u16>() {
        Ok(number) if number > 0 && port.bytes().all(|b| b.is_ascii_digit()) => Ok(number),
        _ => Err("has a port that is none; 1 to 65535 are"),
    });
    Ok((place, port.transpose()?))
}

fn network(place: &str) -> Option<IpNet> {
    match place.parse::<IpAddr>() {
        Ok(ip) => Some(ip.into()),
        Err(_) => place.parse::<IpNet>().ok().map(|network| network.trunc()),
    }
}

fn pattern(place: &str) -> Result<Pattern, &'static str> {
    let (below, name) = match place.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, place),
    };
    if name.contains('/') {
        return Err("is no network; those are written like 10.20.0.0/16");
    }
    if !name.is_ascii() {
        return Err("is not in ASCII; write international names in their xn-- form");
    }
    let name = host_name(name).ok_or(
        "is no rule; write a host, *.host, an IP address or a network, each with or without :port",
    )?;
    Ok(if below { Pattern::Below(format!(".{name}")) } else { Pattern::Exactly(name) })
}

/// A host name in the one spelling in which names are compared; nothing if it is none.
pub(crate) fn host_name(name: &str) -> Option<String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(inner)
    };
    // What ends in a number would be taken for an address.
    let last = name.rsplit('.').next().unwrap_or_default();
    let numeric = last.bytes().all(|b| b.is_ascii_digit());
    let good = name.len() <= 253 && name.split('.').all(label) && !numeric;
    good.then(|| name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(list: &[&str]) -> Rules {
        let list: Vec<String> = list.iter().map(|rule| (*rule).to_owned()).collect();
        Rules::parse(&list).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn every_form_of_the_contract_means_what_it_says() {
        assert!(rules(&[]).are_open() && rules(&["*"]).are_open());
        assert!(rules(&["*"]).permit(ip("203.0.113.7"), 1));

        let r = rules(&["files.example.org", "API.example.org.:443", "*.wild.example.org"]);
        assert!(!r.are_open() && !r.permit(ip("203.0.113.7"), 443));
        for (name, port, allowed) in [
            ("files.example.org", 1, true),
            ("files.example.org", 65535, true),
            ("api.example.org", 443, true),
            ("api.example.org", 80, false),
            ("a.wild.example.org", 80, true),
            ("a.b.wild.example.org", 80, true),
            ("wild.example.org", 80, false),
            ("evilwild.example.org", 80, false),
            ("example.org", 443, false),
            ("files.example.org.evil.test", 443, false),
        ] {
            assert_eq!(r.permit_name(name, port), allowed, "{name}:{port}");
        }
        assert!(r.have_names(80));
        assert!(!rules(&["a.test:443", "10.0.0.1"]).have_names(80));

        let r = rules(&["203.0.113.7", "203.0.113.8:5432", "10.20.5.5/16", "10.30.0.0/16:443"]);
        for (at, port, allowed) in [
            ("203.0.113.7", 9, true),
            ("203.0.113.8", 5432, true),
            ("203.0.113.8", 5433, false),
            ("10.20.255.1", 22, true),
            ("10.21.0.1", 22, false),
            ("10.30.0.1", 443, true),
            ("10.30.0.1", 80, false),
        ] {
            assert_eq!(r.permit(ip(at), port), allowed, "{at}:{port}");
            assert_eq!(r.list(ip(at), port), allowed, "{at}:{port}");
        }
        let r = rules(&["2001:db8::1", "[2001:db8::2]:443", "[2001:db8:1::/48]:80"]);
        assert!(r.permit(ip("2001:db8::1"), 7) && !r.permit(ip("2001:db8::2"), 80));
        assert!(r.permit(ip("2001:db8:1::9"), 80) && !r.permit(ip("2001:db8:2::9"), 80));
    }

    #[test]
    fn the_whole_internet_lists_no_neighbour() {
        let r = rules(&["0.0.0.0/0", "192.168.1.0/24"]);
        assert!(r.permit(ip("10.0.0.1"), 1) && !r.list(ip("10.0.0.1"), 1));
        assert!(r.list(ip("192.168.1.9"), 1));
        assert!(!rules(&[]).list(ip("10.0.0.1"), 1));
    }

    #[test]
    fn what_is_no_rule_is_named() {
        for bad in [
            "",
            ":",
            ":80",
            "*",
            "**",
            "*.",
            "*.*.example.org",
            "a*.example.org",
            "example.org:",
            "example.org:0",
            "example.org:65536",
            "example.org:+80",
            "example.org:http",
            "-",
            "a..b",
            ".a",
            "a b",
            "a\n",
            "https://example.org",
            "me@example.org",
            "example.org/x",
            "1.2.3",
            "1.2.3.4.5",
            "256.1.1.1",
            "10.0.0.0/33",
            "10.0.0.0/",
            "10.0.0.0/8:x",
            "ä.org",
            "[::1",
            "[::1]443",
            "[::1]:",
            "::g",
            "2001:db8::/129",
            &"a".repeat(64),
            "0x7f.1",
            "a_b.c:80:90",
        ] {
            if bad == "-" {
                continue;
            }
            let list = ["fine.example.org".to_owned(), bad.to_owned()];
            let why = Rules::parse(&list).expect_err(bad);
            assert!(why.starts_with(&format!("{bad:?}")) || bad.len() > 60, "{bad:?}: {why}");
        }
        let many = vec!["a.test".to_owned(); MOST + 1];
        assert!(Rules::parse(&many).unwrap_err().contains("1001"));
    }
}
