//! What a sync says while it runs.

use createos_sdk::sync::{SyncAction, SyncEvent, SyncReport, SyncSide};

use crate::context::Context;
use crate::failure::Failure;
use crate::output::format;

/// Changes that are named; of more only their number is said.
const NAMED: usize = 10;

/// Collects what is done until all is the same, and says it.
pub(super) struct Reporter<'a> {
    ctx: &'a Context,
    quiet: bool,
    changes: Vec<String>,
    here: u64,
    there: u64,
    bytes: u64,
    last: Option<String>,
}

impl<'a> Reporter<'a> {
    pub(super) fn new(ctx: &'a Context, quiet: bool) -> Self {
        Self { ctx, quiet, changes: Vec::new(), here: 0, there: 0, bytes: 0, last: None }
    }

    pub(super) fn event(&mut self, event: SyncEvent) -> Result<(), Failure> {
        match event {
            SyncEvent::Changed { side, action, path, bytes } => {
                match side {
                    SyncSide::Local => self.here += 1,
                    SyncSide::Remote => self.there += 1,
                }
                self.bytes += bytes;
                if self.changes.len() <= NAMED {
                    self.changes.push(format!("{} {path}", words(side, action)));
                }
                Ok(())
            }
            SyncEvent::Conflict { path, reason } => {
                self.ctx.out.warn(&format!("{path} is left alone on both sides: {reason}"));
                Ok(())
            }
            SyncEvent::Resolved { path } => self.say(&format!("{path} is the same again")),
            SyncEvent::Problem { path, message } => {
                let text = match path {
                    Some(path) => format!("{path}: {message}"),
                    None => message,
                };
                self.ctx.out.warn(&text);
                Ok(())
            }
            SyncEvent::Lost { message } => {
                self.ctx.out.warn(&format!("the connection is lost: {message}; trying again"));
                Ok(())
            }
            SyncEvent::Restored => self.say("connected again"),
            SyncEvent::Settled(report) => self.settled(&report),
            _ => Ok(()),
        }
    }

    fn settled(&mut self, report: &SyncReport) -> Result<(), Failure> {
        let changes = std::mem::take(&mut self.changes);
        if changes.len() <= NAMED {
            for change in &changes {
                self.say(change)?;
            }
        } else {
            let size = format::bytes(self.bytes);
            self.say(&format!(
                "{} changes in the sandbox, {} here ({size})",
                self.there, self.here
            ))?;
        }
        (self.here, self.there, self.bytes) = (0, 0, 0);
        let state = match (report.conflicts.len(), report.has_problems) {
            (0, false) => format!("in sync: {} files and directories", report.local_entries),
            (0, true) => "in sync, except for what is said above; trying again".to_owned(),
            (1, _) => "in sync, except for 1 conflict".to_owned(),
            (many, _) => format!("in sync, except for {many} conflicts"),
        };
        if changes.is_empty() && self.last.as_ref() == Some(&state) {
            return Ok(());
        }
        self.say(&state)?;
        self.last = Some(state);
        Ok(())
    }

    fn say(&self, text: &str) -> Result<(), Failure> {
        if self.quiet { Ok(()) } else { self.ctx.out.text(text) }
    }
}

fn words(side: SyncSide, action: SyncAction) -> &'static str {
    match (side, action) {
        (SyncSide::Local, SyncAction::Removed) => "removed here:",
        (SyncSide::Remote, SyncAction::Removed) => "removed in the sandbox:",
        (SyncSide::Local, SyncAction::ModeChanged) => "mode changed here:",
        (SyncSide::Remote, SyncAction::ModeChanged) => "mode changed in the sandbox:",
        (SyncSide::Local, _) => "received:",
        (SyncSide::Remote, _) => "sent:",
    }
}
