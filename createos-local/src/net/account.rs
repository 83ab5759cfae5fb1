//! What lasts as long as a sandbox: what it may reach, and what it has used.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::address::{self, Reach};
use super::pins::Pins;
use super::{Meter, Rules};

/// The rules, the counters, and the names that addresses have for one sandbox.
#[derive(Debug)]
pub(crate) struct Account {
    rules: watch::Sender<Arc<Rules>>,
    pins: Mutex<Pins>,
    pub(crate) meter: Meter,
}

/// How an address may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// As it is.
    Direct,
    /// If it goes by a name that a rule allows.
    ByName,
    None,
}

/// Something that is on its way, and what it was let go for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) to: SocketAddr,
    pub(super) reason: Reason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reason {
    Address,
    /// It asked for this name.
    Asked(String),
    /// The address had an allowed name in an answer.
    Known,
}

impl Account {
    pub(crate) fn new(rules: Rules, meter: Meter) -> Self {
        Self { rules: watch::Sender::new(Arc::new(rules)), pins: Mutex::default(), meter }
    }

    /// From now on these rules hold, also for what is under way.
    pub(crate) fn set_rules(&self, rules: Rules) {
        self.rules.send_replace(Arc::new(rules));
    }

    /// Tells of every change from now on.
    pub(super) fn watch(&self) -> watch::Receiver<Arc<Rules>> {
        self.rules.subscribe()
    }

    pub(super) fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.borrow())
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        // Nothing panics while it is held, so a poisoned one is still whole.
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an answer that the sandbox got.
    pub(super) fn learn(&self, name: &str, ip: IpAddr, ttl: Duration) {
        self.pins().add(ip, name, ttl);
    }

    /// How the sandbox may reach an address. `api` are the ports of the engine itself.
    pub(super) fn way(&self, to: SocketAddr, api: &[u16]) -> Way {
        let (rules, ip, port) = (self.rules(), to.ip(), to.port());
        let reach = match address::reach(ip) {
            Reach::Never => return Way::None,
            _ if address::is_own(ip) && api.contains(&port) => return Way::None,
            Reach::Public if address::is_own(ip) => Reach::Listed,
            reach => reach,
        };
        match reach {
            Reach::Public if rules.permit(ip, port) => Way::Direct,
            Reach::Public if rules.have_names(port) => Way::ByName,
            Reach::Listed if rules.list(ip, port) => Way::Direct,
            _ => Way::None,
        }
    }

    /// Whether the address has a name, in what the sandbox was answered, that a rule allows.
    pub(super) fn knows(&self, to: SocketAddr) -> bool {
        let rules = self.rules();
        self.pins().any(to.ip(), |name| rules.permit_name(name, to.port()))
    }

    /// Whether the address was answered for this name.
    pub(super) fn knows_as(&self, ip: IpAddr, name: &str) -> bool {
        self.pins().any(ip, |known| known == name)
    }

    /// Whether what was let go once still may.
    pub(super) fn still_allows(&self, flow: &Flow) -> bool {
        let (rules, to) = (self.rules(), flow.to);
        let listed = || address::reach(to.ip()) == Reach::Public && !address::is_own(to.ip());
        match &flow.reason {
            Reason::Address if listed() => rules.permit(to.ip(), to.port()),
            Reason::Address => rules.list(to.ip(), to.port()),
            Reason::Asked(name) => {
                rules.permit(to.ip(), to.port()) || rules.permit_name(name, to.port())
            }
            Reason::Known => rules.permit(to.ip(), to.port()) || self.knows(to),
        }
    }

    /// Completes when what was let go once may no longer.
    pub(super) async fn forbidden(&self, flow: &Flow) {
        let mut changes = self.watch();
        // Looked at after the subscription: a change in between is seen.
        while self.still_allows(flow) {
            if changes.changed().await.is_err() {
                return std::future::pending().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::Traffic;

    fn account(rules: &[&str]) -> Account {
        Account::new(parse(rules), Meter::new(Traffic::default()))
    }

    fn parse(rules: &[&str]) -> Rules {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        Rules::parse(&rules).unwrap()
    }

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_never_reached_is_not_reached_by_rules() {
        for rules in [&[][..], &["127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/0"], &["*.test"]] {
            let account = account(rules);
            for never in ["127.0.0.1:80", "169.254.169.254:80", "0.0.0.0:1", "[::1]:1"] {
                assert_eq!(account.way(at(never), &[]), Way::None, "{rules:?} {never}");
            }
        }
    }

    #[test]
    fn neighbours_must_be_listed() {
        assert_eq!(account(&[]).way(at("10.9.8.7:80"), &[]), Way::None);
        assert_eq!(account(&[]).way(at("198.51.100.2:80"), &[]), Way::Direct);
        assert_eq!(account(&["0.0.0.0/0"]).way(at("10.9.8.7:80"), &[]), Way::None);
        let listed = account(&["0.0.0.0/0", "10.9.0.0/16:80", "a.test:443"]);
        assert_eq!(listed.way(at("10.9.8.7:80"), &[]), Way::Direct);
        assert_eq!(listed.way(at("10.9.8.7:443"), &[]), Way::None, "names list no neighbour");
        assert_eq!(account(&["a.test:443"]).way(at("198.51.100.2:443"), &[]), Way::ByName);
        assert_eq!(account(&["a.test:443"]).way(at("198.51.100.2:80"), &[]), Way::None);
    }

    #[tokio::test]
    async fn a_change_of_rules_reaches_what_is_under_way() {
        let account = account(&["a.test", "198.51.100.2"]);
        let ip = at("198.51.100.3:443");
        account.learn("a.test", ip.ip(), Duration::ZERO);
        let flows = [
            Flow { to: at("198.51.100.2:1"), reason: Reason::Address },
            Flow { to: ip, reason: Reason::Asked("a.test".into()) },
            Flow { to: ip, reason: Reason::Known },
        ];
        for flow in &flows {
            assert!(futures::poll!(Box::pin(account.forbidden(flow))).is_pending(), "{flow:?}");
        }
        let waits: Vec<_> = flows.iter().map(|flow| account.forbidden(flow)).collect();
        account.set_rules(parse(&["b.test"]));
        futures::future::join_all(waits).await;
        account.set_rules(parse(&["*"]));
        assert!(flows.iter().all(|flow| account.still_allows(flow)));
    }
}
