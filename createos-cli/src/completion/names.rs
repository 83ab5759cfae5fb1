//! Names of what exists on the control plane that a line is typed for.

use std::collections::HashSet;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, FromArgMatches};
use createos_sdk::wire::{SandboxStatus, TemplateStatus};
use createos_sdk::{Client, Sandbox};
use futures::future;
use serde::{Deserialize, Serialize};

use super::cache::Cache;
use crate::context::{Context, GlobalArgs};
use crate::output::{Mode, Printer, Terminal};
use crate::resolve;

/// A person waits with a finger on the key.
const PATIENCE: Duration = Duration::from_millis(900);
const MOST: u64 = 200;

/// What a value can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    Sandbox,
    Disk,
    Network,
    Template,
    Device,
    Shape,
    Image,
}

/// Something that exists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Name {
    pub(super) name: String,
    pub(super) id: String,
    /// What a shell shows beside it.
    pub(super) about: String,
    /// The state, where commands differ by it.
    pub(super) state: String,
}

impl Name {
    fn new(name: impl Into<String>, id: impl ToString, about: impl Into<String>) -> Self {
        let (name, id, about) = (name.into(), id.to_string(), about.into());
        Self { name, id, about, state: String::new() }
    }

    /// Whether the command can do something with it as it is now (cli.md 1.7).
    pub(super) fn fits(&self, path: &[String]) -> bool {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match (self.state.as_str(), path.as_slice()) {
            ("paused", ["sandbox", command, ..]) => {
                matches!(*command, "get" | "rm" | "resume" | "fork" | "network" | "list")
            }
            ("running", ["sandbox", "resume", ..]) => false,
            _ => true,
        }
    }
}

impl Kind {
    /// What the values of an argument name, told by how help calls them.
    pub(super) fn of(arg: &Arg) -> Vec<Self> {
        match arg.get_id().as_str() {
            "shape" => return vec![Self::Shape],
            "rootfs" => return vec![Self::Image, Self::Template],
            "network" | "networks" => return vec![Self::Network],
            _ => {}
        }
        let names = arg.get_value_names().into_iter().flatten();
        let words: Vec<&str> =
            names.flat_map(|name| name.split(|c: char| !c.is_ascii_alphabetic())).collect();
        let called = |word: &str, kind| {
            let plural = |one: &&str| one.strip_prefix(word).is_some_and(|end| "ES".ends_with(end));
            words.iter().any(plural).then_some(kind)
        };
        [
            called("SANDBOX", Self::Sandbox),
            called("DEVICE", Self::Device),
            called("NETWORK", Self::Network),
            called("DISK", Self::Disk),
            called("TEMPLATE", Self::Template),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

/// What exists of these kinds, as far as it can be told at once.
pub(super) fn of(kinds: &[Kind], line: &ArgMatches) -> Vec<Name> {
    let ctx = context(line);
    let Ok(plane) = ctx.plane_for_completion() else { return Vec::new() };
    let cache = Cache::of(&ctx.paths, &plane);
    let known: Vec<Option<Vec<Name>>> = kinds.iter().map(|kind| cache.fresh(*kind)).collect();
    let asked: Vec<Kind> = kinds
        .iter()
        .zip(&known)
        .filter(|(_, known)| known.is_none())
        .map(|(kind, _)| *kind)
        .collect();
    let mut answers = ask(&plane.client, &asked).into_iter();
    let mut names = Vec::new();
    for (kind, known) in kinds.iter().zip(known) {
        let found = known.or_else(|| {
            let answer = answers.next().flatten();
            if let Some(answer) = &answer {
                cache.store(*kind, answer);
            }
            answer.or_else(|| cache.stale(*kind))
        });
        names.extend(found.unwrap_or_default());
    }
    names
}

/// The global flags of the line; nothing is printed from here.
fn context(line: &ArgMatches) -> Context {
    let mut global = GlobalArgs::from_arg_matches(line).unwrap_or_default();
    // A log has no place here.
    global.debug = false;
    if line.value_source("sandbox_api_url") != Some(ValueSource::CommandLine) {
        global.sandbox_api_url = None;
    }
    Context::new(Printer::new(Mode::Table, Terminal::detect()), global)
}

/// Asks for all kinds at the same time; `None` for what did not answer in time.
fn ask(client: &Client, kinds: &[Kind]) -> Vec<Option<Vec<Name>>> {
    if kinds.is_empty() {
        return Vec::new();
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return kinds.iter().map(|_| None).collect() };
    let ask = |kind: &Kind| {
        let asked = fetch(client.clone(), *kind);
        async { tokio::time::timeout(PATIENCE, asked).await.ok()?.ok() }
    };
    let answers = runtime.block_on(async { future::join_all(kinds.iter().map(ask)).await });
    runtime.shutdown_background();
    answers
}

async fn fetch(client: Client, kind: Kind) -> createos_sdk::Result<Vec<Name>> {
    Ok(match kind {
        Kind::Sandbox => {
            let of = |status| client.sandboxes().status(status).page(MOST, 0).into_future();
            let (running, paused) =
                future::try_join(of(SandboxStatus::Running), of(SandboxStatus::Paused)).await?;
            sandboxes([running.data, paused.data].concat())
        }
        Kind::Disk => {
            let disks = client.disks().page(MOST, 0).await?.data;
            let views = disks.iter().filter_map(createos_sdk::Disk::view);
            views.map(|view| Name::new(&view.name, &view.id, "disk")).collect()
        }
        Kind::Network => {
            let networks = client.networks().page(MOST, 0).await?.data;
            let views = networks.iter().filter_map(createos_sdk::Network::view);
            views.map(|view| Name::new(&view.name, &view.id, "network")).collect()
        }
        Kind::Template => {
            let templates = client.templates().page(MOST, 0).await?.data;
            let views = templates.iter().filter_map(createos_sdk::Template::view);
            let ready = views.filter(|view| view.status == TemplateStatus::Ready);
            ready.map(|view| Name::new(&view.name, &view.id, "template")).collect()
        }
        Kind::Device => {
            let devices = client.devices().page(MOST, 0).await?.data;
            let views = devices.iter().filter_map(createos_sdk::Device::view);
            views.map(|view| Name::new(&view.name, &view.id, "device")).collect()
        }
        Kind::Shape => {
            let shapes = client.shapes().await?;
            let about = |vcpu, mem| format!("{vcpu} vCPU, {mem} MiB");
            shapes.iter().map(|s| Name::new(&s.id, "", about(s.vcpu, s.mem_mib))).collect()
        }
        Kind::Image => {
            let images = client.rootfs().await?.rootfs;
            images.iter().map(|name| Name::new(name, "", "image")).collect()
        }
    })
}

fn sandboxes(rows: Vec<Sandbox>) -> Vec<Name> {
    let views = resolve::views(rows);
    let mut seen = HashSet::new();
    // One that changed its state between the two lists comes twice.
    let views = views.into_iter().filter(|view| seen.insert(view.id.clone()));
    let name = |view: createos_sdk::wire::SandboxView| {
        let state = view.status.to_string();
        let name = Name::new(view.name.unwrap_or_default(), &view.id, &state);
        Name { state, ..name }
    };
    views.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli;

    fn kinds(path: &[&str], id: &str) -> Vec<Kind> {
        let mut root = cli::definition();
        root.build();
        let mut command = &root;
        for name in path {
            command = command.find_subcommand(name).expect("a command");
        }
        let arg = command.get_arguments().find(|arg| arg.get_id() == id).expect("an argument");
        Kind::of(arg)
    }

    #[test]
    fn arguments_are_known_by_what_help_calls_them() {
        for (path, id, expected) in [
            (&["sandbox", "get"][..], "sandbox", &[Kind::Sandbox][..]),
            (&["sandbox", "rm"], "sandboxes", &[Kind::Sandbox]),
            (&["sandbox", "create"], "shape", &[Kind::Shape]),
            (&["sandbox", "create"], "rootfs", &[Kind::Image, Kind::Template]),
            (&["sandbox", "create"], "disk", &[Kind::Disk]),
            (&["sandbox", "create"], "network", &[Kind::Network]),
            (&["sandbox", "disk", "rm"], "disks", &[Kind::Disk]),
            (
                &["sandbox", "network", "attach"],
                "words",
                &[Kind::Sandbox, Kind::Device, Kind::Network],
            ),
            (&["sandbox", "template", "logs"], "template", &[Kind::Template]),
            (&["sandbox", "disk", "create"], "bucket", &[]),
            (&["sandbox", "create"], "name", &[]),
            (&["sandbox", "push"], "remote", &[]),
            (&["login"], "client_id", &[]),
        ] {
            assert_eq!(kinds(path, id), expected, "{path:?} {id}");
        }
    }

    #[test]
    fn a_sandbox_is_offered_where_it_can_be_used() {
        let paused = Name { state: "paused".to_owned(), ..Name::new("x", "sb-1", "") };
        let running = Name { state: "running".to_owned(), ..paused.clone() };
        let fits =
            |name: &Name, command: &str| name.fits(&["sandbox".to_owned(), command.to_owned()]);
        assert!(fits(&paused, "resume") && !fits(&running, "resume"));
        assert!(fits(&running, "exec") && !fits(&paused, "exec"));
        assert!(fits(&running, "rm") && fits(&paused, "rm"));
    }
}
