//! `createos completion`: a script for the shell.

use clap::Args;
use clap_complete::{Shell, generate};

use super::Exit;
use crate::cli;
use crate::context::Context;
use crate::failure::Failure;

/// Print the completion script for a shell
#[derive(Args)]
#[command(before_help = "\
Examples:
  createos completion bash > ~/.local/share/bash-completion/completions/createos
  createos completion zsh > ~/.zfunc/_createos
  createos completion fish > ~/.config/fish/completions/createos.fish")]
pub(crate) struct CompletionArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionArgs, ctx: &Context) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    generate(args.shell, &mut cli::definition(), "createos", &mut script);
    ctx.out.raw(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}
