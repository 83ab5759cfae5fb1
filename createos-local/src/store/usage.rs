//! What sandboxes used, run by run. Triggers write it with every change of state, so that it
//! is as durable as the states.

use std::time::SystemTime;

use rusqlite::named_params;

use super::record::to_micros;
use super::{Store, StoreError};

/// What was used within a time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Used {
    /// Seconds in which sandboxes ran, of each.
    pub(crate) run_seconds: f64,
    /// The same times the CPUs and the memory that each had.
    pub(crate) vcpu_seconds: f64,
    pub(crate) mem_mib_seconds: f64,
}

/// What runs now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct InUse {
    pub(crate) vcpu: f64,
    pub(crate) mem_mib: u64,
    /// Of all that are not ended.
    pub(crate) disk_mib: u64,
}

impl Store {
    /// Notes that the engine is there: when it is killed, what ran is counted up to here.
    pub(crate) async fn note_alive(&self) -> Result<(), StoreError> {
        let now = to_micros(SystemTime::now());
        self.call(move |connection| {
            connection.execute(
                "INSERT INTO meta (key, value) VALUES ('alive_at', ?1)
                 ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                [now.to_string()],
            )?;
            Ok(())
        })
        .await
    }

    /// Ends what ran when an earlier engine was last seen.
    pub(crate) async fn end_old_runs(&self) -> Result<(), StoreError> {
        self.call(|connection| {
            connection.execute(
                "UPDATE runs SET ended = max(begun, coalesce((SELECT CAST(value AS INTEGER)
                 FROM meta WHERE key = 'alive_at'), begun)) WHERE ended IS NULL",
                [],
            )?;
            Ok(())
        })
        .await
    }

    /// Forgets runs that ended before `time`.
    pub(crate) async fn forget_runs(&self, time: SystemTime) -> Result<(), StoreError> {
        self.call(move |connection| {
            connection.execute("DELETE FROM runs WHERE ended < ?1", [to_micros(time)])?;
            Ok(())
        })
        .await
    }

    /// What was used within each part of a time: `parts` of them, one after the other, from
    /// `from` on.
    pub(crate) async fn used(
        &self,
        from: SystemTime,
        step_micros: i64,
        parts: u32,
    ) -> Result<Vec<Used>, StoreError> {
        let (from, now) = (to_micros(from), to_micros(SystemTime::now()));
        self.call(move |connection| {
            let to = from.saturating_add(step_micros.saturating_mul(parts.into()));
            let mut statement = connection.prepare_cached(
                "SELECT begun, coalesce(ended, :now), cpu_percent, mem_mib FROM runs
                 WHERE begun < :to AND coalesce(ended, :now) > :from",
            )?;
            let mut rows =
                statement.query(named_params! { ":now": now, ":from": from, ":to": to })?;
            let mut used = vec![Used::default(); parts as usize];
            while let Some(row) = rows.next()? {
                let (begun, ended): (i64, i64) = (row.get(0)?, row.get(1)?);
                let (cpu_percent, mem_mib): (u32, u32) = (row.get(2)?, row.get(3)?);
                let first = begun.saturating_sub(from).max(0) / step_micros;
                for (index, part) in (first..).zip(used.iter_mut().skip(first as usize)) {
                    let start = from + index * step_micros;
                    let overlap = ended.min(start + step_micros) - begun.max(start);
                    if overlap <= 0 {
                        break;
                    }
                    let seconds = overlap as f64 / 1e6;
                    part.run_seconds += seconds;
                    part.vcpu_seconds += seconds * f64::from(cpu_percent) / 100.0;
                    part.mem_mib_seconds += seconds * f64::from(mem_mib);
                }
            }
            Ok(used)
        })
        .await
    }

    pub(crate) async fn in_use(&self) -> Result<InUse, StoreError> {
        self.call(|connection| {
            let running = connection.query_row(
                "SELECT coalesce(sum(cpu_percent), 0), coalesce(sum(mem_mib), 0) FROM sandboxes
                 WHERE status = 'running'",
                [],
                |row| Ok((row.get::<_, u64>(0)?, row.get::<_, u64>(1)?)),
            )?;
            let disk_mib = connection.query_row(
                "SELECT coalesce(sum(disk_mib), 0) FROM sandboxes
                 WHERE status NOT IN ('destroyed', 'failed')",
                [],
                |row| row.get(0),
            )?;
            Ok(InUse { vcpu: running.0 as f64 / 100.0, mem_mib: running.1, disk_mib })
        })
        .await
    }
}
