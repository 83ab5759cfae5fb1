//! The table of sandboxes.

use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime};

use createos_sdk::SandboxId;
use rusqlite::{Connection, ErrorCode, OptionalExtension, named_params, params};

use super::record::{SELECTED, to_json, to_micros};
use super::{NewSandbox, Sandbox, Store, StoreError};
use crate::core::State;
use crate::runtime::Saved;

/// Sandboxes live in 10.0.0.0/16. The first address is the gateway's, the last is broadcast.
const FIRST_ADDRESS: u32 = 0x0A00_0002;
const LAST_ADDRESS: u32 = 0x0A00_FFFE;
/// Where the last address given out is remembered, so that a freed one rests before reuse.
const LAST_GIVEN: &str = "last_address";

/// Why a sandbox could not be written for the first time.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InsertError {
    #[error("the name is taken by a living sandbox")]
    NameTaken,
    #[error("every address of 10.0.0.0/16 is in use")]
    NoAddress,
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<rusqlite::Error> for InsertError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error.into())
    }
}

/// What changes together with the state.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Nothing but the state.
    Plain,
    /// The first boot succeeded.
    Booted(Duration),
    /// A later boot succeeded.
    Resumed(Duration),
    /// What it needs to run again is kept, in this way; the text says what is not.
    Saved(Saved, Option<String>),
    /// It went wrong; the text is for people.
    Because(String),
}

/// One page of a list, and how many rows there are in all.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) rows: Vec<Sandbox>,
    pub(crate) total: u64,
}

/// How many sandboxes are in which state; destroyed ones are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) running: u64,
    pub(crate) paused: u64,
    pub(crate) other: u64,
}

impl Store {
    /// Writes a new sandbox, as `creating` or, with an origin, as `forking`, and gives it an address of its own.
    pub(crate) async fn insert(&self, new: NewSandbox) -> Result<Sandbox, InsertError> {
        self.call(move |connection| insert(connection, new)).await
    }

    pub(crate) async fn get(&self, id: &SandboxId) -> Result<Option<Sandbox>, StoreError> {
        let id = id.clone();
        self.call(move |connection| get(connection, &id)).await
    }

    /// The living sandbox with this address.
    pub(crate) async fn by_ip(&self, ip: Ipv4Addr) -> Result<Option<Sandbox>, StoreError> {
        let sql = format!(
            "SELECT {SELECTED} FROM sandboxes
             WHERE ip = ?1 AND status NOT IN ('destroyed', 'failed')"
        );
        self.call(move |connection| {
            let mut statement = connection.prepare_cached(&sql)?;
            Ok(statement.query_row([ip.to_string()], Sandbox::from_row).optional()?)
        })
        .await
    }

    /// Newest first; all states, or one.
    pub(crate) async fn list(
        &self,
        state: Option<State>,
        limit: u32,
        offset: u64,
    ) -> Result<Page, StoreError> {
        self.call(move |connection| list(connection, state, limit, offset)).await
    }

    /// Every sandbox in one of these states.
    pub(crate) async fn in_states(&self, states: &[State]) -> Result<Vec<Sandbox>, StoreError> {
        let states = states.to_vec();
        self.call(move |connection| {
            let mut found = Vec::new();
            for state in states {
                found.extend(list(connection, Some(state), u32::MAX, 0)?.rows);
            }
            Ok(found)
        })
        .await
    }

    pub(crate) async fn counts(&self) -> Result<Counts, StoreError> {
        self.call(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT status, count(*) FROM sandboxes GROUP BY status")?;
            let mut counts = Counts::default();
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (status, number): (String, u64) = (row.get(0)?, row.get(1)?);
                match State::parse(&status) {
                    Some(State::Running) => counts.running += number,
                    Some(State::Paused) => counts.paused += number,
                    Some(State::Destroyed) => {}
                    _ => counts.other += number,
                }
            }
            Ok(counts)
        })
        .await
    }

    /// Moves a sandbox from one of `from` to `to` and returns its new row;
    /// `None` when it is in no such state or unknown, and then nothing changed.
    pub(crate) async fn change(
        &self,
        id: &SandboxId,
        from: &[State],
        to: State,
        change: Change,
    ) -> Result<Option<Sandbox>, StoreError> {
        let (id, from) = (id.clone(), from.to_vec());
        self.call(move |connection| change_state(connection, &id, &from, to, change)).await
    }

    /// Removes the rows of sandboxes that ended before `time`.
    pub(crate) async fn forget_ended(&self, time: SystemTime) -> Result<usize, StoreError> {
        self.call(move |connection| {
            Ok(connection.execute(
                "DELETE FROM sandboxes
                 WHERE status IN ('destroyed', 'failed') AND ended_at < ?1",
                [to_micros(time)],
            )?)
        })
        .await
    }
}

pub(super) fn get(connection: &Connection, id: &SandboxId) -> Result<Option<Sandbox>, StoreError> {
    let sql = format!("SELECT {SELECTED} FROM sandboxes WHERE id = ?1");
    let mut statement = connection.prepare_cached(&sql)?;
    Ok(statement.query_row([id.as_str()], Sandbox::from_row).optional()?)
}

fn list(
    connection: &Connection,
    state: Option<State>,
    limit: u32,
    offset: u64,
) -> Result<Page, StoreError> {
    let word = state.map(State::as_str);
    let total = connection
        .prepare_cached("SELECT count(*) FROM sandboxes WHERE ?1 IS NULL OR status = ?1")?
        .query_row([word], |row| row.get(0))?;
    let sql = format!(
        "SELECT {SELECTED} FROM sandboxes WHERE ?1 IS NULL OR status = ?1
         ORDER BY created_at DESC, id DESC LIMIT ?2 OFFSET ?3"
    );
    let offset = i64::try_from(offset).unwrap_or(i64::MAX);
    let rows = connection
        .prepare_cached(&sql)?
        .query_map(params![word, limit, offset], Sandbox::from_row)?
        .collect::<Result<_, _>>()?;
    Ok(Page { rows, total })
}

fn insert(connection: &mut Connection, new: NewSandbox) -> Result<Sandbox, InsertError> {
    let transaction = connection.transaction()?;
    let ip = free_address(&transaction)?;
    let state = if new.forked_from.is_some() { State::Forking } else { State::Creating };
    let sql = format!(
        "INSERT INTO sandboxes (id, name, status, shape, rootfs, vcpu, mem_mib, disk_mib,
             cpu_percent, max_processes, ip, region, envs, egress, ssh_pubkeys,
             ingress_enabled, nesting, created_at, auto_pause_after_seconds, forked_from,
             awaits_copy, image)
         VALUES (:id, :name, :status, :shape, :rootfs, :vcpu, :mem_mib, :disk_mib,
             :cpu_percent, :max_processes, :ip, :region, :envs, :egress, :ssh_pubkeys,
             :ingress_enabled, :nesting, :created_at, :auto_pause, :forked_from,
             :forked_from IS NOT NULL, :image)
         RETURNING {SELECTED}"
    );
    let inserted = transaction.prepare_cached(&sql)?.query_row(
        named_params! {
            ":id": new.id.as_str(),
            ":name": new.name,
            ":status": state.as_str(),
            ":shape": new.shape,
            ":rootfs": new.rootfs,
            ":vcpu": new.vcpu,
            ":mem_mib": new.mem_mib,
            ":disk_mib": new.disk_mib,
            ":cpu_percent": new.cpu_percent,
            ":max_processes": new.max_processes,
            ":ip": ip.to_string(),
            ":region": new.region,
            ":envs": to_json(&new.envs)?,
            ":egress": to_json(&new.egress)?,
            ":ssh_pubkeys": to_json(&new.ssh_pubkeys)?,
            ":ingress_enabled": new.ingress_enabled,
            ":nesting": new.nesting,
            ":created_at": to_micros(new.created_at),
            ":auto_pause": new.auto_pause_seconds,
            ":forked_from": new.forked_from.as_ref().map(SandboxId::as_str),
            ":image": to_json(&new.image)?,
        },
        Sandbox::from_row,
    );
    let sandbox = inserted.map_err(|error| {
        // The address was checked in this transaction and the id is fresh: only the name is left.
        match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => InsertError::NameTaken,
            _ => error.into(),
        }
    })?;
    transaction.commit()?;
    Ok(sandbox)
}

fn change_state(
    connection: &mut Connection,
    id: &SandboxId,
    from: &[State],
    to: State,
    change: Change,
) -> Result<Option<Sandbox>, StoreError> {
    let transaction = connection.transaction()?;
    let before = match get(&transaction, id)? {
        Some(sandbox) if from.contains(&sandbox.state) => sandbox,
        _ => return Ok(None),
    };
    let now = to_micros(SystemTime::now());
    let saved = saved_after(&before, to, &change);
    let was_copied = matches!(change, Change::Saved(..));
    let is_pause = was_copied && to == State::Paused;
    let (spawn, resumed, reason) = match change {
        Change::Plain => (None, None, None),
        Change::Booted(spawn) => (Some(spawn), None, None),
        // What was not kept is still worth knowing.
        Change::Resumed(spawn) => (Some(spawn), Some(now), before.reason),
        Change::Saved(_, note) => (None, None, note),
        Change::Because(reason) => (None, None, Some(reason)),
    };
    let sql = format!(
        "UPDATE sandboxes SET
             status = :status,
             reason = :reason,
             spawn_us = coalesce(:spawn_us, spawn_us),
             running_at = CASE WHEN :running THEN coalesce(running_at, :now) ELSE running_at END,
             last_resumed_at = coalesce(:resumed_at, last_resumed_at),
             paused_at = CASE WHEN :is_pause THEN :now ELSE paused_at END,
             saved = :saved,
             awaits_copy = awaits_copy AND NOT :was_copied,
             ended_at = CASE WHEN :ended THEN :now ELSE ended_at END
         WHERE id = :id RETURNING {SELECTED}"
    );
    let changed = transaction.prepare_cached(&sql)?.query_row(
        named_params! {
            ":id": id.as_str(),
            ":status": to.as_str(),
            ":reason": reason,
            ":spawn_us": spawn.map(|spawn| u64::try_from(spawn.as_micros()).unwrap_or(u64::MAX >> 1)),
            ":running": to == State::Running,
            ":resumed_at": resumed,
            ":is_pause": is_pause,
            ":saved": saved.map(Saved::as_str),
            ":was_copied": was_copied,
            ":ended": to.is_terminal(),
            ":now": now,
        },
        Sandbox::from_row,
    )?;
    transaction.commit()?;
    Ok(Some(changed))
}

/// How a sandbox is kept once it has changed. A resume that failed can be tried again with the
/// same; but what was frozen went with the machine.
fn saved_after(before: &Sandbox, to: State, change: &Change) -> Option<Saved> {
    match (change, to) {
        (Change::Saved(saved, _), _) => Some(*saved),
        (_, State::Resuming | State::Paused | State::Destroying) => before.saved,
        (_, State::Error) if before.state == State::Resuming => {
            before.saved.filter(|saved| *saved != Saved::Frozen)
        }
        _ => None,
    }
}

/// The next free address after the last one given out.
fn free_address(connection: &Connection) -> Result<Ipv4Addr, InsertError> {
    let last: Option<String> = connection
        .prepare_cached("SELECT value FROM meta WHERE key = ?1")?
        .query_row([LAST_GIVEN], |row| row.get(0))
        .optional()?;
    let last = last.and_then(|text| text.parse::<Ipv4Addr>().ok()).map_or(LAST_ADDRESS, u32::from);
    let mut taken = connection.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM sandboxes
             WHERE ip = ?1 AND status NOT IN ('destroyed', 'failed'))",
    )?;
    let size = LAST_ADDRESS - FIRST_ADDRESS + 1;
    let start = last.wrapping_sub(FIRST_ADDRESS).wrapping_add(1);
    for step in 0..size {
        let ip = Ipv4Addr::from(FIRST_ADDRESS + (start.wrapping_add(step)) % size);
        if !taken.query_row([ip.to_string()], |row| row.get::<_, bool>(0))? {
            connection
                .prepare_cached("INSERT OR REPLACE INTO meta (key, value) VALUES (?1, ?2)")?
                .execute([LAST_GIVEN, &ip.to_string()])?;
            return Ok(ip);
        }
    }
    Err(InsertError::NoAddress)
}
