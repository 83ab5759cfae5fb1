//! Where names are looked up: in the zones of the engine, then as this machine does it.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use createos_sdk::SandboxId;
use hickory_proto::op::{Query, ResponseCode};
use hickory_proto::rr::{Name, Record, RecordType};
use hickory_resolver::config::{
    NameServerConfig, NameServerConfigGroup, Protocol, ResolverConfig, ResolverOpts,
};
use hickory_resolver::error::{ResolveError, ResolveErrorKind};
use hickory_resolver::{Hosts, TokioAsyncResolver};

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(10);
const CACHE: usize = 4096;

/// Names that only the engine knows, such as those of a private network.
pub(crate) trait Zone: Send + Sync {
    /// The addresses of a name, in lower case and without a last dot, for this sandbox:
    /// nothing where the zone has no such name, so that it is asked for elsewhere.
    fn lookup(&self, sandbox: &SandboxId, name: &str) -> Option<Vec<IpAddr>>;

    /// Whether names that end so are nobody else's: they are not asked for elsewhere.
    fn owns(&self, name: &str) -> bool;
}

/// The names of this engine's sandboxes. Clones share them.
#[derive(Clone)]
pub(crate) struct Names(Arc<Inner>);

struct Inner {
    zones: RwLock<Vec<Arc<dyn Zone>>>,
    hosts: Option<Hosts>,
    upstream: Option<TokioAsyncResolver>,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Names").finish_non_exhaustive()
    }
}

/// What was found, and for whom else it may be kept.
pub(super) enum Found {
    Records(Vec<Record>),
    /// There is no such name, or nothing of this kind.
    Nothing(ResponseCode),
    /// Nobody could be asked.
    Failed,
}

impl Names {
    /// As this machine looks names up, or with these servers alone.
    pub(crate) fn new(servers: &[SocketAddr]) -> Self {
        let configured = match servers {
            [] => hickory_resolver::system_conf::read_system_conf(),
            servers => Ok((with(servers), ResolverOpts::default())),
        };
        let upstream = match configured {
            Ok((config, options)) => Some(upstream(&config, options)),
            Err(error) => {
                tracing::warn!(%error, "sandboxes can look no names up: /etc/resolv.conf is of no use");
                None
            }
        };
        let hosts = servers.is_empty().then(Hosts::new);
        Self(Arc::new(Inner { zones: RwLock::default(), hosts, upstream }))
    }

    /// Adds names of the engine's own. Earlier zones are asked first.
    pub(crate) fn add_zone(&self, zone: Arc<dyn Zone>) {
        self.0.zones.write().unwrap_or_else(PoisonError::into_inner).push(zone);
    }

    /// What a zone says of a name; nothing where none claims it.
    pub(super) fn in_zones(&self, sandbox: &SandboxId, name: &str) -> Option<Option<Vec<IpAddr>>> {
        let zones = self.0.zones.read().unwrap_or_else(PoisonError::into_inner);
        let found = zones.iter().find_map(|zone| zone.lookup(sandbox, name));
        match found {
            Some(addresses) => Some(Some(addresses)),
            None => zones.iter().any(|zone| zone.owns(name)).then_some(None),
        }
    }

    pub(super) async fn find(&self, name: &Name, kind: RecordType) -> Found {
        let known = self.0.hosts.as_ref();
        let known =
            known.and_then(|hosts| hosts.lookup_static_host(&Query::query(name.clone(), kind)));
        if let Some(known) = known {
            return Found::Records(known.records().to_vec());
        }
        let Some(upstream) = &self.0.upstream else { return Found::Failed };
        match tokio::time::timeout(LIMIT, upstream.lookup(name.clone(), kind)).await {
            Ok(Ok(found)) => Found::Records(found.records().to_vec()),
            Ok(Err(error)) => nothing(&error),
            Err(_) => Found::Failed,
        }
    }

    /// Whether a name has this address now.
    pub(in crate::net) async fn has(&self, sandbox: &SandboxId, name: &str, ip: IpAddr) -> bool {
        if let Some(own) = self.in_zones(sandbox, name) {
            return own.is_some_and(|addresses| addresses.contains(&ip));
        }
        let Ok(mut name) = Name::from_ascii(name) else { return false };
        name.set_fqdn(true);
        let kind = if ip.is_ipv4() { RecordType::A } else { RecordType::AAAA };
        match self.find(&name, kind).await {
            Found::Records(records) => records.iter().any(|record| address(record) == Some(ip)),
            Found::Nothing(_) | Found::Failed => false,
        }
    }
}

/// The address in a record, if it holds one.
pub(super) fn address(record: &Record) -> Option<IpAddr> {
    record.data()?.ip_addr()
}

fn with(servers: &[SocketAddr]) -> ResolverConfig {
    let server = |server: &SocketAddr| {
        [Protocol::Udp, Protocol::Tcp].map(|protocol| NameServerConfig::new(*server, protocol))
    };
    let servers: Vec<NameServerConfig> = servers.iter().flat_map(server).collect();
    ResolverConfig::from_parts(None, Vec::new(), NameServerConfigGroup::from(servers))
}

fn upstream(config: &ResolverConfig, mut options: ResolverOpts) -> TokioAsyncResolver {
    // Sandboxes ask for whole names: which endings to try is theirs to say.
    let config = ResolverConfig::from_parts(
        None,
        Vec::new(),
        NameServerConfigGroup::from(config.name_servers().to_vec()),
    );
    options.use_hosts_file = false;
    options.cache_size = CACHE;
    options.preserve_intermediates = true;
    // More than fits a datagram is asked for by TCP.
    options.edns0 = true;
    TokioAsyncResolver::tokio(config, options)
}

fn nothing(error: &ResolveError) -> Found {
    match error.kind() {
        ResolveErrorKind::NoRecordsFound { response_code, .. } => Found::Nothing(*response_code),
        error => {
            tracing::debug!(%error, "a name could not be looked up");
            Found::Failed
        }
    }
}
