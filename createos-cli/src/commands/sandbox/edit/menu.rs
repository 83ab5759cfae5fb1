//! The menu of `edit` without flags.

use std::path::PathBuf;

use createos_sdk::Sandbox;
use createos_sdk::wire::{Bandwidth, SandboxView};

use super::change::Change;
use crate::commands::Exit;
use crate::commands::sandbox::facts;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::format;
use crate::prompt;
use crate::resolve::Found;
use crate::value::duration;
use crate::value::ssh_key;

/// What one top-up can add, in GB of 2^30 bytes.
const TOP_UP: std::ops::RangeInclusive<u64> = 1..=100;
const TOP_UP_START: u64 = 5;

/// Loops until the user is done. What fails is shown, and the menu goes on.
pub(super) async fn run(ctx: &Context, sandbox: &Sandbox, found: &Found) -> Result<Exit, Failure> {
    let menu = Menu { ctx, sandbox, found };
    let mut at = 0;
    loop {
        let view = sandbox.refresh().await.map_err(|error| found.explain(error))?;
        let bandwidth = sandbox.bandwidth().await.ok();
        ctx.out.text(header(found, &view, bandwidth.as_ref()))?;
        let Some(chosen) = prompt::choose("what is to be changed?", entries(&view), at).await?
        else {
            return Ok(Exit::Success);
        };
        at = chosen;
        let changed = match chosen {
            0 => menu.address(&view).await,
            1 => menu.key().await,
            2 => menu.top_up(bandwidth.as_ref()).await,
            3 => menu.idle(&view).await,
            _ => return Ok(Exit::Success),
        };
        match changed {
            // Leaving a question leads back here.
            Ok(()) | Err(Failure::Left) => {}
            Err(Failure::Report(report)) if report.exit != 130 => ctx.out.complain(&report),
            Err(failure) => return Err(failure),
        }
    }
}

fn header(found: &Found, view: &SandboxView, bandwidth: Option<&Bandwidth>) -> String {
    let mut rows = vec![
        ("public url", facts::address(view)),
        ("ssh keys", view.ssh_pubkeys.len().to_string()),
        ("auto-pause", facts::auto_pause(view)),
    ];
    rows.extend(bandwidth.map(|bandwidth| ("bandwidth", facts::bandwidth(bandwidth))));
    format::details(&found.label(), &rows)
}

fn entries(view: &SandboxView) -> Vec<String> {
    let switch = if facts::has_address(view) { "off" } else { "on" };
    let entries = ["add an SSH key", "top up bandwidth", "auto-pause", "done"];
    let first = format!("switch the public URL {switch}");
    std::iter::once(first).chain(entries.map(str::to_owned)).collect()
}

struct Menu<'a> {
    ctx: &'a Context,
    sandbox: &'a Sandbox,
    found: &'a Found,
}

impl Menu<'_> {
    async fn apply(&self, change: Change) -> Result<(), Failure> {
        for done in change.apply(self.sandbox, self.found).await? {
            self.ctx.out.text(done.line)?;
        }
        Ok(())
    }

    async fn address(&self, view: &SandboxView) -> Result<(), Failure> {
        let on = !facts::has_address(view);
        let question = match on {
            true => "anyone with the address can reach the service behind it; switch it on?",
            false => "switch the public URL off?",
        };
        if !prompt::confirm(question, true).await? {
            return Ok(());
        }
        self.apply(Change::Settings { ingress: Some(on), auto_pause: None }).await
    }

    async fn key(&self) -> Result<(), Failure> {
        let path = prompt::line("file with the public key (empty goes back)").await?;
        if path.is_empty() {
            return Ok(());
        }
        let keys = ssh_key::read_all(&[PathBuf::from(path)], self.ctx.paths.home())?;
        self.apply(Change::Keys(keys)).await
    }

    async fn top_up(&self, bandwidth: Option<&Bandwidth>) -> Result<(), Failure> {
        let now = bandwidth.map(facts::bandwidth).unwrap_or_else(|| "not known".to_owned());
        if bandwidth.is_some_and(|bandwidth| bandwidth.quota_bytes < 0) {
            self.ctx.out.note(&format!("there is nothing to top up: {now}"));
            return Ok(());
        }
        let title = format!("top up bandwidth ({now})");
        let Some(amount) = prompt::slide(&title, TOP_UP, TOP_UP_START, "GB").await? else {
            return Ok(());
        };
        self.apply(Change::Bandwidth(amount << 30)).await
    }

    async fn idle(&self, view: &SandboxView) -> Result<(), Failure> {
        let question = format!(
            "auto-pause, now {} (1m to 24h or off, empty goes back)",
            facts::auto_pause(view)
        );
        let parse = |text: &str| match text {
            "" => Ok(None),
            text => duration::auto_pause(text).map(Some),
        };
        let auto_pause = prompt::parsed(self.ctx, &question, parse).await?;
        match auto_pause {
            None => Ok(()),
            some => self.apply(Change::Settings { ingress: None, auto_pause: some }).await,
        }
    }
}
