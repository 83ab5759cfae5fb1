//! Who joins and leaves a network: a sandbox or a device, and which of two words is which.

use createos_sdk::wire::{DeviceView, NetworkView, SandboxStatus};
use createos_sdk::{Client, Device, DeviceId};

use super::{all, named};
use crate::commands::sandbox::choose::NETWORK;
use crate::context::Context;
use crate::failure::{Class, Failure};
use crate::output::format;
use crate::prompt;
use crate::resolve::{self, Found, Resolver, Rules};

/// A sandbox or a device.
#[derive(Debug, Clone)]
pub(super) enum Endpoint {
    Sandbox(Found),
    Device { id: DeviceId, name: Option<String> },
}

impl Endpoint {
    fn of_device(view: &DeviceView) -> Self {
        Self::Device { id: view.id.clone(), name: Some(view.name.clone()) }
    }

    /// One word for JSON.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Sandbox(_) => "sandbox",
            Self::Device { .. } => "device",
        }
    }

    pub(super) fn id(&self) -> &str {
        match self {
            Self::Sandbox(found) => found.id.as_str(),
            Self::Device { id, .. } => id.as_str(),
        }
    }

    pub(super) fn label(&self) -> String {
        match self {
            Self::Sandbox(found) => found.label(),
            Self::Device { id, name } => format::label(name.as_deref(), id.as_str()),
        }
    }

    fn row(&self) -> String {
        let (name, id) = match self {
            Self::Sandbox(found) => (found.handle(), found.id.as_str()),
            Self::Device { id, name } => (name.as_deref().unwrap_or(id.as_str()), id.as_str()),
        };
        format!("{name}   ({}: {id})", if self.kind() == "device" { "device" } else { "id" })
    }

    /// A refused call about this one and a network.
    pub(super) fn explain(&self, network: &str, error: createos_sdk::Error) -> Failure {
        let missing = error.status() == Some(404);
        let failure = Failure::from(error).about(&format!("{} and {network}", self.label()));
        match missing {
            true => failure.hint(format!("see what there is: {}", NETWORK.list)),
            false => failure,
        }
    }
}

/// What the words of a line mean; what is missing is asked for.
#[derive(Debug, Default)]
pub(super) struct Pair {
    pub(super) endpoint: Option<Endpoint>,
    pub(super) network: Option<String>,
}

/// Reads `<sandbox|device> <network>`, also the other way round (cli.md 2.14).
pub(super) async fn read(ctx: &Context, words: &[String], rules: Rules) -> Result<Pair, Failure> {
    let words: Vec<&str> = words.iter().map(|word| word.trim()).collect();
    if words.len() < 2 && !ctx.interactive() {
        return Err(Failure::usage(match words.is_empty() {
            true => "which sandbox, and which network? their names or ids are missing",
            false => "the sandbox and the network are both needed",
        }));
    }
    if words.iter().any(|word| word.is_empty()) {
        return Err(Failure::usage("a name is empty"));
    }
    let client = &ctx.plane()?.client;
    let line = Line { ctx, client, resolver: Resolver::new(client), rules };
    match words.as_slice() {
        [] => Ok(Pair::default()),
        [word] => line.one(word).await,
        // clap lets no more than two through.
        words => line.two(words[0], words[1]).await,
    }
}

struct Line<'a> {
    ctx: &'a Context,
    client: &'a Client,
    resolver: Resolver<'a>,
    rules: Rules,
}

impl Line<'_> {
    async fn one(&self, word: &str) -> Result<Pair, Failure> {
        match self.endpoint(word).await {
            Ok(endpoint) => Ok(Pair { endpoint: Some(endpoint), network: None }),
            Err(unknown) if self.is_network(word, &unknown).await => {
                Ok(Pair { endpoint: None, network: Some(word.to_owned()) })
            }
            Err(failure) => Err(failure),
        }
    }

    async fn two(&self, first: &str, second: &str) -> Result<Pair, Failure> {
        let swapped = is_id(second) && !is_id(first);
        let (first, second) = if swapped { (second, first) } else { (first, second) };
        let pair = |endpoint, network: &str| Pair {
            endpoint: Some(endpoint),
            network: Some(network.to_owned()),
        };
        if is_id(first) {
            return Ok(pair(self.endpoint(first).await?, second));
        }
        // A whole name first: the beginning of one must not hide a network.
        let whole = self.rules.whole_name();
        match self.resolver.find(first, whole).await {
            Ok(found) => return Ok(pair(Endpoint::Sandbox(found), second)),
            Err(unknown) => {
                if self.is_network(first, &unknown).await
                    && let Ok(found) = self.resolver.find(second, whole).await
                {
                    let (sandbox, network) = (found.label(), first);
                    self.ctx.out.note(&format!(
                        "{network} is a network and {sandbox} a sandbox: taken the other way round"
                    ));
                    return Ok(pair(Endpoint::Sandbox(found), network));
                }
            }
        }
        let found = self.resolver.find(first, self.rules).await?;
        Ok(pair(Endpoint::Sandbox(found), second))
    }

    async fn endpoint(&self, word: &str) -> Result<Endpoint, Failure> {
        if is_device(word) {
            return Ok(Endpoint::Device { id: word.parse()?, name: None });
        }
        self.resolver.find(word, self.rules).await.map(Endpoint::Sandbox)
    }

    async fn is_network(&self, word: &str, failure: &Failure) -> bool {
        failure.class() == Some(Class::NotFound) && self.client.get_network(word).await.is_ok()
    }
}

fn is_device(word: &str) -> bool {
    word.starts_with("dev-") || word.starts_with("dev_")
}

fn is_id(word: &str) -> bool {
    is_device(word) || word.starts_with("sb-") || word.starts_with("sb_")
}

/// Picks who joins: a running sandbox or a device.
pub(super) async fn pick_newcomer(ctx: &Context) -> Result<Option<Endpoint>, Failure> {
    let client = &ctx.plane()?.client;
    let running = client.sandboxes().status(SandboxStatus::Running).await?;
    let sandboxes = resolve::views(running).into_iter();
    let mut rows: Vec<Endpoint> =
        sandboxes.map(|view| Endpoint::Sandbox(Found { id: view.id, name: view.name })).collect();
    rows.extend(
        devices(client).await.iter().filter_map(Device::view).map(|v| Endpoint::of_device(&v)),
    );
    pick(ctx, rows, "there are no running sandboxes and no devices").await
}

/// Picks who leaves: a member of the network.
pub(super) async fn pick_member(ctx: &Context, network: &str) -> Result<Option<Endpoint>, Failure> {
    let client = &ctx.plane()?.client;
    let found = client.get_network(network).await;
    let found = found.map_err(|error| NETWORK.explain(network, error))?;
    let view = found.view();
    let members = view.iter().flat_map(|view| &view.members);
    let mut rows: Vec<Endpoint> = members
        .map(|member| {
            Endpoint::Sandbox(Found { id: member.sandbox_id.clone(), name: member.name.clone() })
        })
        .collect();
    for device in devices(client).await {
        let networks = device.networks().await.unwrap_or_default();
        if networks.iter().any(|on| on.network_id == *found.id())
            && let Some(view) = device.view()
        {
            rows.push(Endpoint::of_device(&view));
        }
    }
    pick(ctx, rows, &format!("nothing is on {network}")).await
}

/// Picks one of the networks that it is on.
pub(super) async fn pick_network_of(
    ctx: &Context,
    endpoint: &Endpoint,
) -> Result<Option<String>, Failure> {
    let client = &ctx.plane()?.client;
    let names: Vec<String> = match endpoint {
        Endpoint::Sandbox(found) => networks_of(client, found).await?,
        Endpoint::Device { id, .. } => {
            let on = client.device(id.clone()).networks().await?;
            on.into_iter().map(|on| on.network_name).collect()
        }
    };
    if names.is_empty() {
        ctx.out.note(&format!("{} is on no network", endpoint.label()));
        return Ok(None);
    }
    let picked = prompt::pick(ctx, "which network?", names.clone()).await?;
    Ok(picked.and_then(|at| names.into_iter().nth(at)))
}

async fn networks_of(client: &Client, found: &Found) -> createos_sdk::Result<Vec<String>> {
    let mut names = Vec::new();
    for row in all(client).await? {
        if row.member_count == Some(0) {
            continue;
        }
        let view = client.network(row.id.clone()).refresh().await?;
        if is_on(&view, found) {
            names.push(named(&view).handle().to_owned());
        }
    }
    Ok(names)
}

fn is_on(view: &NetworkView, found: &Found) -> bool {
    view.members.iter().any(|member| member.sandbox_id == found.id)
}

/// A control plane without devices has none.
async fn devices(client: &Client) -> Vec<Device> {
    client.devices().await.unwrap_or_default()
}

async fn pick(ctx: &Context, rows: Vec<Endpoint>, none: &str) -> Result<Option<Endpoint>, Failure> {
    if rows.is_empty() {
        ctx.out.note(none);
        return Ok(None);
    }
    let items = rows.iter().map(Endpoint::row).collect();
    let picked = prompt::pick(ctx, "which sandbox or device?", items).await?;
    Ok(picked.and_then(|at| rows.into_iter().nth(at)))
}
