//! How help looks. Help, manual pages and completions come from the definition of
//! the command line alone.

mod related;
#[cfg(test)]
mod tests;

use clap::Command;

/// Summary, usage and examples come before the list of options.
const TEMPLATE: &str =
    "{about-with-newline}\n{usage-heading} {usage}\n\n{before-help}{all-args}{after-help}";

/// Gives every command its form of help and what else to look at.
pub(crate) fn dress(command: Command) -> Command {
    dress_at(command, "")
}

fn dress_at(command: Command, path: &str) -> Command {
    let command = match related::see_also(path) {
        Some(lines) => {
            let own = command.get_after_help().map(|own| format!("{own}\n\n")).unwrap_or_default();
            command.after_help(format!("{own}See also:\n{lines}"))
        }
        None => command,
    };
    command.help_template(TEMPLATE).mut_subcommands(|inner| {
        let path = format!("{path} {}", inner.get_name());
        dress_at(inner, path.trim_start())
    })
}

/// What `--help` prints: everything, in the close form that clap keeps for `-h`.
pub(crate) fn long(command: &Command) -> clap::builder::StyledStr {
    let about = command.get_long_about().or(command.get_about()).cloned();
    let mut full =
        command.clone().about(about.unwrap_or_default()).long_about(None).mut_args(|arg| match arg
            .get_long_help()
            .cloned()
        {
            Some(help) => arg.help(help).long_help(None),
            None => arg,
        });
    full.render_help()
}

/// What `-h` prints: how the command is called, without examples and what is
/// the same everywhere.
pub(crate) fn short(command: &Command) -> clap::builder::StyledStr {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let more = format!("Examples and global options: {name} --help");
    let brief = command.clone().before_help(None).after_help(more);
    brief.mut_args(|arg| if arg.is_global_set() { arg.hide(true) } else { arg }).render_help()
}
