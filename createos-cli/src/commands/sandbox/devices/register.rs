//! `createos sandbox devices register`.

use clap::Args;
use createos_sdk::wire::DeviceView;
use createos_sdk::{Client, ErrorKind};
use serde_json::Value;

use super::keys;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::{document, format};
use crate::store::device::{Identity, Store};

/// Register this machine as a device
///
/// Makes a WireGuard key, which stays on this machine. Needs wireguard-tools.
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox devices register
  createos sandbox devices register laptop")]
pub(super) struct RegisterArgs {
    /// What to call it [default: this machine's host name]
    #[arg(value_name = "NAME", conflicts_with = "name_flag")]
    name: Option<String>,

    /// The same as a flag
    #[arg(long = "name", value_name = "NAME", id = "name_flag")]
    name_flag: Option<String>,
}

pub(super) async fn run(args: RegisterArgs, ctx: &Context) -> Result<Exit, Failure> {
    let client = &ctx.plane()?.client;
    let store = Store::open(&ctx.paths)?;
    let known = store.load()?;
    if let Some(identity) = &known
        && let Some(view) = registered(client, identity).await?
    {
        ctx.out.note(&format!("this machine is registered already, as {}", label(&view)));
        return announce(ctx, &view);
    }
    let host = host_name();
    let name = args.name.or(args.name_flag).or_else(|| host.clone());
    let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Failure::usage("what is the device to be called?"))?;
    // A key is good for another control plane as well.
    let (private_key, public_key) = match known {
        Some(identity) => (identity.private_key, identity.public_key),
        None => keys::new_pair()?,
    };
    let mut create = client.create_device(&name, &public_key).os(std::env::consts::OS);
    if let Some(host) = host {
        create = create.hostname(host);
    }
    let device = create.await?;
    let view = device.refresh().await?;
    let identity = Identity {
        id: view.id.clone(),
        name: view.name.clone(),
        client_ip: view.client_ip.clone(),
        public_key,
        private_key,
    };
    if let Err(failure) = store.save(&identity) {
        // Without its key it would be of no use.
        if device.delete().await.is_err() {
            ctx.out.warn(&format!("{} stays registered without its key", label(&view)));
        }
        return Err(failure);
    }
    announce(ctx, &view)
}

/// This machine as the control plane knows it, if it does.
async fn registered(
    client: &Client,
    identity: &Identity,
) -> Result<Option<std::sync::Arc<DeviceView>>, Failure> {
    match client.device(identity.id.clone()).refresh().await {
        Ok(view) if view.pubkey == identity.public_key => Ok(Some(view)),
        Ok(_) => Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn announce(ctx: &Context, view: &DeviceView) -> Result<Exit, Failure> {
    let curated = [
        ("action", Value::from("device_registered")),
        ("id", Value::from(view.id.as_str())),
        ("name", Value::from(&*view.name)),
        ("client_ip", Value::from(&*view.client_ip)),
    ];
    let document = document(&curated, view)?;
    ctx.out.result(&document, || format!("{} has the address {}", label(view), view.client_ip))?;
    ctx.out.hint(&format!(
        "put it on a network: createos sandbox network attach {} my-net\n\
         and connect: createos sandbox vpn up",
        view.id
    ));
    Ok(Exit::Success)
}

fn label(view: &DeviceView) -> String {
    format::label(Some(&view.name), view.id.as_str())
}

#[cfg(unix)]
fn host_name() -> Option<String> {
    let name = rustix::system::uname().nodename().to_str().ok()?.trim().to_owned();
    (!name.is_empty()).then_some(name)
}

#[cfg(not(unix))]
fn host_name() -> Option<String> {
    std::env::var("COMPUTERNAME").ok().filter(|name| !name.trim().is_empty())
}
