//! `createos sandbox network detach`.

use clap::Args;
use serde_json::json;

use super::chosen;
use super::endpoint::{self, Endpoint};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::prompt;
use crate::resolve::Rules;

/// Take a sandbox or a device off a private network
#[derive(Args)]
#[command(
    override_usage = "createos sandbox network detach [OPTIONS] [SANDBOX|DEVICE] [NETWORK]",
    before_help = "\
Examples:
  createos sandbox network detach my-box my-net
  createos sandbox network detach my-box my-net --force"
)]
pub(super) struct DetachArgs {
    /// Name or id of a sandbox, or id of a device; then name or id of a network
    /// [default: ask on a terminal]
    #[arg(value_name = "SANDBOX|DEVICE NETWORK", num_args = 0..=2)]
    words: Vec<String>,

    /// Do not ask [aliases: --yes, -y]
    #[arg(short = 'y', long, alias = "yes")]
    force: bool,
}

pub(super) async fn run(args: DetachArgs, ctx: &Context) -> Result<Exit, Failure> {
    if !args.force && !ctx.interactive() && args.words.len() == 2 {
        return Err(Failure::usage("this needs a confirmation, and nobody can be asked here")
            .hint(format!("createos sandbox network detach {} --force", args.words.join(" "))));
    }
    let pair = endpoint::read(ctx, &args.words, Rules::CHANGE).await?;
    let Some((endpoint, network)) = complete(ctx, pair).await? else { return Ok(Exit::Success) };
    let question = format!("take {} off {network}?", endpoint.label());
    if !args.force && !prompt::confirm(question, false).await? {
        ctx.out.note("nothing was changed");
        return Ok(Exit::Success);
    }
    let client = &ctx.plane()?.client;
    let detached = match &endpoint {
        Endpoint::Sandbox(found) => client.sandbox(found.id.clone()).detach_network(&network).await,
        Endpoint::Device { id, .. } => client.device(id.clone()).detach_network(&network).await,
    };
    detached.map_err(|error| endpoint.explain(&network, error))?;
    let document = json!({
        "action": "network_detached",
        "network": network,
        "endpoint": endpoint.id(),
        "type": endpoint.kind(),
    });
    ctx.out.result(&document, || format!("{} left {network}", endpoint.label()))?;
    Ok(Exit::Success)
}

/// Asks for what is missing; only who is on a network can leave it.
async fn complete(
    ctx: &Context,
    pair: endpoint::Pair,
) -> Result<Option<(Endpoint, String)>, Failure> {
    if let (Some(endpoint), None) = (&pair.endpoint, &pair.network) {
        let network = endpoint::pick_network_of(ctx, endpoint).await?;
        return Ok(pair.endpoint.zip(network));
    }
    let Some(network) = chosen(ctx, pair.network.as_deref()).await? else { return Ok(None) };
    let endpoint = match pair.endpoint {
        Some(endpoint) => Some(endpoint),
        None => endpoint::pick_member(ctx, &network).await?,
    };
    Ok(endpoint.map(|endpoint| (endpoint, network)))
}
