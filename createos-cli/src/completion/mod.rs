//! What a shell asks for while a line is typed: commands, flags and the names of
//! what exists (cli.md 5).
//!
//! The scripts of `createos completion` run this program with [`VARIABLE`] set.
//! Nothing is ever printed but candidates, and a server that is slow or away
//! only means fewer of them.

mod cache;
mod names;

use std::ffi::{OsStr, OsString};
use std::io;

use clap::{ArgMatches, Command};
use clap_complete::env::{CompleteEnv, Shells};
use clap_complete::{ArgValueCompleter, CompletionCandidate};

use crate::cli;
use names::{Kind, Name};

const PROGRAM: &str = "createos";
/// Set by the scripts to the name of the shell.
const VARIABLE: &str = "CREATEOS_COMPLETE";

/// zsh runs a file of its `fpath` as the body of the function it is named after, at
/// the first Tab: without this, that one would only load it.
const ZSH_AUTOLOADED: &str = r#"
if [[ "${funcstack[1]}" == "_createos" ]]; then
    _clap_dynamic_completer_createos "$@"
fi
"#;

/// The script that a shell loads.
pub(crate) fn script(shell: &str) -> io::Result<Vec<u8>> {
    let shells = Shells::builtins();
    let shell = shells.completer(shell).ok_or(io::ErrorKind::NotFound)?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    if shell.is("zsh") {
        script.extend(ZSH_AUTOLOADED.as_bytes());
    }
    Ok(script)
}

/// Answers a shell; `false` when none has asked.
pub(crate) fn answer() -> bool {
    if std::env::var_os(VARIABLE).is_none_or(|shell| shell.is_empty()) {
        return false;
    }
    // A shell shows what its completions complain about in the middle of the line.
    #[cfg(unix)]
    if let Ok(nowhere) = std::fs::File::options().write(true).open("/dev/null") {
        let _ = rustix::stdio::dup2_stderr(&nowhere);
    }
    let here = std::env::current_dir().ok();
    let completion = CompleteEnv::with_factory(definition).var(VARIABLE).bin(PROGRAM);
    let completion = completion.completer(PROGRAM);
    // An error leaves the shell without candidates, which is an answer.
    let _ = completion.try_complete(std::env::args_os(), here.as_deref());
    true
}

/// The definition, with what can stand for each value.
fn definition() -> Command {
    with_names(cli::definition(), &[])
}

fn with_names(command: Command, path: &[String]) -> Command {
    let command = command.mut_args(|arg| {
        let kinds = Kind::of(&arg);
        if kinds.is_empty() {
            return arg;
        }
        let suffix = if is_mount(&arg) { ":" } else { "" };
        let path = path.to_vec();
        arg.add(ArgValueCompleter::new(move |typed: &OsStr| {
            candidates(&kinds, &path, typed, suffix)
        }))
    });
    command.mut_subcommands(|inner| {
        let path = [path, &[inner.get_name().to_owned()]].concat();
        with_names(inner, &path)
    })
}

/// `<disk>:/path`.
fn is_mount(arg: &clap::Arg) -> bool {
    arg.get_value_names().is_some_and(|names| names.iter().any(|name| name.contains(":/")))
}

fn candidates(
    kinds: &[Kind],
    path: &[String],
    typed: &OsStr,
    suffix: &str,
) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let names = names::of(kinds, &typed_line());
    let names = names.iter().filter(|name| name.fits(path));
    names.filter_map(|name| candidate(name, typed, suffix)).collect()
}

/// A thing goes by its name; who begins to type its id gets that.
fn candidate(name: &Name, typed: &str, suffix: &str) -> Option<CompletionCandidate> {
    let text = [name.name.as_str(), name.id.as_str()]
        .into_iter()
        .find(|text| !text.is_empty() && text.starts_with(typed))?;
    let help = (!name.about.is_empty()).then(|| name.about.clone().into());
    Some(CompletionCandidate::new(format!("{text}{suffix}")).help(help))
}

/// What was typed so far, for the control plane that it names.
fn typed_line() -> ArgMatches {
    let words = std::env::args_os().skip_while(|word| word != "--").skip(1);
    let words: Vec<OsString> = words.collect();
    cli::definition().ignore_errors(true).try_get_matches_from(words).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_decides_between_name_and_id() {
        let name = Name {
            name: "web".to_owned(),
            id: "sb-1".to_owned(),
            about: "running".to_owned(),
            state: String::new(),
        };
        let text =
            |typed: &str| candidate(&name, typed, "").map(|found| found.get_value().to_owned());
        assert_eq!(text(""), Some("web".into()));
        assert_eq!(text("w"), Some("web".into()));
        assert_eq!(text("sb-"), Some("sb-1".into()));
        assert_eq!(text("x"), None);
        let mount = candidate(&name, "we", ":").map(|found| found.get_value().to_owned());
        assert_eq!(mount, Some("web:".into()));
    }

    #[test]
    fn every_shell_has_a_script_with_this_program_in_it() {
        for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
            let script = String::from_utf8(script(shell).expect(shell)).expect("text");
            assert!(script.contains(VARIABLE) && script.contains(PROGRAM), "{shell}: {script}");
            assert!(!script.contains("target/debug"), "{shell}: no path of the build");
        }
        assert!(script("tcsh").is_err());
    }
}
