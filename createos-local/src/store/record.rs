//! A sandbox as it is kept, and its mapping to a row.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use createos_sdk::{SandboxId, Secret};
use rusqlite::Row;
use rusqlite::types::Type;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::core::State;
use crate::runtime::{ImageConfig, Limits, Saved};

macro_rules! columns {
    () => {
        "id, name, status, shape, rootfs, vcpu, mem_mib, disk_mib, \
         cpu_percent, max_processes, ip, region, envs, egress, ssh_pubkeys, ingress_enabled, \
         created_at, running_at, last_resumed_at, ended_at, spawn_us, reason, nesting, paused_at, \
         saved, auto_pause_after_seconds, forked_from, awaits_copy, image"
    };
}

/// The columns of the table.
#[cfg(test)]
pub(super) const COLUMNS: &str = columns!();

/// What [`Sandbox::from_row`] reads, in its order.
pub(super) const SELECTED: &str = concat!(
    columns!(),
    ", coalesce((SELECT received FROM traffic WHERE traffic.sandbox = sandboxes.id), 0)"
);

/// What is known of a sandbox before it has a row: everything but its address and its life.
#[derive(Debug, Clone)]
pub(crate) struct NewSandbox {
    pub(crate) id: SandboxId,
    pub(crate) name: String,
    pub(crate) shape: String,
    pub(crate) rootfs: String,
    pub(crate) vcpu: u32,
    pub(crate) mem_mib: u64,
    pub(crate) disk_mib: u64,
    pub(crate) cpu_percent: u32,
    pub(crate) max_processes: u32,
    pub(crate) region: String,
    pub(crate) envs: BTreeMap<String, Secret>,
    pub(crate) egress: Vec<String>,
    pub(crate) ssh_pubkeys: Vec<String>,
    pub(crate) ingress_enabled: bool,
    /// Whether it may hold containers of its own.
    pub(crate) nesting: bool,
    pub(crate) created_at: SystemTime,
    /// Idle seconds after which it pauses by itself.
    pub(crate) auto_pause_seconds: Option<u64>,
    /// The paused sandbox whose files it begins with.
    pub(crate) forked_from: Option<SandboxId>,
    /// What its programs get from the image that it was made from.
    pub(crate) image: ImageConfig,
}

/// A sandbox as the store knows it.
#[derive(Debug, Clone)]
pub(crate) struct Sandbox {
    pub(crate) spec: NewSandbox,
    pub(crate) state: State,
    pub(crate) ip: Ipv4Addr,
    pub(crate) running_at: Option<SystemTime>,
    pub(crate) last_resumed_at: Option<SystemTime>,
    /// When it became `destroyed` or `failed`.
    pub(crate) ended_at: Option<SystemTime>,
    pub(crate) spawn: Option<Duration>,
    /// Why it is in `error` or `failed`, or what did not go as wished; for people.
    pub(crate) reason: Option<String>,
    pub(crate) paused_at: Option<SystemTime>,
    /// How it is kept while it is paused, and until it runs again.
    pub(crate) saved: Option<Saved>,
    /// Its files are still to be copied from the sandbox it is forked from.
    pub(crate) awaits_copy: bool,
    /// Bytes that have come to it from outside, as far as they are counted there.
    pub(crate) received: u64,
}

impl Sandbox {
    pub(crate) fn id(&self) -> &SandboxId {
        &self.spec.id
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            memory_bytes: self.spec.mem_mib << 20,
            cpu_percent: self.spec.cpu_percent,
            max_processes: self.spec.max_processes,
            disk_mib: self.spec.disk_mib,
        }
    }

    pub(super) fn from_row(row: &Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self {
            spec: NewSandbox {
                id: text(row, 0, |word| word.parse().ok())?,
                name: row.get(1)?,
                shape: row.get(3)?,
                rootfs: row.get(4)?,
                vcpu: row.get(5)?,
                mem_mib: row.get(6)?,
                disk_mib: row.get(7)?,
                cpu_percent: row.get(8)?,
                max_processes: row.get(9)?,
                region: row.get(11)?,
                envs: json(row, 12)?,
                egress: json(row, 13)?,
                ssh_pubkeys: json(row, 14)?,
                ingress_enabled: row.get(15)?,
                nesting: row.get(22)?,
                created_at: from_micros(row.get(16)?),
                auto_pause_seconds: row.get(25)?,
                forked_from: optional(row, 26, |word| word.parse().ok())?,
                image: json(row, 28)?,
            },
            state: text(row, 2, State::parse)?,
            ip: text(row, 10, |word| word.parse().ok())?,
            running_at: row.get::<_, Option<i64>>(17)?.map(from_micros),
            last_resumed_at: row.get::<_, Option<i64>>(18)?.map(from_micros),
            ended_at: row.get::<_, Option<i64>>(19)?.map(from_micros),
            spawn: row.get::<_, Option<u64>>(20)?.map(Duration::from_micros),
            reason: row.get(21)?,
            paused_at: row.get::<_, Option<i64>>(23)?.map(from_micros),
            saved: optional(row, 24, Saved::parse)?,
            awaits_copy: row.get(27)?,
            received: row.get(29)?,
        })
    }
}

pub(super) fn text<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl Fn(&str) -> Option<T>,
) -> rusqlite::Result<T> {
    let word: String = row.get(column)?;
    parse(&word).ok_or_else(|| {
        let error = format!("column {column} holds an unknown value");
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error.into())
    })
}

fn optional<T>(
    row: &Row<'_>,
    column: usize,
    parse: impl Fn(&str) -> Option<T>,
) -> rusqlite::Result<Option<T>> {
    match row.get::<_, Option<String>>(column)? {
        Some(_) => text(row, column, parse).map(Some),
        None => Ok(None),
    }
}

pub(super) fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    text(row, column, |word| serde_json::from_str(word).ok())
}

/// Lists and maps are one column of JSON text.
pub(super) fn to_json(value: &impl Serialize) -> rusqlite::Result<String> {
    serde_json::to_string(value)
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))
}

/// Microseconds since 1970; times before that do not occur and become 1970.
pub(super) fn to_micros(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn from_micros(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
