//! `createos sandbox network create`.

use clap::Args;

use super::named;
use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::{output, prompt, value};

/// Create a private network
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos sandbox network create my-net
  createos sandbox network create my-net --output json")]
pub(super) struct CreateArgs {
    /// Its name [default: ask on a terminal]
    #[arg(value_parser = value::text)]
    name: Option<String>,
}

pub(super) async fn run(args: CreateArgs, ctx: &Context) -> Result<Exit, Failure> {
    let Some(name) = name(args, ctx).await? else { return Ok(Exit::Success) };
    let made = ctx.plane()?.client.create_network(&name).await;
    let network = made.map_err(|error| {
        let unsure = error.may_have_acted();
        let failure = Failure::from(error);
        match unsure {
            true => failure.hint("it may be there all the same: createos sandbox network ls"),
            false => failure,
        }
    })?;
    let view = network.view();
    let view = view.as_deref().ok_or_else(|| Failure::local("the server describes no network"))?;
    let named = named(view);
    let curated = [
        ("action", "network_created".into()),
        ("id", named.id.clone().into()),
        ("name", named.name.clone().into()),
    ];
    let document = output::document(&curated, view)?;
    ctx.out.result(&document, || format!("Created network {}", named.label()))?;
    let name = named.handle();
    ctx.out.hint(&format!(
        "a new sandbox joins it:      createos sandbox create --shape <id> --network {name}\n\
         a running sandbox joins it:  createos sandbox network attach <sandbox> {name}"
    ));
    Ok(Exit::Success)
}

async fn name(args: CreateArgs, ctx: &Context) -> Result<Option<String>, Failure> {
    if let Some(name) = args.name {
        return Ok(Some(name));
    }
    if !ctx.interactive() {
        return Err(Failure::usage("the network's name is missing")
            .hint("createos sandbox network create my-net"));
    }
    let name = prompt::line("name of the network").await?;
    if name.is_empty() {
        ctx.out.note("nothing was created");
        return Ok(None);
    }
    Ok(Some(name))
}
