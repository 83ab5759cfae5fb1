//! `createos completion`: a script for the shell.

use clap::Args;
use clap_complete::Shell;

use super::Exit;
use crate::completion;
use crate::context::Context;
use crate::failure::Failure;

/// Print the completion script for a shell
#[derive(Args)]
#[command(
    before_help = "\
Examples:
  createos completion bash > ~/.local/share/bash-completion/completions/createos
  createos completion zsh > ~/.zfunc/_createos
  createos completion fish > ~/.config/fish/completions/createos.fish
  createos completion powershell >> $PROFILE",
    after_help = "\
The script completes commands, flags and the names of what exists: sandboxes,
disks, networks, templates, sizes, images. Names are asked for while you type,
in less than a second, and kept for a moment; offline there are none.

zsh looks where its fpath says, before compinit: fpath+=~/.zfunc"
)]
pub(crate) struct CompletionArgs {
    /// The shell
    shell: Shell,
}

pub(super) fn run(args: &CompletionArgs, ctx: &Context) -> Result<Exit, Failure> {
    let script = completion::script(&args.shell.to_string())
        .map_err(|error| Failure::io("cannot make the script", &error))?;
    ctx.out.raw(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}
