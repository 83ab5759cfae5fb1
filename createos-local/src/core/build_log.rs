//! What a build writes: lines, bounded, a few at a time into the store.

use std::time::{Duration, SystemTime};

use createos_sdk::TemplateId;
use tokio::time::Instant;

use super::Core;
use crate::store::{LogLine, StoreError};

/// How long lines wait for others before they are written.
const PATIENCE: Duration = Duration::from_millis(50);
const MOST_WAITING: usize = 256;
/// A longer line is cut into several.
const LONGEST_LINE: usize = 8 << 10;

/// The log of one build. What it does not hold any more is told once, at its end.
pub(super) struct BuildLog<'a> {
    core: &'a Core,
    id: &'a TemplateId,
    waiting: Vec<LogLine>,
    /// When they are to be written.
    due: Option<Instant>,
    place: u64,
    room: u64,
    /// What has come since the last line break.
    partial: Vec<u8>,
}

impl<'a> BuildLog<'a> {
    pub(super) fn new(core: &'a Core, id: &'a TemplateId) -> Self {
        let room = core.tuning().build.log_bytes;
        Self { core, id, waiting: Vec::new(), due: None, place: 0, room, partial: Vec::new() }
    }

    /// Takes a piece of a command's output.
    pub(super) fn output(&mut self, bytes: &[u8]) {
        for byte in bytes {
            match byte {
                // A carriage return overwrites a line; here, each state of it is one.
                b'\n' | b'\r' => self.end_partial(),
                byte => self.partial.push(*byte),
            }
            if self.partial.len() >= LONGEST_LINE {
                self.end_partial();
            }
        }
    }

    /// Ends a line that has no break.
    pub(super) fn end_partial(&mut self) {
        if !self.partial.is_empty() {
            let line = std::mem::take(&mut self.partial);
            self.bounded(&String::from_utf8_lossy(&line));
        }
    }

    fn bounded(&mut self, line: &str) {
        if self.room == 0 {
            return;
        }
        self.room = self.room.saturating_sub(line.len() as u64 + 1);
        self.push("info", line.to_owned());
        if self.room == 0 {
            self.push("warn", "[the log is full: what commands say now is not kept]".to_owned());
        }
    }

    /// Writes a line of the engine's own; these are few.
    pub(super) fn say(&mut self, level: &str, line: impl Into<String>) {
        self.end_partial();
        self.push(level, line.into());
    }

    fn push(&mut self, level: &str, line: String) {
        self.place += 1;
        let (place, at, level) = (self.place, SystemTime::now(), level.to_owned());
        self.waiting.push(LogLine { place, at, level, line });
        self.due.get_or_insert_with(|| Instant::now() + PATIENCE);
    }

    /// When [`BuildLog::write_due`] has something to do; never later than a second.
    pub(super) fn due(&self) -> Instant {
        self.due.unwrap_or_else(|| Instant::now() + Duration::from_secs(1))
    }

    pub(super) async fn write_due(&mut self) -> Result<(), StoreError> {
        let is_due = self.due.is_some_and(|due| due <= Instant::now());
        if is_due || self.waiting.len() >= MOST_WAITING { self.flush().await } else { Ok(()) }
    }

    /// Writes everything.
    pub(super) async fn write(&mut self) -> Result<(), StoreError> {
        self.end_partial();
        self.flush().await
    }

    async fn flush(&mut self) -> Result<(), StoreError> {
        self.due = None;
        if self.waiting.is_empty() {
            return Ok(());
        }
        let lines = std::mem::take(&mut self.waiting);
        self.core.inner.store.add_to_log(self.id, lines).await?;
        self.core.inner.builds.tell();
        Ok(())
    }
}
