//! `createos sandbox shell`.

mod keyless;
mod ssh;

use std::path::PathBuf;

use clap::Args;

use crate::commands::Exit;
use crate::context::Context;
use crate::failure::Failure;
use crate::resolve::{self, Rules};
use crate::ssh::user;

/// Open an interactive shell in a sandbox
///
/// Needs no SSH key; the sign-in is enough. Enter ~ . closes a shell that hangs.
/// With --ssh the shell goes through OpenSSH: a public key is added to the
/// sandbox, its SSH server is started, and the exit code is that of ssh.
#[derive(Args)]
#[command(
    visible_alias = "sh",
    before_help = "\
Examples:
  createos sandbox shell my-box
  createos sandbox shell my-box --ssh
  createos sandbox shell my-box -i ~/.ssh/id_ed25519"
)]
pub(super) struct ShellArgs {
    /// Name or id [default: ask on a terminal]
    sandbox: Option<String>,

    /// Go through OpenSSH
    #[arg(long)]
    ssh: bool,

    /// Private key for SSH; implies --ssh [default: the first of id_ed25519,
    /// id_rsa and id_ecdsa in ~/.ssh that has a .pub beside it]
    #[arg(short, long, value_name = "FILE")]
    identity: Option<PathBuf>,

    /// Who logs in, with --ssh [default: root]
    #[arg(short, long, value_name = "NAME", value_parser = user::parse)]
    user: Option<String>,

    /// Add the public key to the sandbox without asking
    #[arg(short, long)]
    yes: bool,
}

impl ShellArgs {
    fn is_ssh(&self) -> bool {
        self.ssh || self.identity.is_some()
    }
}

pub(super) async fn run(args: ShellArgs, ctx: &Context) -> Result<Exit, Failure> {
    let by_ssh = args.is_ssh();
    if !by_ssh && args.user.is_some() {
        return Err(Failure::usage("--user is for --ssh; without it the shell is the image's own"));
    }
    if !by_ssh && !ctx.out.terminal().stdin {
        let name = args.sandbox.as_deref().unwrap_or("<sandbox>");
        return Err(Failure::usage("a shell needs a terminal, and standard input is none")
            .hint(format!("run commands instead: createos sandbox exec {name} -- <command>")));
    }
    let key = match by_ssh {
        true => Some(crate::ssh::key::choose(&ctx.paths, args.identity.as_deref())?),
        false => None,
    };
    let Some(found) = resolve::sandbox(ctx, args.sandbox.as_deref(), Rules::ACT).await? else {
        return Ok(Exit::Success);
    };
    let sandbox = ctx.plane()?.client.sandbox(found.id.clone());
    match key {
        None => keyless::run(ctx, sandbox, found).await,
        Some(key) => {
            let user = args.user.unwrap_or_else(|| user::DEFAULT.to_owned());
            ssh::Login { ctx, sandbox, found, key, user, yes: args.yes }.run().await
        }
    }
}
