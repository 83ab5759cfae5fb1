//! Bare `createos`: the commands that make sense now.

use super::Exit;
use crate::context::{Context, Standing};
use crate::failure::Failure;

const START: &str = "\
  createos local start                  sandboxes on this machine, no account needed
  createos login                        sign in to the hosted control plane";

const WORK: &str = "\
  createos sandbox shapes               the available sizes
  createos sandbox create --shape <id>  a new sandbox
  createos sandbox list                 your sandboxes
  createos sandbox exec <box> -- <cmd>  run a command inside
  createos sandbox rm <box>             delete a sandbox";

pub(super) fn run(ctx: &Context) -> Result<Exit, Failure> {
    let (standing, commands) = match ctx.standing() {
        Standing::Ready { target, credential } => {
            (format!("Control plane: {target}\nSigned in with {credential}."), WORK)
        }
        Standing::Stopped => ("The engine of this machine is not running.".to_owned(), START),
        Standing::SignedOut { target } => (format!("Not signed in to {target}."), START),
        Standing::Unclear { why } => (why, START),
    };
    let version = env!("CARGO_PKG_VERSION");
    ctx.out.text(format!(
        "createos {version}: isolated sandboxes from the terminal\n\n{standing}\n\n{commands}\n\n\
         All commands: createos --help"
    ))?;
    Ok(Exit::Success)
}
