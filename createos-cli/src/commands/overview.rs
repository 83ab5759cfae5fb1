//! Bare `createos`: the commands that make sense now.

use super::Exit;
use crate::context::Context;
use crate::failure::Failure;

const START: &str = "\
  createos local start                  sandboxes on this machine, no account needed
  createos login --token <key>          sign in to the hosted control plane";

const WORK: &str = "\
  createos sandbox shapes               the available sizes
  createos sandbox create --shape <id>  a new sandbox
  createos sandbox list                 your sandboxes
  createos sandbox exec <box> -- <cmd>  run a command inside
  createos sandbox rm <box>             delete a sandbox";

pub(super) fn run(ctx: &Context) -> Result<Exit, Failure> {
    let ready = ctx.is_signed_in();
    let first = if ready { WORK } else { START };
    let version = env!("CARGO_PKG_VERSION");
    ctx.out.raw(&format!(
        "createos {version}: isolated sandboxes from the terminal\n\n{first}\n\n\
         All commands: createos --help\n"
    ))?;
    Ok(Exit::Success)
}
