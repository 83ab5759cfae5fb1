//! `createos sandbox network attach`.

use clap::Args;
use serde_json::json;

use super::chosen;
use super::endpoint::{self, Endpoint};
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::resolve::Rules;
use crate::wait;

/// Put a running sandbox, or a device, on a private network
///
/// The order of the two does not matter where one of them is an id of a sandbox
/// or device, or only one order makes sense.
#[derive(Args)]
#[command(
    override_usage = "createos sandbox network attach [OPTIONS] [SANDBOX|DEVICE] [NETWORK]",
    before_help = "\
Examples:
  createos sandbox network attach my-box my-net
  createos sandbox network attach dev-01k… my-net"
)]
pub(super) struct AttachArgs {
    /// Name or id of a sandbox, or id of a device; then name or id of a network
    /// [default: ask on a terminal]
    #[arg(value_name = "SANDBOX|DEVICE NETWORK", num_args = 0..=2)]
    words: Vec<String>,
}

pub(super) async fn run(args: AttachArgs, ctx: &Context) -> Result<Exit, Failure> {
    let pair = endpoint::read(ctx, &args.words, Rules::ACT).await?;
    let endpoint = match pair.endpoint {
        Some(endpoint) => Some(endpoint),
        None => endpoint::pick_newcomer(ctx).await?,
    };
    let Some(endpoint) = endpoint else { return Ok(Exit::Success) };
    let Some(network) = chosen(ctx, pair.network.as_deref()).await? else {
        return Ok(Exit::Success);
    };
    attach(ctx, &endpoint, &network).await?;
    let document = json!({
        "action": "network_attached",
        "network": network,
        "endpoint": endpoint.id(),
        "type": endpoint.kind(),
    });
    ctx.out.result(&document, || format!("{} joined {network}", endpoint.label()))?;
    ctx.out.hint(&format!(
        "it has an address there within seconds: createos sandbox network show {network}"
    ));
    Ok(Exit::Success)
}

async fn attach(ctx: &Context, endpoint: &Endpoint, network: &str) -> Result<(), Failure> {
    let client = &ctx.plane()?.client;
    let explain = |error| endpoint.explain(network, error);
    match endpoint {
        Endpoint::Device { id, .. } => {
            client.device(id.clone()).attach_network(network).await.map_err(explain)
        }
        Endpoint::Sandbox(found) => {
            let sandbox = client.sandbox(found.id.clone());
            let attach = async || sandbox.attach_network(network).await.map_err(explain);
            wait::on_running(ctx, &sandbox, found, attach).await
        }
    }
}
