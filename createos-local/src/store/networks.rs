//! The tables of private networks and of who is on them.

use std::net::Ipv4Addr;
use std::time::SystemTime;

use createos_sdk::{NetworkId, SandboxId};
use rusqlite::{Connection, ErrorCode, OptionalExtension, Row, params};

use super::devices::devices_on;
use super::record::{from_micros, text, to_micros};
use super::sandboxes::get;
use super::{Store, StoreError};
use crate::core::{Place, State};
use crate::network_protocol::{Link, POOLS, Subnet};

/// How many bits the addresses of one network have in common: room for 1,021 members.
const PREFIX: u8 = 22;

/// A private network.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    pub(crate) id: NetworkId,
    pub(crate) name: String,
    pub(crate) created_at: SystemTime,
    /// How many sandboxes are on it.
    pub(crate) members: u64,
}

/// A sandbox on a network.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) sandbox: SandboxId,
    pub(crate) name: String,
    pub(crate) state: State,
    pub(crate) ip: Ipv4Addr,
    /// Whether packets have a way to it.
    pub(crate) linked: bool,
}

/// Why a network was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NetworkError {
    #[error("the name is taken")]
    NameTaken,
    #[error("there are {0} networks already")]
    TooMany(u64),
    #[error("no addresses are left for another network")]
    NoAddresses,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for NetworkError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What a request to join came to.
#[derive(Debug)]
pub(crate) enum Join {
    Joined,
    /// It was on it before.
    Already,
    /// It is in a state that does not allow it.
    Refused(State),
    NoSandbox,
    NoNetwork,
    /// The network has no address left.
    Full,
    /// It is on so many already.
    TooMany,
}

/// What a request to remove came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Removal {
    Removed,
    Unknown,
    /// So many sandboxes are on it.
    InUse(u64),
}

const COLUMNS: &str = "id, name, created_at,
    (SELECT count(*) FROM memberships WHERE network = networks.id)";

impl Network {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            id: text(row, 0, |word| word.parse().ok())?,
            name: row.get(1)?,
            created_at: from_micros(row.get(2)?),
            members: row.get(3)?,
        })
    }
}

impl Store {
    /// Writes a new network, with addresses that are none of these.
    pub(crate) async fn insert_network(
        &self,
        id: NetworkId,
        name: String,
        occupied: Vec<Subnet>,
        quota: u64,
    ) -> Result<Network, NetworkError> {
        self.call(move |connection| insert(connection, &id, &name, &occupied, quota)).await
    }

    /// The network of this id, or else of this name.
    pub(crate) async fn network(&self, key: &str) -> Result<Option<Network>, StoreError> {
        let key = key.to_owned();
        self.call(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM networks WHERE id = ?1 OR name = ?1
                 ORDER BY id = ?1 DESC LIMIT 1"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            Ok(statement.query_row([key], Network::from_row).optional()?)
        })
        .await
    }

    /// A page of all networks, the newest first, and how many there are.
    pub(crate) async fn networks(
        &self,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<Network>, u64), StoreError> {
        self.call(move |connection| {
            let total = connection.query_row("SELECT count(*) FROM networks", [], |r| r.get(0))?;
            let sql = format!(
                "SELECT {COLUMNS} FROM networks ORDER BY created_at DESC, id DESC LIMIT ?1 OFFSET ?2"
            );
            let offset = i64::try_from(offset).unwrap_or(i64::MAX);
            let mut statement = connection.prepare_cached(&sql)?;
            let rows = statement.query_map(params![limit, offset], Network::from_row)?;
            Ok((rows.collect::<Result<_, _>>()?, total))
        })
        .await
    }

    /// Who is on a network, in the order in which they were created.
    pub(crate) async fn members(&self, network: &NetworkId) -> Result<Vec<Member>, StoreError> {
        let network = network.clone();
        self.call(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT s.id, s.name, s.status, m.ip, m.linked
                 FROM memberships m JOIN sandboxes s ON s.id = m.sandbox
                 WHERE m.network = ?1 ORDER BY s.created_at, s.id",
            )?;
            let rows = statement.query_map([network.as_str()], |row| {
                Ok(Member {
                    sandbox: text(row, 0, |word| word.parse().ok())?,
                    name: row.get(1)?,
                    state: text(row, 2, State::parse)?,
                    ip: text(row, 3, |word| word.parse().ok())?,
                    linked: row.get(4)?,
                })
            })?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Removes a network that nobody is on.
    pub(crate) async fn remove_network(&self, id: &NetworkId) -> Result<Removal, StoreError> {
        let id = id.clone();
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            let members: u64 = transaction
                .prepare_cached("SELECT count(*) FROM memberships WHERE network = ?1")?
                .query_row([id.as_str()], |row| row.get(0))?;
            if members > 0 {
                return Ok(Removal::InUse(members));
            }
            let removed =
                transaction.execute("DELETE FROM networks WHERE id = ?1", [id.as_str()])?;
            transaction.commit()?;
            Ok(if removed > 0 { Removal::Removed } else { Removal::Unknown })
        })
        .await
    }

    /// Gives a sandbox in one of these states an address on a network, unless it is on
    /// `at_most` already.
    pub(crate) async fn join(
        &self,
        sandbox: &SandboxId,
        network: &NetworkId,
        states: &[State],
        at_most: u64,
    ) -> Result<Join, StoreError> {
        let (sandbox, network, states) = (sandbox.clone(), network.clone(), states.to_vec());
        self.call(move |connection| {
            let transaction = connection.transaction()?;
            let joined = join(&transaction, &sandbox, &network, &states, at_most)?;
            transaction.commit()?;
            Ok(joined)
        })
        .await
    }

    /// Notes that packets have a way to a sandbox on all its networks.
    pub(crate) async fn set_linked(&self, sandbox: &SandboxId) -> Result<(), StoreError> {
        let sandbox = sandbox.clone();
        self.call(move |connection| {
            let sql = "UPDATE memberships SET linked = 1 WHERE sandbox = ?1";
            connection.execute(sql, [sandbox.as_str()])?;
            Ok(())
        })
        .await
    }

    /// Frees a sandbox's address on a network; false when it was not on it.
    pub(crate) async fn leave(
        &self,
        sandbox: &SandboxId,
        network: &NetworkId,
    ) -> Result<bool, StoreError> {
        let (sandbox, network) = (sandbox.clone(), network.clone());
        self.call(move |connection| {
            let sql = "DELETE FROM memberships WHERE sandbox = ?1 AND network = ?2";
            Ok(connection.execute(sql, [sandbox.as_str(), network.as_str()])? > 0)
        })
        .await
    }

    /// Who is where by which name: one sandbox, or all.
    pub(crate) async fn places(
        &self,
        sandbox: Option<&SandboxId>,
    ) -> Result<Vec<(SandboxId, String, Place)>, StoreError> {
        let sandbox = sandbox.cloned();
        self.call(move |connection| places(connection, sandbox.as_ref())).await
    }

    /// A sandbox's places on networks.
    pub(crate) async fn links(&self, sandbox: &SandboxId) -> Result<Vec<Link>, StoreError> {
        let sandbox = sandbox.clone();
        self.call(move |connection| {
            let mut statement = connection.prepare_cached(
                "SELECT n.id, n.subnet, n.prefix, m.ip, n.slot
                 FROM memberships m JOIN networks n ON n.id = m.network
                 WHERE m.sandbox = ?1 ORDER BY n.slot",
            )?;
            let rows = statement.query_map([sandbox.as_str()], |row| {
                let first: Ipv4Addr = text(row, 1, |word| word.parse().ok())?;
                Ok(Link {
                    network: row.get(0)?,
                    subnet: Subnet::new(first.octets(), row.get(2)?),
                    address: text(row, 3, |word| word.parse().ok())?,
                    interface: format!("net{}", row.get::<_, u32>(4)?),
                    devices: Vec::new(),
                })
            })?;
            let mut links: Vec<Link> = rows.collect::<Result<_, _>>()?;
            for link in &mut links {
                link.devices = devices_on(connection, &link.network)?;
            }
            Ok(links)
        })
        .await
    }
}

fn places(
    connection: &Connection,
    sandbox: Option<&SandboxId>,
) -> Result<Vec<(SandboxId, String, Place)>, StoreError> {
    let mut statement = connection.prepare_cached(
        "SELECT s.id, s.name, n.id, n.name, m.ip
         FROM memberships m JOIN networks n ON n.id = m.network
         JOIN sandboxes s ON s.id = m.sandbox
         WHERE ?1 IS NULL OR m.sandbox = ?1 ORDER BY n.slot",
    )?;
    let rows = statement.query_map([sandbox.map(SandboxId::as_str)], |row| {
        let place = Place {
            network: row.get(2)?,
            network_name: row.get(3)?,
            ip: text(row, 4, |word| word.parse().ok())?,
        };
        Ok((text(row, 0, |word| word.parse().ok())?, row.get(1)?, place))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn insert(
    connection: &mut Connection,
    id: &NetworkId,
    name: &str,
    occupied: &[Subnet],
    quota: u64,
) -> Result<Network, NetworkError> {
    let transaction = connection.transaction()?;
    let count: u64 = transaction.query_row("SELECT count(*) FROM networks", [], |r| r.get(0))?;
    let slots: Vec<(u32, String)> = transaction
        .prepare_cached("SELECT slot, subnet FROM networks")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
        .collect::<Result<_, _>>()?;
    let slot = (0..).find(|slot| slots.iter().all(|(taken, _)| taken != slot));
    let slot: u32 = slot.ok_or(NetworkError::NoAddresses)?;
    let is_free = |subnet: &Subnet| {
        !occupied.iter().any(|other| other.overlaps(*subnet))
            && !slots.iter().any(|(_, taken)| *taken == subnet.first().to_string())
    };
    let subnet = subnets().find(is_free);
    let sql = format!(
        "INSERT INTO networks (id, name, slot, subnet, prefix, created_at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) RETURNING {COLUMNS}"
    );
    let first = subnet.map(|subnet| subnet.first().to_string());
    let now = to_micros(SystemTime::now());
    let values = params![id.as_str(), name, slot, first.unwrap_or_default(), PREFIX, now];
    let inserted = transaction.prepare_cached(&sql)?.query_row(values, Network::from_row);
    let network = inserted.map_err(|error| match error.sqlite_error_code() {
        // Slot and addresses are free, and the id is fresh.
        Some(ErrorCode::ConstraintViolation) => NetworkError::NameTaken,
        _ => error.into(),
    })?;
    // Whoever asks for a name that is there is told that first.
    if count >= quota {
        return Err(NetworkError::TooMany(count));
    }
    if subnet.is_none() {
        return Err(NetworkError::NoAddresses);
    }
    transaction.commit()?;
    Ok(network)
}

/// Everything that can be a network's addresses.
fn subnets() -> impl Iterator<Item = Subnet> {
    POOLS.into_iter().flat_map(|pool| {
        let count = 1u32 << (PREFIX - pool.prefix());
        let first = pool.first().to_bits();
        (0..count).map(move |i| {
            let first = Ipv4Addr::from_bits(first + (i << (32 - PREFIX)));
            Subnet::new(first.octets(), PREFIX)
        })
    })
}

fn join(
    connection: &Connection,
    id: &SandboxId,
    network: &NetworkId,
    states: &[State],
    at_most: u64,
) -> Result<Join, StoreError> {
    match get(connection, id)? {
        Some(sandbox) if states.contains(&sandbox.state) => {}
        Some(sandbox) => return Ok(Join::Refused(sandbox.state)),
        None => return Ok(Join::NoSandbox),
    }
    let found = connection
        .prepare_cached("SELECT subnet, prefix, last_given FROM networks WHERE id = ?1")?
        .query_row([network.as_str()], |row| {
            let first: Ipv4Addr = text(row, 0, |word| word.parse().ok())?;
            Ok((Subnet::new(first.octets(), row.get(1)?), row.get::<_, Option<String>>(2)?))
        })
        .optional()?;
    let Some((subnet, last_given)) = found else { return Ok(Join::NoNetwork) };
    let networks: Vec<String> = connection
        .prepare_cached("SELECT network FROM memberships WHERE sandbox = ?1")?
        .query_map([id.as_str()], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if networks.iter().any(|other| other == network.as_str()) {
        return Ok(Join::Already);
    }
    if networks.len() as u64 >= at_most {
        return Ok(Join::TooMany);
    }
    let last = last_given.and_then(|last| last.parse::<Ipv4Addr>().ok());
    let Some(ip) = free_address(connection, subnet, last)? else { return Ok(Join::Full) };
    let ip = ip.to_string();
    connection.execute(
        "INSERT INTO memberships (sandbox, network, ip) VALUES (?1, ?2, ?3)",
        params![id.as_str(), network.as_str(), ip],
    )?;
    let sql = "UPDATE networks SET last_given = ?1 WHERE id = ?2";
    connection.execute(sql, params![ip, network.as_str()])?;
    Ok(Join::Joined)
}

/// The next address after the one that was given last, so that a freed one rests.
fn free_address(
    connection: &Connection,
    subnet: Subnet,
    last: Option<Ipv4Addr>,
) -> rusqlite::Result<Option<Ipv4Addr>> {
    let members = subnet.members();
    let after = last.map_or(*members.start(), |last| last.to_bits().saturating_add(1));
    let mut taken = connection.prepare_cached("SELECT 1 FROM memberships WHERE ip = ?1")?;
    for bits in (after..=*members.end()).chain(members) {
        let address = Ipv4Addr::from_bits(bits);
        if !taken.exists([address.to_string()])? {
            return Ok(Some(address));
        }
    }
    Ok(None)
}
